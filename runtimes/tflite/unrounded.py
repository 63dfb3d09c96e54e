"""What a .tflite file's stored numbers stand for, and its graph without rounding: every integer product done in float.

Both are read from the file alone. They answer what a run of the file cannot: whether each single weight is right, and
whether the graph is, down to what 8-bit activations would hide.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.runtimes.session import Constant, Unrounded
from edgebert.runtimes.tflite.layout import ITEM_NAMES, read_layout
from edgebert.runtimes.tflite.session import TfliteSession, hushed

PACKED = {"INT4": 4, "INT8": 8, "INT32": 32}
# Operators whose second input is a weight.
PRODUCTS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")


def constants(path: Path) -> Iterator[Constant]:
    """Every float or packed constant of a file that edgebert made, shared ones once, by the name it has there."""
    file = _File(path)
    done: set[int] = set()
    for graph in file.model.subgraphs:
        named = {tensor.name.decode(): tensor for tensor in graph.tensors}
        # Where a table is an output layer's weight too, that one has the scale of each row with it.
        for tensor in sorted(graph.tensors, key=lambda tensor: -len(_scales(tensor))):
            name = tensor.name.decode()
            if tensor.buffer in done or file.data(tensor) is None or name.endswith("/scales"):
                continue
            blocks = getattr(tensor.quantization, "details", None) is not None
            if ITEM_NAMES[tensor.type] in ("FLOAT32", "FLOAT16") or blocks or len(_scales(tensor)):
                done.add(tensor.buffer)
                yield file.constant(graph, tensor, named.get(f"{name}/scales"))


def open_unrounded(path: Path) -> tuple[Unrounded, ...]:
    """The file's graph with all arithmetic in float32, made in memory; the file is not touched."""
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert.interpreter import Interpreter

    layout, file = read_layout(path), _File(path)
    for graph in file.model.subgraphs:
        _Rewrite(file, graph).run()
    file.model.metadata = []  # an ARM core would compute in half precision else
    builder = flatbuffers.Builder(1024)
    builder.Finish(file.model.Pack(builder), file_identifier=b"TFL3")
    with hushed():
        interpreter = Interpreter(model_content=bytes(builder.Output()), num_threads=1)
    return (Unrounded(TfliteSession(path, layout, interpreter).run),)


def _scales(tensor: Any) -> np.ndarray:
    """A tensor's scales in its quantization; empty where it has none there."""
    found = getattr(tensor.quantization, "scale", None)
    return np.zeros(0, np.float32) if found is None else np.asarray(found, np.float32)


class _File:
    """A flatbuffer as objects, and what its tensors hold."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model: Any = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        self.names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}

    def data(self, tensor: Any) -> np.ndarray | None:
        """A constant's bytes; None for what is computed."""
        found: np.ndarray | None = self.model.buffers[tensor.buffer].data
        return None if found is None or not len(found) else found

    def constant(self, graph: Any, tensor: Any, rows: Any = None) -> Constant:
        """The numbers that a constant stands for; `rows` are a table's scales where they stand apart."""
        kind, shape, data = ITEM_NAMES[tensor.type], tuple(map(int, tensor.shape)), self.data(tensor)
        assert data is not None
        name = tensor.name.decode()
        if kind in ("FLOAT32", "FLOAT16"):
            stored = data.view(kind.lower()).reshape(shape)
            step = np.spacing(np.abs(stored)) if kind == "FLOAT16" else np.zeros(1)
            return Constant(name, stored.astype(np.float32), step.astype(np.float32), 8 * stored.itemsize)
        step = self.steps(graph, tensor, shape)
        if rows is not None and len(_scales(tensor)) == 1:
            held = self.data(rows)
            assert held is not None
            step = step.reshape(-1)[0] * held.view(np.float32).reshape(-1, *(1,) * (len(shape) - 1))
        whole = _nibbles(data) if kind == "INT4" else data.view(kind.lower())
        return Constant(name, whole.reshape(shape) * step, step, PACKED[kind])

    def steps(self, graph: Any, tensor: Any, shape: tuple[int, ...]) -> np.ndarray:
        """A packed constant's steps, of a shape that broadcasts against it."""
        details = getattr(tensor.quantization, "details", None)
        if details is not None:
            held = self.data(graph.tensors[details.scales])
            assert held is not None
            return np.repeat(held.view(np.float16).reshape(shape[0], -1).astype(np.float32), details.blockSize, 1)
        scales, axes = _scales(tensor), [1] * len(shape)
        axes[tensor.quantization.quantizedDimension] = len(scales)
        return scales.reshape(axes)


