"""Weights written into a drafted graph in the form that a recipe gives them, with the operators that this takes.

What XNNPACK, the runtime's delegate, does with each form:
- `int8` or `int4` beside float activations: it quantizes an activation as it comes, with a scale for each token in a
  fully connected layer, for each entry of the batch in a convolution. Int8 is always a convolution, see `convolve`.
- unpacked by a DEQUANTIZE operator: it does that once, on load, and multiplies in float.
- between QUANTIZE and DEQUANTIZE operators: it multiplies integers by scales that the file gives.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from edgebert.exporters.tflite.draft import Draft, Source
from edgebert.exporters.tflite.ranges import Range, Ranges
from edgebert.exporters.tflite.versions import VERSIONS, raise_release
from edgebert.lowering.distances import DISTANCE_KEYS, DISTANCE_QUERIES
from edgebert.quantization.gptq import Rounded
from edgebert.quantization.integers import by_row
from edgebert.runtimes.tflite.layout import ITEM_NAMES

BLOCK = 32  # weights that share a scale in four bits, where a row divides into such blocks


@dataclass(frozen=True, slots=True)
class Form:
    """How an operator's weight is stored, and how it meets the activations.

    Attributes:
        bits: 4, 8 or 16 (float).
        unpacked: whether an operator before it turns the weight into float32.
        static: whether activations around the operator are integers with scales from samples.
    """

    bits: int
    unpacked: bool = False
    static: bool = False


INT8 = Form(8)
UNPACKED = Form(8, unpacked=True)
HALF = Form(16, unpacked=True)

# Positions are not looked up: what adds them reads the table's first rows.
POSITIONS, ROWS = "encoder.embeddings.position.weight", "ADD"

# What every recipe in integers has. XNNPACK has no depthwise kernel for int8 weights and float inputs, and looks
# nothing up: tables stay with the interpreter, which copies rows of int8, see `_Writer.gather`. In four bits a table
# costs more than it saves: every error in it reaches all layers.
WHOLE = {"DEPTHWISE_CONV_2D": UNPACKED, "EMBEDDING_LOOKUP": INT8, ROWS: UNPACKED}

# Operators whose second input is a weight, and the one that adds positions, by recipe.
FORMS: dict[str, dict[str, Form]] = {
    "fp32": {},
    "fp16": dict.fromkeys(("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "EMBEDDING_LOOKUP", ROWS), HALF),
    "w8": {"FULLY_CONNECTED": UNPACKED} | WHOLE,
    "w8a8-dynamic": {"FULLY_CONNECTED": INT8, "CONV_2D": INT8} | WHOLE,
    "w8a8-static": {"FULLY_CONNECTED": Form(8, static=True)} | WHOLE,
    "w4a8-dynamic": {"FULLY_CONNECTED": Form(4)} | WHOLE,
}

# Operators that multiply with their second input or look it up.
WEIGHTED = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "EMBEDDING_LOOKUP", "FULLY_CONNECTED")

# Operators that do not work without options; the defaults are what is meant.
OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "GATHER": "GatherOptions",
    "MUL": "MulOptions",
    "SLICE": "SliceOptions",
}

# The axis of a weight that has a scale for each entry, where it is not the first.
CHANNELS = {"DEPTHWISE_CONV_2D": 3}


def write_weights(
    draft: Draft,
    recipe: str,
    parameters: Mapping[str, Tensor],
    floats: set[str],
    ranges: Ranges,
    rounded: Mapping[str, Rounded],
) -> None:
    """Fill a draft's buffers.

    Args:
        draft: the graph; it is changed.
        recipe: a key of FORMS.
        parameters: the lowered model's, by name.
        floats: those of them that are to stay float32.
        ranges: for a static recipe, those of each linear layer's input and output, by its weight's name.
        rounded: weights that are chosen already, by name; others that go into four bits are rounded to the nearest.

    Raises:
        RuntimeError: an operator's weight was not recognized, and would stay float.
    """
    writer = _Writer(draft, FORMS[recipe], parameters, floats, ranges, rounded)
    for graph in draft.model.subgraphs:
        writer.rewrite(graph)
    raise_release(draft.model, writer.names)
    for number, source in draft.sources.items():
        if number not in writer.stored:
            draft.model.buffers[number].data = _bytes(source.take(parameters[source.name]))


class _Writer:
    """One pass over the operators of all lengths."""

    def __init__(
        self,
        draft: Draft,
        forms: dict[str, Form],
        parameters: Mapping[str, Tensor],
        floats: set[str],
        ranges: Ranges,
        rounded: Mapping[str, Rounded],
    ) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.draft, self.forms, self.parameters, self.ranges = draft, forms, parameters, ranges
        # What distances mean is multiplied with, and is in no form that an operator takes beside floats.
        tables = {name for name in parameters if name.endswith((DISTANCE_KEYS, DISTANCE_QUERIES))}
        self.floats = floats | tables
        self.rounded = rounded
        self.names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        # What became of a buffer: its tensor type, its quantization, and the buffer of its blocks' scales.
        self.stored: dict[int, tuple[int, Any, int | None]] = {}
        self.largest: dict[int, int] = {}  # the buffer of a table to that of its rows' largest numbers
        self.tables = {
            graph.tensors[operator.inputs[1]].buffer
            for graph in draft.model.subgraphs
            for operator in graph.operators
            if self.name(operator) == "EMBEDDING_LOOKUP"
        }

    def name(self, operator: Any) -> str:
        """An operator's name."""
        return str(self.names[self.draft.model.operatorCodes[operator.opcodeIndex].builtinCode])

    def rewrite(self, graph: Any) -> None:
        """Give one length's operators their weights."""
        self.graph = graph
        self.made: dict[tuple[int, str], int] = {}  # tensors that stand for others: unpacked, or as integers
        self.added: list[Any] = []
        self.joined: list[Any] = []  # operators that others have taken over
        for operator in graph.operators:
            if any(operator is one for one in self.joined):
                continue
            name = self.name(operator)
            if name == ROWS and ROWS in self.forms:
                self.rows(operator)
            weight = graph.tensors[operator.inputs[1]] if name in WEIGHTED else None
            source = self.draft.sources.get(weight.buffer) if weight is not None else None
            if (
                weight is not None
                and self.forms
                and not (source and self.stays(name, source))
                and self.constant(weight)
            ):
                raise RuntimeError(f"{name} has a weight that was left in float: {weight.name.decode()}.")
            if source is None or not self.forms or source.name in self.floats:
                self.added.append(operator)
            else:
                self.give(operator, name, source)
        graph.operators = self.added

    def stays(self, name: str, source: Source) -> bool:
        """Whether it is settled what becomes of an operator's weight: a form, or that it stays float."""
        return name in self.forms or source.name in self.floats

    def constant(self, tensor: Any) -> bool:
        """Whether a tensor's numbers stand in the file."""
        return tensor.buffer in self.draft.sources or self.draft.model.buffers[tensor.buffer].data is not None

    def give(self, operator: Any, name: str, source: Source) -> None:
        """Store an operator's weight in its form, and put the operator into the graph."""
        # Where positions are looked up, see `lowering/packed.py`, they are the numbers that are added elsewhere.
        form, weight = self.forms[ROWS if source.name == POSITIONS else name], int(operator.inputs[1])
        self.store(weight, form.bits, CHANNELS.get(name, 0), source)
        operator.inputs = [int(tensor) for tensor in operator.inputs]
        operator.outputs = [int(tensor) for tensor in operator.outputs]
        if form.unpacked:
            # One for each reader: a delegate unpacks what it reads itself, the interpreter what a lookup reads.
            operator.inputs[1] = self.unpacked(weight, name)
        if name == "EMBEDDING_LOOKUP" and form == INT8:
            self.gather(operator, source.name)
        elif form.static and source.name in self.ranges:
            self.static(operator, self.ranges[source.name])
        elif name == "FULLY_CONNECTED" and self.kinds(operator) == ("FLOAT32", "INT8"):
            self.convolve(operator, source.name)
        else:
            self.added.append(operator)
        self.settle(operator, name)

    def kinds(self, operator: Any) -> tuple[str, str]:
        """The types of an operator's input and weight."""
        entry, weight = (ITEM_NAMES[self.graph.tensors[tensor].type] for tensor in operator.inputs[:2])
        return entry, weight

    def settle(self, operator: Any, name: str) -> None:
        """Give an operator the version that its types ask for, where that is a later one than it has."""
        code = self.draft.model.operatorCodes[operator.opcodeIndex]
        asked = VERSIONS.get((name, *self.kinds(operator)), 1)
        if code.version < asked:
            operator.opcodeIndex = self.code(name, asked)

    def rows(self, operator: Any) -> None:
        """Where an operator adds rows of positions, store their table, once for all lengths, and take its first."""
        for place, number in enumerate(map(int, operator.inputs)):
            tensor = self.graph.tensors[number]
            source = self.draft.sources.get(tensor.buffer)
            if source is None or source.name != POSITIONS or source.name in self.floats:
                continue
            del self.draft.sources[tensor.buffer]
            whole = Source(source.name, (0, 1), tuple(self.parameters[source.name].shape))
            tensor.buffer, tensor.shape = self.draft.constant(whole), np.array(whole.shape, np.int32)
            self.store(number, self.forms[ROWS].bits, 0, whole)
            made, taken = self.unpacked(number, ROWS), source.shape[-2]
            if taken < whole.shape[0]:
                cut = self.tensor(f"{source.name}/first", "FLOAT32", (taken, whole.shape[1]))
                self.operator("SLICE", 1, [made, self.integers(0, 0), self.integers(taken, whole.shape[1])], cut)
                made = cut
            operator.inputs = [int(entry) for entry in operator.inputs]
            operator.inputs[place] = made

    def integers(self, *numbers: int) -> int:
        """A constant vector of integers."""
        buffer = self.draft.buffer(np.array(numbers, np.int32))
        return self.tensor("numbers", "INT32", (len(numbers),), buffer)

    def store(self, weight: int, bits: int, axis: int, source: Source) -> None:
        """Store a weight's numbers once for all lengths; `weight` is a tensor of this one."""
        tensor = self.graph.tensors[weight]
        if tensor.buffer not in self.stored:
            floats = source.take(self.parameters[source.name])
            self.stored[tensor.buffer] = self.packed(tensor, source.name, floats, bits, axis)
        tensor.type, quantization, scales = self.stored[tensor.buffer]
        tensor.quantization = quantization
        if scales is not None:
            tensor.quantization = copy.copy(quantization)
            tensor.quantization.details = copy.copy(quantization.details)
            rows, inputs = source.shape
            shape = (rows, inputs // quantization.details.blockSize)
            tensor.quantization.details.scales = self.tensor(f"{source.name}/scales", "FLOAT16", shape, scales)

    def packed(self, tensor: Any, name: str, floats: np.ndarray, bits: int, axis: int) -> tuple[int, Any, int | None]:
        """Fill a tensor's buffer; its new type, quantization, and the buffer with scales of blocks."""
        schema, buffer = self.schema, self.draft.model.buffers[tensor.buffer]
        if bits == 16:
            buffer.data = _bytes(floats.astype(np.float16))
            return schema.TensorType.FLOAT16, None, None
        quantization = schema.QuantizationParametersT()
        quantization.quantizedDimension = axis
        if bits == 4 and tensor.buffer not in self.tables and floats.ndim == 2 and floats.shape[1] % 2 == 0:
            rounded = self.rounded.get(name) or nearest(floats)
            buffer.data = _nibbles(rounded.integers)
            if rounded.scales.shape[1] == 1:
                _channels(quantization, rounded.scales[:, 0])
                return schema.TensorType.INT4, quantization, None
            quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
            quantization.details = schema.BlockwiseQuantizationT()
            quantization.details.blockSize = rounded.group
            quantization.details.zeroPoints = -1
            # The runtime makes bfloat16 of them, and reads float16.
            scales = self.draft.buffer(rounded.scales.astype(np.float16))
            self.draft.scales[scales] = name
            return schema.TensorType.INT4, quantization, scales
        integers, scale = eight_bits(floats, axis)
        buffer.data = _bytes(integers)
        _channels(quantization, scale)
        return schema.TensorType.INT8, quantization, None

    def unpacked(self, weight: int, reader: str) -> int:
        """A float tensor made of a stored weight when the file is loaded."""
        if (weight, reader) not in self.made:
            packed = self.graph.tensors[weight]
            name = packed.name.decode() + "/unpacked"
            self.made[weight, reader] = made = self.tensor(name, "FLOAT32", tuple(map(int, packed.shape)))
            self.operator("DEQUANTIZE", 3 if packed.type == self.schema.TensorType.FLOAT16 else 5, [weight], made)
        return self.made[weight, reader]

    def gather(self, lookup: Any, parameter: str) -> None:
        """Look up rows of integers and the largest number of each, and multiply, in place of a lookup that does both.

        The interpreter's lookup takes 13 instructions a number; a gather copies bytes, and the rest is XNNPACK's.
        SqueezeBERT-base's classifier in int8 at 128 tokens takes 367.8 M instructions, 371.5 M without it.
        """
        (ids, weight), (result,) = lookup.inputs, lookup.outputs
        table, shape = self.graph.tensors[weight], tuple(map(int, self.graph.tensors[result].shape))
        if table.buffer not in self.largest:
            self.largest[table.buffer] = self.draft.buffer(table.quantization.scale[:, None] * np.float32(127))
            self.draft.scales[self.largest[table.buffer]] = parameter
        if sum(weight in operator.inputs for operator in self.graph.operators) > 1:  # an output layer's weight as well
            weight = self.tensor(parameter, "INT8", tuple(map(int, table.shape)), table.buffer)
        rows, within_one = (self.tensor(f"{parameter}/rows", kind, shape) for kind in ("INT8", "FLOAT32"))
        scales = self.tensor(f"{parameter}/scales", "FLOAT32", (int(table.shape[0]), 1), self.largest[table.buffer])
        scale = self.tensor(f"{parameter}/scale", "FLOAT32", (shape[0], 1))
        for tensor in (weight, rows):
            self.graph.tensors[tensor].quantization = self.schema.QuantizationParametersT()
            _channels(self.graph.tensors[tensor].quantization, np.array([1 / 127]))
        self.operator("GATHER", 2, [weight, ids], rows)
        self.operator("DEQUANTIZE", 2, [rows], within_one)
        self.operator("GATHER", 1, [scales, ids], scale)
        self.operator("MUL", 1, [within_one, scale], result)

    def static(self, operator: Any, ranges: tuple[Range, Range]) -> None:
        """Let a linear layer take and give int8: its input quantized before it, its output made float after it."""
        entry, result = operator.inputs[0], operator.outputs[0]
        if (entry, "int8") not in self.made:
            self.made[entry, "int8"] = self.int8_like(entry, ranges[0])
            self.operator("QUANTIZE", 1, [entry], self.made[entry, "int8"])
        operator.inputs[0] = self.made[entry, "int8"]
        operator.outputs[0] = self.int8_like(result, ranges[1])
        if len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            self.integer_bias(operator)
        self.added.append(operator)
        self.operator("DEQUANTIZE", 2, [operator.outputs[0]], result)

    def convolve(self, linear: Any, parameter: str) -> None:
        """Multiply by a convolution, with each token as an entry of its batch, in place of a fully connected layer.

        XNNPACK makes a fully connected layer of it again. The runtimes before it had an int8 one with a scale for each
        output take the layer and answer with constants (TensorFlow Lite 2.14 and 2.15), but have that convolution. It
        has a bias, so that the addition after the layer goes: SqueezeBERT-base for masked-lm at 32 tokens takes 150.1 M
        instructions on a Cortex-A76, and took 151.1 M; the embedded default 7.43 M as before.
        """
        (entry, weight), (result,) = linear.inputs[:2], linear.outputs
        packed = self.graph.tensors[weight]
        outputs, inputs = int(packed.shape[0]), int(packed.shape[-1])
        packed.shape = np.array((outputs, 1, 1, inputs), np.int32)
        activation = linear.builtinOptions.fusedActivationFunction
        bias = linear.inputs[2] if len(linear.inputs) > 2 else -1
        if bias < 0 and not activation and (add := self.bias_after(result, outputs)):
            self.joined.append(add)
            bias = next(tensor for tensor in map(int, add.inputs) if tensor != result)
            result, activation = int(add.outputs[0]), add.builtinOptions.fusedActivationFunction
        if bias < 0:
            zeros = self.draft.buffer(np.zeros(outputs, np.float32))
            bias = self.tensor("zeros", "FLOAT32", (outputs,), zeros)
        shape = tuple(map(int, self.graph.tensors[result].shape))
        rows = int(np.prod(shape)) // outputs
        tokens = self.tensor(f"{parameter}/tokens", "FLOAT32", (rows, 1, 1, inputs))
        product = self.tensor(f"{parameter}/product", "FLOAT32", (rows, 1, 1, outputs))
        self.operator("RESHAPE", 1, [entry, self.integers(rows, 1, 1, inputs)], tokens)
        self.operator("CONV_2D", 5, [tokens, weight, bias], product)
        options = self.added[-1].builtinOptions
        options.padding, options.fusedActivationFunction = self.schema.Padding.VALID, activation
        options.strideW = options.strideH = options.dilationWFactor = options.dilationHFactor = 1
        self.operator("RESHAPE", 1, [product, self.integers(*shape)], result)

    def bias_after(self, result: int, outputs: int) -> Any:
        """The operator that adds a constant vector to a layer's result, where nothing else reads that; else None."""
        readers = [operator for operator in self.graph.operators if result in operator.inputs]
        if len(readers) != 1 or self.name(readers[0]) != "ADD" or result in self.graph.outputs:
            return None
        other = next((self.graph.tensors[tensor] for tensor in readers[0].inputs if tensor != result), None)
        vector = other is not None and tuple(other.shape) == (outputs,) and self.constant(other)
        return readers[0] if vector else None

    def int8_like(self, tensor: int, span: Range) -> int:
        """An int8 tensor of another's shape, with a scale for the range."""
        like = self.graph.tensors[tensor]
        made = self.tensor(like.name.decode() + "/int8", "INT8", tuple(map(int, like.shape)))
        scale, zero = span.scale()
        quantization = self.schema.QuantizationParametersT()
        quantization.scale, quantization.zeroPoint = np.array([scale], np.float32), np.array([zero], np.int64)
        self.graph.tensors[made].quantization = quantization
        return made

    def integer_bias(self, operator: Any) -> None:
        """Make a static layer's bias int32, in units of its input's scale times its weight's."""
        entry, weight, bias = (self.graph.tensors[tensor] for tensor in operator.inputs[:3])
        if bias.buffer not in self.stored:
            source = self.draft.sources[bias.buffer]
            scale = entry.quantization.scale[0] * weight.quantization.scale
            quantization = self.schema.QuantizationParametersT()
            _channels(quantization, scale)
            limit = 2**30
            whole = np.clip(
                np.rint(source.take(self.parameters[source.name]) / scale.astype(np.float64)), -limit, limit
            )
            self.draft.model.buffers[bias.buffer].data = _bytes(whole.astype(np.int32))
            self.stored[bias.buffer] = (self.schema.TensorType.INT32, quantization, None)
        bias.type, bias.quantization, _ = self.stored[bias.buffer]

    def tensor(self, name: str, kind: str, shape: tuple[int, ...], buffer: int = 0) -> int:
        """A new tensor; buffer 0 is the empty one."""
        made = self.schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), np.array(shape, np.int32), buffer
        made.type = getattr(self.schema.TensorType, kind)
        made.hasRank = True
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, version: int, entries: list[int], result: int) -> None:
        """Put an operator with one output into the graph."""
        made = self.schema.OperatorT()
        made.opcodeIndex = self.code(name, version)
        made.inputs, made.outputs = entries, [result]
        if name in OPTIONS:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, OPTIONS[name])
            made.builtinOptions = getattr(self.schema, f"{OPTIONS[name]}T")()
        self.added.append(made)

    def code(self, name: str, version: int) -> int:
        """The number of an operator's code in the file."""
        codes, wanted = self.draft.model.operatorCodes, getattr(self.schema.BuiltinOperator, name)
        for number, code in enumerate(codes):
            if (code.builtinCode, code.version) == (wanted, version):
                return number
        made = self.schema.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = wanted
        made.version = version
        codes.append(made)
        return len(codes) - 1


