"""The matrix of what goes with what, from the registries themselves: for `edgebert list`, and for README."""

from collections.abc import Mapping, Sequence

from edgebert.models import MODELS
from edgebert.quantization.recipes import NOT_TAKEN, RECIPES, TARGET_RECIPES

# Why a family lacks a task, and what to use in its place.
NO_HEAD: Mapping[str, str] = {
    "causal-lm": "transformers has a causal head for RemBERT alone among these; use masked-lm, or rembert."
}

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
    absent = [
        f"{family} {task}: {why}"
        for task, why in NO_HEAD.items()
        for family in MODELS
        if task not in MODELS[family].heads
    ]
    return [*absent, *(f"{target} {recipe}: {why}" for (target, recipe), why in NOT_TAKEN.items())]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table as README holds it."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
