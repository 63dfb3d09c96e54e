"""TFLite (LiteRT): one file with a signature for each length, `tokens_32` and so on, over one copy of the weights.

A signature takes `input_ids`, `attention_mask` and `token_type_ids`, int32 (1, L), and gives the task's outputs by
name, float32. The longest length comes first, so it is what tools that know no signatures run.

Linear layers, convolutions and embedding tables are stored as the recipe says, in integers with a scale for each output
channel, row or block of a row; what becomes of each operator is the table in `weights.py`. Biases, norms and a
causal mask stay float. Depthwise convolutions always compute in float. In `w8a8-static` the head's linear layers, and
those whose outputs one scale cannot hold, find their scales at each call, see `ranges.py`.
"""

import importlib.util
import os
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

import torch

from edgebert import lowering
from edgebert.artifact import Artifact
from edgebert.errors import ConversionFailed, InputError, MissingDependency, Unsupported
from edgebert.exporters.tflite.draft import draw
from edgebert.exporters.tflite.pack import name_constants, origins, pack, stored
from edgebert.exporters.tflite.ranges import find_ranges
from edgebert.exporters.tflite.weights import block, write_weights
from edgebert.models import Model
from edgebert.models.signature import Arrays
from edgebert.quantization.gptq import Rounded, round_weights
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES, Recipe, kept
from edgebert.quantization.sizes import estimate

NEEDS = ("litert_torch", "ai_edge_litert", "flatbuffers")

# Recipes whose files ask for half precision, which processors without it leave alone; see `lowering/half_norms.py`.
IN_HALF = ("fp16", "w8a8-dynamic")

# Projections that are joined, unless some of them are to stay float.
PROJECTIONS = (".query", ".key", ".value")

# A flatbuffer addresses itself with signed 32-bit offsets: https://flatbuffers.dev/internals/
FILE_LIMIT = 2**31 - 1
# What a graph adds to its weights: 60 to 100 KB a layer and length were seen, names of tensors for the most part.
GRAPH_BYTES = 2**24


def missing() -> str | None:
    """The command that installs what exporting needs, None when it is there."""
    found = all(importlib.util.find_spec(name) for name in NEEDS)
    return None if found else 'pip install "edgebert[tflite]"'


def check(model: Model, recipe: Recipe) -> None:
    """Refuse, before any work, what cannot become a .tflite file.

    Raises:
        Unsupported: the target does not take the recipe, or the file would be larger than the format allows.
        MissingDependency: a package is not installed.
    """
    if recipe.name not in TARGET_RECIPES["tflite"]:
        raise Unsupported(f"tflite does not take {recipe.name}; it takes {', '.join(TARGET_RECIPES['tflite'])}.")
    if command := missing():
        raise MissingDependency(f"exporting {model.family.name} to tflite needs {', '.join(NEEDS)}: {command}")
    size = estimate(model, recipe) + GRAPH_BYTES
    if size <= FILE_LIMIT:
        return
    room = FILE_LIMIT - GRAPH_BYTES
    fits = [name for name in TARGET_RECIPES["tflite"] if estimate(model, RECIPES[name]) <= room]
    advice = f"choose {' or '.join(fits)}" if fits else "no recipe fits: choose a smaller model or vocabulary"
    raise Unsupported(
        f"{model.family.name} for {model.task} in {recipe.name} would be {size / 1e9:.2f} GB; "
        f"a .tflite file ends at {FILE_LIMIT / 1e9:.2f} GB; {advice}."
    )


def export(
    model: Model,
    recipe: Recipe,
    lengths: tuple[int, ...],
    path: Path,
    keep_float: Sequence[str] = (),
    samples: Sequence[Arrays] = (),
) -> Artifact:
    """Write the model as one .tflite file.

    While the converter runs, whatever this process writes to standard output and error is captured, for the converter
    talks through both from C++ too; it is kept in a log only if the conversion fails.

    Args:
        model: the torch model; it is not changed.
        recipe: one of `TARGET_RECIPES["tflite"]`.
        lengths: sequence lengths to make signatures for.
        path: the file to write; one that exists is replaced, when all went well.
        keep_float: patterns of modules whose weights stay float32, see `edgebert.quantization.recipes.kept`.
        samples: inputs of one row each, int32 (1, T), unpadded, that a static recipe finds its scales on.

    Raises:
        InputError: a length is not between 1 and the model's positions, or a static recipe has no samples.
        Unsupported: see `check`.
        ConversionFailed: the converter gave up; the message names the stage and the log.
    """
    check(model, recipe)
    ascending = _ascending(lengths, model.config.max_position_embeddings)
    if recipe.static and not samples:
        raise InputError(
            f"{recipe.name} finds its scales on sample texts; give some (--calibration), or choose another."
        )
    lowered = lower(model, recipe, ascending[-1], keep_float)
    origin = origins(model, lowered)
    part = path.with_name(path.name + ".part")
    descriptor, log = tempfile.mkstemp(prefix="edgebert-tflite-", suffix=".log")
    stage, failed = "conversion by litert-torch", False
    try:
        with os.fdopen(descriptor, "w", errors="replace") as stream, _captured(stream):
            try:
                draft = draw(lowered, ascending)
                stage = "writing the weights"
                ranges = find_ranges(lowered, samples, ascending[-1]) if recipe.static else {}
                floats = {name for name, own in origin.items() if any(_kept(model, one, keep_float) for one in own)}
                rounded = _rounded(lowered, samples, ascending[-1]) if recipe.weight_bits == 4 and samples else {}
                write_weights(draft, recipe.name, dict(lowered.named_parameters()), floats, ranges, rounded)
                name_constants(draft, origin)
                weights = stored(draft, origin)
                part.write_bytes(pack(draft.model, half=recipe.name in IN_HALF))
            except Exception:
                traceback.print_exc(file=stream)
                raise
        os.replace(part, path)
    except OSError:  # no room, or no right to write there: not the converter's doing
        raise
    except Exception as error:  # the converter's own errors have no common kind
        failed = True
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ConversionFailed(
            f"{model.family.name} for {model.task} in {recipe.name}: {stage} failed with "
            f"{type(error).__name__}: {reason} The whole log is in {log}."
        ) from error
    finally:
        part.unlink(missing_ok=True)
        if not failed:
            Path(log).unlink()
    tools = {name: version(name) for name in ("torch", "litert-torch", "ai-edge-litert")}
    return Artifact(path, ascending, dynamic=False, tools=tools, weights=weights)


