"""Which tensor of an ONNX graph is which parameter of the torch model.

The converter keeps a parameter's name, but not when it folds a transpose into it, and stores equal ones once. Rewrites
of the torch model cut and rename parameters before that. Both are undone here, so that a graph's weights carry the
names of the lowered model, and each of these leads to the parameter of the model that the user knows.
"""

import re
from collections import defaultdict
from typing import Any

import numpy as np
from torch import Tensor

from edgebert.artifact import Stored
from edgebert.errors import ConversionFailed
from edgebert.models import Model
from edgebert.quantization.recipes import kept

SCOPES = "pkg.torch.onnx.name_scopes"

# What a weight's integers are named after it, and their scales.
INTEGERS = re.compile(r"\.(int[48])(\.scale)?$")


class Names:
    """From names of a lowered model's tensors to the parameters of the model it was made from."""

    def __init__(self, model: Model, lowered: Model) -> None:
        """Match the tensors of the two; a lowered one is a view of the original's memory, or keeps its name."""
        firsts = {id(tensor): name for name, tensor in model.named_parameters()}
        aliases = {name: firsts[id(tensor)] for name, tensor in model.named_parameters(remove_duplicate=False)}
        self.modules = defaultdict[str, list[str]](list)
        for alias, first in aliases.items():
            self.modules[first].append(alias.rpartition(".")[0])
        places = sorted((*_memory(tensor), name) for name, tensor in model.named_parameters())
        self.origins: dict[str, str] = {}
        for name, tensor in lowered.named_parameters(remove_duplicate=False):
            start, _ = _memory(tensor)
            inside = next((first for begin, end, first in places if begin <= start < end), None)
            origin = inside or aliases.get(re.sub(r"\.parts\.\d+\b", "", name))
            if origin is not None:
                self.origins[name] = origin

    def kept(self, name: str, patterns: tuple[str, ...]) -> bool:
        """Whether a tensor belongs to a module that patterns name; a shared one is kept if one of its modules is."""
        origin = self.origins.get(name)
        return origin is not None and any(kept(module, patterns) for module in self.modules[origin])

    def stored(self, graph: Any) -> dict[str, Stored]:
        """How each parameter of the model stands in a finished graph; what is not there any more is left out."""
        dtypes, sizes = {}, defaultdict[str, int](int)
        for name, value in graph.initializers.items():
            origin = self.origins.get(INTEGERS.sub("", name))
            if origin is None:
                continue
            integers = INTEGERS.search(name)
            if not name.endswith(".scale"):
                dtypes[origin] = integers[1] if integers else value.const_value.numpy().dtype.name
            sizes[origin] += value.const_value.nbytes
        order = dict.fromkeys(self.origins.values())
        return {name: Stored(dtypes[name], sizes[name]) for name in order if name in sizes}


def name_weights(graph: Any, lowered: Model) -> None:
    """Give every constant of two and more dimensions the name of the parameter that it is, or is the transpose of.

    A tied table is stored once afterwards: the converter folds a small one's transpose into a second constant.

    Raises:
        ConversionFailed: one is no parameter of the model.
    """
    parameters = dict(lowered.named_parameters(remove_duplicate=False))
    for value in list(graph.initializers.values()):
        if len(value.shape) < 2 or value.name in parameters or value.dtype.is_integer():
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
    """Let the transpose of a table stand where a constant of its own stood."""
    import onnx_ir

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


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's numbers begin and end."""
    start = tensor.data_ptr()
    return start, start + tensor.numel() * tensor.element_size()
