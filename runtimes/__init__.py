"""One runtime a target: file in, outputs out. Each module has `missing` and `open`; a Session is in session.py.

`missing() -> str | None` is the command that installs what the runtime needs. `open(path, threads) -> Session`. One
that needs options of its runtime on this host to compute as on a phone has them as `HOST_OPTIONS`, text to text.
"""

from types import ModuleType

from edgebert.runtimes.coreml import session as coreml_session
from edgebert.runtimes.executorch import session as executorch_session
from edgebert.runtimes.onnx import session as onnx_session
from edgebert.runtimes.tflite import session as tflite_session

RUNTIMES: dict[str, ModuleType] = {
    "executorch": executorch_session,
    "tflite": tflite_session,
    "coreml": coreml_session,
    "onnx": onnx_session,
}

# The ending of each target's model file; an .mlpackage is a folder.
SUFFIXES: dict[str, str] = {
    "executorch": ".pte",
    "tflite": ".tflite",
    "coreml": ".mlpackage",
    "onnx": ".onnx",
}
