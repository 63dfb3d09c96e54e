"""TFLite (LiteRT): one file with a signature for each length, `tokens_32` and so on, over one copy of the weights.

A signature takes `input_ids`, `attention_mask` and `token_type_ids`, int32 (1, L), and gives the task's outputs by
name, float32. The longest length comes first, so it is what tools that know no signatures run. A sentence encoder of
several lengths has `packed_128` behind them, for rows of several short texts, see `edgebert/lowering/packed.py`.

Linear layers, convolutions and embedding tables are stored as the recipe says, in integers with a scale for each output
channel, row or block of a row; what becomes of each operator is the table in `weights.py`. Biases, norms and a
causal mask stay float. Depthwise convolutions always compute in float. In `w8a8-static` the head's linear layers, and
those whose outputs one scale cannot hold, find their scales at each call, see `ranges.py`.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from edgebert import lowering
from edgebert.artifact import Artifact
from edgebert.errors import Unsupported
from edgebert.exporters import common
from edgebert.exporters.common import UNTOLD, USUAL, About
from edgebert.exporters.provenance import by_origin, kept_float, origins
from edgebert.exporters.tflite import mediapipe
from edgebert.exporters.tflite.draft import Draft, draw
from edgebert.exporters.tflite.pack import name_constants, pack, stored
from edgebert.exporters.tflite.ranges import find_ranges
from edgebert.exporters.tflite.weights import block, write_weights
from edgebert.files import replaced
from edgebert.gate.half import WHERE
from edgebert.lowering.packed import packs
from edgebert.models import Model
from edgebert.quantization.gptq import Rounded, round_weights
from edgebert.quantization.observers import Samples
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES, Recipe, kept, scales_by_token
from edgebert.quantization.sizes import estimate

NEEDS = ("litert_torch", "ai_edge_litert", "flatbuffers")

# Projections that are joined, unless some of them are to stay float.
PROJECTIONS = (".query", ".key", ".value")

# Of a row of several texts: 10,000 texts of 25 tokens fill 99.8% of such rows, so that longer ones would gain nothing.
PACKED_TOKENS = 128

# A flatbuffer addresses itself with signed 32-bit offsets: https://flatbuffers.dev/internals/
FILE_LIMIT = 2**31 - 1
# What a graph adds to its weights: 60 to 100 KB a layer and length were seen, names of tensors for the most part.
GRAPH_BYTES = 2**24


def missing() -> str | None:
    """The command that installs what exporting needs; None when it is there."""
    return common.missing("tflite", NEEDS)


def check(model: Model, recipe: Recipe) -> None:
    """Refuse, before any work, what cannot become a .tflite file.

    Raises:
        Unsupported: the target does not take the recipe, or the file would be larger than the format allows.
        MissingDependency: a package is not installed.
    """
    common.check("tflite", NEEDS, model, recipe)
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
    samples: Samples = (),
    in_half: Mapping[str, float] | None = USUAL,
    about: About = UNTOLD,
) -> Artifact:
    """Write the model as one .tflite file.

    While the converter runs, whatever this process writes to standard output and error is captured, for the converter
    talks through both from C++ too; it is kept in a log only if the conversion fails.

    Args:
        model: the torch model; it is not changed.
        recipe: one that `check` lets through.
        lengths: sequence lengths to make signatures for, ascending.
        path: the file to write; one that exists is replaced, when all went well.
        keep_float: patterns of modules whose weights stay float32, see `edgebert.quantization.recipes.kept`.
        samples: inputs of one row each, int32 (1, T), unpadded, that a static recipe finds its scales on.
        in_half: norms' factors where the file asks for half precision, see `lowering/half_norms.py`; None lets every
            recipe compute in float alone.
        about: what the file tells beside; with `words` MediaPipe runs it, of one length and with one output.

    Raises:
        InputError: a static recipe has no samples, or the file cannot be written there.
        ConversionFailed: the converter gave up; the message names the stage and the log.
    """
    what, longest = f"{model.family.name} for {model.task} in {recipe.name}", lengths[-1]
    with common.contained("tflite", what):
        in_half = in_half if ("tflite", recipe.name) in WHERE else None
        lowered = lower(model, recipe, longest, keep_float, in_half)
        origin = origins(model, lowered)
        draft = draw(lowered, lengths, _packed(model, lengths))
        ranges = find_ranges(lowered, samples, longest) if recipe.static else {}
        floats = {name for name, own in origin.items() if kept_float(model, own, keep_float)}
        rounded = _rounded(lowered, samples, longest) if recipe.weight_bits == 4 and samples else {}
        write_weights(draft, recipe.name, dict(lowered.named_parameters()), floats, ranges, rounded)
        name_constants(draft, origin)
        weights = by_origin(stored(draft), origin)
        told = common.said(model, recipe, lengths, about)
        content = pack(draft.model, in_half is not None, told, *_for_mediapipe(model, draft, told, about))
    with replaced(path) as beside:
        beside.write_bytes(content)
    return Artifact(
        path,
        lengths,
        dynamic=False,
        tools={name: version(name) for name in ("torch", "litert-torch", "ai-edge-litert")},
        weights=weights,
        lowerings=lowered.lowerings,
        notes=tuple(lowered.notes),
    )


def _packed(model: Model, lengths: tuple[int, ...]) -> int:
    """Tokens of a row that takes several texts; 0 for a model whose texts do not stand beside each other.

    A file of one length has that alone: each signature that a file holds takes memory once it is open.
    """
    return min(lengths[-1], PACKED_TOKENS) if len(lengths) > 1 and packs(model) else 0


def _for_mediapipe(model: Model, draft: Draft, told: Mapping[str, str], about: About) -> tuple[bytes, dict[str, bytes]]:
    """The entry that MediaPipe reads, and the files behind the model; both empty in a file that is not for it."""
    if about.words is None:
        return b"", {}
    (signature,) = draft.model.signatureDefs
    labels = model.config.labels if model.task == "sequence-classification" else ()
    names = [output.name.decode() for output in signature.outputs]
    return mediapipe.entry(model.task, names, told), mediapipe.files(about.words, labels)


def _rounded(lowered: Model, samples: Samples, longest: int) -> dict[str, Rounded]:
    """Linear layers in four bits, chosen on samples, by their weights' names; tables and tied layers are left out."""
    tables = {id(module.weight) for module in lowered.modules() if isinstance(module, torch.nn.Embedding)}
    groups = {
        name: block(module.in_features) % module.in_features  # 0, for a scale a row, where a block is all of it
        for name, module in lowered.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in tables
    }
    return {f"{name}.weight": found for name, found in round_weights(lowered, groups, samples, longest).items()}


