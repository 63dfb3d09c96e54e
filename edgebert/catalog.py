"""What there is, by name: families, tasks, targets and recipes, and what others call the same.

Nothing heavy is imported. A test holds the families' rows to the modules that define them.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgebert.errors import InputError, Unsupported
from edgebert.quantization.recipes import NOT_TAKEN, RECIPES, TARGET_RECIPES, Recipe


@dataclass(frozen=True, slots=True)
class Listed:
    """An architecture: its paper on arXiv, the tasks that it has heads for, and its presets for random weights."""

    paper: str
    tasks: tuple[str, ...]
    presets: tuple[str, ...]


HEADS = (
    "base",
    "sentence-embedding",
    "masked-lm",
    "sequence-classification",
    "multiple-choice",
    "token-classification",
    "question-answering",
)
FAMILIES: Mapping[str, Listed] = {
    "squeezebert": Listed("2006.11316", HEADS, ("squeezebert-base",)),
    "convbert": Listed("2008.02496", HEADS, ("convbert-base",)),
    "rembert": Listed("2010.12821", (*HEADS, "causal-lm"), ("rembert-base",)),
    "bert": Listed("1810.04805", HEADS, ("bert-base",)),
    "distilbert": Listed("1910.01108", HEADS, ("distilbert-base",)),
    "electra": Listed(
        "2003.10555", (*HEADS, "causal-lm", "replaced-token-detection"), ("electra-small", "electra-base")
    ),
    "roberta": Listed("1907.11692", (*HEADS, "causal-lm"), ("roberta-base", "xlm-roberta-base")),
    "mpnet": Listed("2004.09297", HEADS, ("mpnet-base",)),
    "albert": Listed("1909.11942", HEADS, ("albert-base",)),
    "mobilebert": Listed("2004.02984", HEADS, ("mobilebert-uncased",)),
    "deberta-v2": Listed("2006.03654", HEADS, ("deberta-v3-xsmall", "deberta-v3-small")),
    "modernbert": Listed("2412.13663", HEADS, ("modernbert-base",)),
    "nomic_bert": Listed(
        "2402.01613",
        tuple(task for task in HEADS if task not in ("multiple-choice", "question-answering")),
        ("nomic-embed",),
    ),
}
TASKS = tuple(dict.fromkeys(task for family in FAMILIES.values() for task in family.tasks))

# What transformers' pipelines, and users of the runtimes, call the same.
ALIASES: Mapping[str, Mapping[str, str]] = {
    "task": {
        "text-classification": "sequence-classification",
        "sentiment-analysis": "sequence-classification",
        "zero-shot-classification": "sequence-classification",
        "text-ranking": "sequence-classification",
        "ner": "token-classification",
        "fill-mask": "masked-lm",
        "feature-extraction": "base",
        "sentence-similarity": "sentence-embedding",
        "text-generation": "causal-lm",
    },
    "target": {"litert": "tflite", "core-ml": "coreml", "onnxruntime": "onnx", "pte": "executorch"},
    "recipe": {"float32": "fp32", "float16": "fp16", "half": "fp16"},
}
# Parts of names to what is meant by them, the more telling first.
MEANINGS: Mapping[str, Mapping[str, str]] = {
    "task": {
        "token": "token-classification",
        "entit": "token-classification",
        "ner": "token-classification",
        "tag": "token-classification",
        "classif": "sequence-classification",
        "sentiment": "sequence-classification",
        "rank": "sequence-classification",
        "embed": "sentence-embedding",
        "similar": "sentence-embedding",
        "mask": "masked-lm",
        "generat": "causal-lm",
        "causal": "causal-lm",
        "question": "question-answering",
        "qa": "question-answering",
        "nli": "sequence-classification",
        "choice": "multiple-choice",
        "feature": "base",
    },
    "recipe": {
        "w4a8": "w4a8-dynamic",
        "dynamic": "w8a8-dynamic",
        "static": "w8a8-static",
        "4": "w4",
        "8": "w8",
        "16": "fp16",
        "32": "fp32",
    },
    "target": {"lite": "tflite", "core": "coreml", "apple": "coreml", "torch": "executorch"},
}
# Whose metadata a file can carry beside edgebert's own, and the targets that it is for.
METADATA: Mapping[str, str] = {"mediapipe": "tflite"}
MISTYPED = 0.85  # share of letters that two names have in common, from which on one is the other with a slip
# The recipe that `int8` means, where it is not w8a8-dynamic.
EIGHT_BITS = {"coreml": "w8"}


def check_pair(target: str, recipe: str) -> Recipe:
    """The recipe of that name, if the target takes it.

    Raises:
        InputError: there is no such target, or no such recipe.
        Unsupported: the target does not take it.
    """
    target = known("target", target, TARGET_RECIPES)
    recipe = known("recipe", asked_recipe(target, recipe), RECIPES)
    check_recipe(target, recipe)
    return RECIPES[recipe]


def check_recipe(target: str, recipe: str) -> None:
    """Raise Unsupported, with the target's row and what to use instead, where it does not take the recipe."""
    if recipe not in TARGET_RECIPES[target]:
        takes = ", ".join(TARGET_RECIPES[target])
        raise Unsupported(f"{target} does not take {recipe}; it takes {takes}. {NOT_TAKEN.get((target, recipe), '')}")


def known(what: str, name: str, names: Iterable[str]) -> str:
    """The name itself, or what others call by it, or InputError with the one that is nearest in meaning or letters."""
    there, aliases = list(dict.fromkeys(names)), ALIASES.get(what, {})
    name = aliases.get(name, name)
    if name not in there:
        mistyped = [
            aliases.get(near, near) for near in difflib.get_close_matches(name, [*there, *aliases], 1, MISTYPED)
        ]
        meant = [found for part, found in MEANINGS.get(what, {}).items() if part in name.lower()]
        likely = [found for found in (*mistyped, *meant, *difflib.get_close_matches(name, there, 1)) if found in there]
        hint = f"did you mean {likely[0]}? " if likely else ""
        raise InputError(f"{what} {name!r} is not known; {hint}there are {', '.join(there)}.")
    return name


def asked_recipe(target: str, name: str) -> str:
    """A recipe's name; `int8` is the target's own 8-bit default."""
    return EIGHT_BITS.get(target, "w8a8-dynamic") if name in ("int8", "8bit", "w8a8") else name
