"""What every rewrite is made of: a copy of a model that shares its weights, and parts matched, replaced and derived."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from edgebert.errors import ConversionFailed
from edgebert.models.family import Model
from edgebert.models.layers import NoNorm

Kind = TypeVar("Kind", bound=nn.Module)

# What gives each channel a weight and a bias.
NORMS = (nn.LayerNorm, NoNorm)


def duplicate(model: Model) -> Model:
    """A copy with modules of its own and the original's weights."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def matched(
    lowered: Model, rewrite: str, kinds: Iterable[type[Kind]], fits: Callable[[Kind], bool] = lambda module: True
) -> Iterator[tuple[str, Kind]]:
    """The modules that a rewrite is to change, told in `lowered.lowerings` under its name.

    A module counts where its type is one of `kinds` and no other: a subclass may compute something else, so it is left
    as it is, and `lowered.notes` says so.

    Args:
        lowered: the copy that is rewritten.
        rewrite: its name, for the report.
        kinds: types of modules that it knows.
        fits: whether one of them can be rewritten; where not, that is no miss.

    Raises:
        ConversionFailed: the family declares one of `kinds` among its parts, and no module is of that type.
    """
    known = tuple(kinds)
    right = {name: module for name, module in lowered.named_modules() if type(module) in known}
    odd = [
        f"{name} is a {type(module).__qualname__}"
        for name, module in lowered.named_modules()
        if isinstance(module, known) and not understood(module, known)
    ]
    found = {type(module) for module in right.values()}
    if absent := [kind.__qualname__ for kind in known if kind in lowered.parts and kind not in found]:
        raise ConversionFailed(
            f"{rewrite} found no {' and no '.join(absent)} in {lowered.family.name}, whose family declares it"
            f"{f'; {odd[0]}, which is not lowered' if odd else ''}: take it out of the family's parts to go without."
        )
    if odd:
        lowered.notes.append(f"{rewrite} left as they are: {', '.join(odd)}")
    chosen: dict[str, Any] = {name: module for name, module in right.items() if fits(module)}
    lowered.lowerings[rewrite] = tuple(chosen)
    yield from chosen.items()


def understood(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is of one of these types, or what a rewrite made of one; another subclass is not."""
    ours = type(module).__module__.startswith(f"{__package__}.")
    return type(module) in kinds or (ours and isinstance(module, kinds))


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Let a module stand at a path of the model."""
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def derived(tensor: Tensor, *made_of: Tensor) -> nn.Parameter:
    """A new parameter that says of which others its numbers are made; `sources` reads it again."""
    parameter = nn.Parameter(tensor.detach(), requires_grad=False)
    parameter.made_of = made_of  # type: ignore[attr-defined]
    return parameter


def sources(parameter: Tensor) -> tuple[Tensor, ...]:
    """The parameters that one is made of; none for one that no rewrite made."""
    found: tuple[Tensor, ...] = getattr(parameter, "made_of", ())
    return found


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer around given tensors, weight (outputs, inputs)."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = derived(weight, weight)
    if bias is not None:
        linear.bias = derived(bias, bias)
    return linear


def projections(module: nn.Module) -> list[Any]:
    """The linear layers and 1x1 convolutions, in the order of their outputs, that make up a projection."""
    return [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]


def dense(layer: nn.Module) -> tuple[Tensor, Tensor, int]:
    """Weight (outputs, inputs of a group), bias and groups of a projection in any of its forms."""
    parts = projections(layer)
    groups = parts[0].groups if isinstance(parts[0], nn.Conv2d) else len(parts)
    weights, biases = ([getattr(part, name) for part in parts] for name in ("weight", "bias"))
    weight = torch.cat([part.detach() for part in weights]).flatten(1)
    return derived(weight, *weights), derived(torch.cat([part.detach() for part in biases]), *biases), groups


def multiply(module: nn.Module, factor: float, *names: str) -> None:
    """Give a module's parts new parameters, the old ones times a factor."""
    for part in [module] if isinstance(module, NORMS) else projections(module):
        for name in names:
            if (old := getattr(part, name)) is not None:
                part.register_parameter(name, derived(old.detach() * factor, old))
