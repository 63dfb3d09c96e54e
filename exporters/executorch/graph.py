"""A graph for XNNPACK, as ExecuTorch's delegate reads it: values, nodes, and constants by name.

Every tensor inside has four axes, shorter shapes with ones in front; -1 stands for the token axis, whose size is known
when the graph runs. No constant stands where XNNPACK would go on reading it from the file: weights, biases and
norms go into operators that pack them, for the delegate may let the file go once its graph is built.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgebert.exporters.executorch.weights import Shape, Weights
from edgebert.runtimes.executorch import flatbuffer
from edgebert.runtimes.executorch.program import frame_graph

# https://github.com/google/XNNPACK/blob/master/include/xnnpack.h
EXTERNAL_INPUT, EXTERNAL_OUTPUT = 1, 2
TRANSPOSE_B, KEEP_DIMS = 1, 0x40
NONE = 0xFFFFFFFF
# Sizes of an axis that are known when the graph runs: a token's place along it, or a block's.
TOKENS, BLOCKS = -1, -2
# Operators with one input that take half numbers as they are; the others get them in float.
HALVES = ("Gelu", "Softmax", "StaticSlice", "StaticTranspose")


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: its number, its shape and XNNPACK's name of its type.

    Attributes:
        id: number in the graph.
        shape: axes; one of them may be TOKENS or BLOCKS.
        kind: `fp32`, `fp16`, `qdint8` (a scale for each row, found as the graph runs) or `qint8` (one scale, found
            beforehand).
        scale: of `qint8`.
        zero: zero point of `qint8`.
    """

    id: int
    shape: Shape
    kind: str = "fp32"
    scale: float = 0.0
    zero: int = 0


