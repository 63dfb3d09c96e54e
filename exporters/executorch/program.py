"""A .pte file around one XNNPACK graph: a program of few plain kernels, the constants, and a seal.

The program's kernels look ids up in tables, cast the mask and count tokens; then they call the delegate. Constants that
both sides read (a word table tied to the decoder) are stored once: a segment of the file may lie within another.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgebert.exporters.executorch.graph import TOKENS, Graph
from edgebert.exporters.executorch.translate import Feed
from edgebert.exporters.executorch.weights import Shape, Weights
from edgebert.models.signature import INPUTS
from edgebert.runtimes.executorch import flatbuffer
from edgebert.runtimes.executorch.program import CONSTANT_NAMES, SEAL, SEAL_KEY, frame_program

SCALAR_TYPES = {"|i1": "CHAR", "<i4": "INT", "<i8": "LONG", "<f4": "FLOAT"}
ALIGNMENT = 64
# Kernels whose result is a number.
NUMBERS = ("int", "Scalar")
# What a program's memory is laid out to: https://docs.pytorch.org/executorch/stable/compiler-memory-planning.html
MEMORY_ALIGNMENT = 16


@dataclass(slots=True)
class Program:
    """A program under construction: its values, its kernel calls, and the memory its tensors take.

    Attributes:
        longest: size of the token axis that memory is planned for.
        tokens: size of the token axis; -1 where it is free.
        values: what `flatbuffer.write` takes.
        calls: likewise.
        operators: operator to its number.
        memory: bytes planned so far.
        constants: name to array, in the order of the file.
    """

    longest: int
    tokens: int = -1
    values: list[flatbuffer.Table] = field(default_factory=list)
    calls: list[flatbuffer.Table] = field(default_factory=list)
    operators: dict[tuple[str, str], int] = field(default_factory=dict)
    memory: int = 0
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, kind: str, **fields: Any) -> int:
        """A value that is no tensor; gives its number."""
        self.values.append({"val": (kind, fields)})
        return len(self.values) - 1

    def tensor(self, shape: Shape, dtype: str, name: str = "", array: np.ndarray | None = None) -> int:
        """A tensor: planned into memory, or a constant under a name."""
        sizes = [self.longest if size < 0 else size for size in shape]
        fields: flatbuffer.Table = {
            "scalar_type": SCALAR_TYPES[np.dtype(dtype).str],
            "sizes": sizes,
            "dim_order": list(range(len(sizes))),
            "shape_dynamism": "DYNAMIC_BOUND" if -1 in shape else "STATIC",
        }
        if array is not None:
            self.constants.setdefault(name, array)
            fields["data_buffer_idx"] = list(self.constants).index(name) + 1
        else:
            size = int(np.prod(sizes)) * np.dtype(dtype).itemsize
            low, high = self.memory & 0xFFFFFFFF, self.memory >> 32
            fields["allocation_info"] = {"memory_id": 1, "memory_offset_low": low, "memory_offset_high": high}
            self.memory += -(-size // MEMORY_ALIGNMENT) * MEMORY_ALIGNMENT
        return self.add("Tensor", **fields)

    def call(self, name: str, overload: str, *arguments: int) -> None:
        """Call a kernel; the last argument is its result, which the format names twice where it is a tensor."""
        number = self.operators.setdefault((name, overload), len(self.operators))
        args = list(arguments) if overload in NUMBERS else [*arguments, arguments[-1]]
        self.calls.append({"instr_args": ("KernelCall", {"op_index": number, "args": args})})


@dataclass(frozen=True, slots=True)
class Method:
    """An entry point of a file.

    Attributes:
        graph: what XNNPACK runs.
        feeds: its inputs, in order.
        outputs: name to shape, float32, with TOKENS.
        tokens: size of that axis; TOKENS where it is free. Where the graph takes whole blocks alone, the last is
            filled up.
    """

    graph: Graph
    feeds: list[Feed]
    outputs: dict[str, Shape]
    tokens: int = -1


def assemble(
    methods: dict[str, Method], tables: dict[str, Weights], pairs: dict[str, np.ndarray], notes: dict[str, str | int]
) -> bytes:
    """The bytes of a .pte file.

    Args:
        methods: by their names; all share constants by theirs.
        tables: the tables that feeds look into, float32 or int8 with a scale for each row.
        pairs: what stands for each pair of tokens, int32 (longest, longest) or more.
        notes: what the file says of itself; each becomes a method that returns it.
    """
    constants: dict[str, np.ndarray] = {}
    plans = [
        _plan(name, index, method, Program(method.graph.longest, method.tokens, constants=constants), tables, pairs)
        for index, (name, method) in enumerate(methods.items(), 1)
    ]
    # Their names stand together and not at each tensor, where Netron does not open a file that has them.
    notes = notes | {CONSTANT_NAMES: ",".join(constants)}
    plans += [_note(name, value) for name, value in notes.items()]
    return _lay_out(plans, constants, [method.graph for method in methods.values()])


def _plan(
    name: str, segment: int, method: Method, program: Program, tables: dict[str, Weights], pairs: dict[str, np.ndarray]
) -> flatbuffer.Table:
    """A method that feeds the graph in a segment of the file."""
    places = {name: program.tensor((1, program.tokens), "<i4") for name in INPUTS}
    kernels = _Kernels(program, places, method.graph.block)
    arguments = [kernels.feed(feed, tables, pairs) for feed in method.feeds]
    made = [program.tensor(shape, "<f4") for shape in method.outputs.values()]
    program.calls.append({"instr_args": ("DelegateCall", {"delegate_index": 0, "args": [*arguments, *made]})})
    results = [kernels.unfilled(place, shape) for place, shape in zip(made, method.outputs.values(), strict=True)]
    delegate = {"id": "XnnpackBackend", "processed": {"location": "SEGMENT", "index": segment}, "compile_specs": []}
    return {
        "name": name,
        "container_meta_type": {"encoded_inp_str": "", "encoded_out_str": ""},
        "values": program.values,
        "inputs": list(places.values()),
        "outputs": results,
        "chains": [{"inputs": [], "outputs": [], "instructions": program.calls}],
        "operators": [{"name": name, "overload": overload} for name, overload in program.operators],
        "delegates": [delegate],
        "non_const_buffer_sizes": [0, program.memory],
    }


class _Kernels:
    """Calls of plain kernels that compute a graph's inputs, in a program under construction."""

    def __init__(self, program: Program, places: dict[str, int], block: int = 0) -> None:
        """Take the number of tokens from the program's inputs, `places`; fill them up to whole blocks, if there are."""
        self.program, self.places, self.block = program, places, block
        self.false, self.null = program.add("Bool", bool_val=0), program.add("Null")
        self.numbers = [program.add("Int", int_val=number) for number in range(3)]
        self.axes = {rank: program.add("IntList", items=self.numbers[:rank]) for rank in (2, 3)}
        self.low, self.high = program.add("Int", int_val=-128), program.add("Int", int_val=127)
        self.length = program.add("Int", int_val=0)
        self.read: dict[tuple[str, str], int] = {}
        program.call("aten::sym_size", "int", places[INPUTS[0]], self.numbers[1], self.length)
        self.given = self.length
        if block:
            size, rest = program.add("Int", int_val=block), program.add("Int", int_val=block - 1)
            whole = self.reckoned("floordiv", self.reckoned("add", self.given, rest), size)
            self.length = self.reckoned("mul", whole, size)
            beyond = program.add("IntList", items=[self.numbers[0], self.reckoned("sub", self.length, self.given)])
            self.places = {name: self.filled(place, beyond) for name, place in places.items()}

    def reckoned(self, how: str, one: int, other: int) -> int:
        """A number that is reckoned from two as the program runs."""
        out = self.program.add("Int", int_val=0)
        self.program.call(f"executorch_prim::{how}", "Scalar", one, other, out)
        return out

    def filled(self, source: int, beyond: int) -> int:
        """An input with zeros behind it."""
        out = self.program.tensor((1, TOKENS), "<i4")
        self.program.call("aten::constant_pad_nd", "out", source, beyond, self.numbers[0], out)
        return out

    def unfilled(self, source: int, shape: Shape) -> int:
        """An output for the tokens that came."""
        if not self.block or TOKENS not in shape:
            return source
        return self.cut(source, shape.index(TOKENS), shape, "<f4", self.given)

    def feed(self, feed: Feed, tables: dict[str, Weights], pairs: dict[str, np.ndarray]) -> int:
        """Compute one input."""
        match feed.kind:
            case "cast":
                return self.cast(feed.source, "<f4")
            case "lookup":
                return self.look(tables[feed.table], self.cast(feed.source, "<i8"), feed.value.shape)
            case "pairs":
                return self.look(tables[feed.table], self.square(feed.source, pairs[feed.source]), feed.value.shape)
            case "count":
                return self.rows("count", np.arange(self.program.longest, dtype=np.float32))
            case "whole":
                return self.program.tensor(feed.value.shape, "<f4", feed.table, tables[feed.table].data)
        table = tables[feed.table]
        if table.scale is None:
            return self.rows(table.name, table.data)
        rows = self.rows("positions", np.arange(self.program.longest, dtype=np.int64))
        return self.look(table, rows, feed.value.shape)

    def cast(self, source: str, dtype: str) -> int:
        """One of the program's inputs as another type, once."""
        if (source, dtype) not in self.read:
            self.read[source, dtype] = self.copy(self.places[source], (1, self.program.tokens), dtype)
        return self.read[source, dtype]

    def copy(self, source: int, shape: Shape, dtype: str) -> int:
        """The same numbers as another type."""
        out = self.program.tensor(shape, dtype)
        axes = self.axes[len(shape)]
        self.program.call("dim_order_ops::_to_dim_order_copy", "out", source, self.false, axes, out)
        return out

    def rows(self, name: str, array: np.ndarray) -> int:
        """A constant's first rows, as many as there are tokens."""
        whole = self.program.tensor(array.shape, array.dtype.str, name, array)
        return self.cut(whole, 0, (self.program.tokens, *array.shape[1:]), array.dtype.str)

    def square(self, name: str, array: np.ndarray) -> int:
        """What stands for each pair of tokens in (longest, longest), int64 (1, T, T)."""
        whole = self.program.tensor((1, *array.shape), "<i4", name, array)
        tokens = self.program.tokens
        rows = self.cut(whole, 1, (1, tokens, array.shape[1]), "<i4")
        return self.copy(self.cut(rows, 2, (1, tokens, tokens), "<i4"), (1, tokens, tokens), "<i8")

    def cut(self, source: int, axis: int, shape: Shape, dtype: str, length: int | None = None) -> int:
        """The first places of an axis, as many as there are tokens, or another number that is known by then."""
        out, stop = self.program.tensor(shape, dtype), self.length if length is None else length
        one = self.numbers[1]
        self.program.call("aten::slice_copy", "Tensor_out", source, self.numbers[axis], self.null, stop, one, out)
        return out

    def look(self, table: Weights, where: int, shape: Shape) -> int:
        """Rows of a table."""
        program, false = self.program, self.false
        data = program.tensor(table.shape, table.data.dtype.str, table.name, table.data)
        out = program.tensor(shape, "<f4")
        if table.scale is None:
            program.call("aten::embedding", "out", data, where, program.add("Int", int_val=-1), false, false, out)
            return out
        scale = program.tensor(table.scale.shape, "<f4", f"{table.name}.scale", table.scale)
        bounds = (self.null, self.low, self.high)
        program.call("quantized_decomposed::embedding_byte", "out", data, scale, *bounds, where, out)
        return out


