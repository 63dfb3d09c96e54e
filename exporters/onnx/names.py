"""Which tensor of an ONNX graph is which parameter of the torch model.

The converter keeps a parameter's name, but not when it folds a transpose into it, and stores equal ones once. That is
undone here, so that a graph's weights carry the names of the lowered model.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor

from edgebert.artifact import Stored
from edgebert.errors import ConversionFailed
from edgebert.models import Model

SCOPES = "pkg.torch.onnx.name_scopes"

# What a weight's integers are named after it, and their scales.
INTEGERS = re.compile(r"\.(int[48])(\.scale)?$")


def stored(graph: Any) -> Iterator[tuple[str, Stored]]:
    """How each weight of a finished graph is stored, its scales included, by its name in the lowered model."""
    scales = {
        name.removesuffix(".scale"): value for name, value in graph.initializers.items() if name.endswith(".scale")
    }
    for name, value in graph.initializers.items():
        integers = INTEGERS.search(name)
        if name.endswith(".scale"):
            continue
        extra = scales[name].const_value.nbytes if integers else 0
        dtype = integers[1] if integers else value.const_value.numpy().dtype.name
        yield INTEGERS.sub("", name), Stored(dtype, value.const_value.nbytes + extra)


def name_weights(graph: Any, lowered: Model) -> None:
    """Give every constant of two and more dimensions the name of the parameter or buffer that it is.

    One may be the transpose of a parameter.

    A tied table is stored once afterwards: the converter folds a small one's transpose into a second constant.

    Raises:
        ConversionFailed: one is no parameter of the model.
    """
    parameters = dict(lowered.named_parameters(remove_duplicate=False))
    named = {*parameters, *(name for name, _ in lowered.named_buffers())}
    for value in list(graph.initializers.values()):
        if len(value.shape) < 2 or value.name in named or value.dtype.is_integer():
            continue
        # The module that the reading node was traced in says which parameter it is; its values have the last word.
        scopes = [use.node.metadata_props.get(SCOPES, "") for use in value.uses()]
        likely = [f"{module}.weight" for scope in scopes for module in re.findall(r"'([^']*)'", scope)[::-1]]
        names = dict.fromkeys([*(name for name in likely if name in parameters), *parameters])
        found = next((name for name in names if _same(value.const_value.numpy(), parameters[name])), None)
        if found is None:
            raise ConversionFailed(f"constant {value.name} {list(value.shape)} is no parameter of the model.")
        there = [name for name in parameters if parameters[name] is parameters[found] and name in graph.initializers]
        if there:
            _turn(graph, value, graph.initializers[there[0]])
        else:
            value.name = found


def _turn(graph: Any, value: Any, table: Any) -> None:
    """Let a table, or its transpose, stand where a constant of its own stood."""
    import onnx_ir

    if np.array_equal(value.const_value.numpy(), table.const_value.numpy()):  # a layer that is used twice
        value.replace_all_uses_with(table)
    else:
        turned = onnx_ir.node("Transpose", [table], {"perm": [1, 0]})
        graph.insert_before(value.uses()[0].node, turned)
        value.replace_all_uses_with(turned.outputs[0])
    del graph.initializers[value.name]


def _same(array: np.ndarray, tensor: Tensor) -> bool:
    """Whether these are equal, up to a transpose."""
    if array.ndim != tensor.dim() or array.size != tensor.numel():
        return False
    given = tensor.detach().numpy()
    return any(array.shape == turned.shape and np.array_equal(array, turned) for turned in (given, given.T))
