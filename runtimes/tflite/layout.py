"""What stands in a .tflite file, read without its runtime, with every offset and index in it checked.

The runtime's C++ takes them on trust. A file that edgebert wrote carries a seal, the SHA-256 of its own bytes, which is
checked before anything else: no flipped bit in a weight goes unseen.
"""

import hashlib
import mmap
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isqrt, prod
from pathlib import Path
from typing import Any

from edgebert.errors import InputError
from edgebert.models.signature import INPUTS, PACKED_INPUTS
from edgebert.runtimes import lookups
from edgebert.runtimes.session import EDITED, WHOLE, Spec, Weight

PRODUCER = "edgebert"

# The schema's numbers of tensor types: https://github.com/google-ai-edge/LiteRT, schema.fbs
ITEM_NAMES = {
    0: "FLOAT32", 1: "FLOAT16", 2: "INT32", 3: "UINT8", 4: "INT64", 5: "STRING", 6: "BOOL", 7: "INT16", 8: "COMPLEX64",
    9: "INT8", 10: "FLOAT64", 11: "COMPLEX128", 12: "UINT64", 13: "RESOURCE", 14: "VARIANT", 15: "UINT32", 16: "UINT16",
    17: "INT4",
}  # fmt: skip
# Bytes of an element by the schema's name of its type; half-byte types are rounded up over the whole tensor.
ITEM_BYTES = {
    "FLOAT64": 8.0, "INT64": 8.0, "UINT64": 8.0, "COMPLEX64": 8.0, "FLOAT32": 4.0, "INT32": 4.0, "UINT32": 4.0,
    "FLOAT16": 2.0, "BFLOAT16": 2.0, "INT16": 2.0, "UINT16": 2.0, "INT8": 1.0, "UINT8": 1.0, "BOOL": 1.0, "INT4": 0.5,
    "UINT4": 0.5, "INT2": 0.25,
}  # fmt: skip
# Constants of these types are shapes, axes and the like, not weights, unless they have a scale.
NOT_WEIGHTS = ("INT32", "INT64", "BOOL")
PACKED = "packed_"  # how the key begins of an entry point for rows of several texts
TEXT = 4096  # characters of a metadata entry that are told


@dataclass(frozen=True, slots=True)
class Seal:
    """How the seal is written: the name of its metadata entry, and what its buffer holds before it is made."""

    name: str
    mark: bytes
    digits: int

    @property
    def blank(self) -> bytes:
        """The entry with zeros for the hash."""
        return self.mark + b"0" * self.digits


SEAL = Seal("edgebert.sha256", b"edgebert.sha256=", 64)


def seal_of(content: bytes | bytearray | mmap.mmap) -> tuple[int, bytes, bytes] | None:
    """Where a file's seal stands, what it says and what it should say; None where there is none."""
    start = content.rfind(SEAL.blank[: len(SEAL.mark)])
    place = start + len(SEAL.mark)
    end = place + SEAL.digits
    if start < 0 or end > len(content):
        return None
    view = memoryview(content)
    digest = hashlib.sha256(view[:place])
    digest.update(b"0" * SEAL.digits)
    digest.update(view[end:])
    said = bytes(view[place:end])
    view.release()
    return place, said, digest.hexdigest().encode()


def scale_bytes(quantization: Any) -> int:
    """Bytes of a tensor's scales, and of its zero points where they are not all zero: those share one vector."""
    scale, zero = (getattr(quantization, name, None) for name in ("scale", "zeroPoint"))
    count = 0 if scale is None else 4 * len(scale)
    return count + (8 * len(zero) if zero is not None and any(zero) else 0)


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

    @property
    def packed(self) -> tuple[int, int] | None:
        """Tokens of a row and the texts that it has room for, when this entry point is ours for several, else None."""
        ours = tuple(sorted(spec.name for spec in self.inputs)) == tuple(sorted(PACKED_INPUTS))
        shapes = {(spec.shape, spec.dtype) for spec in self.inputs}
        if not ours or len(shapes) != 1 or not self.key.startswith(PACKED) or len(self.outputs) != 1:
            return None
        ((shape, dtype),) = shapes
        answer = self.outputs[0].shape
        usable = dtype == "int32" and len(shape) == 2 and shape[0] == 1 and shape[1] > 0 and len(answer) == 2
        return (shape[1], answer[0]) if usable and answer[0] > 0 else None


