"""Is each number in a file the one that torch has? Every stored tensor is held to the weight that it came from.

What a run of the file cannot tell: it reaches a few hundred rows of a table, and a weight among millions hides behind
the rounding of the others.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from edgebert.lowering import duplicate
from edgebert.models import Model
from edgebert.report import Check
from edgebert.runtimes.session import Constant

NAME = "every weight is the model's"
# A number is rounded to the nearest step, so that half a step is the most it is off; computed in float32 twice.
NEAREST = 0.5 + 1e-3
# A scale is the largest number's of its row over the largest integer; one twice as large wastes a bit of all of them.
WIDEST = 2.0
# 4-bit integers are chosen together for what a layer makes of them, or their scale cuts off a block's extremes. The
# nearest ones are 1/12 of a squared step off in the mean; seen up to 4/12 in a weight.
CHOSEN, CHOSEN_ROW = 1.0, 4.0
# How far float32 numbers may be apart that are made of the same ones in another order.
SUMMED = 1e-5
# Half precision has 11 bits: a weight and its scale, each rounded to it before the weight is to integers.
HALVED = 2.0**-10
LEAST = 6.2e-5  # the smallest scale that half precision has, which rows of next to nothing take
SHOWN = 5  # weights that are named of those that are wrong


@dataclass(slots=True)
class Held:
    """What came of holding a file's constants to a model.

    Attributes:
        values: each parameter of the lowered model to the numbers that the file has for it, float32.
        packed: those that the file has in 8 bits or fewer, by all their names.
        chosen: those of them in 4, whose integers are chosen together; a layer is held to what it makes of them, too.
        wrong: what is wrong, a line each.
        count: numbers that were compared.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)
    packed: set[str] = field(default_factory=set)
    chosen: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    count: int = 0

    def check(self) -> Check:
        """The verdict in one line."""
        shown = "; ".join(self.wrong[:SHOWN]) + (
            f"; and {len(self.wrong) - SHOWN} more" if len(self.wrong) > SHOWN else ""
        )
        return Check(
            NAME, not self.wrong, shown or f"{self.count:,} numbers of {len(self.values)} tensors, each within its step"
        )


def hold(lowered: Model, origin: Mapping[str, tuple[str, ...]], constants: Iterable[Constant]) -> Held:
    """Compare a file's constants with the parameters of the model that it was converted from.

    Args:
        lowered: the model in the form that the file has, float32.
        origin: each of its parameters, by every name, to those of the original that it is made of.
        constants: what the file holds; named after a parameter, after its origins joined by `+`, or a numbered part of
            them (`NAME/0`), with any sign that is no letter or digit for another.
    """
    given: dict[str, list[Constant]] = defaultdict(list)
    for constant in constants:
        given[_key(re.sub(r"/\d+$", "", constant.name))].append(constant)
    vectors = [each for group in given.values() for each in group if each.values.squeeze().ndim <= 1]
    held, fitted, known = Held(), set[int](), set[str]()
    aliases = defaultdict[int, list[str]](list)
    for alias, parameter in lowered.named_parameters(remove_duplicate=False):
        aliases[id(parameter)].append(alias)
    for name, parameter in lowered.named_parameters():
        keys = dict.fromkeys(
            _key(each) for alias in aliases[id(parameter)] for each in (alias, "+".join(origin[alias]))
        )
        candidates = [constant for key in keys for constant in given.get(key, ())]
        numbers = parameter.detach().float().numpy()
        if not candidates:
            # Converters store equal vectors once, under one of their names, and leave out what adds nothing.
            candidates = [constant for constant in vectors if constant.values.size == numbers.size]
            if not any(_fit(numbers, constant) is not None for constant in candidates):
                if numbers.any():
                    held.wrong.append(f"{name} is not in the file")
                continue
        fits = [(constant, found) for constant in candidates if (found := _fit(numbers, constant)) is not None]
        if not fits:
            held.wrong.append(f"{name} is not what the file has, which is {_off(numbers, candidates[0])}")
            continue
        fitted |= {id(constant) for constant, _ in fits}
        if fits[0][0].bits <= 8:
            held.packed |= set(aliases[id(parameter)])
            held.chosen |= set(aliases[id(parameter)]) if fits[0][0].bits < 8 else set()
        held.values[name] = max((found for _, found in fits), key=lambda found: found.size)
        held.count += held.values[name].size
        known |= set(keys)
    held.wrong += [
        f"{each.name} in the file is no weight of the model"
        for key in known
        for each in given.get(key, ())
        if id(each) not in fitted
    ]
    return held


