"""One exporter a target: torch model in, file out. Each module has `missing`, `check` and `export`.

`missing() -> str | None` is the command that installs what the target needs. `check(model, recipe)` refuses before any
work. `export(model, recipe, lengths, path, keep_float, samples) -> Artifact` writes the file: `keep_float` are patterns
of modules to leave in float (see `edgebert.recipes.kept`), `samples` the inputs that static scales are found on.
Nothing heavy is imported before it is needed.
"""

from types import ModuleType

from edgebert.exporters import coreml, executorch, onnx, tflite

EXPORTERS: dict[str, ModuleType] = {
    "executorch": executorch,
    "tflite": tflite,
    "coreml": coreml,
    "onnx": onnx,
}