@dataclass(frozen=True, slots=True)
class Node:
    """One operator: its name, and its multiply-accumulates where it is a product with fixed shapes."""

    name: str
    macs: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands in a file: entry points, operators of each subgraph in order, weights, and what it says of itself.

    `seal` is what its seal says of it, and `rows` which inputs of the main entry point are looked up, see `Facts`.
    """

    signatures: tuple[Signature, ...]
    nodes: tuple[tuple[Node, ...], ...]
    weights: tuple[Weight, ...]
    metadata: dict[str, str]
    seal: str | None = None
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def main(self) -> Signature:
        """The entry point facts are told of: the longest of ours, else the first."""
        return max(self.signatures, key=lambda signature: signature.length or 0)


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
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        layout = _layout(memoryview(content), size)
    except Exception as error:  # broken offsets surface as any of a dozen kinds
        raise InputError(f"{path}: a damaged .tflite file ({first_line(error)}); export it again.") from error
    seal = seal_of(content)
    if seal is not None:
        return replace(layout, seal=WHOLE if seal[1] == seal[2] else EDITED)
    ours = layout.metadata.get("description", "").startswith(f"{PRODUCER} ")
    return replace(layout, seal=EDITED if ours else None)


def _layout(content: memoryview, size: int) -> Layout:
    """Unpack and check; any exception means damage."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    types = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    builtins = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    stored = [_stored(buffer, size) for buffer in model.buffers]
    codes = [_operator_name(code, builtins) for code in model.operatorCodes]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            (tensor.name or b"").decode()  # the interpreter's Python side decodes every name
            _check_tensor(tensor, stored[_index(tensor.buffer, stored)], types)
        for operator in graph.operators:
            for number in (*_numbers(operator.inputs), *_numbers(operator.outputs)):
                if number != -1:  # an optional input that is left out
                    _index(number, graph.tensors)
        for number in (*_numbers(graph.inputs), *_numbers(graph.outputs)):
            _index(number, graph.tensors)
    nodes = tuple(
        tuple(_node(codes[_index(op.opcodeIndex, codes)], op, graph) for op in graph.operators)
        for graph in model.subgraphs
    )
    layout = Layout(_signatures(model, types), nodes, _weights(model, stored, types), _metadata(model))
    return replace(layout, rows=_rows(model, layout.main, codes))


# Operators that look rows up: which input has the numbers, and which the table.
SIZES = ("SHAPE", "RANK")  # which tell nothing of an input's numbers
LOOKUPS = {"EMBEDDING_LOOKUP": (0, 1), "GATHER": (1, 0), "GATHER_ND": (1, 0)}


def _rows(model: Any, main: Signature, codes: list[str]) -> dict[str, int]:
    """Which inputs of an entry point are looked up in constant tables, see `Facts.rows`."""
    graph = model.subgraphs[main.graph]
    named = [one for one in model.signatureDefs or () if one.subgraphIndex == main.graph]
    inputs = {number: (graph.tensors[number].name or b"").decode() for number in _numbers(graph.inputs)}
    if named:
        inputs = {entry.tensorIndex: entry.name.decode() for entry in named[0].inputs}
    made = {number for operator in graph.operators for number in _numbers(operator.outputs)} | set(inputs)
    constant: set[int] = set(range(len(graph.tensors))) - made

    def step(operator: Any) -> lookups.Step:
        takes, gives = _numbers(operator.inputs), _numbers(operator.outputs)
        if constant.issuperset(number for number in takes if number >= 0):
            constant.update(gives)
        ids, table = LOOKUPS.get(codes[operator.opcodeIndex], (0, 0))
        if ids == table or len(takes) < 2 or takes[table] not in constant:
            return lookups.Step(() if codes[operator.opcodeIndex] in SIZES else takes, gives)
        axis = getattr(operator.builtinOptions, "axis", 0)
        shape = _numbers(graph.tensors[takes[table]].shape)
        return lookups.Step(takes, gives, takes[ids], shape[axis] if -len(shape) <= axis < len(shape) else 0)

    return lookups.rows(inputs, map(step, graph.operators))