def eight_bits(weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Round a weight to int8 from -127 to 127, with a scale for each entry of an axis."""
    front = np.moveaxis(weight, axis, 0)
    integers, scales = by_row(front.reshape(len(front), -1))
    return np.moveaxis(integers.reshape(front.shape), 0, axis), scales[:, 0]


def block(inputs: int) -> int:
    """How many neighbours in a row of `inputs` weights share a scale in four bits: 32, or all."""
    return BLOCK if inputs % BLOCK == 0 and inputs > BLOCK else inputs


def nearest(weight: np.ndarray) -> Rounded:
    """Round a matrix (outputs, inputs) to four bits, each weight for itself.

    Of several scales for a block the one with the smallest squared error is taken, which cuts off its extremes.
    """
    rows, inputs = weight.shape
    blocks = weight.reshape(rows, -1, block(inputs))
    largest = np.maximum(np.abs(blocks).max(-1, keepdims=True), np.finfo(np.float32).tiny)
    best = np.full(largest.shape, np.inf, np.float32)
    scales = largest / 7
    for cut in np.linspace(0.7, 1.15, 10, dtype=np.float32):
        scale = largest * cut / 7
        error = ((np.clip(np.rint(blocks / scale), -8, 7) * scale - blocks) ** 2).sum(-1, keepdims=True)
        scales = np.where(error < best, scale, scales)
        best = np.minimum(error, best)
    integers = np.clip(np.rint(blocks / scales), -8, 7).astype(np.int8)
    return Rounded(integers.reshape(rows, inputs), scales[..., 0].astype(np.float32), block(inputs))


def _nibbles(integers: np.ndarray) -> np.ndarray:
    """Pack int4 numbers, the first of two in the low half of a byte."""
    pairs = integers.reshape(-1, 2).view(np.uint8) & 15
    return pairs[:, 0] | (pairs[:, 1] << 4)


def _channels(quantization: Any, scale: np.ndarray) -> None:
    """Give a quantization a scale for each channel, around zero."""
    quantization.scale, quantization.zeroPoint = scale.astype(np.float32), np.zeros(len(scale), np.int64)


def _bytes(array: np.ndarray) -> np.ndarray:
    """An array's bytes, a view where they are in order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
