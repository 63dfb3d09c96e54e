"""Runs a file in an environment with one older runtime and NumPy: TARGET FILE, inputs as .npz in, outputs as .npz out.

Exit code 3 where the runtime raises an error, with what it says; anything else is not a refusal.
"""

import io
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def interpreter() -> Any:
    """The class of the interpreter under the name that it has in this environment."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            from tensorflow.lite.python.interpreter import Interpreter
    return Interpreter


def tflite(path: str) -> Callable[[int], Run]:
    """Open a .tflite file; gives the runner of a length."""
    model = LIBRARY(model_path=path, num_threads=1)
    return lambda length: lambda row: model.get_signature_runner(f"tokens_{length}")(**row)


def onnx(path: str) -> Callable[[int], Run]:
    """Open an .onnx file."""
    options = LIBRARY.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.add_session_config_entry("session.x64quantprecision", "1")  # see runtimes/onnx/session.py
    session = LIBRARY.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    kinds = {value.name: value.type.removeprefix("tensor(").removesuffix(")") for value in session.get_inputs()}

    def run(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {name: value.astype(kinds[name]) for name, value in row.items()}
        return dict(zip(names, session.run(None, given), strict=True))

    return lambda _: run


target, file = sys.argv[1:]
answers = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what libraries print is no answer
inputs = dict(np.load(io.BytesIO(sys.stdin.buffer.read())))
count, length = inputs["input_ids"].shape
if target == "tflite":
    LIBRARY = interpreter()
else:
    import onnxruntime as LIBRARY
try:
    run = {"tflite": tflite, "onnx": onnx}[target](file)(length)
    rows = [run({name: value[i : i + 1] for name, value in inputs.items()}) for i in range(count)]
except Exception as error:
    print(" ".join(str(error).split())[:500], file=sys.stderr)
    sys.exit(3)
np.savez(answers, **{name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
answers.close()
