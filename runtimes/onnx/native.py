"""What ONNX Runtime tells of a file. Also a script, see `runtimes/apart.py`: it needs nothing of edgebert."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

Specs = list[tuple[str, str, list[int]]]  # name, dtype and shape; -1 is a free axis
Described = tuple[str, Specs, Specs]  # the runtime's version, inputs and outputs


def load(path: str, threads: int, entries: Mapping[str, str]) -> Any:
    """Open a file; `entries` are configuration of the session. What is raised shares no base class below Exception."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its own thread would send what it counts
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # only what is fatal; failures come back as exceptions
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def describe(session: Any) -> Described:
    """What a session tells of its file."""
    import onnxruntime

    return onnxruntime.__version__, _specs(session.get_inputs()), _specs(session.get_outputs())


def _specs(values: Any) -> Specs:
    dtypes = {"float": "float32", "double": "float64"}
    specs = []
    for value in values:
        dtype = value.type.removeprefix("tensor(").removesuffix(")")
        shape = [size if isinstance(size, int) else -1 for size in value.shape]
        specs.append((value.name, dtypes.get(dtype, dtype), shape))
    return specs


def check(path: str) -> Described:
    """The same of a file that nothing vouches for but the format's own rules, which it is held to first."""
    import onnx

    onnx.checker.check_model(path)
    return describe(load(path, 1, {}))


if __name__ == "__main__":
    print(json.dumps(check(sys.argv[1])))
