"""What an ONNX file's stored numbers stand for, and its graph without rounding: every integer product done in float.

Both are read from the file alone. They answer what a run of the file cannot: whether each single weight is right, and
whether the graph is, down to what 8-bit activations would hide.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.models.signature import INPUTS, Arrays
from edgebert.runtimes.onnx.session import by_choice
from edgebert.runtimes.session import Constant, Unrounded

# A weight's integers, and their scales, as the exporter names them.
INTEGERS = re.compile(r"\.int(4|8)$")


def constants(path: Path) -> Iterator[Constant]:
    """Every float or packed tensor of a file that edgebert made, by its name in the lowered model."""
    arrays = dict(_arrays(path))
    for name, array in arrays.items():
        packed = INTEGERS.search(name)
        if packed:
            yield _unpacked(INTEGERS.sub("", name), int(packed[1]), array, arrays[f"{name}.scale"])
        elif not name.endswith(".scale") and array.dtype.kind == "f":
            values = array.astype(np.float32)
            step = (
                np.spacing(np.abs(array)).astype(np.float32) if array.dtype == np.float16 else np.zeros(1, np.float32)
            )
            yield Constant(name, values, step, array.dtype.itemsize * 8)


def _arrays(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Initializers by name; one at a time, for external data may be larger than memory allows twice."""
    import onnx

    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        yield tensor.name, onnx.numpy_helper.to_array(tensor, str(path.parent))


def _unpacked(name: str, bits: int, stored: np.ndarray, scale: np.ndarray) -> Constant:
    """A weight (outputs, inputs) from its integers: by row, by column, or in blocks of a row."""
    if stored.dtype == np.int8:
        whole = stored if scale.ndim == 2 else stored.T  # a table has a scale a row, a product's weight one a column
        step = scale.reshape(-1, 1)
        return Constant(name, whole * step, step, bits)
    if bits == 4:
        stored = np.stack([stored & 15, stored >> 4], -1).reshape(*stored.shape[:-1], -1)
    whole = stored.astype(np.float32) - (1 << (bits - 1))
    step = np.broadcast_to(scale[..., None], whole.shape).reshape(len(whole), -1)
    return Constant(name, whole.reshape(len(whole), -1) * step, step, bits)


def open_unrounded(path: Path) -> tuple[Unrounded, ...]:
    """The file's graph with all arithmetic in float32, made in memory; batches go through it as they are."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    rewrite = _Rewrite(model.graph)
    rewrite.run()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    # Constants that are computed from weights would be folded, which takes as long as a run and saves nothing here.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        given = {name: by_choice(inputs[name].astype(np.int64), len(session.get_inputs()[0].shape)) for name in INPUTS}
        return dict(zip(names, session.run(names, given), strict=True))

    return (Unrounded(run, exact=not rewrite.halves, by_tanh=rewrite.by_tanh),)


class _Rewrite:
    """One pass over the nodes of a graph, each replaced by what it computes in float."""

    def __init__(self, graph: Any) -> None:
        from onnx import TensorProto, helper

        self.helper, self.half, self.float = helper, TensorProto.FLOAT16, TensorProto.FLOAT
        self.graph = graph
        self.by_tanh = False  # whether a GELU is computed by its tanh form
        self.halves = False  # whether the file computes in half precision somewhere
        self.same: dict[str, str] = {}  # a rounded value to what it was before
        self.made: list[Any] = []

    def run(self) -> None:
        """Replace all nodes, and widen what is half."""
        import onnx

        for node in self.graph.node:
            node.input[:] = [self.same.get(name, name) for name in node.input]
            getattr(self, node.op_type, self.keep)(node)
        del self.graph.node[:]
        self.graph.node.extend(self.made)
        del self.graph.value_info[:]
        for tensor in self.graph.initializer:
            if tensor.data_type == self.half:
                self.halves = True
                wide = onnx.numpy_helper.to_array(tensor).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))

    def keep(self, node: Any) -> None:
        """Leave a node as it is, but for half precision."""
        self.by_tanh |= any(attribute.s == b"tanh" for attribute in node.attribute if node.op_type == "Gelu")
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == self.half:
                attribute.i, self.halves = self.float, True
            if attribute.HasField("t") and attribute.t.data_type == self.half:
                from onnx import numpy_helper

                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
        self.made.append(node)

    def DynamicQuantizeLinear(self, node: Any) -> None:
        """Integers found as they come are the numbers themselves."""
        self.same[node.output[0]] = node.input[0]

    QuantizeLinear = DynamicQuantizeLinear

    def DequantizeLinear(self, node: Any) -> None:
        """Floats made of integers: of an activation's nothing, of a weight's what the node says."""
        if node.input[0] in self.same.values():
            self.same[node.output[0]] = node.input[0]
        else:
            self.keep(node)

    def MatMulIntegerToFloat(self, node: Any) -> None:
        """A product of integers, their scales and a bias."""
        entry, weight, _, scale = node.input[:4]
        self.product(node, entry, weight, scale, node.input[6] if len(node.input) > 6 else "")

    def DynamicQuantizeMatMul(self, node: Any) -> None:
        """A product whose first operand is rounded on the way."""
        entry, weight, scale = node.input[:3]
        self.product(node, entry, weight, scale, node.input[4] if len(node.input) > 4 else "")

    def product(self, node: Any, entry: str, weight: str, scale: str, bias: str) -> None:
        """Multiply in float by the weight that the integers stand for."""
        out = node.output[0]
        floats = self.emit("Cast", [weight], f"{out}/floats", to=self.float)
        matrix = self.emit("Mul", [floats, scale], f"{out}/weight")
        self.emit("MatMul", [entry, matrix], f"{out}/product" if bias else out)
        if bias:
            self.emit("Add", [f"{out}/product", bias], out)

    def emit(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """A new node; gives its output."""
        self.made.append(self.helper.make_node(op, inputs, [output], **attributes))
        return output
