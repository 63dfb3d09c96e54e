"""The matrix of what goes with what, from the registries themselves: for `edgebert list`, and for README."""

from collections.abc import Mapping, Sequence

from edgebert.catalog import FAMILIES, TASKS
from edgebert.quantization.recipes import FLOORS, NOT_TAKEN, RECIPES, SEVERAL_LENGTHS, TARGET_RECIPES

# What to use in place of a task that a family lacks.
INSTEAD: Mapping[str, str] = {
    "causal-lm": "masked-lm",
    "replaced-token-detection": "token-classification",
    "multiple-choice": "sequence-classification",
    "question-answering": "token-classification",
}
FEW = 3  # families that are named as those which lack a task

Rows = list[tuple[str, ...]]


def tasks() -> Rows:
    """Head row and rows: which families have which task, and what to use with the others."""
    having = {task: [name for name, family in FAMILIES.items() if task in family.tasks] for task in TASKS}
    rows = [
        (task, _listed(names), INSTEAD[task] if len(names) < len(FAMILIES) else "-") for task, names in having.items()
    ]
    return [("task", "families", "elsewhere"), *rows]


def _listed(names: Sequence[str]) -> str:
    """These families, or all but the few others."""
    others = [name for name in FAMILIES if name not in names]
    if not others:
        return "all"
    return f"all but {', '.join(others)}" if len(others) <= FEW else ", ".join(names)


def targets() -> Rows:
    """Head row and rows: which target takes which recipe."""
    rows = [
        (name, *("yes" if recipe in takes else "no" for recipe in RECIPES)) for name, takes in TARGET_RECIPES.items()
    ]
    return [("target", *RECIPES), *rows]


def floors() -> Rows:
    """Head row and rows: the oldest runtime for a target's files, and the recipes that it is the oldest for."""
    recipes: dict[tuple[str, str], list[str]] = {}
    for (target, recipe), least in FLOORS.items():
        later = SEVERAL_LENGTHS.get(target, least)
        told = least if later == least else f"{least}; {later} with several lengths"
        recipes.setdefault((target, told), []).append(recipe)
    return [("target", "runs from", "recipes"), *((*key, ", ".join(names)) for key, names in recipes.items())]


def reasons() -> list[str]:
    """For each target and recipe that do not go together what they are and what to use in their place, a line each."""
    return [f"{target} {recipe}: {why}" for (target, recipe), why in NOT_TAKEN.items()]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table as README holds it."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
