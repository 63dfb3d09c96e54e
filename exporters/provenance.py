"""Which parameters of the model that a user knows the numbers of a lowered one, or of a file, come from.

A rewrite says it itself: what it makes of parameters carries them along (`lowering.rewrite.derived`), so that a target
only has to know under which lowered name it stored something.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from edgebert.artifact import Stored
from edgebert.errors import ConversionFailed
from edgebert.lowering.rewrite import sources
from edgebert.models import Model
from edgebert.quantization.recipes import kept

Origins = Mapping[str, tuple[str, ...]]


def origins(model: Model, lowered: Model) -> dict[str, tuple[str, ...]]:
    """Each parameter of a lowered model, by every name it has, to those of the original that its numbers are from.

    Several make one where projections were fused, in the order in which they stand there. A parameter that modules of
    the original share is told by its first name.

    Raises:
        ConversionFailed: a rewrite made a parameter and does not say of what.
    """
    firsts = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        name: tuple(dict.fromkeys(_firsts(name, parameter, firsts)))
        for name, parameter in lowered.named_parameters(remove_duplicate=False)
    }


def _firsts(name: str, parameter: Tensor, firsts: Mapping[int, str]) -> Iterable[str]:
    if id(parameter) in firsts:
        yield firsts[id(parameter)]
        return
    made_of = sources(parameter)
    if not made_of:
        raise ConversionFailed(f"{name} is a parameter that no module of the model given has.")
    for one in made_of:
        yield from _firsts(name, one, firsts)


def kept_float(model: Model, names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether one of these parameters belongs to a module that is to stay float, under any of the names it has."""
    if not patterns:
        return False
    shared = {id(model.get_parameter(name)) for name in names}
    return any(
        kept(alias.rpartition(".")[0], patterns)
        for alias, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in shared
    )


def by_origin(stored: Iterable[tuple[str, Stored]], origin: Origins) -> dict[str, Stored]:
    """What stands in a file of each parameter of the original model.

    Args:
        stored: a lowered parameter's name and how it, or a part of it, is stored; several in one have equal shares.
        origin: what `origins` gives; names that it lacks are left out.

    Returns:
        By the original's name, in the order of `origin`. Parts of one may differ in type, where some rows are too short
        for blocks of int4: the widest stands for all.
    """
    dtypes, sizes = defaultdict[str, set[str]](set), defaultdict[str, int](int)
    for name, entry in stored:
        for own in origin.get(name, ()):
            dtypes[own].add(entry.dtype)
            sizes[own] += entry.bytes // len(origin[name])
    order = dict.fromkeys(own for several in origin.values() for own in several)
    return {name: Stored(max(dtypes[name]), sizes[name]) for name in order if name in sizes}
