"""Which of a file's inputs are looked up in tables, and how many rows those have: made-up inputs must stay below."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of a graph.

    Attributes:
        takes: the values that it computes on, whatever tells them apart.
        gives: the values that it makes.
        ids: of a lookup, the value whose numbers are rows of a table; None of other operators.
        rows: of that table.
    """

    takes: Sequence[Any]
    gives: Sequence[Any]
    ids: Any = None
    rows: int = 0


def rows(inputs: Mapping[Any, str], steps: Iterable[Step]) -> dict[str, int]:
    """For each input that ends up as rows of a constant table, those of the smallest such table.

    Args:
        inputs: value to name.
        steps: in the order in which they run.
    """
    origins = {value: frozenset((name,)) for value, name in inputs.items()}
    nothing: frozenset[str] = frozenset()
    found: dict[str, int] = {}
    for step in steps:
        if step.ids is not None:
            for name in origins.get(step.ids, nothing):
                found[name] = min(step.rows, found.get(name, step.rows))
            continue  # what was looked up is no number of a row
        reached = nothing.union(*(origins.get(value, nothing) for value in step.takes))
        if reached:
            origins |= dict.fromkeys(step.gives, reached)
    return found
