"""Which recipe is the fastest on a phone: without dot products (Pixel 3 and before) 8 bits gain little, or lose."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebert.catalog import asked_recipe, check_pair, known
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import Unsupported
from edgebert.profiling import extrapolate
from edgebert.profiling.rows import Row
from edgebert.profiling.subject import Progress, devices
from edgebert.runtimes.devices.device import Device
from edgebert.runtimes.devices.pixel.phones import PHONES

# Those that lose little: 4 bits are asked for by whom size matters more.
CANDIDATES = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe on a phone.

    Attributes:
        recipe: its name.
        phone: simulated.
        tokens: of the text.
        ms: modelled, within low_ms and high_ms.
    """

    recipe: str
    phone: str
    tokens: int
    ms: float
    low_ms: float
    high_ms: float

    def __str__(self) -> str:
        return f"{self.recipe} {self.ms:.3g} ms ({self.low_ms:.3g} to {self.high_ms:.3g})"


def simulated(phone: str) -> list[Device]:
    """A phone that counts instructions.

    Raises:
        InputError: there is none of that name.
        MissingDependency: the simulation is not there.
    """
    return devices([known("phone", phone, PHONES)])


def count(
    source: str | Path | Checkpoint, target: str, lengths: Sequence[int], phone: str, threads: int, progress: Progress
) -> list[Row]:
    """Count a model in each recipe on a simulated phone.

    Args:
        source: what `extrapolate.whole` takes, or what is loaded already.
        target: to export for.
        lengths: tokens; empty for 128.
        phone: its name.
        threads: of the runtime.
        progress: is told each step.

    Raises:
        InputError: there is no such phone, or no such model.
        Unsupported: the target takes none of the recipes.
        MissingDependency: the target's packages or the simulation are not there.
    """
    opened = simulated(phone)
    recipes = dict.fromkeys(asked_recipe(target, name) for name in CANDIDATES)
    rows: list[Row] = []
    for recipe in recipes:
        try:
            check_pair(target, recipe)
        except Unsupported:
            continue
        rows += extrapolate.count(extrapolate.whole(source, lengths, target, recipe), opened, threads, progress)
    if not rows:
        raise Unsupported(f"{target} takes none of {', '.join(recipes)}.")
    return rows


def rank(rows: Sequence[Row]) -> list[Choice]:
    """The recipes that were counted, the fastest at the longest length first."""
    longest = max(row.flat()["tokens"] for row in rows)
    found = [flat for row in rows if (flat := row.flat())["tokens"] == longest]
    times = ("median_ms", "low_ms", "high_ms")
    choices = (Choice(one["recipe"], one["device"], longest, *(one[name] for name in times)) for one in found)
    return sorted(choices, key=lambda choice: choice.ms)


def told(ranked: Sequence[Choice]) -> str:
    """In a line, and what it rests on."""
    first = ranked[0]
    rest = f"; {', '.join(map(str, ranked[1:]))}" if ranked[1:] else ""
    return f"the fastest on {first.phone}, for {first.tokens} tokens, simulated: {first}{rest}"
