"""One exporter a target: torch model in, file out. Each module has `missing`, `check` and `export`.

`missing() -> str | None` is the command that installs what the target needs. `check(model, recipe)` refuses before any
work. `export(model, recipe, lengths, path) -> Artifact` writes the file. Nothing heavy is imported before it is needed.
"""

from types import ModuleType

from edgebert.exporters import onnx, tflite

EXPORTERS: dict[str, ModuleType] = {
    "tflite": tflite,
    "onnx": onnx,
}
