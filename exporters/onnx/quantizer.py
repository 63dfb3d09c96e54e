"""Rewrites a float ONNX graph into one with integer weights, in the operators that ONNX Runtime fuses or has for it.

`w8a8-dynamic`: weights int8 with a scale for each output, activations with one that is found at each call. It is
written here, and not by `onnxruntime.quantization.quantize_dynamic`: that one gives an embedding table or a convolution
one scale for all, stores a tied table twice, and writes files that fail at run time for a grouped weight with a scale a
channel. Products are ONNX Runtime's own operators. They take one scale for all tokens; where each is to have its own,
it is taken out before the product and put back after it.

`w8a8-static`: the same weights between QuantizeLinear and DequantizeLinear, activations uint8 with one scale for each
linear layer's input, clipped where that costs least over the samples.

`w4`: MatMulNBits with 4-bit weights in blocks of 32, whose arithmetic is float. Embeddings and head take 8 bits in the
same operator and in GatherBlockQuantized: in 4 bits they cost the embedded default 1.5 dB.

Weights are symmetric int8 without a zero point. On x86 without VNNI their product with unsigned activations saturates
at 16 bits (seen on an emulated Haswell: 22 dB where 35 are due). On such a machine `runtimes/onnx/session.py` sets the
option that makes it exact, `session.x64quantprecision` = `1`, and an app has to as well. It fails where two products
share a zero point tensor, hence none. Weights moved up to uint8 need no option, but take half as long again on x86 with
VNNI (122 ms, 79 without; SqueezeBERT-base at 128 tokens; 90 in fp32). ARM computes both alike, and needs no option.

Float remain biases, norms, the table of token types (two rows) and ConvBERT's depthwise kernels (0.1% of its weights).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgebert.errors import ConversionFailed
from edgebert.exporters.onnx.integers import eight_bits_in_blocks, four_bits, pack, wide_block
from edgebert.exporters.onnx.rewriter import Rewriter
from edgebert.quantization.gptq import GROUP, Rounded
from edgebert.quantization.integers import by_row as integers_by_row
from edgebert.quantization.recipes import Recipe
from edgebert.quantization.sizes import part

# Fewer rows or columns than this are left in float: token types (2 rows), depthwise kernels (9 columns).
FEW = 16

MICROSOFT = "com.microsoft"
# Float arithmetic; 4 would turn activations into 8 bits. https://github.com/microsoft/onnxruntime, ContribOperators.md
FLOAT_ARITHMETIC = 1
INTEGER_PRODUCT = "MatMulIntegerToFloat"

# Of a token with a scale of its own: the middle of its range is that share of the ends' sum, a step this share of the
# range, and no less than the last. What is left is counted in steps, from the middle of uint8 on.
OF_RANGE = {name: np.array(value, np.float32) for name, value in (("half", 0.5), ("step", 1 / 254), ("least", 1e-12))}
ONE, ZERO = np.array(1, np.float32), np.array(128, np.uint8)


class Quantizer(Rewriter):
    """Rewrites a model's float graph in place."""

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        by_token: bool,
        kept: Callable[[str], bool],
        ranges: Mapping[str, tuple[float, int]],
        rounded: Mapping[str, Rounded],
    ) -> None:
        """Prepare to rewrite.

        Args:
            model: an onnx_ir.Model whose weights carry their torch names.
            recipe: a quantized one.
            by_token: whether each token has a scale, in a dynamic recipe.
            kept: whether the weight of that name stays in float.
            ranges: path of a linear layer to scale and zero point of its input, for a static recipe.
            rounded: path of a linear layer to its weight in 4 bits; others are rounded here.
        """
        super().__init__(model)
        self.recipe = recipe
        self.by_token = by_token
        self.kept = kept
        self.ranges = ranges
        self.rounded = rounded
        self.tables = {node.inputs[0] for node in self.graph if self.looks_up(node)}
        self.activations: dict[Any, tuple[Any, ...]] = {}
        self.weights: dict[Any, tuple[Any, Any]] = {}

    def run(self) -> None:
        """Rewrite every linear layer and table.

        Raises:
            ConversionFailed: a weight is left in float.
        """
        import onnx_ir.passes.common as passes

        # Parts of a split that several layers read become one value, which is then quantized once.
        passes.CommonSubexpressionEliminationPass()(self.model)
        for node in list(self.graph):
            if self.looks_up(node):
                self.table(node)
            elif node.op_type in ("MatMul", "Gemm"):
                self.linear(node)
        if not self.by_token:
            self.join_products()
        passes.RemoveUnusedNodesPass()(self.model)
        self.graph.opset_imports[MICROSOFT] = 1
        left = [
            name
            for name, value in self.graph.initializers.items()
            if self.is_float(value) and self.is_large(value) and not self.kept(name)
        ]
        if left:
            raise ConversionFailed(f"{self.recipe.name} left {len(left)} weights in float: {', '.join(left[:5])}.")

    def is_float(self, value: Any) -> bool:
        """Whether this is a constant matrix, or an array of more dimensions, in float, and no scale."""
        constant = value is not None and value.const_value is not None and value.dtype == self.ir.DataType.FLOAT
        return constant and len(value.shape) > 1 and not value.name.endswith(".scale")

    def is_large(self, value: Any) -> bool:
        """Whether fewer bits save anything that counts."""
        return bool(min(value.shape[0], np.prod(value.shape.numpy()[1:])) >= FEW)

    def looks_up(self, node: Any) -> bool:
        """Whether the node takes rows of a large constant table: words by id, positions by a slice."""
        if node.op_type not in ("Gather", "Slice") or not self.is_float(node.inputs[0]):
            return False
        if self.kept(node.inputs[0].name):
            return False
        axis = node.attributes["axis"].value if node.op_type == "Gather" else node.inputs[3].const_value.numpy().item()
        return axis == 0 and self.is_large(node.inputs[0])

    def weight(self, source: Any, by_row: bool) -> tuple[Any, Any]:
        """The int8 form of a constant matrix and its scales.

        Args:
            source: the float matrix, (outputs, inputs) where `by_row`, else (inputs, outputs).
            by_row: whether an output is a row.

        Returns:
            The integers by output for a table, else by input, as products read them; the scales for each output.
        """
        if source not in self.weights:
            floats = source.const_value.numpy()
            integers, scales = integers_by_row(floats if by_row else floats.T)
            if source not in self.tables:
                integers, scales = np.ascontiguousarray(integers.T), scales[:, 0]
            self.weights[source] = self.stored(f"{source.name}.int8", integers, scales)
        return self.weights[source]

    def packed(self, source: Any, by_row: bool) -> tuple[Any, Any, dict[str, Any]]:
        """A constant matrix, its scales and attributes as MatMulNBits and GatherBlockQuantized take them."""
        bits = bits_of(source.name)
        if source not in self.weights:
            floats = source.const_value.numpy() if by_row else source.const_value.numpy().T
            if bits == 8:
                integers, scales = eight_bits_in_blocks(floats)
            else:
                rounded = self.rounded.get(source.name.removesuffix(".weight"))
                integers, scales = pack(rounded or four_bits(floats))
            self.weights[source] = self.stored(f"{source.name}.int{bits}", integers, scales)
        inputs = source.shape[1] if by_row else source.shape[0]
        return *self.weights[source], {"bits": bits, "block_size": GROUP if bits == 4 else wide_block(inputs)}

    def stored(self, name: str, integers: np.ndarray, scales: np.ndarray) -> tuple[Any, Any]:
        """Two new initializers."""
        return self.constant(name, integers), self.constant(f"{name}.scale", scales)

    def table(self, node: Any) -> None:
        """Take rows of integers and their scales, and make floats of those alone."""
        if self.recipe.weight_bits == 4 and node.op_type == "Gather":
            self.replace(node, self.packed_rows(node))
            return
        rows, scales = self.weight(node.inputs[0], by_row=True)
        axis: dict[str, Any] = {"axis": 0} if node.op_type == "Gather" else {}
        taken = self.emit(node, "Cast", self.emit(node, node.op_type, rows, *node.inputs[1:], **axis), to=1)
        scale = self.emit(node, node.op_type, scales, *node.inputs[1:], **axis)
        self.replace(node, self.emit(node, "Mul", taken, scale))

    def packed_rows(self, node: Any) -> Any:
        """Rows of a packed table in float."""
        count, width = node.inputs[0].shape
        packed, scales, how = self.packed(node.inputs[0], by_row=True)
        # Stored in the shape that MatMulNBits takes, for a table may be the output layer too.
        flat = self.emit(node, "Reshape", packed, self.constant(f"rows_{count}", np.array([count, -1])))
        how |= {"gather_axis": 0, "quantize_axis": 1}
        rows = self.emit(node, "GatherBlockQuantized", flat, node.inputs[1], scales, domain=MICROSOFT, **how)
        if width % how["block_size"]:
            ends = (self.constant(f"at_{at}", np.array([at])) for at in (0, width, -1))
            rows = self.emit(node, "Slice", rows, *ends)
        return rows

    def linear(self, node: Any) -> None:
        """Multiply with integers; a product of two activations, or one that is kept, is left alone."""
        source, turned = node.inputs[1], "transB" in node.attributes and node.attributes["transB"].value == 1
        producer = source.producer()
        if producer is not None and producer.op_type == "Transpose":
            source, turned = producer.inputs[0], True
        if not self.is_float(source) or len(source.shape) != 2 or self.kept(source.name):
            return
        multiply = {
            "w8a8-dynamic": self.token_product if self.by_token else self.dynamic_product,
            "w8a8-static": self.static_product,
            "w4": self.packed_product,
        }[self.recipe.name]
        out = multiply(node, source, turned)
        if node.op_type == "Gemm" and len(node.inputs) > 2:
            out = self.emit(node, "Add", out, node.inputs[2])
        self.replace(node, out)

    def columns(self, node: Any, source: Any, turned: bool) -> tuple[Any, Any]:
        """A weight in 8 bits as (inputs, outputs), and its scales (outputs)."""
        weight, scale = self.weight(source, by_row=turned)
        if source in self.tables:  # stored once, and turned when the file is loaded
            weight = self.emit(node, "Transpose", weight, perm=[1, 0])
            scale = self.emit(node, "Reshape", scale, self.constant("flat", np.array([-1])))
        return weight, scale

    def dynamic_product(self, node: Any, source: Any, turned: bool) -> Any:
        """MatMulIntegerToFloat with activations quantized as they come.

        From ONNX's own MatMulInteger, and what makes floats of its integers, ONNX Runtime makes this by itself, each
        time it loads the file: 0.21 G of 0.67 G instructions that loading SqueezeBERT-base takes on a Cortex-A76.
        """
        weight, scale = self.columns(node, source, turned)
        entry = node.inputs[0]
        if entry not in self.activations:
            self.activations[entry] = self.emit(node, "DynamicQuantizeLinear", entry, outputs=3)
        integers, entry_scale, entry_zero = self.activations[entry]
        given = (integers, weight, entry_scale, scale, entry_zero)
        return self.emit(node, INTEGER_PRODUCT, *given, domain=MICROSOFT)

    def token_product(self, node: Any, source: Any, turned: bool) -> Any:
        """MatMulIntegerToFloat with a scale for each token.

        A token is x = middle + step * q with q from -127 to 127, so that its product is step * (q W) + middle * 1 W,
        where 1 W are the sums of W's columns.
        """
        weight, scale = self.columns(node, source, turned)
        one, zero = self.constant("token.one", ONE), self.constant("token.zero", ZERO)
        entry = node.inputs[0]
        if entry not in self.activations:
            last = self.constant("token.axis", np.array([-1]))
            high, low = (self.emit(node, op, entry, last) for op in ("ReduceMax", "ReduceMin"))
            half, steps, least = (self.constant(f"token.{name}", value) for name, value in OF_RANGE.items())
            middle = self.emit(node, "Mul", self.emit(node, "Add", high, low), half)
            reach = self.emit(node, "Mul", self.emit(node, "Sub", high, low), steps)
            step = self.emit(node, "Max", reach, least)
            counted = self.emit(node, "Div", self.emit(node, "Sub", entry, middle), step)
            self.activations[entry] = (self.emit(node, "QuantizeLinear", counted, one, zero), step, middle)
        integers, step, middle = self.activations[entry]
        product = self.emit(node, INTEGER_PRODUCT, integers, weight, one, scale, zero, domain=MICROSOFT)
        stored, scales = (value.const_value.numpy() for value in self.weight(source, by_row=turned))
        over_inputs = (stored * scales).sum(1 if source in self.tables else 0, dtype=np.float32)
        sums = self.constant(f"{source.name}.sums", over_inputs)
        moved = self.emit(node, "Mul", middle, sums)
        return self.emit(node, "Add", self.emit(node, "Mul", product, step), moved)

    def join_products(self) -> None:
        """Let integer products add the biases that follow them, and quantize what no other one reads."""
        for product in [node for node in self.graph if node.op_type == INTEGER_PRODUCT]:
            integers, weight, _, scale, _ = product.inputs
            last, bias = self.biased(product)
            if len(integers.uses()) == 1:
                given = (integers.producer().inputs[0], weight, scale, None, bias)
                out = self.emit(last, "DynamicQuantizeMatMul", *given, domain=MICROSOFT)
            else:
                out = self.emit(last, INTEGER_PRODUCT, *product.inputs, None, bias, domain=MICROSOFT)
            self.replace(last, out)
            if last is not product:
                self.graph.remove(product, safe=True)

    def biased(self, product: Any) -> tuple[Any, Any]:
        """The node that adds a bias to a product, and the bias; the product itself and None where none does."""
        uses = product.outputs[0].uses()
        add = uses[0].node if len(uses) == 1 else product
        if add.op_type != "Add" or add.inputs[1].const_value is None or len(add.inputs[1].shape) != 1:
            return product, None
        return add, add.inputs[1]

    def static_product(self, node: Any, source: Any, turned: bool) -> Any:
        """MatMul between dequantized operands, which ONNX Runtime makes one integer product of."""
        weight, scale = self.columns(node, source, turned)
        entry = node.inputs[0]
        # A product of matrices and its bias would be joined to a Gemm before it can become an integer product.
        single, front = len(entry.shape) == 2, self.constant("front", np.array([0]))
        if entry not in self.activations:
            found, zero = self.ranges[source.name.removesuffix(".weight")]
            how = (
                self.constant(f"{entry.name}.scale", np.array(found, np.float32)),
                self.constant(f"{entry.name}.zero", np.array(zero, np.uint8)),
            )
            whole = self.emit(node, "Unsqueeze", entry, front) if single else entry
            self.activations[entry] = (self.emit(node, "QuantizeLinear", whole, *how), *how)
        # A dequantizer of its own for each product, as the fusion wants it.
        given = self.emit(node, "DequantizeLinear", *self.activations[entry])
        out = self.emit(node, "MatMul", given, self.emit(node, "DequantizeLinear", weight, scale, axis=1))
        return self.emit(node, "Squeeze", out, front) if single else out

    def packed_product(self, node: Any, source: Any, turned: bool) -> Any:
        """MatMulNBits."""
        packed, scales, how = self.packed(source, by_row=turned)
        outputs, inputs = source.shape if turned else source.shape[::-1]
        how |= {"K": inputs, "N": outputs, "accuracy_level": FLOAT_ARITHMETIC}
        return self.emit(node, "MatMulNBits", node.inputs[0], packed, scales, domain=MICROSOFT, **how)


def bits_of(name: str) -> int:
    """How many bits a weight of that name takes in `w4`."""
    return 8 if part(name) in ("embeddings", "head") else 4