@dataclass(slots=True)
class Graph:
    """A graph under construction.

    Attributes:
        longest: size of the token axis that memory is planned for.
        block: tokens of a block, where an axis runs over blocks.
        nodes: what `flatbuffer.write` takes.
        values: likewise.
        constants: name to array; what the file must hold for this graph.
        names: constant to its number.
    """

    longest: int
    block: int = 0
    nodes: list[flatbuffer.Table] = field(default_factory=list)
    values: list[flatbuffer.Table] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    made: dict[Any, Value] = field(default_factory=dict)
    kinds: dict[tuple[str, Shape], str] = field(default_factory=dict)

    def serialize(self) -> bytes:
        """The bytes a delegate gets: XNNPACK's header and the graph; constants are looked up by name."""
        constants: list[flatbuffer.Table] = [{"offset": 0, "size": 0}]
        constants += [
            {"offset": 2**64 - 1, "size": self.constants[name].nbytes, "named_key": name} for name in self.names
        ]
        return frame_graph({
            "version": "0",
            "xnodes": self.nodes,
            "xvalues": self.values,
            "num_externs": len(self.inputs) + len(self.outputs),
            "input_ids": self.inputs,
            "output_ids": self.outputs,
            "constant_data": constants,
        })

    def constant(self, name: str, array: np.ndarray) -> int:
        """Keep an array under a name; gives its number. The same name again is the same array."""
        if name not in self.constants:
            self.constants[name] = np.ascontiguousarray(array)
        return self.names.setdefault(name, len(self.names) + 1)

    def value(
        self, shape: Shape, kind: str = "fp32", scale: float = 0.0, zero: int = 0, flags: int = 0, data: int = 0,
        quantized: tuple[str, flatbuffer.Table] | None = None,
    ) -> Value:  # fmt: skip
        """A new tensor."""
        number = len(self.values)
        external = len(self.inputs) + len(self.outputs) if flags else NONE
        if flags:
            (self.inputs if flags == EXTERNAL_INPUT else self.outputs).append(number)
        tensor: flatbuffer.Table = {
            "datatype": f"xnn_datatype_{kind}",
            "num_dims": len(shape),
            "dims": [self.planned(size) for size in shape],
            "constant_buffer_idx": data,
            "external_id": external,
            "flags": flags,
            "id_out": number,
        }
        if kind == "qdint8":
            quantized = ("PerTokenDynamicQuant", {"num_nonbatch_dims": 1})
        elif kind == "qint8":
            quantized = ("PerTensorQuant", {"scale": scale, "zero_point": zero})
        union = ("XNNTensorValue", tensor)
        if quantized:
            union = ("XNNQuantizedTensorValue", {"tensor_value": tensor, "quant_params": quantized})
        self.values.append({"xvalue_union": union})
        return Value(number, shape, kind, scale, zero)

    def planned(self, size: int) -> int:
        """The size that memory is planned for, of an axis that may be free."""
        return {TOKENS: self.longest, BLOCKS: self.longest // (self.block or 1)}.get(size, size)

    def weights(self, stored: Weights) -> int:
        """The value of a constant matrix or kernel; the same name and shape again is the same value."""
        key = (stored.name, stored.shape)
        if key not in self.made:
            data = self.constant(stored.name, stored.data)
            quantized: tuple[str, flatbuffer.Table] | None = None
            if stored.scale is not None:
                scales: flatbuffer.Table = {"scale": [], "channel_dim": 0, "num_scales": stored.scale.size}
                scales["scale_buffer_idx"] = self.constant(f"{stored.name}.scale", stored.scale)
                quantized = ("PerChannelQuant", scales)
                if stored.block:
                    quantized = ("PerChannelGroupQuant", scales | {"group_size": stored.block})
            self.made[key] = self.value(stored.shape, stored.kind, data=data, quantized=quantized)
            self.kinds[key] = stored.kind
        return self.made[key].id

    def emit(self, kind: str, out: Value, limits: tuple[float, float] | None = None, **fields: Any) -> Value:
        """Put in a node that makes `out`."""
        node: flatbuffer.Table = {"debug_handle": len(self.nodes)}
        node["xnode_union"] = (f"XNN{kind}", {"output_id": out.id, "flags": 0, **fields})
        if limits:
            node["output_min_max"] = {"output_min": limits[0], "output_max": limits[1]}
        self.nodes.append(node)
        return out

    def unary(self, kind: str, x: Value, shape: Shape | None = None, **more: Any) -> Value:
        """A node with one input, float unless it works on halves; the shape is the input's unless given."""
        x = x if kind in HALVES else self.floats(x)
        return self.emit(kind, self.value(shape or x.shape, x.kind), input_id=x.id, **more)

    def binary(self, kind: str, a: Value, b: Value, shape: Shape | None = None, **more: Any) -> Value:
        """A node with two inputs, whose shapes may broadcast."""
        both = shape or tuple(y if x == 1 else x for x, y in zip(a.shape, b.shape, strict=True))
        a, b = self.alike(a, b)
        return self.emit(kind, self.value(both, a.kind), input1_id=a.id, input2_id=b.id, **more)

    def alike(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Two values as one type: a smaller one takes the larger one's, those of a size become floats.

        Where a float has been narrowed already, as a layer's input is for its first projection, the sum after it is one
        of half numbers: 1.5 M fewer of 391 M instructions, and 0.2 dB of 32 in the embedded default.
        """
        larger = max(a, b, key=lambda x: sum(size != 1 for size in x.shape))
        if larger.kind == "fp16" and a.kind != b.kind and a.shape != b.shape:
            return self.half(a), self.half(b)
        if a.kind == b.kind:
            return a, b
        ready = [x.kind == "fp16" or ("fp16", x.id) in self.made for x in (a, b)]
        return (self.half(a), self.half(b)) if all(ready) else (self.floats(a), self.floats(b))

    def reshape(self, x: Value, shape: Shape, flags: int = 0) -> Value:
        """The same numbers in another shape with at most one token axis; `flags` make it an output."""
        if shape == x.shape and not flags:
            return x
        x = self.floats(x) if flags else x
        return self.copy(x, self.value(shape, x.kind, x.scale, x.zero, flags))

    def transpose(self, x: Value, order: Shape) -> Value:
        """Axes in another order."""
        if order == tuple(range(len(order))):
            return x
        key = ("transpose", x.id, order)
        if key not in self.made:
            shape = tuple(x.shape[axis] for axis in order)
            self.made[key] = self.unary("StaticTranspose", x, shape, num_dims=len(order), perm=order)
        return self.made[key]

    def slice(self, x: Value, axis: int, start: int, size: int) -> Value:
        """A stretch of one axis."""
        key = ("slice", x.id, axis, start, size)
        if key not in self.made:
            shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
            # A size of 0 is the whole axis, as far as it reaches when the graph runs.
            sizes = [0 if i != axis and s < 0 else s for i, s in enumerate(shape)]
            offsets = [start if i == axis else 0 for i in range(len(shape))]
            self.made[key] = self.unary("StaticSlice", x, shape, num_dims=len(shape), offsets=offsets, sizes=sizes)
        return self.made[key]

    def concatenate(self, parts: list[Value], axis: int) -> Value:
        """Parts joined along an axis, five at a time."""
        if len({part.kind for part in parts}) > 1:
            parts = [self.floats(part) for part in parts]
        while len(parts) > 1:
            five, parts = parts[:5], parts[5:]
            if len(five) == 1:
                return self.concatenate([*parts, *five], axis)
            width = sum(part.shape[axis] for part in five)
            out = self.value((*five[0].shape[:axis], width, *five[0].shape[axis + 1 :]), five[0].kind)
            ids: dict[str, Any] = {f"input{i + 1}_id": five[i].id if i < len(five) else NONE for i in range(5)}
            parts = [self.emit(f"Concatenate{len(five)}", out, axis=axis, **ids), *parts]
        return parts[0]

    def rows(self, x: Value) -> Value:
        """The value in 8 bits with a scale for each row, found as the graph runs."""
        key = ("rows", x.id)
        if key not in self.made:
            self.made[key] = self.emit("Convert", self.value(x.shape, "qdint8"), input_id=x.id)
        return self.made[key]

    def fixed(self, x: Value, scale: float, zero: int) -> Value:
        """The value in 8 bits with one scale, found beforehand."""
        key = ("fixed", x.id, scale, zero)
        if key not in self.made:
            self.made[key] = self.emit("Convert", self.value(x.shape, "qint8", scale, zero), input_id=x.id)
        return self.made[key]

    def floats(self, x: Value) -> Value:
        """The value in float."""
        return x if x.kind == "fp32" else self.converted(x, "fp32")

    def half(self, x: Value) -> Value:
        """The value in half precision."""
        return x if x.kind == "fp16" else self.converted(x, "fp16")

    def converted(self, x: Value, kind: str) -> Value:
        """The value in another type that needs no scale."""
        key = (kind, x.id)
        if key not in self.made:
            self.made[key] = self.emit("Convert", self.value(x.shape, kind), input_id=x.id)
        return self.made[key]

    def linear(self, x: Value, weights: int, bias: int, out: Value) -> Value:
        """A linear layer over the last axis, `weights` (outputs, inputs)."""
        return self.emit("FullyConnected", out, input1_id=x.id, filter_id=weights, bias_id=bias)

    def convolution(
        self, x: Value, weights: int, bias: int, out: Value, groups: int, widths: tuple[int, int], kernel: int = 1,
        padding: int = 0,
    ) -> Value:  # fmt: skip
        """A convolution along axis 2 of (1, 1, T, C); `widths` are the input and output channels of one group."""
        kind = "DepthwiseConv2d" if widths == (1, 1) and groups > 1 else "Conv2d"
        return self.emit(
            kind, out, input1_id=x.id, filter_id=weights, bias_id=bias, groups=groups, kernel_height=1,
            kernel_width=kernel, padding_left=padding, padding_right=padding, padding_top=0, padding_bottom=0,
            subsampling_height=1, subsampling_width=1, dilation_height=1, dilation_width=1,
            group_input_channels=widths[0], group_output_channels=widths[1], adjustment_height=0, adjustment_width=0,
        )  # fmt: skip

    def affine(
        self, x: Value, names: tuple[str, str], scale: np.ndarray, shift: np.ndarray | None, out: Value | None = None
    ) -> Value:
        """`x * scale + shift`, an entry for each place of the last axis; kept under two names."""
        x, channels, bias = self.floats(x), len(scale), NONE
        kernel = Weights(names[0], "fp32", (1, 1, 1, channels), scale.astype(np.float32).reshape(1, 1, 1, -1))
        if shift is not None:
            bias = self.weights(Weights(names[1], "fp32", (channels,), shift.astype(np.float32)))
        rows = -1 if -1 in x.shape else math.prod(x.shape) // channels
        even = self.reshape(x, (1, 1, rows, channels))
        made = out if out and out.shape == even.shape else self.value(even.shape)
        self.convolution(even, self.weights(kernel), bias, made, channels, (1, 1))
        return made if out is made or not out else self.copy(made, out)

    def copy(self, x: Value, out: Value) -> Value:
        """The same numbers in another tensor."""
        sizes = [0 if size < 0 else size for size in out.shape]
        return self.emit("StaticReshape", out, num_dims=len(sizes), new_shape=sizes, input_id=x.id)

    def mean(self, x: Value, eps: float | None = None) -> Value:
        """The mean over the last axis, which stays with size 1; plus `eps`."""
        width = x.shape[-1]
        ones = Weights(f"mean.{width}", "fp32", (1, width), np.full((1, width), 1 / width, np.float32))
        bias = NONE
        if eps is not None:
            bias = self.weights(Weights(f"eps.{eps:g}", "fp32", (1,), np.array([eps], np.float32)))
        return self.linear(x, self.weights(ones), bias, self.value((*x.shape[:-1], 1)))

    def largest(self, x: Value) -> Value:
        """For each token of (1, 1, T, C) the largest numbers from it to the last; padding counts as none."""
        window: dict[str, Any] = {
            "pooling_height": 1, "pooling_width": self.longest, "padding_right": self.longest - 1, "padding_left": 0,
            "padding_top": 0, "padding_bottom": 0, "stride_height": 1, "stride_width": 1, "dilation_height": 1,
            "dilation_width": 1,
        }  # fmt: skip
        return self.unary("MaxPooling2d", x, **window)

    def norm(self, x: Value, name: str, scale: np.ndarray, shift: np.ndarray | None, eps: float) -> Value:
        """LayerNorm over the last axis. Means are products with 1/width, for the delegate has no reduction."""
        x = self.floats(x)
        centred = self.binary("Subtract", x, self.mean(x))
        inverse = self.unary("ReciprocalSquareRoot", self.mean(self.unary("Square", centred), eps))
        normal = self.binary("Multiply", centred, inverse)
        return self.affine(normal, (f"{name}.weight", f"{name}.bias"), scale, shift)
