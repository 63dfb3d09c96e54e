"""One runtime a target: file in, outputs out. Each module has `missing` and `open`; a Session is in session.py.

`missing() -> str | None` is the command that installs what the runtime needs. `open(path, threads) -> Session`.
"""

from types import ModuleType

from edgebert.runtimes import coreml, executorch, onnx, tflite

RUNTIMES: dict[str, ModuleType] = {
    "executorch": executorch,
    "tflite": tflite,
    "coreml": coreml,
    "onnx": onnx,
}

# The ending of each target's model file; an .mlpackage is a folder.
SUFFIXES: dict[str, str] = {
    "executorch": ".pte",
    "tflite": ".tflite",
    "coreml": ".mlpackage",
    "onnx": ".onnx",
}
