"""What can be said, and refused, before any weight is read."""

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebert.bundle import manifest
from edgebert.catalog import METADATA, known
from edgebert.checkpoints import checkpoint
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import InputError, Unsupported
from edgebert.exporters import EXPORTERS
from edgebert.exporters.common import check_lengths
from edgebert.exporters.tflite import mediapipe
from edgebert.models import Model
from edgebert.quantization import sizes
from edgebert.quantization.recipes import RECIPES, Recipe, kept

# Sequence lengths where none are asked for, as far as a model's positions reach.
LENGTHS = (32, 64, 128)


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
    metadata: str | None = None


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
        if (source := manifest.said_source(Path(model))) is not None:
            name = shlex.quote(str(model))
            raise InputError(
                f"{model} is a bundle already, and a checkpoint is exported: ask it with edgebert predict {name}, or "
                f"export {source!r:.200} again."
            )
        any_head = asked.random_head or asked.random_init
        outline = checkpoint.outline(model, asked.task, any_head, asked.prompt, asked.ignore_config)
    _check_patterns(outline, recipe, asked.keep_float)
    if asked.trim_vocab is None:  # what is trimmed may fit where the whole does not
        EXPORTERS[asked.target].check(outline, recipe)
    usual, positions = usual_lengths(outline), outline.family.longest(outline.config)
    usual = usual[-1:] if asked.metadata else usual
    lengths = check_lengths(usual if asked.lengths is None else asked.lengths, positions)
    _check_metadata(asked, outline, lengths)
    count = sum(parameter.numel() for parameter in outline.parameters())
    size = sizes.estimate(outline, recipe, asked.keep_float)
    return lengths, f"load the model: {count / 1e6:.1f} M parameters, about {readable(size)} in {recipe.name}"


def usual_lengths(model: Model) -> tuple[int, ...]:
    """The lengths that a model is exported with where none are asked for."""
    positions = model.family.longest(model.config)
    return tuple(length for length in LENGTHS if length <= positions) or (positions,)


def readable(size: int) -> str:
    """A size as a person reads it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _check_metadata(asked: Asked, model: Model, lengths: Sequence[int]) -> None:
    """Refuse metadata that is not for this target, task or number of lengths."""
    if asked.metadata is None:
        return
    name = known("metadata", asked.metadata, METADATA)
    if METADATA[name] != asked.target:
        raise Unsupported(
            f"--metadata {name} is for {METADATA[name]}, and not for {asked.target}: leave one of them out."
        )
    if model.task not in mediapipe.RUNNERS:
        tasks = " and ".join(mediapipe.RUNNERS)
        raise Unsupported(f"MediaPipe runs {tasks}, and not {model.task}: export without --metadata {name}.")
    if len(lengths) > 1:
        raise InputError(f"--metadata {name} takes one length, and {len(lengths)} came: pass --lengths {lengths[-1]}.")


def _check_patterns(model: Model, recipe: Recipe, patterns: Sequence[str]) -> None:
    """Refuse patterns that keep nothing in float: a misspelt one would go unnoticed."""
    if patterns and not recipe.quantized:
        raise InputError(f"{recipe.name} is float already; --keep-float is for recipes that quantize.")
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))
    for pattern in patterns:
        if not any(kept(name, (pattern,)) for name in modules):
            near = difflib.get_close_matches(pattern, modules, 3, 0.3) or modules[:3]
            raise InputError(f"--keep-float {pattern!r} names no module; there are {', '.join(near)} and so on.")
