"""What stands in an ONNX file, read before native code sees it, and what its seal says of it."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from edgebert.errors import InputError
from edgebert.runtimes import lookups
from edgebert.runtimes.session import EDITED, WHOLE, Weight

PRODUCER = "edgebert"
MAX_TOKENS = "edgebert.max_tokens"
VOCABULARY = "edgebert.vocabulary"
SEAL = "edgebert.sha256"
BLANK = b"0" * 64  # what stands in the seal's place while the hash is taken


def seal_of(data: bytes) -> tuple[int, str, str] | None:
    """Where the seal stands in a file's bytes, what it says and what it should say; None where there is none."""
    # A protobuf string field: its tag 0x12, its length 64, its bytes. The metadata is the last thing in the file.
    marker = SEAL.encode() + b"\x12\x40"
    start = data.rfind(marker, max(0, len(data) - 4096)) + len(marker)
    if start < len(marker) or start + len(BLANK) > len(data):
        return None
    end = start + len(BLANK)
    view = memoryview(data)  # a slice of it is no copy of a large model
    digest = hashlib.sha256(view[:start])
    digest.update(BLANK)
    digest.update(view[end:])
    return start, data[start:end].decode("ascii", "replace"), digest.hexdigest()


@dataclass(frozen=True, slots=True)
class File:
    """A file as it was parsed: the model without external data, the bytes on disk in all, what its seal says of it."""

    proto: Any
    file_bytes: int
    seal: str | None


def read(path: Path) -> File:
    """Parse the file, and look at its seal and for its external data.

    Raises:
        InputError: it is absent, not an ONNX model, or its external data is not there.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise InputError(f"{path} is not a file; an .onnx file is needed.")
    try:
        data = path.read_bytes()
        proto = onnx.ModelProto.FromString(data)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except DecodeError:
        raise InputError(f"{path} is not an ONNX file, or is cut short: export it again.") from None
    if not proto.ir_version or not proto.opset_import or not proto.graph.output:
        raise InputError(f"{path} is not an ONNX model: it names no version or no outputs.")
    found = seal_of(data)
    ours = found is not None or proto.producer_name == PRODUCER or any(e.key == SEAL for e in proto.metadata_props)
    seal = WHOLE if found and found[1] == found[2] else EDITED if ours else None
    return File(proto, len(data) + _external_bytes(path, proto.graph), seal)


def _external_bytes(path: Path, graph: Any) -> int:
    """The size of the external data, once each file of it proves to be there, complete and inside the folder."""
    from onnx import TensorProto

    folder, needed = path.parent.resolve(), Counter[str]()
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            entry = {e.key: e.value for e in tensor.external_data}
            numbers = [entry.get("offset", "0"), entry.get("length", "0")]
            if not entry.get("location") or not all(number.isdecimal() for number in numbers):
                raise InputError(f"{path}: tensor {tensor.name!r} does not say where its external data is.")
            needed[entry["location"]] = max(needed[entry["location"]], sum(int(number) for number in numbers))
    total = 0
    for location, end in needed.items():
        file = folder / location
        if Path(location).is_absolute() or not file.resolve().is_relative_to(folder):
            raise InputError(f"{path} leads to external data outside its folder, {location!r}; that is never read.")
        if not file.is_file():
            raise InputError(f"{path} needs its external data {location!r} beside it: copy the two together.")
        if file.stat().st_size < end:
            raise InputError(f"{file} is cut short: {file.stat().st_size} bytes of {end}. Copy or export it again.")
        total += file.stat().st_size
    return total


def nodes(graph: Any) -> Iterator[Any]:
    """Every node, those of nested graphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for nested in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from nodes(nested)


