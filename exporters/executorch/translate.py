"""A torch.export program translated, operator by operator, into one graph for XNNPACK.

Translation goes backwards from the outputs, so that what nothing needs is never made. What XNNPACK has no operator for
(lookups in tables, casts of integers, a count of tokens) becomes an input of the graph, a Feed, which the program
around it computes with plain kernels.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgebert.errors import ConversionFailed
from edgebert.exporters.executorch.graph import (
    BLOCKS,
    EXTERNAL_INPUT,
    EXTERNAL_OUTPUT,
    KEEP_DIMS,
    NONE,
    TOKENS,
    TRANSPOSE_B,
    Graph,
    Value,
)
from edgebert.exporters.executorch.weights import SMOOTHING, Plan, Shape, Weights, four_bits, quantize, size, step

SAME = ("aten.contiguous.default", "aten.clone.default", "aten.alias.default", "aten.detach_.default",
        "aten.dropout.default", "aten.expand.default")  # fmt: skip
CASTS = ("aten.to.dtype", "aten._to_copy.default")
BINARY = {"add": "Add", "sub": "Subtract", "mul": "Multiply"}


@dataclass(frozen=True, slots=True)
class Feed:
    """An input of the graph that plain kernels compute.

    Attributes:
        kind: `lookup` (rows of a table by ids), `rows` (a table's first rows), `cast` (ids or mask to float),
            `count` (0, 1, 2 ... up to the last token, float), `pairs` (rows of a table by what stands for each pair
            of tokens), `whole` (a table as it is).
        table: the parameter looked into; empty for the others.
        source: the program's input that is read, of `pairs` the constant (longest, longest); empty where only the
            number of tokens counts.
        value: the graph's input.
    """

    kind: str
    table: str
    source: str
    value: Value


class Translator:
    """Translates one exported program."""

    def __init__(self, program: Any, plan: Plan, longest: int, half: bool = False, block: int = 0) -> None:
        """Prepare; `half` lets the numbers between products of integers have half precision, see `linear`.

        With `block` the program takes whole blocks of so many tokens.
        """
        self.plan = plan
        self.halves = half
        self.graph = Graph(longest, block)
        self.feeds: dict[tuple[str, str, str], Feed] = {}
        self.done: dict[Node, Value] = {}
        self.program = program
        signature = program.graph_signature
        self.tensors: dict[str, torch.Tensor] = {**program.state_dict, **program.constants}
        first: dict[tuple[int, torch.Size], str] = {}
        for name, tensor in self.tensors.items():
            first.setdefault((tensor.data_ptr(), tensor.shape), name)
        self.names = {
            place: first[self.tensors[name].data_ptr(), self.tensors[name].shape]
            for place, name in {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.items()
        }
        self.aliases = {
            name: [n for n, t in self.tensors.items() if t.data_ptr() == tensor.data_ptr() and t.shape == tensor.shape]
            for name, tensor in self.tensors.items()
        }
        self.tables = {
            self.names[node.args[0].name]
            for node in program.graph.nodes
            if str(node.target) == "aten.embedding.default"
        }
        self.handlers: dict[str, Callable[[Node], Value]] = {
            "aten.linear.default": self.linear,
            "aten.conv2d.default": self.convolution,
            "aten.layer_norm.default": self.norm,
            "aten.softmax.int": lambda node: self.graph.unary("Softmax", self.get(node.args[0])),
            "aten.matmul.default": self.product,
            "aten.gelu.default": self.gelu,
            "aten.silu.default": self.silu,
            "aten.tanh.default": lambda node: self.graph.unary("Tanh", self.get(node.args[0])),
            "aten.relu.default": lambda node: self.graph.unary("Clamp", self.get(node.args[0]), limits=(0.0, math.inf)),
            "aten.permute.default": self.permute,
            "aten.transpose.int": self.permute,
            "aten.select.int": self.select,
            "aten.slice.Tensor": self.slice,
            "aten.cat.default": self.concatenate,
            "aten.mean.dim": self.mean,
            "aten.sum.dim_IntList": self.sum,
            "aten.amax.default": self.largest,
            "aten.sqrt.default": lambda node: self.graph.unary("SquareRoot", self.get(node.args[0])),
            "aten.clamp.default": self.clamp,
            "aten.embedding.default": self.lookup,
            "aten.arange.default": lambda node: self.feed("count", "", "", (-1,)),
            "aten.rsub.Scalar": lambda node: self.scaled(self.get(node.args[0]), -1.0, node.args[1]),
            "<built-in function getitem>": self.chunk,
        }
        self.handlers |= dict.fromkeys(CASTS, self.cast) | dict.fromkeys(SAME, lambda node: self.get(node.args[0]))
        shapes = ("reshape", "view", "unsqueeze", "squeeze", "flatten")
        self.handlers |= {
            f"aten.{op}.{kind}": self.reshape for op in shapes for kind in ("default", "dim", "using_ints")
        }
        self.handlers |= {f"aten.{op}.Tensor": self.arithmetic for op in (*BINARY, "div")}

    def run(self) -> None:
        """Translate every output.

        Raises:
            ConversionFailed: an operator has no translation.
        """
        for node in self.program.graph.nodes:
            if str(node.target) == "aten.layer_norm.default":
                self.get(node)  # from norm to norm, so that a deep model does not mean a deep recursion
        (last,) = (node for node in self.program.graph.nodes if node.op == "output")
        for node in last.args[0]:
            shape = self.shape(node)
            if str(node.target) == "aten.linear.default":  # straight into the output: a vocabulary's logits are large
                self.linear(node, shape)
            else:
                self.graph.reshape(self.get(node), shape, EXTERNAL_OUTPUT)

    def outputs(self, names: Sequence[str]) -> dict[str, Shape]:
        """The shapes of the program's outputs, by the names that they are given in order."""
        (last,) = (node for node in self.program.graph.nodes if node.op == "output")
        return {name: self.shape(node) for name, node in zip(names, last.args[0], strict=True)}

    def get(self, node: Any) -> Value:
        """The value of a node, translated when first asked for."""
        if node not in self.done and node.name in self.names:
            self.done[node] = self.feed("whole", self.names[node.name], "", self.four(node))
        if node not in self.done:
            handler = self.handlers.get(str(node.target)) if node.op == "call_function" else None
            if handler is None:
                raise ConversionFailed(f"no translation of {node.target} ({node.name}) for XNNPACK.")
            self.done[node] = handler(node)
        return self.done[node]

    def shape(self, node: Any) -> Shape:
        """The shape of a node, with TOKENS or BLOCKS."""
        return tuple(size if isinstance(size, int) else self.free(size) for size in node.meta["val"].shape)

    def free(self, size: torch.SymInt) -> int:
        """Which size this is, from what it was in tracing: the longest, or as many blocks."""
        if (known := size.node.maybe_as_int()) is not None:
            return int(known)
        return BLOCKS if size.node.hint * self.graph.block == self.graph.longest else TOKENS

    def four(self, node: Any) -> Shape:
        """The shape of a node with ones in front, up to four axes."""
        shape = self.shape(node)
        return (1,) * (4 - len(shape)) + shape

    def axis(self, node: Any, dim: int) -> int:
        """An axis of a node's shape as one of four."""
        rank = len(self.shape(node))
        return (dim + rank if dim < 0 else dim) + 4 - rank

    def parameter(self, node: Any) -> tuple[str, np.ndarray]:
        """The name and the numbers of a parameter."""
        name = self.names[node.name]
        return name, self.tensors[name].detach().float().numpy()

    def feed(self, kind: str, table: str, source: str, shape: Shape) -> Value:
        """An input of the graph, in four axes."""
        key = (kind, table, source)
        if key not in self.feeds:
            self.feeds[key] = Feed(kind, table, source, self.graph.value(shape, flags=EXTERNAL_INPUT))
        return self.graph.reshape(self.feeds[key].value, (1,) * (4 - len(shape)) + shape)

    def lookup(self, node: Any) -> Value:
        """Rows of a table by ids, or by what stands for each pair of tokens."""
        table, ids = node.args[:2]
        if ids.op == "placeholder":
            return self.feed("lookup", self.names[table.name], ids.name, self.shape(node))
        pairs = ids
        while str(pairs.target) == "aten.slice.Tensor" or str(pairs.target) in CASTS:
            pairs = pairs.args[0]
        if pairs.name not in self.names:
            raise ConversionFailed(f"no translation of {node.name}, a lookup of computed ids, for XNNPACK.")
        return self.feed("pairs", self.names[table.name], self.names[pairs.name], self.four(node))

    def cast(self, node: Any) -> Value:
        """An input of integers as floats; a cast of anything else is of what is float here already."""
        source: Any = node.args[0]
        if source.op == "placeholder":
            return self.feed("cast", "", source.name, self.shape(node))
        return self.get(source)

    def slice(self, node: Any) -> Value:
        """A stretch of an axis, or the first rows of a table."""
        source, dim, start, *_ = node.args
        if source.op == "placeholder" and dim == 0:
            return self.feed("rows", self.names[source.name], "", self.shape(node))
        shape, axis = self.four(node), self.axis(source, dim)
        whole = self.four(source)
        if shape == whole:
            return self.get(source)
        if not isinstance(start or 0, int) or shape[axis] < 0:
            raise ConversionFailed(f"no translation of {node.name}, a slice of tokens, for XNNPACK.")
        return self.graph.slice(self.get(source), axis, start or 0, shape[axis])

    def select(self, node: Any) -> Value:
        """One place of an axis, which goes."""
        source, dim, index = node.args
        value, axis = self.get(source), self.axis(source, dim)
        if value.shape[axis] != 1:
            value = self.graph.slice(value, axis, index, 1)
        return self.graph.reshape(value, self.four(node))

    def chunk(self, node: Any) -> Value:
        """One of the equal parts of an axis."""
        parts, index = node.args
        source, _, dim = parts.args
        shape, axis = self.four(node), self.axis(source, dim)
        value = self.get(source)
        if all(self.in_half(user) for user in node.users):
            value = self.graph.half(value)  # once, and half as many bytes to copy
        return self.graph.slice(value, axis, index * shape[axis], shape[axis])

    def concatenate(self, node: Any) -> Value:
        """Parts joined along an axis."""
        parts, dim = (*node.args, 0)[:2]
        return self.graph.concatenate([self.get(part) for part in parts], self.axis(parts[0], dim))

    def reshape(self, node: Any) -> Value:
        """The same numbers in another shape."""
        return self.graph.reshape(self.get(node.args[0]), self.four(node))

    def permute(self, node: Any) -> Value:
        """Axes in another order. A convolution is translated as one that keeps channels last, without the turn back."""
        source: Any = node.args[0]
        rank = len(self.shape(source))
        order: Any = list(node.args[1]) if str(node.target) == "aten.permute.default" else list(range(rank))
        if str(node.target) == "aten.transpose.int":
            first, second = (dim % rank for dim in node.args[1:3])
            order[first], order[second] = second, first
        if str(source.target) == "aten.conv2d.default":
            if order != [0, 2, 3, 1]:
                raise ConversionFailed(f"no translation of {node.name}, a convolution's result turned, for XNNPACK.")
            return self.get(source)
        lead = 4 - rank
        return self.graph.transpose(self.get(source), (*range(lead), *(axis + lead for axis in order)))

    def arithmetic(self, node: Any) -> Value:
        """A sum, difference, product or quotient, with another value or with a number."""
        op = str(node.target).split(".")[1]
        a, b = node.args
        if isinstance(b, Node) and b.name in self.names:
            return self.by_channel(node, op, a, b)
        if isinstance(b, Node):
            kind = "Div" if op == "div" else BINARY[op]
            return self.graph.binary(kind, self.get(a), self.get(b), self.four(node))
        number: Any = b
        base: Any = a
        while str(base.target) in CASTS and base.args[0].op != "placeholder":
            base = base.args[0]
        if op == "mul" and str(base.target) == "aten.gt.Tensor":
            return self.step(base, number)
        if op in ("add", "sub"):
            return self.scaled(self.get(a), 1.0, number if op == "add" else -number)
        return self.scaled(self.get(a), number if op == "mul" else 1 / number, 0.0)

    def by_channel(self, node: Any, op: str, a: Any, parameter: Any) -> Value:
        """A product with a parameter (C), a sum with one, or both in one pass: MobileBERT's norm."""
        name, values = self.parameter(parameter)
        if op not in ("add", "mul") or values.ndim != 1:
            raise ConversionFailed(f"no translation of {node.target} ({node.name}) with a parameter for XNNPACK.")
        if op == "mul":
            return self.graph.affine(self.get(a), (name, ""), values, None)
        factor: Any = a.args[1] if str(a.target) == "aten.mul.Tensor" and len(a.users) == 1 else None
        if isinstance(factor, Node) and factor.name in self.names:
            label, factors = self.parameter(factor)
            return self.graph.affine(self.get(a.args[0]), (label, name), factors, values)
        return self.graph.affine(self.get(a), (f"ones.{len(values)}.channels", name), np.ones(len(values)), values)

    def step(self, node: Any, number: float) -> Value:
        """`(a > b) * number` for integers: a difference times the number, cut off at 0 and at the number."""
        a, b = (self.scaled(self.get(part), number, 0.0) for part in node.args)
        return self.graph.binary("Subtract", a, b, self.four(node), limits=(min(number, 0.0), max(number, 0.0)))

    def scaled(self, x: Value, scale: float, shift: Any) -> Value:
        """`x * scale + shift` for a row of tokens or a column of them."""
        column = self.graph.reshape(x, (1, 1, -1, 1))
        names = (f"times.{scale:g}", f"plus.{shift:g}")
        moved = self.graph.affine(column, names, np.array([scale]), np.array([shift]) if shift else None)
        return self.graph.reshape(moved, x.shape)

    def norm(self, node: Any) -> Value:
        """LayerNorm over the last axis."""
        x, _, weight, bias, eps, *_ = node.args
        name, scale = self.parameter(weight)
        module = name.removesuffix(".weight")
        shift = None if bias is None else self.parameter(bias)[1]
        return self.graph.norm(self.get(x), module, scale, shift, eps)

    def product(self, node: Any) -> Value:
        """A batched product of two activations; a transposed second one is read as it is."""
        a, b, flags = self.get(node.args[0]), node.args[1], 0
        dims = sorted(dim % 4 for dim in b.args[1:3]) if str(b.target) == "aten.transpose.int" else []
        if dims == [2, 3] and len(self.shape(b)) == 4:
            b, flags = b.args[0], TRANSPOSE_B
        a, other = self.graph.alike(a, self.get(b))
        out = self.graph.value(self.four(node), a.kind)
        return self.graph.emit("BatchMatrixMultiply", out, input1_id=a.id, input2_id=other.id, flags=flags)

    def gelu(self, node: Any) -> Value:
        """GELU, exact or by tanh: x times sigmoid(x (1.5958 + 0.0714 x^2)) is the latter."""
        x = self.get(node.args[0])
        if node.kwargs.get("approximate", "none") == "none":
            return self.graph.unary("Gelu", x)
        slope = 2 * math.sqrt(2 / math.pi)
        width = np.ones(x.shape[-1], np.float32)
        names = (f"gelu.{len(width)}.weight", f"gelu.{len(width)}.bias")
        inner = self.graph.affine(self.graph.unary("Square", x), names, slope * 0.044715 * width, slope * width)
        gate = self.graph.unary("Sigmoid", self.graph.binary("Multiply", x, inner))
        return self.graph.binary("Multiply", x, gate)

    def silu(self, node: Any) -> Value:
        """SiLU: x times its sigmoid."""
        x = self.get(node.args[0])
        return self.graph.binary("Multiply", x, self.graph.unary("Sigmoid", x))

    def mean(self, node: Any) -> Value:
        """The mean over tokens of (1, T, C)."""
        x = self.get(node.args[0])
        if [self.axis(node.args[0], dim) for dim in node.args[1]] != [2]:
            raise ConversionFailed(f"no translation of {node.name}, a mean over another axis, for XNNPACK.")
        out = self.graph.unary("GlobalAvgPooling2d", x, (1, 1, 1, x.shape[-1]), flags=KEEP_DIMS)
        return self.graph.reshape(out, self.four(node))

    def sum(self, node: Any) -> Value:
        """The sum over the last axis, as a product with ones: XNNPACK has means over the two before it alone."""
        x = self.get(node.args[0])
        if [self.axis(node.args[0], dim) for dim in node.args[1]] != [3]:
            raise ConversionFailed(f"no translation of {node.name}, a sum over another axis, for XNNPACK.")
        ones = np.ones((1, x.shape[-1]), np.float32)
        stored = self.graph.weights(Weights(f"ones.{x.shape[-1]}", "fp32", ones.shape, ones))
        out = self.graph.linear(x, stored, NONE, self.graph.value((*x.shape[:-1], 1)))
        return self.graph.reshape(out, self.four(node))

    def largest(self, node: Any) -> Value:
        """The largest numbers over the tokens of (1, T, C): those from the first token to the last."""
        x = self.graph.floats(self.get(node.args[0]))
        if [self.axis(node.args[0], dim) for dim in node.args[1]] != [2]:
            raise ConversionFailed(f"no translation of {node.name}, a maximum over another axis, for XNNPACK.")
        every = self.graph.largest(x)
        return self.graph.reshape(self.graph.slice(every, 2, 0, 1), self.four(node))

    def clamp(self, node: Any) -> Value:
        """Numbers held between limits."""
        low, high = (*node.args[1:], None, None)[:2]
        limits = (-math.inf if low is None else low, math.inf if high is None else high)
        return self.graph.unary("Clamp", self.get(node.args[0]), limits=limits)

    def bias(self, node: Any) -> int:
        """A bias, in float."""
        if node is None:
            return NONE
        name, values = self.parameter(node)
        return self.graph.weights(Weights(name, "fp32", values.shape, values.astype(np.float32)))

    def mode(self, linear: Any) -> str:
        """How the plan wants a linear layer."""
        aliases = self.aliases[self.names[linear.args[1].name]]
        return self.plan.mode(*(alias.rpartition(".")[0] for alias in aliases))

    def in_half(self, node: Any) -> bool:
        """Whether this is a linear layer that takes half numbers."""
        return self.halves and str(node.target) == "aten.linear.default" and self.mode(node) == "rows"

    def linear(self, node: Any, shape: Shape | None = None) -> Value:
        """A linear layer; `shape` makes it an output of the graph.

        With half numbers in and out, XNNPACK quantizes by vectors and multiplies by its own kernel. With floats it
        calls KleidiAI's, which quantizes value by value. A SqueezeBERT-base takes 419 M instructions on a Cortex-A76,
        27 M of them scalar, and 737 M, 164 M scalar, with floats; GELU and attention go twice as fast too.
        """
        x = self.get(node.args[0])
        if shape:
            x = self.graph.reshape(x, (*shape[:-1], x.shape[-1]))
        name, matrix = self.parameter(node.args[1])
        mode = self.mode(node)
        bits = 8 if name in self.tables else self.plan.recipe.weight_bits
        half = self.in_half(node) and not shape
        kind, flags = "fp16" if half else "fp32", EXTERNAL_OUTPUT if shape else 0
        out = self.graph.value(shape or (*x.shape[:-1], len(matrix)), kind, flags=flags)
        x = self.graph.half(x) if half else self.graph.floats(x)
        if mode == "fixed":
            return self.fixed(x, name, matrix, matrix.shape, node, out, self.graph.linear)
        stored = Weights(name, "fp32", matrix.shape, matrix) if mode == "float" else self.rounded(name, matrix, bits)
        fed = x if mode == "float" else self.graph.rows(x)
        return self.graph.linear(fed, self.graph.weights(stored), self.bias((*node.args, None)[2]), out)

    def rounded(self, name: str, matrix: np.ndarray, bits: int) -> Weights:
        """A matrix in integers, those chosen beforehand if there are any."""
        chosen = self.plan.rounded.get(name.rpartition(".")[0])
        return four_bits(name, chosen.integers, chosen.scales) if chosen else quantize(name, matrix, bits)

    def convolution(self, node: Any) -> Value:
        """A grouped 1x1 convolution, or one along the tokens; its input is (1, T, C) turned."""
        turn, weight, bias, _, padding, _, groups = (*node.args, (1, 1), 1)[:7]
        if str(turn.target) != "aten.permute.default" or list(turn.args[1]) != [0, 3, 1, 2]:
            raise ConversionFailed(f"no translation of {node.name}, a convolution over other axes, for XNNPACK.")
        x = self.graph.floats(self.get(turn.args[0]))
        name, kernel = self.parameter(weight)
        outputs, inputs, _, taps = kernel.shape
        out = self.graph.value((*x.shape[:-1], outputs))
        make = functools.partial(
            self.graph.convolution,
            groups=groups,
            widths=(inputs, outputs // groups),
            kernel=taps,
            padding=padding[1],
        )
        if taps == 1 and self.plan.mode(name.rpartition(".")[0]) == "fixed":
            return self.fixed(x, name, kernel[:, :, 0, 0], (outputs, 1, 1, inputs), node, out, make)
        order = (1, 2, 3, 0) if inputs == 1 and groups == outputs else (0, 2, 3, 1)
        stored = Weights(name, "fp32", tuple(kernel.shape[i] for i in order), kernel.transpose(order))
        return make(x, self.graph.weights(stored), self.bias(bias), out)

    def fixed(
        self, x: Value, name: str, matrix: np.ndarray, shape: Shape, node: Any, out: Value,
        make: Callable[[Value, int, int, Value], Value],
    ) -> Value:  # fmt: skip
        """A layer in 8 bits with scales found beforehand; what each channel is divided by is made up for in float.

        Outputs are divided by their own size, which only changes their weights' scales, and multiplied back together
        with the bias.
        """
        module = name.rpartition(".")[0]
        seen = self.plan.ranges[module]
        enters, leaves = size(seen.enters) ** SMOOTHING, size(seen.leaves)
        key = ("smooth", x.id)
        if key not in self.graph.made:
            even = self.graph.affine(x, (f"{module}.smooth", ""), 1 / enters, None)
            self.graph.made[key] = self.graph.fixed(even, *step(seen.enters / enters))
        # Of a grouped layer each row meets its own group's channels.
        columns = np.repeat(enters.reshape(-1, matrix.shape[1]), len(matrix) * matrix.shape[1] // len(enters), 0)
        stored = quantize(name, matrix * columns, 8, shape)
        assert stored.scale is not None, "8 bits have a scale a row"
        stored = replace(stored, scale=stored.scale / leaves)
        made = self.graph.value(out.shape, "qint8", *step(seen.leaves / leaves))
        make(self.graph.made[key], self.graph.weights(stored), NONE, made)
        bias: Any = (*node.args, None)[2]
        label, shifts = self.parameter(bias) if bias is not None else ("", None)
        return self.graph.affine(self.graph.floats(made), (f"{module}.rescale", label), leaves, shifts, out)
