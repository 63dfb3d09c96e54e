"""The matrix of what goes with what, from the registries themselves: for `edgebert list`, and for README."""

from collections.abc import Mapping, Sequence

from edgebert.models import MODELS
from edgebert.quantization.recipes import NOT_TAKEN, RECIPES, TARGET_RECIPES

# What to use in place of a task that a family lacks.
INSTEAD: Mapping[str, str] = {"causal-lm": "masked-lm", "replaced-token-detection": "token-classification"}

Rows = list[tuple[str, ...]]


def tasks() -> Rows:
    """Head row and rows: which family has which task."""
    names = dict.fromkeys(task for family in MODELS.values() for task in family.heads)
    rows = [(task, *("yes" if task in family.heads else "no" for family in MODELS.values())) for task in names]
    return [("task", *MODELS), *rows]


def targets() -> Rows:
    """Head row and rows: which target takes which recipe."""
    rows = [
        (name, *("yes" if recipe in takes else "no" for recipe in RECIPES)) for name, takes in TARGET_RECIPES.items()
    ]
    return [("target", *RECIPES), *rows]


def reasons() -> list[str]:
    """For each `no` what it is and what to use in its place, a line each."""
    absent = []
    for task, instead in INSTEAD.items():
        having = ", ".join(name for name, family in MODELS.items() if task in family.heads)
        lacking = [name for name, family in MODELS.items() if task not in family.heads]
        absent += [
            f"{name} {task}: the head is defined for {having}; use {instead}, or one of these." for name in lacking
        ]
    return [*absent, *(f"{target} {recipe}: {why}" for (target, recipe), why in NOT_TAKEN.items())]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table as README holds it."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
