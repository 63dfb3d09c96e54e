"""One runtime a target: file in, outputs out. Each has `missing`, `open` and `facts`; a Session is in session.py.

`missing() -> str | None` is the command that installs what the runtime needs. `open(path, threads) -> Session` opens a
file to be run: a whole one of edgebert's, or one by another tool. `facts(path) -> Facts` tells what is in any file, in
one that was edited since edgebert made it too. A file that edgebert did not seal is given to native code in a process
of its own first, see apart.py. A runtime that needs options on this host to compute as on a phone has them as
`HOST_OPTIONS`, text to text.

Beside each stands an `unrounded` module, for the gate: `constants(path)` gives every stored number of a file that
edgebert made as a `session.Constant`, and `open_unrounded(path)` its graphs with all rounding left out, a session for
each form that the file holds; both take the graph from the file alone.
"""

from types import ModuleType

from edgebert.runtimes.coreml import session as coreml_session
from edgebert.runtimes.coreml import unrounded as coreml_unrounded
from edgebert.runtimes.executorch import session as executorch_session
from edgebert.runtimes.executorch import unrounded as executorch_unrounded
from edgebert.runtimes.onnx import session as onnx_session
from edgebert.runtimes.onnx import unrounded as onnx_unrounded
from edgebert.runtimes.tflite import session as tflite_session
from edgebert.runtimes.tflite import unrounded as tflite_unrounded

RUNTIMES: dict[str, ModuleType] = {
    "executorch": executorch_session,
    "tflite": tflite_session,
    "coreml": coreml_session,
    "onnx": onnx_session,
}

UNROUNDED: dict[str, ModuleType] = {
    "executorch": executorch_unrounded,
    "tflite": tflite_unrounded,
    "coreml": coreml_unrounded,
    "onnx": onnx_unrounded,
}

# The ending of each target's model file; an .mlpackage is a folder.
SUFFIXES: dict[str, str] = {
    "executorch": ".pte",
    "tflite": ".tflite",
    "coreml": ".mlpackage",
    "onnx": ".onnx",
}