def _note(name: str, value: str | int) -> flatbuffer.Table:
    """A method without inputs that returns a constant."""
    kind = ("String", {"string_val": value}) if isinstance(value, str) else ("Int", {"int_val": value})
    return {
        "name": name,
        "container_meta_type": {"encoded_inp_str": "", "encoded_out_str": ""},
        "values": [{"val": kind}],
        "inputs": [],
        "outputs": [0],
        "chains": [{"inputs": [], "outputs": [], "instructions": []}],
        "operators": [],
        "delegates": [],
        "non_const_buffer_sizes": [0],
    }


def _lay_out(plans: list[flatbuffer.Table], constants: dict[str, np.ndarray], graphs: list[Graph]) -> bytes:
    """Put program, constants, delegates and seal into one file."""
    where: dict[str, int] = {}
    parts: list[bytes] = []
    end = 0

    def place(data: bytes | memoryview) -> int:
        nonlocal end
        start = -(-end // ALIGNMENT) * ALIGNMENT
        parts.extend((b"\0" * (start - end), bytes(data)))
        end = start + len(data)
        return start

    for name, array in constants.items():
        where[name] = place(np.ascontiguousarray(array).data.cast("B"))
    tables = max(end, 1)
    delegates = [graph.serialize() for graph in graphs]
    segments = [(0, tables), *((place(delegate), len(delegate)) for delegate in delegates)]
    named = []
    for name, array in dict(item for graph in graphs for item in graph.constants.items()).items():
        if name not in where:
            where[name] = place(array.data.cast("B"))
        named.append({"key": name, "segment_index": len(segments)})
        segments.append((where[name], array.nbytes))
    named.append({"key": SEAL_KEY, "segment_index": len(segments)})
    segments.append((place(SEAL + bytes(32)), len(SEAL) + 32))
    root = {
        "version": 0,
        "execution_plan": plans,
        "constant_buffer": [],
        "backend_delegate_data": [],
        "segments": [{"offset": start, "size": size} for start, size in segments],
        "constant_segment": {"segment_index": 0, "offsets": [0, *(where[name] for name in constants)]},
        "named_data": named,
    }
    content = frame_program(root, parts, end)[:-32]
    return content + hashlib.sha256(content).digest()
