"""What every rewrite is made of: a copy of a model that shares its weights, and layers around given tensors."""

import copy
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from edgebert.models.family import Model

Kind = TypeVar("Kind", bound=nn.Module)


def duplicate(model: Model) -> Model:
    """A copy with modules of its own and the original's weights."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def replace(model: Model, kind: type[Kind], rewrite: Callable[[Kind], nn.Module]) -> Model:
    """A copy in which every module of the type `kind` is what `rewrite` makes of it."""
    lowered = duplicate(model)
    for parent in list(lowered.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, rewrite(child))
    return lowered.eval()


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer around given tensors."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return linear
