"""What every rewrite of an ONNX graph is made of: new nodes and constants put where others stood."""

from collections.abc import Iterable
from typing import Any

import numpy as np


class Rewriter:
    """An onnx_ir.Model and the few changes that rewrites make to it, in place."""

    def __init__(self, model: Any) -> None:
        """Take over the model."""
        import onnx_ir

        self.ir = onnx_ir
        self.model = model
        self.graph = model.graph

    def constant(self, name: str, array: np.ndarray) -> Any:
        """A new initializer; one that has this name already is given back, and has to be the same."""
        if (there := self.graph.initializers.get(name)) is not None:
            known = there.const_value.numpy()
            if known.dtype != array.dtype or not np.array_equal(known, array):
                raise ValueError(f"{name} is another constant already")
            return there
        tensor = self.ir.tensor(array, name=name)
        kind, shape = self.ir.TensorType(tensor.dtype), self.ir.Shape(array.shape)
        value = self.ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def emit(self, before: Any, op: str, *inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Put a node into the graph; gives its output, or all of them."""
        node = self.ir.node(op, inputs, attributes, num_outputs=outputs, domain=domain)
        self.graph.insert_before(before, node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def first(self, nodes: Iterable[Any]) -> Any:
        """The one of some nodes that comes before the others."""
        wanted = set(nodes)
        return next(node for node in self.graph if node in wanted)

    def replace(self, node: Any, *values: Any) -> None:
        """Let `values` stand where the node's outputs stood, under their names."""
        self.ir.convenience.replace_nodes_and_values(self.graph, node, [node], [], node.outputs, list(values))
