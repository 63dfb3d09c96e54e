"""What stands in a .pte file, read with the schemas that ExecuTorch ships and nothing of its C++.

The runtime's C++ takes many of a file's numbers on trust, so a file is read here first, every offset and index checked,
and so is the seal of one that edgebert made. Delegates are looked into where they are XNNPACK's.
"""

import hashlib
import re
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError
from edgebert.runtimes import lookups
from edgebert.runtimes.executorch import flatbuffer
from edgebert.runtimes.session import EDITED, WHOLE, Spec, Weight

# The last bytes of a file that edgebert made: this, and the SHA-256 of all bytes before the digest.
SEAL = b"edgebert sha256:"
SEAL_KEY = "edgebert.seal"

BACKEND = "XnnpackBackend"
# Methods of a file that edgebert made: for every processor, and for ARM cores with half-precision arithmetic. Where a
# graph serves one length alone these are for the longest, and `forward_32`, `forward_half_32` for another.
FLOAT, HALF = "forward", "forward_half"
# The note that tells the lengths then, `32,128`.
FIXED_LENGTHS = "fixed_lengths"
# Where local layers cost less in blocks there are `forward_long` and `forward_half_long` for long texts too, and this
# note tells which those are, `512,2048` tokens: `forward` takes them as well.
LONG_TEXTS, LONG = "long_texts", "_long"
# ExecuTorch's scalar types, by the schema's names.
DTYPES = {
    "BYTE": "uint8", "CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "HALF": "float16",
    "FLOAT": "float32", "DOUBLE": "float64", "BOOL": "bool", "BFLOAT16": "bfloat16",
}  # fmt: skip
# XNNPACK's, and how many bits a value of each takes.
XNNPACK_DTYPES = {
    "fp32": ("float32", 32), "fp16": ("float16", 16), "bf16": ("bfloat16", 16), "qint8": ("int8", 8),
    "quint8": ("uint8", 8), "qint32": ("int32", 32), "qcint8": ("int8", 8), "qcint32": ("int32", 32),
    "qcint4": ("int4", 4), "qbint4": ("int4", 4), "int32": ("int32", 32),
}  # fmt: skip
# Constants of these are shapes and the like.
NOT_WEIGHTS = ("int64", "bool")
# The note that names the constants which plain kernels read, in their order.
CONSTANT_NAMES = "constant_names"
# Operators that read a constant as a table of rows.
LOOKUPS = ("aten::embedding", "quantized_decomposed::embedding_byte", "quantized_decomposed::embedding_4bit",
           "quantized_decomposed::embedding_2bit")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contents:
    """What a .pte file holds.

    Attributes:
        method: the entry point that facts are told of: `forward`, or the first one with inputs.
        methods: all entry points.
        seal: what its seal says of it, see `Facts`.
        inputs: of that method, named where the file names them.
        outputs: likewise.
        kernels: operators that plain kernels run, in order.
        nodes: operators inside XNNPACK's graphs, by XNNPACK's names, in order.
        macs: multiply-accumulates of the plain kernels, and of XNNPACK.
        other: delegates of other backends.
        weights: constants, scales counted with what they scale.
        metadata: methods without inputs that return a constant.
        rows: which inputs are looked up, see `Facts.rows`.
    """

    method: str
    seal: str | None
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    kernels: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    macs: tuple[int, int] = (0, 0)
    methods: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    weights: tuple[Weight, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    @property
    def fixed(self) -> tuple[int, ...]:
        """Lengths that have a method each, ascending; empty where one serves every length."""
        return self.noted(FIXED_LENGTHS)

    @property
    def long(self) -> range:
        """Lengths of texts that methods of their own are the quickest for."""
        first, last = (*self.noted(LONG_TEXTS), 0, 0)[:2]
        return range(first, last + 1) if f"{FLOAT}{LONG}" in self.methods else range(0)

    def noted(self, name: str) -> tuple[int, ...]:
        """The lengths in a note."""
        told = self.metadata.get(name, "").split(",")
        # Any file may have such a note, and whatever in it.
        return tuple(map(int, told)) if all(re.fullmatch("[1-9][0-9]{0,8}", length) for length in told) else ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Every length that a file which edgebert made serves, ascending."""
        return self.fixed or tuple(range(1, int(self.metadata["get_max_seq_len"]) + 1))

    def method_for(self, form: str, length: int) -> str:
        """The entry point for a length, one of `lengths`, in a form: FLOAT or HALF."""
        if self.fixed:
            return method_name(form, length, self.fixed[-1])
        return f"{form}{LONG}" if length in self.long else form


def method_name(form: str, length: int, longest: int) -> str:
    """What the entry point for one length is called; tools that know no lengths run that of the longest."""
    return form if length == longest else f"{form}_{length}"


def load(path: Path) -> tuple[bytes, Contents]:
    """Read a file's bytes, and what they say.

    Raises:
        InputError: it is missing, of another format, cut short, or refers to what is not there.
    """
    try:
        with path.open("rb") as file:
            head = file.read(8)[4:]
            if head[:2] != b"ET":
                raise InputError(f"{path}: not a .pte file: bytes 4 to 7 are {head!r}, not b'ET12'.")
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    try:
        return data, ProgramFile(memoryview(data)).contents()
    except Exception as error:  # broken offsets surface as any of a dozen kinds
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path}: a damaged .pte file ({reason}); export it again.") from error


class ProgramFile:
    """One file's program, with the places of its segments."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.base = 0
        program = data
        if bytes(data[8:12]) == b"eh00":
            length, size, self.base = (int.from_bytes(data[a:b], "little") for a, b in ((12, 16), (16, 24), (24, 32)))
            segments = int.from_bytes(data[32:40], "little") if length > 24 else 0
            if size > len(data) or self.base + segments > len(data):
                spoken = max(size, self.base + segments)
                raise flatbuffer.Damage(f"its header speaks of {spoken} bytes, it has {len(data)}")
            program = data[:size]
        self.program = flatbuffer.read(flatbuffer.program_schema(), program)
        self.segments = [self.segment(entry) for entry in self.program["segments"] or []]
        self.named = {entry["key"]: self.segments[entry["segment_index"]] for entry in self.program["named_data"] or []}
        plans = self.program["execution_plan"]
        self.metadata = dict(note for plan in plans if (note := self.note(plan)))
        ours = SEAL_KEY in self.named or {"producer", "output_names"} <= {plan["name"] for plan in plans}
        self.seal = self.read_seal() or (EDITED if ours else None)
        constants = self.program["constant_segment"]
        self.offsets = constants["offsets"].tolist() if constants and constants["offsets"] is not None else []
        self.constants = self.segments[constants["segment_index"]] if len(self.offsets) > 1 else data[:0]

    def read_seal(self) -> str | None:
        """What edgebert's seal at the end of the file says; None where there is none."""
        if bytes(self.data[-len(SEAL) - 32 : -32]) != SEAL:
            return None
        return WHOLE if hashlib.sha256(self.data[:-32]).digest() == bytes(self.data[-32:]) else EDITED

    def segment(self, entry: flatbuffer.Table) -> memoryview:
        """The bytes of a segment."""
        start = self.base + entry["offset"]
        if start + entry["size"] > len(self.data):
            raise flatbuffer.Damage(f"a segment ends at byte {start + entry['size']} of {len(self.data)}")
        return self.data[start : start + entry["size"]]

    def array(self, tensor: flatbuffer.Table) -> np.ndarray:
        """The numbers of a constant that plain kernels read."""
        dtype, shape = np.dtype(_dtype(tensor)), tuple(map(int, tensor["sizes"]))
        start = _at(self.offsets, tensor["data_buffer_idx"])
        return np.frombuffer(self.constants, dtype, int(np.prod(shape)), start).reshape(shape)

    def name(self, tensor: flatbuffer.Table) -> str:
        """What a constant that plain kernels read is called."""
        number, told = tensor["data_buffer_idx"], (tensor["extra_tensor_info"] or {}).get("fully_qualified_name")
        named = self.metadata.get(CONSTANT_NAMES, "").split(",")
        return told or (named[number - 1] if number <= len(named) else "") or f"constant.{number}"

    def contents(self) -> Contents:
        """Read everything that is told of the file."""
        plans, metadata = self.program["execution_plan"], self.metadata
        real = [plan for plan in plans if plan["name"] not in metadata]
        if not real:
            raise flatbuffer.Damage("it has no method")
        plan = next((plan for plan in real if plan["name"] == "forward"), real[0])
        method = _Method(self, plan)
        names = {key: metadata[f"{key}_names"].split(",") for key in ("input", "output") if f"{key}_names" in metadata}
        return Contents(
            method=plan["name"],
            methods=tuple(plan["name"] for plan in real),
            seal=self.seal,
            inputs=method.specs(plan["inputs"], names.get("input", []), "input"),
            outputs=method.specs(plan["outputs"], names.get("output", []), "output"),
            kernels=tuple(method.kernels),
            nodes=tuple(method.nodes),
            macs=(method.macs[0], method.macs[1]),
            other=tuple(method.other),
            weights=tuple(method.weights.values()),
            metadata=metadata,
            rows=method.rows(plan["inputs"]),
        )

    def note(self, plan: flatbuffer.Table) -> tuple[str, str] | None:
        """A method without inputs or instructions that returns one constant."""
        steps = sum(len(chain["instructions"] or []) for chain in plan["chains"] or [])
        if len(plan["inputs"] if plan["inputs"] is not None else []) or steps or len(plan["outputs"]) != 1:
            return None
        kind, value = _at(plan["values"], plan["outputs"][0])["val"]
        return (plan["name"], str(next(iter(value.values())))) if kind in ("Int", "Bool", "Double", "String") else None


class _Method:
    """One method's values, calls and delegates."""

    def __init__(self, file: ProgramFile, plan: flatbuffer.Table) -> None:
        self.file = file
        self.values = plan["values"] or []
        self.kernels: list[str] = []
        self.nodes: list[str] = []
        self.macs = [0, 0]
        self.other: list[str] = []
        self.weights: dict[str, Weight] = {}
        self.scales: set[int] = set()
        self.steps: list[lookups.Step] = []
        for number in range(len(self.values)):
            self.check(number)
        for chain in plan["chains"] or []:
            for instruction in chain["instructions"] or []:
                kind, call = instruction["instr_args"]
                if kind == "KernelCall":
                    self.kernel(_at(plan["operators"], call["op_index"])["name"], call["args"].tolist())
                elif kind == "DelegateCall":
                    self.delegate(_at(plan["delegates"], call["delegate_index"]))
        for number in range(len(self.values)):
            if number not in self.scales:
                self.constant(number)

    def check(self, number: int) -> None:
        """A tensor's numbers are to make sense."""
        value = self.values[number]["val"]
        if value is None or value[0] != "Tensor":
            return
        tensor = value[1]
        sizes = [] if tensor["sizes"] is None else tensor["sizes"].tolist()
        order = [] if tensor["dim_order"] is None else tensor["dim_order"].tolist()
        if any(size < 0 for size in sizes) or sorted(order) != list(range(len(sizes))):
            raise flatbuffer.Damage(f"a tensor of shape {sizes} in order {order}")

    def tensor(self, number: int) -> flatbuffer.Table | None:
        """A value that is a tensor."""
        kind, value = _at(self.values, number)["val"] or ("", {})
        return value if kind == "Tensor" else None

    def constant(self, number: int, extra: int = 0) -> None:
        """Note a constant tensor as a weight."""
        tensor = self.tensor(number)
        if tensor is None or not tensor["data_buffer_idx"] or tensor["allocation_info"] is not None:
            return
        dtype, shape = _dtype(tensor), tuple(tensor["sizes"].tolist())
        size = prod(shape) * ITEM_BYTES.get(dtype, 1)
        if self.file.offsets:
            start = _at(self.file.offsets, tensor["data_buffer_idx"])
            room = len(self.file.constants)
        else:
            storage = _at(self.file.program["constant_buffer"], tensor["data_buffer_idx"])["storage"]
            start, room = 0, 0 if storage is None else storage.nbytes
        if start + size > room:
            raise flatbuffer.Damage(f"a constant ends at byte {start + size} of {room}")
        name = self.file.name(tensor)
        if dtype not in NOT_WEIGHTS:
            self.weights.setdefault(name, Weight(name, dtype, shape, size + extra))

    def kernel(self, name: str, args: list[int]) -> None:
        """Note a call of a plain kernel, and what it multiplies."""
        self.kernels.append(name)
        tensors = [self.tensor(number) for number in args]
        # The numbers are the last whole ones that a lookup takes, of which the table is the first.
        ids = next((n for n in reversed(args[1:-1]) if (t := self.tensor(n)) and "int" in _dtype(t)), None)
        if name in LOOKUPS and ids is not None and tensors[0] is not None:
            self.steps.append(lookups.Step(args, args[-1:], ids, int(tensors[0]["sizes"][0])))
        else:
            self.steps.append(lookups.Step(args[:-1], args[-1:]))
        if name in LOOKUPS and name != "aten::embedding" and tensors[0] and tensors[1]:
            scales = prod(tensors[1]["sizes"].tolist()) * ITEM_BYTES.get(_dtype(tensors[1]), 4)
            self.scales.add(args[1])
            self.constant(args[0], scales)
        out = tensors[-1]
        if name in PRODUCTS and out is not None and len(tensors) > PRODUCTS[name]:
            factor = tensors[PRODUCTS[name]]
            sizes = factor["sizes"].tolist() if factor else [1]
            summed = sizes[1:] if name == "aten::convolution" else sizes[-1:]
            self.macs[0] += prod(out["sizes"].tolist()) * prod(summed)

    def delegate(self, delegate: flatbuffer.Table) -> None:
        """Note what a delegate takes."""
        place, index = delegate["processed"]["location"], delegate["processed"]["index"]
        if delegate["id"] != BACKEND:
            self.other.append(delegate["id"])
            return
        inline = self.file.program["backend_delegate_data"] or []
        data = _at(self.file.segments, index) if place else memoryview(_at(inline, index)["data"])
        graph = Delegate(data, self.file.named, f"delegate.{index}")
        self.nodes += graph.nodes
        self.macs[1] += graph.macs
        self.weights |= graph.weights

    def rows(self, numbers: Any) -> dict[str, int]:
        """Which inputs are looked up in tables."""
        inputs = {} if numbers is None else {int(number): f"input_{i}" for i, number in enumerate(numbers)}
        return lookups.rows(inputs, self.steps)

    def specs(self, numbers: Any, names: list[str], what: str) -> tuple[Spec, ...]:
        """Names, dtypes and shapes of inputs or outputs; the axis that may vary keeps its largest size."""
        out = []
        for i, number in enumerate([] if numbers is None else numbers.tolist()):
            tensor = self.tensor(number)
            name = names[i] if i < len(names) else f"{what}_{i}"
            kind = (self.values[number]["val"] or ("none",))[0].lower()
            out.append(Spec(name, _dtype(tensor), tuple(tensor["sizes"].tolist())) if tensor else Spec(name, kind, ()))
        return tuple(out)


# Bytes of an element; of others, one.
ITEM_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "bfloat16": 2, "int16": 2}
# Plain kernels that multiply: which argument's last axis (or, of a convolution's weight, all but the first) is summed.
PRODUCTS = {
    "aten::linear": 0,
    "aten::mm": 0,
    "aten::bmm": 0,
    "aten::addmm": 1,
    "aten::matmul": 0,
    "aten::convolution": 1,
}