def _tensors(graph: Any) -> Iterator[Any]:
    """Every constant tensor: initializers, sparse ones and those that nodes hold; nested graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            for nested in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(nested)


def weights(graph: Any) -> tuple[Weight, ...]:
    """The constants that are no shapes, axes or other whole numbers; scales count with the weight they belong to.

    A scale or zero point belongs to a weight `x` when it is named `x.scale` or `x.zero`, as in edgebert's files. Bytes
    that hold two numbers, as MatMulNBits takes them, are told by that operator's attribute.
    """
    from onnx import TensorProto

    # The two operators take a table in different shapes, so that one of them may see it through a Reshape.
    shaped = {node.output[0]: node.input[0] for node in nodes(graph) if node.op_type == "Reshape" and node.input}
    packed = {
        shaped.get(node.input[place], node.input[place]): attribute.i
        for node in nodes(graph)
        for op, place in (("MatMulNBits", 1), ("GatherBlockQuantized", 0))
        if node.op_type == op and len(node.input) > place
        for attribute in node.attribute
        if attribute.name == "bits" and attribute.i in (2, 4, 8)
    }
    sizes: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for i, tensor in enumerate(_tensors(graph)):
        dtype, shape = TensorProto.DataType.Name(tensor.data_type).lower(), tuple(tensor.dims)
        if dtype == "int64" and len(shape) < 2:
            continue
        dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
        digits = "".join(filter(str.isdigit, dtype.partition("e")[0])) or "8"  # float8e4m3 has 8 bits, bool a byte
        size = (prod(shape) * int(digits) + 7) // 8
        if dtype == "uint8" and (bits := packed.get(tensor.name)):
            dtype, shape = f"int{bits}", (*shape[:-1], shape[-1] * 8 // bits)
        sizes.setdefault(tensor.name or f"constant {i}", (dtype, shape, size))
    extra = Counter[str]()
    for name in list(sizes):
        base, _, role = name.rpartition(".")
        if role in ("scale", "zero") and base in sizes:
            extra[base] += sizes.pop(name)[2]
    return tuple(Weight(name, dtype, shape, size + extra[name]) for name, (dtype, shape, size) in sizes.items())


# Operators that look rows up: which inputs have the numbers, and which the tables.
LOOKUPS: dict[str, tuple[tuple[int, int], ...]] = {
    "Gather": ((1, 0),),
    "GatherND": ((1, 0),),
    "GatherBlockQuantized": ((1, 0),),
    "EmbedLayerNormalization": ((0, 2), (1, 4)),
}
SIZES = ("Shape", "Size")  # which tell nothing of an input's numbers
SAME_ROWS = ("Cast", "DequantizeLinear", "Identity")  # what they make of a table has its rows


def rows(graph: Any) -> dict[str, int]:
    """Which inputs are looked up in constant tables, see `Facts.rows`."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    inputs = {entry.name: entry.name for entry in graph.input if entry.name not in shapes}
    return lookups.rows(inputs, (step for node in graph.node for step in _steps(node, shapes)))


def _steps(node: Any, shapes: dict[str, tuple[int, ...]]) -> Iterator[lookups.Step]:
    """A node's lookups, or the node itself; `shapes` of constants grows."""
    for attribute in node.attribute:
        if node.op_type == "Constant" and attribute.HasField("t"):
            shapes[node.output[0]] = tuple(attribute.t.dims)
    if node.op_type in SAME_ROWS and node.input and node.input[0] in shapes:
        shapes[node.output[0]] = shapes[node.input[0]]
    axis = next((attribute.i for attribute in node.attribute if attribute.name in ("axis", "gather_axis")), 0)
    found = [
        lookups.Step(node.input, node.output, node.input[ids], shape[axis])
        for ids, table in LOOKUPS.get(node.op_type, ())
        if len(node.input) > max(ids, table)
        and (shape := shapes.get(node.input[table]))
        and -len(shape) <= axis < len(shape)
    ]
    yield from found or (lookups.Step(() if node.op_type in SIZES else node.input, node.output),)


def metadata(proto: Any) -> dict[str, str]:
    """What the file says of itself: who made it, versions, and its own entries."""
    said = {
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "ir_version": str(proto.ir_version),
        "opset": ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in proto.opset_import),
        "domain": proto.domain,
        "description": proto.doc_string or proto.graph.doc_string,
    }
    return {key: text for key, text in said.items() if text} | {e.key: e.value for e in proto.metadata_props}


def whole(text: str) -> int | None:
    """The number that a metadata entry holds; None where it holds none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def first_line(error: Exception) -> str:
    """The first line of a native error, without the code that leads it."""
    text = " ".join(str(error).split())
    return text.rpartition(" : ")[2][:300] if " : " in text else text[:300]
