"""One exporter a target: torch model in, file out. Each module has `missing`, `check`, `lower` and `export`.

`missing() -> str | None` is the command that installs what the target needs. `check(model, recipe)` refuses before any
work. `lower(model, recipe, longest, keep_float, in_half) -> Model` is the model in the form that the file computes, in
float. `export(model, recipe, lengths, path, keep_float, samples, in_half) -> Artifact` writes the file: `keep_float`
are patterns of modules to leave in float (see `quantization/recipes.py`), `samples` the inputs that static scales are
found on, `in_half` what norms multiply by where the file computes in half precision (see `gate/half.py`), None where it
is not to. Nothing heavy is imported before it is needed.
"""

from collections.abc import Callable
from types import ModuleType

from edgebert.exporters.coreml import export as coreml_export
from edgebert.exporters.executorch import export as executorch_export
from edgebert.exporters.onnx import export as onnx_export
from edgebert.exporters.tflite import export as tflite_export
from edgebert.models import Model

EXPORTERS: dict[str, ModuleType] = {
    "executorch": executorch_export,
    "tflite": tflite_export,
    "coreml": coreml_export,
    "onnx": onnx_export,
}
# Lengths beside those of a file, by target and for a model, that another part of it answers: the gate asks there too.
BESIDE: dict[str, Callable[[Model, tuple[int, ...]], tuple[int, ...]]] = {"executorch": executorch_export.short_texts}
