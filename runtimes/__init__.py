"""One runtime a target: file in, outputs out. Each module has `missing` and `open`; a Session is in session.py.

`missing() -> str | None` is the command that installs what the runtime needs. `open(path, threads) -> Session`.
"""

from types import ModuleType

from edgebert.runtimes import onnx, tflite

RUNTIMES: dict[str, ModuleType] = {
    "tflite": tflite,
    "onnx": onnx,
}

# The ending of each target's model file.
SUFFIXES: dict[str, str] = {
    "tflite": ".tflite",
    "onnx": ".onnx",
}