def carrying(lowered: Model, values: Mapping[str, np.ndarray]) -> Model:
    """A copy of a lowered model with a file's numbers for its weights, those that the file has."""
    copied = duplicate(lowered)
    made: dict[int, torch.nn.Parameter] = {}
    parameters = dict(lowered.named_parameters())
    for name, found in values.items():
        numbers = torch.from_numpy(np.require(found, np.float32, ["C", "W"]).reshape(-1))
        whole = parameters[name].detach().float()
        if numbers.numel() < whole.numel():  # the first rows of a table that is cut
            numbers = torch.cat([numbers, whole.reshape(-1)[numbers.numel() :]])
        whole = numbers.view(whole.shape)
        made[id(parameters[name])] = torch.nn.Parameter(whole, requires_grad=False)
    for module in copied.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, made.get(id(parameter), parameter))
    return copied


def _key(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _fit(numbers: np.ndarray, constant: Constant) -> np.ndarray | None:
    """A constant's values in the order of a parameter's axes, or of its first rows, if they are right; else None."""
    step = np.broadcast_to(constant.step, constant.values.shape)
    for whole, values, steps in _orders(numbers, constant.values, step) if _narrow(constant) else ():
        if _right(whole, values, steps, constant.bits):
            return values
    return None


def _orders(numbers: np.ndarray, values: np.ndarray, step: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """A parameter, or its first rows, with a constant whose axes are turned to fit it."""
    wanted: Any = numbers.squeeze()
    values, step = (
        array.reshape(wanted.shape if array.size == numbers.size == 1 else array.squeeze().shape)
        for array in (values, step)
    )
    if values.ndim != wanted.ndim:
        return
    for order in itertools.permutations(range(values.ndim)):
        turned: Any = values.transpose(order)
        steps = step.transpose(order)
        if turned.shape == wanted.shape:
            yield wanted, turned, steps
        elif turned.shape[1:] == wanted.shape[1:] and len(turned) < len(wanted):
            yield wanted[: len(turned)], turned, steps
        elif turned.shape[0] == wanted.shape[0] and turned.ndim == 2 and turned.shape[-1] > wanted.shape[-1]:
            yield (
                wanted,
                turned[:, : wanted.shape[-1]],
                steps[:, : wanted.shape[-1]],
            )  # a row is filled up to whole blocks


def _narrow(constant: Constant) -> bool:
    """Whether a packed constant's steps are no wider than its rows need: integers reach up to where they can."""
    if constant.bits > 8:
        return True
    step = np.abs(np.asarray(constant.step, np.float32))
    needed = (2 ** (constant.bits - 1) - 1) / WIDEST
    # A scale is that of an entry of one axis, or of blocks along the last.
    split = [axis for axis, size in enumerate(step.shape) if size > 1]
    lead = split[0] if split and step.shape != constant.values.shape else 0
    axes = tuple(axis for axis in range(constant.values.ndim) if axis != lead)
    sizes = np.abs(constant.values)
    if step.ndim == sizes.ndim and all(step.shape[axis] == 1 for axis in axes):  # before the division, which is slower
        sizes = sizes.max(axes, keepdims=True)
    step = np.broadcast_to(step, sizes.shape)
    reach = (sizes / np.maximum(step, np.finfo(np.float32).tiny)).max(axes)
    return bool(((reach >= needed) | (step.max(axes) <= LEAST)).all())


def _right(numbers: np.ndarray, values: np.ndarray, step: np.ndarray, bits: int) -> bool:
    """Whether stored numbers are those of a parameter, as near as their steps allow."""
    if bits < 8:
        squares = np.square((values - numbers) / np.maximum(np.abs(step), np.finfo(np.float32).tiny))
        square = squares.reshape(len(numbers), -1).mean(1)
        return bool(square.mean() <= CHOSEN and square.max() <= CHOSEN_ROW)
    off = np.asarray(values - numbers)
    np.abs(off, out=off)
    # Of a scale for each row there is one number a row: a whole table of it takes longer than all the rest.
    step = np.abs(step[tuple(slice(1 if stride == 0 else None) for stride in step.strides)])
    room = SUMMED * float(np.abs(numbers).max(initial=0))
    if step.dtype == np.float16:
        step = step.astype(np.float32)
        off -= HALVED * np.abs(numbers)
    off -= NEAREST * step
    return bool(off.max(initial=0) <= room)


def _off(numbers: np.ndarray, constant: Constant) -> str:
    """How a constant differs, for a person."""
    step = np.broadcast_to(constant.step, constant.values.shape)
    for whole, values, _ in _orders(numbers, constant.values, step):
        with np.errstate(invalid="ignore"):
            off = np.abs(values - whole)
        return (
            f"off by {float(np.nanmax(off)):.3g} of {float(np.abs(numbers).max()):.3g} at most, in {constant.bits} bits"
        )
    return f"of shape {constant.values.shape}, not {numbers.shape}"