class Delegate:
    """One graph of XNNPACK's."""

    def __init__(self, data: memoryview, named: dict[str, memoryview], name: str) -> None:
        constants = data[:0]
        if bytes(data[4:8]) == b"XH00":
            start, size, behind = (int.from_bytes(data[a:b], "little") for a, b in ((10, 14), (14, 18), (18, 22)))
            length = int.from_bytes(data[22:30], "little")
            if start + size > len(data) or behind + length > len(data):
                raise flatbuffer.Damage("a delegate's header speaks of more bytes than it has")
            constants, data = data[behind : behind + length], data[start : start + size]
        schema = flatbuffer.delegate_schema()
        graph = flatbuffer.read(schema, data)
        kinds = {number: name.removeprefix("xnn_datatype_") for name, number in schema.enums["XNNDatatype"][1].items()}
        self.graph, self.named, self.inline, self.name = graph, named, constants, name
        self.shapes: dict[int, list[int]] = {}
        self.weights: dict[str, Weight] = {}
        for number, value in enumerate(graph["xvalues"] or []):
            kind, table = value["xvalue_union"]
            self.value(number, kind, table, kinds)
        self.nodes: list[str] = []
        self.macs = 0
        for node in graph["xnodes"] or []:
            kind, fields = node["xnode_union"]
            self.nodes.append(kind.removeprefix("XNN"))
            self.macs += self.multiplied(kind, fields)

    def value(self, number: int, kind: str, table: flatbuffer.Table, kinds: dict[int, str]) -> None:
        """Note a tensor's shape, and if it is constant, its bytes with those of its scales."""
        tensor = table if kind == "XNNTensorValue" else table["tensor_value"]
        shape = [] if tensor["dims"] is None else tensor["dims"].tolist()
        self.shapes[tensor["id_out"]] = shape
        index = tensor["constant_buffer_idx"]
        dtype, bits = XNNPACK_DTYPES.get(kinds.get(tensor["datatype"], ""), ("unknown", 8))
        if not index:
            return
        key, size = self.stored(index)
        if size and size < prod(shape) * bits // 8:
            raise flatbuffer.Damage(f"a constant of shape {shape} in {size} bytes")
        params = table["quant_params"][1] if kind != "XNNTensorValue" and table["quant_params"] else {}
        if params.get("scale_buffer_idx", 0) not in (0, 0xFFFFFFFF):
            size += self.stored(params["scale_buffer_idx"])[1]
        elif params.get("scale") is not None and np.ndim(params["scale"]):
            size += params["scale"].nbytes
        name = key or f"{self.name}.constant.{number}"
        self.weights.setdefault(name, Weight(name, dtype, tuple(shape), size))

    def stored(self, index: int) -> tuple[str, int]:
        """The name and the size of a constant's bytes, which must be there."""
        if not self.graph["constant_data"]:
            storage = _at(self.graph["constant_buffer"] or [], index)["storage"]
            return "", 0 if storage is None else storage.nbytes
        entry = _at(self.graph["constant_data"], index)
        if entry["named_key"]:
            if entry["size"] > len(self.named.get(entry["named_key"], b"")):
                raise flatbuffer.Damage(f"the constant {entry['named_key'][:80]} is not there")
        elif entry["offset"] + entry["size"] > len(self.inline):
            raise flatbuffer.Damage(f"a delegate's constant ends at byte {entry['offset'] + entry['size']}")
        return entry["named_key"] or "", int(entry["size"])

    def multiplied(self, kind: str, fields: flatbuffer.Table) -> int:
        """Multiply-accumulates of a node."""
        out = prod(self.shapes.get(fields.get("output_id", -1), [0]))
        if kind == "XNNBatchMatrixMultiply":
            return out * (self.shapes.get(fields["input1_id"]) or [0])[-1]
        if kind == "XNNFullyConnected":
            return out * (self.shapes.get(fields["filter_id"]) or [0])[-1]
        if kind in ("XNNConv2d", "XNNDepthwiseConv2d"):
            taps = fields["kernel_height"] * fields["kernel_width"]
            return int(out * taps * (fields["group_input_channels"] if kind == "XNNConv2d" else 1))
        return 0


