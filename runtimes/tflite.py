"""TFLite files in their own runtime: LiteRT's interpreter with the XNNPACK delegate.

A file from outside is read in Python first and every offset and index in it checked, for the interpreter's C++ takes
them on trust.
"""

import importlib.util
import mmap
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError
from edgebert.runtimes.session import INPUTS, Arrays, Facts, Spec, run_rows

# Bytes of an element by the schema's name of its type; half-byte types are rounded up over the whole tensor.
ITEM_BYTES = {
    "FLOAT64": 8.0, "INT64": 8.0, "UINT64": 8.0, "COMPLEX64": 8.0, "FLOAT32": 4.0, "INT32": 4.0, "UINT32": 4.0,
    "FLOAT16": 2.0, "BFLOAT16": 2.0, "INT16": 2.0, "UINT16": 2.0, "INT8": 1.0, "UINT8": 1.0, "BOOL": 1.0, "INT4": 0.5,
    "UINT4": 0.5, "INT2": 0.25,
}  # fmt: skip
# Constants of these types are shapes, axes and the like, not weights.
NOT_WEIGHTS = ("INT32", "INT64", "BOOL")


def missing() -> str | None:
    """The command that installs the runtime, None when it is there."""
    found = all(importlib.util.find_spec(name) for name in ("ai_edge_litert", "flatbuffers"))
    return None if found else 'pip install "edgebert[tflite]"'


def open(path: Path, threads: int = 1) -> "TfliteSession":
    """Open a .tflite file.

    Raises:
        InputError: the file is not a whole .tflite file, or the interpreter does not take it.
    """
    layout = read_layout(path)
    from ai_edge_litert.interpreter import Interpreter

    try:
        with _hushed():
            interpreter = Interpreter(model_path=str(path), num_threads=threads)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: LiteRT does not open it: {_first_line(error)}") from error
    return TfliteSession(path, layout, interpreter)


@dataclass(frozen=True, slots=True)
class Signature:
    """One entry point: its key in the file ("" where the file names none), subgraph, inputs and outputs."""

    key: str
    graph: int
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]

    @property
    def length(self) -> int | None:
        """The sequence length when this entry point is one of ours, else None."""
        ours = {spec.name for spec in self.inputs} == set(INPUTS)
        shapes = {spec.shape for spec in self.inputs}
        dtypes = {spec.dtype for spec in self.inputs}
        if not ours or len(shapes) != 1 or dtypes != {"int32"}:
            return None
        (shape,) = shapes
        return shape[1] if len(shape) == 2 and shape[0] == 1 and shape[1] > 0 else None


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands in a file: entry points, operators of each subgraph in order, and bytes of weights by type."""

    signatures: tuple[Signature, ...]
    ops: tuple[tuple[str, ...], ...]
    weight_bytes: dict[str, int]

    @property
    def main(self) -> Signature:
        """The entry point facts are told of: the longest of ours, else the first."""
        return max(self.signatures, key=lambda signature: signature.length or 0)


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
                raise InputError(f"{self._path}: LiteRT refused the input: {_first_line(error)}") from error
        return outputs

    def facts(self) -> Facts:
        """What the file holds, and how many of its operators XNNPACK takes over on this machine."""
        main = self._layout.main
        ops = self._layout.ops[main.graph]
        return Facts(
            runtime=f"ai-edge-litert {version('ai-edge-litert')}",
            file_bytes=self._path.stat().st_size,
            inputs=main.inputs,
            outputs=main.outputs,
            lengths=tuple(sorted(self._keys)),
            ops=dict(Counter(ops).most_common()),
            nodes=len(ops),
            delegated=self._delegated(main, len(ops)),
            weight_bytes=self._layout.weight_bytes,
        )

    def _delegated(self, main: Signature, nodes: int) -> int | None:
        """Count the operators that a delegate took over; None where the interpreter cannot tell.

        It lists the original operators first and then its delegates. A tensor inside a delegate is never allocated, and
        one that leaves it is among the delegate's outputs: an operator with either was taken over.
        """
        if main.graph != 0 or any(size < 0 for spec in main.inputs for size in spec.shape):
            return None  # it lists the first subgraph only, and allocates free axes when it runs
        try:
            with _hushed():
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError):
            return None
        listed = self._interpreter._get_ops_details()
        outside = {int(tensor) for op in listed[nodes:] for tensor in op["outputs"]}
        return sum(any(t in outside or not self._allocated(t) for t in op["outputs"]) for op in listed[:nodes])

    def _allocated(self, tensor: int) -> bool:
        """Whether a tensor of the first subgraph has memory."""
        try:
            self._interpreter.tensor(tensor)()
        except ValueError:
            return False
        return True

    def close(self) -> None:
        """Free the interpreter and its memory."""
        self._runners.clear()
        self._interpreter = None


def read_layout(path: Path) -> Layout:
    """Read a .tflite file's structure with the runtime's own schema, checking all that it refers to.

    Raises:
        InputError: it is missing, of another format, cut short, or refers to what is not there.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            magic = file.read(8)[4:]
            if magic != b"TFL3":
                raise InputError(f"{path}: not a .tflite file: bytes 4 to 7 are {magic!r}, not b'TFL3'.")
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        return _layout(content, size)
    except Exception as error:  # broken offsets surface as any of a dozen kinds
        raise InputError(f"{path}: a damaged .tflite file ({_first_line(error)}); export it again.") from error