def _weights(model: Any, stored: list[int], types: dict[int, str]) -> tuple[Weight, ...]:
    """Constant tensors, shared ones once; scales of blocks are counted with the tensor they belong to."""
    found: dict[int, Weight] = {}
    scales: Counter[int] = Counter()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            details = getattr(tensor.quantization, "details", None)
            owned = getattr(details, "scales", -1)
            if owned >= 0:
                scales[graph.tensors[_index(owned, graph.tensors)].buffer] += 1
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            name, count = types[tensor.type], stored[tensor.buffer]
            has_scale = getattr(tensor.quantization, "scale", None) is not None
            if not count or tensor.buffer in scales or (name in NOT_WEIGHTS and not has_scale):
                continue
            details = getattr(tensor.quantization, "details", None)
            owned = getattr(details, "scales", -1)
            count += scale_bytes(tensor.quantization)
            count += stored[graph.tensors[owned].buffer] if owned >= 0 else 0
            weight = Weight((tensor.name or b"").decode(), name.lower(), _numbers(tensor.shape), count)
            # A table that is an output layer's weight too has a scale for each row there alone.
            found[tensor.buffer] = max(weight, found.get(tensor.buffer, weight), key=lambda one: one.bytes)
    return _with_scales(list(found.values()))


def _with_scales(weights: list[Weight]) -> tuple[Weight, ...]:
    """Count scales that are an operator's input, as those of a table's rows, with the weight they are named after."""
    named = {f"{weight.name}/scales" for weight in weights}
    scales = {weight.name: weight.bytes for weight in weights if weight.name in named}
    rest = (weight for weight in weights if weight.name not in scales)
    return tuple(replace(weight, bytes=weight.bytes + scales.get(f"{weight.name}/scales", 0)) for weight in rest)


def _metadata(model: Any) -> dict[str, str]:
    """What the file says of itself; what is no text is told by its size."""
    said = {"description": (model.description or b"").decode()}
    for entry in model.metadata or ():
        data = model.buffers[_index(entry.buffer, model.buffers)].data
        raw = b"" if data is None else bytes(data[:TEXT]).rstrip(b"\0")
        text = raw.decode("utf-8", "replace")
        said[(entry.name or b"").decode()] = text if text.isprintable() else f"{len(data)} bytes"
    return said


def _node(name: str, operator: Any, graph: Any) -> Node:
    """An operator with its arithmetic; operators that add, move or look up count as none."""
    counted = MACS.get(name)
    if counted is None:
        return Node(name, 0)
    shapes = [_numbers(graph.tensors[t].shape) if t >= 0 else () for t in _numbers(operator.inputs)[:2]]
    result = prod(_numbers(graph.tensors[_numbers(operator.outputs)[0]].shape))
    return Node(name, max(counted(shapes[0], shapes[1], result), 0))


# Multiply-accumulates of an operator from the shapes of its two inputs and the number of its outputs.
MACS: dict[str, Callable[[tuple[int, ...], tuple[int, ...], int], int]] = {
    "FULLY_CONNECTED": lambda _, weight, outputs: outputs * weight[-1],  # (outputs, inputs)
    "BATCH_MATMUL": lambda left, right, outputs: _inner(left, right, outputs),
    "CONV_2D": lambda _, weight, outputs: outputs * prod(weight[1:]),  # (outputs, height, width, inputs of a group)
    "DEPTHWISE_CONV_2D": lambda _, weight, outputs: outputs * prod(weight[1:3]),  # (1, height, width, channels)
}


def _inner(left: tuple[int, ...], right: tuple[int, ...], outputs: int) -> int:
    """Products of a batched matrix product, whichever operand is turned: (M K)(K N)(M N) is a square."""
    batches = max(prod(left[:-2]), prod(right[:-2]), 1)
    sizes = prod(left[-2:]) * prod(right[-2:]) * (outputs // batches)
    return batches * isqrt(max(sizes, 0))


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


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
