"""What ONNX Runtime tells of a file. Also a script, see `runtimes/apart.py`: it needs nothing of edgebert."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

Described = list[tuple[str, str, list[int]]]  # name, dtype and shape; -1 is a free axis


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


def signature(session: Any) -> tuple[Described, Described]:
    """The inputs and outputs of a session."""
    return _described(session.get_inputs()), _described(session.get_outputs())


def _described(values: Any) -> Described:
    dtypes = {"float": "float32", "double": "float64"}
    described = []
    for value in values:
        dtype = value.type.removeprefix("tensor(").removesuffix(")")
        shape = [size if isinstance(size, int) else -1 for size in value.shape]
        described.append((value.name, dtypes.get(dtype, dtype), shape))
    return described


def checked(path: str) -> tuple[Described, Described]:
    """The inputs and outputs of a file that nothing vouches for but the format's own rules, which it is held to."""
    import onnx

    onnx.checker.check_model(path)
    return signature(load(path, 1, {}))


if __name__ == "__main__":
    print(json.dumps(checked(sys.argv[1])))
