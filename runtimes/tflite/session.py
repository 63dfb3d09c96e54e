"""TFLite files in their own runtime: LiteRT's interpreter with the XNNPACK delegate.

A file is read in Python first, see `layout.py`, for the interpreter's C++ takes what stands in it on trust.
"""

import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError, MissingDependency
from edgebert.models.signature import INPUTS, Arrays
from edgebert.runtimes.session import Delegation, Facts, run_rows
from edgebert.runtimes.tflite.layout import Layout, Signature, first_line, read_layout

# Why XNNPACK leaves an operator of our graphs to the interpreter.
REASONS = {
    "EMBEDDING_LOOKUP": "XNNPACK has no lookup",
    "GATHER": "XNNPACK has no lookup",
    "CAST": "XNNPACK converts no integers to float",
    "RESHAPE": "it shapes integers: ids on their way to a lookup",
    "MINIMUM": "XNNPACK compares no int32",
    "ADD": "XNNPACK adds no int32",
    "SUB": "XNNPACK subtracts no int32",
    "DEQUANTIZE": "it unpacks a table for a lookup, once",
    "CONCATENATION": "XNNPACK joins at most five tensors",
}

# What the interpreter says of an operator, or a version of one, that it does not know.
TOO_OLD = "Didn't find op"


def missing() -> str | None:
    """The command that installs the runtime, None when it is there."""
    found = all(importlib.util.find_spec(name) for name in ("ai_edge_litert", "flatbuffers"))
    return None if found else 'pip install "edgebert[tflite]"'


def open(path: Path, threads: int = 1) -> "TfliteSession":
    """Open a .tflite file.

    Raises:
        InputError: the file is not a whole .tflite file, or the interpreter does not take it.
        MissingDependency: the interpreter is too old for an operator in it.
    """
    layout = read_layout(path)
    from ai_edge_litert.interpreter import Interpreter

    try:
        with _hushed():
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        if TOO_OLD in str(error):
            raise MissingDependency(
                f"{path} needs a later LiteRT than ai-edge-litert {version('ai-edge-litert')} ({first_line(error)}): "
                "run pip install --upgrade ai-edge-litert"
            ) from error
        raise InputError(f"{path}: LiteRT does not open it: {first_line(error)}") from error
    return TfliteSession(path, layout, interpreter)


class TfliteSession:
    """An open .tflite file; a runner for each length is made when that length is first asked for."""

    def __init__(self, path: Path, layout: Layout, interpreter: Any) -> None:
        self._path = path
        self._layout = layout
        self._interpreter = interpreter
        self._keys = {s.length: s.key for s in layout.signatures if s.length is not None and s.key}
        self._runners: dict[int, Any] = {}

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer a batch.

        Raises:
            InputError: the inputs are not usable, an id lies outside its table, or the file has other inputs than ours.
        """
        if not self._keys:
            names = ", ".join(f"{s.name} {s.dtype} {s.shape}" for s in self._layout.main.inputs)
            raise InputError(
                f"{self._path}: takes {names}; only a file with {', '.join(INPUTS)}, int32 (1, L), can be run."
            )
        return run_rows(inputs, tuple(sorted(self._keys)), self._run_row)

    def _run_row(self, row: Arrays) -> Arrays:
        """Run one row at one of the file's lengths."""
        length = row["input_ids"].shape[1]
        first = length not in self._runners
        # The interpreter announces its delegate on standard error when it first allocates.
        with _hushed() if first else nullcontext():
            try:
                if first:
                    self._runners[length] = self._interpreter.get_signature_runner(self._keys[length])
                outputs: Arrays = self._runners[length](**row)
            except (ValueError, RuntimeError) as error:
                raise InputError(f"{self._path}: LiteRT refused the input: {first_line(error)}") from error
        return outputs

    def facts(self) -> Facts:
        """What the file holds, and how many of its operators XNNPACK takes over on this machine."""
        main, nodes = self._layout.main, self._layout.nodes
        return Facts(
            runtime=f"ai-edge-litert {version('ai-edge-litert')}",
            file_bytes=self._path.stat().st_size,
            inputs=main.inputs,
            outputs=main.outputs,
            lengths=tuple(sorted(self._keys)),
            ops=dict(Counter(node.name for node in nodes[main.graph]).most_common()),
            nodes=len(nodes[main.graph]),
            weights=self._layout.weights,
            metadata=self._layout.metadata,
            delegation=self._delegation(main),
        )

    def _delegation(self, main: Signature) -> Delegation | None:
        """What XNNPACK takes over on this machine; None where the interpreter cannot tell."""
        nodes = self._layout.nodes[main.graph]
        taken = self._taken(main, len(nodes))
        if taken is None:
            return None
        rest = Counter(node.name for node, delegated in zip(nodes, taken, strict=True) if not delegated)
        return Delegation(
            backend="XNNPACK",
            nodes=len(nodes),
            taken=sum(taken),
            macs=sum(node.macs for node in nodes),
            taken_macs=sum(node.macs for node, delegated in zip(nodes, taken, strict=True) if delegated),
            rest=dict(rest.most_common()),
            reasons={name: REASONS.get(name, "XNNPACK has no such operator, or not for these types") for name in rest},
        )

    def _taken(self, main: Signature, nodes: int) -> list[bool] | None:
        """For each operator whether a delegate took it over; None where the interpreter cannot tell.

        It lists the original operators first and then its delegates. A tensor inside a delegate is never allocated, and
        one that leaves it is among the delegate's outputs: an operator with either was taken over.
        """
        if main.graph != 0 or any(size < 0 for spec in main.inputs for size in spec.shape):
            return None  # it lists the first subgraph only, and allocates free axes when it runs
        from ai_edge_litert.interpreter import Interpreter

        try:
            with _hushed():  # one of its own: after a run the session's does not allocate again
                interpreter = Interpreter(model_path=str(self._path))
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError):
            return None
        listed = interpreter._get_ops_details()
        outside = {int(tensor) for op in listed[nodes:] for tensor in op["outputs"]}
        return [any(t in outside or not _allocated(interpreter, t) for t in op["outputs"]) for op in listed[:nodes]]

    def close(self) -> None:
        """Free the interpreter and its memory."""
        self._runners.clear()
        self._interpreter = None


def _allocated(interpreter: Any, tensor: int) -> bool:
    """Whether a tensor of the first subgraph has memory."""
    try:
        interpreter.tensor(tensor)()
    except ValueError:
        return False
    return True


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what C++ writes to standard error from the terminal; errors come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)