def frame_program(program: flatbuffer.Table, segments: list[bytes], size: int) -> bytes:
    """A file's bytes: a program's tables, with the header that tells where the segments behind them start.

    Args:
        program: what `flatbuffer.write` takes; its segments count from the first byte of `segments`.
        segments: the bytes behind the tables, in pieces.
        size: of the segments, without what only ends the file.
    """
    root = flatbuffer.write(flatbuffer.program_schema(), program)
    # The header stands between the flatbuffer's magic and its tables, which moves the root by the header's length.
    header = 32
    end = len(root) + header
    base = -(-end // 128) * 128
    first = int.from_bytes(root[:4], "little") + header
    extended = b"eh00" + b"".join(n.to_bytes(w, "little") for n, w in ((32, 4), (end, 8), (base, 8), (size, 8)))
    head = first.to_bytes(4, "little") + root[4:8] + extended + root[8:]
    return b"".join((head.ljust(base, b"\0"), *segments))


# Of a graph as stock files have it, and tools know it. What it lacks beside the schema that is read, which knows older
# files too, is constants in the tables; here they are looked up.
MARK = b"XN01"


def frame_graph(graph: flatbuffer.Table) -> bytes:
    """The bytes that a delegate gets: XNNPACK's header and its graph, whose constants are looked up by name."""
    tables = flatbuffer.write(replace(flatbuffer.delegate_schema(), identifier=MARK), graph)
    size = -(-len(tables) // 16) * 16
    fields = ((30, 2), (32, 4), (len(tables), 4), (32 + size, 4), (0, 8))
    header = b"\0\0\0\0XH00" + b"".join(number.to_bytes(width, "little") for number, width in fields)
    return header.ljust(32, b"\0") + tables.ljust(size, b"\0")


def _dtype(tensor: flatbuffer.Table) -> str:
    """The dtype of a tensor of the program."""
    names = {number: name for name, number in flatbuffer.program_schema().enums["ScalarType"][1].items()}
    return DTYPES.get(names.get(tensor["scalar_type"], ""), f"type {tensor['scalar_type']}")


def _at(items: Any, number: int) -> Any:
    """An entry of a list, if it is there."""
    if items is None or not 0 <= number < len(items):
        raise flatbuffer.Damage(f"an index {number} of {0 if items is None else len(items)} entries")
    return items[number]