def _layout(content: memoryview, size: int) -> Layout:
    """Unpack and check; any exception means damage."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    types = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    builtins = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    stored = [_stored(buffer, size) for buffer in model.buffers]
    codes = [_operator_name(code, builtins) for code in model.operatorCodes]
    weights: dict[int, tuple[str, int]] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            (tensor.name or b"").decode()  # the interpreter's Python side decodes every name
            _check_tensor(tensor, stored[_index(tensor.buffer, stored)], types)
            if stored[tensor.buffer] and types[tensor.type] not in NOT_WEIGHTS:
                weights[tensor.buffer] = (types[tensor.type].lower(), stored[tensor.buffer])
        for operator in graph.operators:
            for tensor in (*_numbers(operator.inputs), *_numbers(operator.outputs)):
                if tensor != -1:  # an optional input that is left out
                    _index(tensor, graph.tensors)
        for tensor in (*_numbers(graph.inputs), *_numbers(graph.outputs)):
            _index(tensor, graph.tensors)
    totals: Counter[str] = Counter()
    for dtype, count in weights.values():
        totals[dtype] += count
    ops = tuple(tuple(codes[_index(op.opcodeIndex, codes)] for op in graph.operators) for graph in model.subgraphs)
    return Layout(_signatures(model, types), ops, dict(totals.most_common()))


def _signatures(model: Any, types: dict[int, str]) -> tuple[Signature, ...]:
    """The file's entry points; its first subgraph where it names none."""

    def spec(graph: Any, tensor: int, name: bytes | None = None) -> Spec:
        entry = graph.tensors[_index(tensor, graph.tensors)]
        shape = _numbers(entry.shapeSignature) or _numbers(entry.shape)
        return Spec((name or entry.name or b"").decode(), types[entry.type].lower(), shape)

    signatures = []
    for definition in model.signatureDefs or ():
        graph = model.subgraphs[_index(definition.subgraphIndex, model.subgraphs)]
        signatures.append(
            Signature(
                definition.signatureKey.decode(),
                definition.subgraphIndex,
                tuple(sorted((spec(graph, e.tensorIndex, e.name) for e in definition.inputs), key=_place)),
                tuple(spec(graph, e.tensorIndex, e.name) for e in definition.outputs),
            )
        )
    if signatures:
        return tuple(signatures)
    graph = model.subgraphs[0]
    inputs = tuple(spec(graph, tensor) for tensor in _numbers(graph.inputs))
    return (Signature("", 0, inputs, tuple(spec(graph, tensor) for tensor in _numbers(graph.outputs))),)


def _place(spec: Spec) -> int:
    """Our inputs in our order, others after them in the file's."""
    return INPUTS.index(spec.name) if spec.name in INPUTS else len(INPUTS)


def _stored(buffer: Any, size: int) -> int:
    """Bytes of a buffer, in line or behind the flatbuffer."""
    if buffer.data is not None:
        return len(buffer.data)
    if buffer.offset <= 1:  # 0 and 1 mean an empty buffer
        return 0
    if buffer.offset + buffer.size > size:
        raise ValueError(f"a weight ends at byte {buffer.offset + buffer.size} of a file of {size}")
    return int(buffer.size)


def _check_tensor(tensor: Any, count: int, types: dict[int, str]) -> None:
    """Raise unless a constant has the bytes its shape asks for and a scale per channel."""
    name, shape = types[tensor.type], _numbers(tensor.shape)
    sparse = tensor.sparsity is not None or name not in ITEM_BYTES
    needed = -(-int(prod(shape) * 4 * ITEM_BYTES.get(name, 0)) // 4)
    if count and not sparse and count != needed:
        raise ValueError(f"a constant of {name} {shape} holds {count} bytes")
    scales = getattr(tensor.quantization, "scale", None)
    if scales is not None and len(scales) > 1 and len(scales) != shape[tensor.quantization.quantizedDimension]:
        raise ValueError(f"a constant of {name} {shape} has {len(scales)} scales")


def _operator_name(code: Any, builtins: dict[int, str]) -> str:
    """An operator's name; files before 2020 keep the number in a narrower field."""
    name = builtins[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return f"CUSTOM:{code.customCode.decode()}" if name == "CUSTOM" else name


def _index(number: int, items: Any) -> int:
    """The number, if it is an index of `items`."""
    if not 0 <= number < len(items):
        raise ValueError(f"an index {number} of {len(items)} entries")
    return int(number)


def _numbers(vector: Any) -> tuple[int, ...]:
    """A flatbuffer vector of integers, which may be absent."""
    return () if vector is None else tuple(int(number) for number in vector)


def _first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


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
