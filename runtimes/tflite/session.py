"""TFLite files in their own runtime: LiteRT's interpreter with the XNNPACK delegate.

A file is read in Python first, see `layout.py`, for the interpreter's C++ takes what stands in it on trust.
"""

import importlib.util
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError, MissingDependency
from edgebert.models.signature import INPUTS, PACKED_INPUTS, Arrays
from edgebert.runtimes import apart
from edgebert.runtimes.session import WHOLE, Delegation, Facts, refuse_edited, run_rows
from edgebert.runtimes.tflite import native
from edgebert.runtimes.tflite.layout import Layout, Node, first_line, read_layout

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
        InputError: the file is not a whole .tflite file, was edited since edgebert made it, or the interpreter does not
            take it.
        MissingDependency: the interpreter is too old for an operator in it.
    """
    layout = read_layout(path)
    refuse_edited(path, layout.seal)
    if layout.seal != WHOLE:
        _taken_apart(path, layout)
    from ai_edge_litert.interpreter import Interpreter

    try:
        with hushed():
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        if TOO_OLD in str(error):
            raise MissingDependency(
                f"{path} needs a later LiteRT than ai-edge-litert {version('ai-edge-litert')} ({first_line(error)}): "
                "run pip install --upgrade ai-edge-litert"
            ) from error
        raise InputError(f"{path} does not open in LiteRT: {first_line(error)}") from error
    return TfliteSession(path, layout, interpreter)


def facts(path: Path) -> Facts:
    """What a .tflite file holds, and how many of its operators XNNPACK takes over on this machine.

    Raises:
        InputError: it is not a whole .tflite file, or the interpreter does not take it.
    """
    layout = read_layout(path)
    return _facts(path, layout, _taken(path, layout) if layout.seal == WHOLE else _taken_apart(path, layout))


class TfliteSession:
    """An open .tflite file; a runner for each length is made when that length is first asked for."""

    def __init__(self, path: Path, layout: Layout, interpreter: Any) -> None:
        self._path = path
        self._layout = layout
        self._interpreter = interpreter
        self._keys = {s.length: s.key for s in layout.signatures if s.length is not None and s.key}
        self._runners: dict[str, Any] = {}
        self._packed = next((s for s in layout.signatures if s.packed), None)
        self.packed = self._packed.packed if self._packed else None

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
        return self._answer(self._keys[row["input_ids"].shape[1]], row)

    def run_packed(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answer rows of several texts, see `Packing`.

        Raises:
            InputError: the file has no entry point for them, or they have another shape.
        """
        if self._packed is None or self.packed is None:
            raise InputError(f"{self._path}: has no entry point for rows of several texts: run() takes each alone.")
        shapes = {name: value.shape[1:] for name, value in rows.items()}
        if shapes != dict.fromkeys(PACKED_INPUTS, (self.packed[0],)):
            raise InputError(f"{self._path}: rows of {shapes}; {' and '.join(PACKED_INPUTS)} of {self.packed[0]}.")
        name, key = self._packed.outputs[0].name, self._packed.key
        made = (
            self._answer(key, {one: value[i : i + 1] for one, value in rows.items()})[name]
            for i in range(len(rows[PACKED_INPUTS[0]]))
        )
        return np.stack(list(made))

    def _answer(self, key: str, row: Arrays) -> Arrays:
        """Run one row by an entry point of the file."""
        first = key not in self._runners
        # The interpreter announces its delegate on standard error when it first allocates.
        with hushed() if first else nullcontext():
            try:
                if first:
                    self._runners[key] = self._interpreter.get_signature_runner(key)
                outputs: Arrays = self._runners[key](**row)
            except (ValueError, RuntimeError) as error:
                raise InputError(f"{self._path}: LiteRT refused the input: {first_line(error)}") from error
        return outputs

    def facts(self) -> Facts:
        """What the file holds, and how many of its operators XNNPACK takes over on this machine."""
        return _facts(self._path, self._layout, _taken(self._path, self._layout))

    def close(self) -> None:
        """Free the interpreter and its memory."""
        self._runners.clear()
        self._interpreter = None


def _facts(path: Path, layout: Layout, taken: list[bool] | None) -> Facts:
    """What stands in a file, and what the interpreter told of it."""
    nodes = layout.nodes[layout.main.graph]
    return Facts(
        runtime=f"ai-edge-litert {version('ai-edge-litert')}",
        file_bytes=path.stat().st_size,
        inputs=layout.main.inputs,
        outputs=layout.main.outputs,
        lengths=tuple(sorted({s.length for s in layout.signatures if s.length is not None and s.key})),
        ops=dict(Counter(node.name for node in nodes).most_common()),
        nodes=len(nodes),
        weights=layout.weights,
        metadata=layout.metadata,
        delegation=None if taken is None or len(taken) != len(nodes) else _delegation(nodes, taken),
        seal=layout.seal,
        rows=layout.rows,
        packed=next((s.packed for s in layout.signatures if s.packed), None),
    )


def _delegation(nodes: Sequence[Node], taken: list[bool]) -> Delegation:
    """What XNNPACK takes over on this machine."""
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


def _countable(layout: Layout) -> int | None:
    """How many operators the interpreter is asked about: it lists those of the first subgraph only."""
    free = any(size < 0 for spec in layout.main.inputs for size in spec.shape)  # it allocates these when it runs
    return None if layout.main.graph != 0 or free else len(layout.nodes[0])


def _taken(path: Path, layout: Layout) -> list[bool] | None:
    """For each operator whether a delegate takes it over; None where the interpreter cannot tell."""
    try:
        with hushed():  # an interpreter of its own: after a run the session's does not allocate again
            return native.taken(str(path), _countable(layout))
    except (ValueError, RuntimeError):
        return None


def _taken_apart(path: Path, layout: Layout) -> list[bool] | None:
    """The same of a file that nobody vouches for; InputError where the interpreter does not open it, or crashes."""
    nodes = _countable(layout)
    told: list[bool] | None = apart.ask(native.__file__, "LiteRT", path, *([] if nodes is None else [str(nodes)]))
    return told


@contextmanager
def hushed() -> Iterator[None]:
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