def lower(
    model: Model,
    recipe: Recipe,
    longest: int,
    keep_float: Sequence[str] = (),
    in_half: Mapping[str, float] | None = None,
) -> Model:
    """The exact rewrites this target gains from; see edgebert/lowering for what each does.

    Args:
        model: the torch model; it is not changed.
        recipe: one that the target takes.
        longest: the longest length.
        keep_float: patterns of modules that stay float.
        in_half: norms' factors in a file that asks for half precision; None for one that does not.
    """
    # In float a grouped convolution is the quicker one, in int8 a linear layer for each group the more accurate one.
    grouped: lowering.GroupedForm = lowering.SlicedLinears if recipe.quantized else lowering.GroupedPointwise
    if recipe.quantized and in_half is not None and not scales_by_token("tflite", recipe, model.task):
        grouped = lowering.TokenBlocks
    # A quarter of the transposes.
    lowered = lowering.tokens_before_channels(lowering.fold_distances(model, longest, spare=0), grouped)
    lowered = lowering.separate_convolutions(lowered)
    # A scale for each output, where the batched product would get one for each column of all groups together.
    lowered = lowering.split_grouped_linears(lowered, grouped)
    # A pass less over all numbers at each norm, and in half precision another.
    lowered = lowering.fold_no_norms(lowering.fold_norm_biases(lowered))
    lowered = lowered if in_half is None else lowering.move_distances(lowering.norms_in_half(lowered, in_half))
    lowered = lowering.linears_in_blocks(lowered) if grouped is lowering.TokenBlocks else lowered
    lowered = lowering.scale_keys(lowered)
    lowered = lowering.query_inputs(lowering.first_token_only(lowered), grouped)
    apart = any(kept(name, keep_float) for name, _ in model.named_modules() if name.endswith(PROJECTIONS))
    if grouped is lowering.TokenBlocks and not apart:
        # What reads an input rounds it to int8, each for itself.
        lowered = lowering.fuse_qkv(lowered, grouped)
    return lowering.trim_positions(lowered, longest)
