"""What can be said, and refused, before any weight is read."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebert.checkpoints import checkpoint
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import InputError
from edgebert.exporters import EXPORTERS
from edgebert.exporters.common import check_lengths, check_recipe
from edgebert.models import MODELS, Model
from edgebert.quantization import sizes
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES, Recipe, kept

# Sequence lengths where none are asked for, as far as a model's positions reach.
LENGTHS = (32, 64, 128)

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
MISTYPED = 0.85  # share of letters that two names have in common, from which on one is the other with a slip
# The recipe that `int8` means, where it is not w8a8-dynamic.
EIGHT_BITS = {"coreml": "w8"}

TASKS = tuple(dict.fromkeys(task for family in MODELS.values() for task in family.heads))


def check_pair(target: str, recipe: str) -> Recipe:
    """The recipe of that name, if the target takes it."""
    target = known("target", target, TARGET_RECIPES)
    recipe = known("recipe", asked_recipe(target, recipe), RECIPES)
    check_recipe(target, recipe)
    return RECIPES[recipe]


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


@dataclass(frozen=True, slots=True)
class Asked:
    """What an export was asked for; see `edgebert.export` for each."""

    target: str
    recipe: Recipe
    task: str | None
    random_init: bool
    lengths: Sequence[int] | None
    keep_float: tuple[str, ...]
    calibration_file: str | Path | None
    min_delegated: float | None
    trim_vocab: str | Path | None
    random_head: bool = False
    prompt: str | None = None
    ignore_config: tuple[str, ...] = ()


def preflight(model: str | Path | Checkpoint, asked: Asked) -> tuple[tuple[int, ...], str]:
    """Refuse what can be refused before any weight is read.

    Returns:
        The lengths to export, ascending, and a line that says what is to come.

    Raises:
        InputError: a value is out of its range, or does not go with another.
        Unsupported: the target cannot take this model in this recipe; the message names recipes that fit.
    """
    recipe = asked.recipe
    if isinstance(model, Checkpoint) and (asked.random_init or asked.task not in (None, model.model.task)):
        raise InputError(
            f"a loaded {model.model.task} model cannot become another: pass task and random_init to edgebert.load."
        )
    if asked.calibration_file is not None and not recipe.calibrated:
        needing = ", ".join(name for name, other in RECIPES.items() if other.calibrated)
        raise InputError(f"{recipe.name} takes no calibration texts; {needing} do.")
    if asked.min_delegated is not None and not 0 <= asked.min_delegated <= 1:
        raise InputError(f"min_delegated={asked.min_delegated}; a share of the arithmetic from 0 to 1 is needed.")
    if isinstance(model, Checkpoint):
        if asked.random_head or asked.prompt or asked.ignore_config:
            raise InputError("a model is loaded already: pass random_head, prompt and ignore_config to edgebert.load.")
        outline = model.model
    else:
        any_head = asked.random_head or asked.random_init
        outline = checkpoint.outline(model, asked.task, any_head, asked.prompt, asked.ignore_config)
    _check_patterns(outline, recipe, asked.keep_float)
    if asked.trim_vocab is None:  # what is trimmed may fit where the whole does not
        EXPORTERS[asked.target].check(outline, recipe)
    positions = outline.config.max_position_embeddings
    usual = tuple(length for length in LENGTHS if length <= positions) or (positions,)
    lengths = check_lengths(usual if asked.lengths is None else asked.lengths, positions)
    count = sum(parameter.numel() for parameter in outline.parameters())
    size = sizes.estimate(outline, recipe, asked.keep_float)
    return lengths, f"load the model: {count / 1e6:.1f} M parameters, about {readable(size)} in {recipe.name}"


def readable(size: int) -> str:
    """A size as a person reads it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _check_patterns(model: Model, recipe: Recipe, patterns: Sequence[str]) -> None:
    """Refuse patterns that keep nothing in float: a misspelt one would go unnoticed."""
    if patterns and not recipe.quantized:
        raise InputError(f"{recipe.name} is float already; --keep-float is for recipes that quantize.")
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))
    for pattern in patterns:
        if not any(kept(name, (pattern,)) for name in modules):
            near = difflib.get_close_matches(pattern, modules, 3, 0.3) or modules[:3]
            raise InputError(f"--keep-float {pattern!r} names no module; there are {', '.join(near)} and so on.")