def _rounded(lowered: Model, samples: Sequence[Arrays], longest: int) -> dict[str, Rounded]:
    """Linear layers in four bits, chosen on samples, by their weights' names; tables and tied layers are left out."""
    tables = {id(module.weight) for module in lowered.modules() if isinstance(module, torch.nn.Embedding)}
    by_group: dict[int, list[str]] = {}
    for name, module in lowered.named_modules():
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in tables:
            group = block(module.in_features)
            by_group.setdefault(0 if group == module.in_features else group, []).append(name)
    cut = [{key: value[:, :longest] for key, value in sample.items()} for sample in samples]
    rounded: dict[str, Rounded] = {}
    for group, names in by_group.items():
        rounded |= {f"{name}.weight": found for name, found in round_weights(lowered, names, cut, group).items()}
    return rounded


def _kept(model: Model, name: str, patterns: Sequence[str]) -> bool:
    """Whether a parameter belongs to a module that is to stay float, under any of the names it has."""
    tensor = model.get_parameter(name)
    names = [other for other, shared in model.named_parameters(remove_duplicate=False) if shared is tensor]
    return any(kept(other.rpartition(".")[0], patterns) for other in names) if patterns else False


def _ascending(lengths: tuple[int, ...], positions: int) -> tuple[int, ...]:
    """The lengths, sorted and checked."""
    if not lengths or not all(1 <= length <= positions for length in lengths):
        raise InputError(f"lengths {lengths}; at least one from 1 to the model's {positions} positions is needed.")
    return tuple(sorted(set(lengths)))


def lower(model: Model, recipe: Recipe, longest: int, keep_float: Sequence[str] = ()) -> Model:
    """The exact rewrites this target gains from; see edgebert/lowering for what each does."""
    in_half = recipe.name in IN_HALF
    # In float a grouped convolution is the quicker one, in int8 a linear layer for each group the more accurate one.
    grouped: lowering.GroupedForm = lowering.SlicedLinears if recipe.quantized else lowering.GroupedPointwise
    if recipe.quantized and in_half:
        grouped = lowering.TokenBlocks
    # A quarter of the transposes.
    lowered = lowering.tokens_before_channels(model, grouped)
    lowered = lowering.separate_convolutions(lowered)
    # A scale for each output, where the batched product would get one for each column of all groups together.
    lowered = lowering.split_grouped_linears(lowered, grouped)
    # A pass less over all numbers at each norm, and in half precision another.
    lowered = lowering.fold_norm_biases(lowered)
    lowered = lowering.norms_in_half(lowered) if in_half else lowered
    lowered = lowering.linears_in_blocks(lowered) if grouped is lowering.TokenBlocks else lowered
    lowered = lowering.scale_keys(lowered)
    lowered = lowering.query_inputs(lowering.first_token_only(lowered), grouped)
    apart = any(kept(name, keep_float) for name, _ in model.named_modules() if name.endswith(PROJECTIONS))
    if grouped is lowering.TokenBlocks and not apart:
        # What reads an input rounds it to int8, each for itself.
        lowered = lowering.join_projections(lowered, grouped)
    return lowering.trim_positions(lowered, longest)


@contextmanager
def _captured(stream: TextIO) -> Iterator[None]:
    """Send what Python and C++ write to standard output and error into a file."""
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with redirect_stdout(stream), redirect_stderr(stream):
            for number in kept:
                os.dup2(stream.fileno(), number)
            yield
            stream.flush()
    finally:
        for number, old in kept.items():
            os.dup2(old, number)
            os.close(old)
