"""What the cell to be picked must keep to, and which one does and is the fastest."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from edgebert.errors import InputError
from edgebert.sweep.plan import TORCH
from edgebert.sweep.records import DONE, Record

LATENCY, SIZE, LOSS = "latency_ms", "size_mb", "loss"
FORMS = f"{LATENCY}=20@pixel-6, {SIZE}=10 or {LOSS}=0.5%"


@dataclass(frozen=True, slots=True)
class Budget:
    """One limit.

    Attributes:
        what: LATENCY, of the longest length; SIZE, of the file; LOSS, of the figure on texts, in points of 100.
        limit: the most that it may be.
        device: where, for a latency.
    """

    what: str
    limit: float
    device: str = ""

    def __str__(self) -> str:
        return f"{self.what}={self.limit:g}{'%' if self.what == LOSS else ''}{f'@{self.device}' if self.device else ''}"


@dataclass(frozen=True, slots=True)
class Picked:
    """A cell, and what each budget finds of it; None for what it has not."""

    record: Record
    found: tuple[float | None, ...]

    def over(self, budgets: Sequence[Budget]) -> float:
        """The most that any limit is exceeded by, as a ratio; at most 1 where all hold."""
        shares = [
            math.inf if value is None else value / limit.limit if limit.limit > 0 else math.inf if value > 0 else 0.0
            for value, limit in zip(self.found, budgets, strict=True)
        ]
        return max(shares, default=0.0)


def parse(text: str) -> Budget:
    """A budget as it is written: see FORMS.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"(\w+)=([0-9]*\.?[0-9]+)(%?)(?:@([\w:.-]+))?", text)
    if found:
        what, limit, percent, device = found[1], float(found[2]), found[3], found[4] or ""
        if what in (LATENCY, SIZE, LOSS) and (what == LATENCY) == bool(device) and (not percent or what == LOSS):
            return Budget(what, limit, device)
    raise InputError(f"--budget {text!r:.80}; {FORMS} is needed.")


def check(budgets: Sequence[Budget], devices: Sequence[str], with_figures: bool) -> None:
    """Refuse budgets for what a sweep does not look at.

    Raises:
        InputError: a device is not among those of the sweep, or there are no texts to lose anything on.
    """
    for one in budgets:
        if one.device and one.device not in devices:
            raise InputError(f"--budget {one}: the sweep is on {', '.join(devices)}; add --device {one.device}.")
        if one.what == LOSS and not with_figures:
            raise InputError(f"--budget {one} is of a figure on texts with labels: add --eval FILE.")


def measured(record: Record, budget: Budget, whole: float | None) -> float | None:
    """What a budget limits, of a record; None where that is not known."""
    if budget.what == SIZE:
        return record.size_mb
    if budget.what == LOSS:
        # 0.90 - 0.89 is a little more than a hundredth, in floating point.
        return None if whole is None or record.figure is None else max(round(100 * (whole - record.figure[1]), 9), 0.0)
    return latency(record, budget.device)


def latency(record: Record, device: str) -> float | None:
    """Milliseconds at the longest length that a record has for a device."""
    rows = [row for row in record.rows if row["device"] == device and row["median_ms"] is not None]
    longest = max(rows, key=lambda row: row["tokens"] or 0, default=None)
    return None if longest is None else float(longest["median_ms"])


def figures_of_torch(records: Sequence[Record]) -> dict[str, float]:
    """A model's own figure, by its name."""
    return {one.model: one.figure[1] for one in records if one.target == TORCH and one.figure}


def pick(records: Sequence[Record], budgets: Sequence[Budget]) -> Picked | None:
    """The cell that keeps to all budgets and is the fastest there, or the smallest where none is of time.

    Where none keeps to all it is the nearest: the one that exceeds a limit least. None where no cell is done.
    """
    whole = figures_of_torch(records)
    done = [one for one in records if one.status == DONE and one.target != TORCH]
    found = [Picked(one, tuple(measured(one, limit, whole.get(one.model)) for limit in budgets)) for one in done]
    if not found:
        return None
    device = next((limit.device for limit in budgets if limit.device), None)

    def cost(one: Picked) -> tuple[float, float]:
        time = latency(one.record, device) if device else None
        return (math.inf if device and time is None else time or 0.0, one.record.size_mb or math.inf)

    fitting = [one for one in found if one.over(budgets) <= 1]
    return min(fitting, key=cost) if fitting else min(found, key=lambda one: (one.over(budgets), cost(one)))