def _nibbles(data: np.ndarray) -> np.ndarray:
    """Numbers of four bits, the first of two in the low half of a byte, as int8."""
    pairs = np.stack([data & 15, data >> 4], -1).reshape(-1).astype(np.int8)
    return (pairs ^ 8) - 8


class _Rewrite:
    """One pass over a subgraph's operators, each replaced by what it computes in float."""

    def __init__(self, file: _File, graph: Any) -> None:
        self.file, self.graph, self.schema = file, graph, file.schema
        self.same: dict[int, int] = {}  # a rounded tensor to what it was before
        self.made: dict[int, int] = {}  # a stored weight to the same in float
        self.operators: list[Any] = []

    def run(self) -> None:
        """Rewrite the subgraph and what leaves it."""
        for operator in self.graph.operators:
            operator.inputs = [self.same.get(int(number), int(number)) for number in operator.inputs]
            name = self.file.names[self.file.model.operatorCodes[operator.opcodeIndex].builtinCode]
            entry = int(operator.inputs[0])
            if name == "QUANTIZE" or (name == "DEQUANTIZE" and self.computed(entry)):
                self.same[int(operator.outputs[0])] = entry
                continue
            if name in PRODUCTS:
                self.product(operator)
            self.operators.append(operator)
        self.graph.operators = self.operators
        self.graph.outputs = [self.same.get(int(number), int(number)) for number in self.graph.outputs]
        for signature in self.file.model.signatureDefs:
            if self.file.model.subgraphs[signature.subgraphIndex] is self.graph:
                for entry in signature.outputs:
                    entry.tensorIndex = self.same.get(entry.tensorIndex, entry.tensorIndex)

    def computed(self, number: int) -> bool:
        """Whether a tensor is a product's that was rounded, and is float now."""
        return bool(self.graph.tensors[number].type == self.schema.TensorType.FLOAT32)

    def product(self, operator: Any) -> None:
        """Give a product its weight and bias in float, and let its result be float."""
        operator.inputs = [
            self.floats(number) if place and number >= 0 else number for place, number in enumerate(operator.inputs)
        ]
        result = self.graph.tensors[int(operator.outputs[0])]
        result.type, result.quantization = self.schema.TensorType.FLOAT32, None

    def floats(self, number: int) -> int:
        """A constant in float; 8 bits by an operator, so that a large file needs no more memory than it has."""
        tensor = self.graph.tensors[number]
        if ITEM_NAMES[tensor.type] not in PACKED:
            return number
        if number not in self.made:
            made = self.schema.TensorT()
            made.name, made.shape, made.hasRank = tensor.name + b"/float", tensor.shape, True
            made.type, made.buffer = self.schema.TensorType.FLOAT32, 0
            self.graph.tensors.append(made)
            self.made[number] = len(self.graph.tensors) - 1
            if ITEM_NAMES[tensor.type] == "INT8":
                self.unpack(number, self.made[number])
            else:
                buffer = self.schema.BufferT()
                buffer.data = (
                    self.file.constant(self.graph, tensor).values.astype(np.float32).reshape(-1).view(np.uint8)
                )
                self.file.model.buffers.append(buffer)
                made.buffer = len(self.file.model.buffers) - 1
        return self.made[number]

    def unpack(self, number: int, made: int) -> None:
        """An operator that makes floats of a constant of 8 bits."""
        code = self.schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = self.schema.BuiltinOperator.DEQUANTIZE
        code.version = 5
        self.file.model.operatorCodes.append(code)
        operator = self.schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = (
            len(self.file.model.operatorCodes) - 1,
            [number],
            [made],
        )
        self.operators.append(operator)
