"""ExecuTorch for XNNPACK: one program whose token axis is free from 1 to the longest length, batch 1.

The delegate cuts no free axis. Where a family's layers ask for that, the program has a method for each length instead.
Where layers are local, `forward_long` answers long texts in blocks, whose number is free; the last is filled up.

The whole network is one XNNPACK graph, written here directly from the operators that torch.export gives, and not
through `to_edge_transform_and_lower`: that one leaves LayerNorm, slices and embeddings to plain kernels, cuts the graph
at each, and copies and retraces the model for every piece (51 s for a SqueezeBERT-base in fp32, minutes quantized).
Around the graph stand lookups of ids, a cast of the mask and a count of tokens.

A `w8a8-dynamic` file has two methods over one copy of the weights: `forward` runs on every processor, `forward_half`
keeps half numbers between products, which is faster on ARM cores with such arithmetic (since the Cortex-A55 and A75),
and slower elsewhere. Where half does not hold a model's numbers, as sample texts tell, there is `forward` alone.

Weights are symmetric integers with a scale for each output channel; 4-bit ones for each 32 values. Activations get a
scale for each token as they come, or in `w8a8-static` one for all, found on sample texts; a head's layers keep the
former, for samples do not reach every label. Tables are 8-bit in every quantized recipe. Float remain biases, norms,
attention's products of activations, and depthwise kernels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgebert import lowering
from edgebert.artifact import Artifact, Stored
from edgebert.exporters import common
from edgebert.exporters.common import UNTOLD, USUAL, About
from edgebert.exporters.executorch.fx_rewrites import keep_groups_apart
from edgebert.exporters.executorch.graph import TOKENS
from edgebert.exporters.executorch.program import Method, assemble
from edgebert.exporters.executorch.translate import Translator
from edgebert.exporters.executorch.weights import BLOCK, Plan, Range, Weights, quantize
from edgebert.exporters.provenance import by_origin, origins
from edgebert.files import replaced
from edgebert.gate.half import WHERE
from edgebert.models import Model
from edgebert.models.signature import INPUTS
from edgebert.quantization import gptq
from edgebert.quantization.observers import Samples, observe
from edgebert.quantization.recipes import Recipe
from edgebert.runtimes.executorch.program import FIXED_LENGTHS, FLOAT, HALF, LONG, LONG_TEXTS, method_name

# Texts of so many blocks are quicker in blocks: ModernBERT-base in 8 bits by 8% at 512 tokens, and by 4% at 384, where
# filling up a last block would take as much again.
LONG_BLOCKS = 8

NEEDS = ("executorch", "flatbuffers")


def missing() -> str | None:
    """The command that installs what exporting needs; None when it is there."""
    return common.missing("executorch", NEEDS)


def check(model: Model, recipe: Recipe) -> None:
    """Refuse, before any work, what the target does not take; see `common.check` for what it raises."""
    common.check("executorch", NEEDS, model, recipe)


def export(
    model: Model, recipe: Recipe, lengths: tuple[int, ...], path: Path, keep_float: Sequence[str] = (),
    samples: Samples = (), in_half: Mapping[str, float] | None = USUAL, about: About = UNTOLD,
) -> Artifact:  # fmt: skip
    """Write the model as one .pte file.

    Args:
        model: the torch model; it is not changed.
        recipe: one that `check` lets through.
        lengths: ascending; the last one bounds the token axis, and every length below it is served too, but where the
            family's layers cut it.
        path: the file to write; one that exists is replaced, when all went well.
        keep_float: patterns of modules that stay float, see `edgebert.quantization.recipes.kept`.
        samples: inputs from real texts, int32 (1, T), that static scales are found and 4-bit weights chosen on; without
            any, 4-bit weights are rounded to the nearest.
        in_half: None lets `w8a8-dynamic` compute in float alone.
        about: what the file tells beside.

    Raises:
        InputError: a static recipe has no samples, or the file cannot be written there.
        ConversionFailed: an operator of the model has no translation; the message names the log.
    """
    longest, long = lengths[-1], _long_texts(model, lengths[-1])
    with common.contained("executorch", f"{model.family.name} for {model.task} in {recipe.name}"), torch.no_grad():
        lowered = _for_all_tokens(model, recipe, longest)
        ranges = measure(lowered, samples, longest) if recipe.static else {}
        plan = Plan(recipe, tuple(keep_float), ranges)
        if recipe.weight_bits == 4 and samples:
            plan = replace(plan, rounded=gptq.round_weights(lowered, _groups(lowered, plan), samples, longest))
        # Only now, for samples tell more of the last layer's numbers by all their tokens.
        lowered = _for_the_first(lowered, recipe)
        half = ("executorch", recipe.name) in WHERE and in_half is not None
        content, stored = _convert(lowered, plan, lengths, half, common.said(model, recipe, lengths, about))
        weights = by_origin(stored.items(), origins(model, lowered))
    with replaced(path) as beside:
        beside.write_bytes(content)
    return Artifact(
        path,
        lengths,
        dynamic=not model.family.token_cuts,
        tools={name: version(name) for name in ("torch", "executorch")},
        weights=weights,
        lowerings=lowered.lowerings,
        notes=tuple(lowered.notes)
        + ((f"{FLOAT}{LONG} is quicker for {long[0]} to {long[-1]} tokens",) if long else ()),
    )


def short_texts(model: Model, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """A length of texts that `forward` answers, where all of `lengths` are of those with methods of their own."""
    # Of three blocks: more than a token sees.
    return (3 * lowering.window_block(model),) if lengths[0] in _long_texts(model, lengths[-1]) else ()


def _long_texts(model: Model, longest: int) -> range:
    """The lengths of texts that are answered in blocks."""
    block = lowering.window_block(model)
    return range(LONG_BLOCKS * block, longest // block * block + 1) if block else range(0)


def lower(
    model: Model,
    recipe: Recipe,
    longest: int,
    keep_float: Sequence[str] = (),
    in_half: Mapping[str, float] | None = None,
) -> Model:
    """The exact rewrites this target gains from, as the file computes; see edgebert/lowering for what each does."""
    return _for_the_first(_for_all_tokens(model, recipe, longest), recipe)


def _for_the_first(lowered: Model, recipe: Recipe) -> Model:
    """Without what no head reads."""
    lowered = lowering.first_token_only(lowered)
    by_row = recipe.weight_bits == 8 and not recipe.static
    return lowering.query_inputs(lowered, lowering.SlicedLinears) if by_row else lowered


def _for_all_tokens(model: Model, recipe: Recipe, longest: int) -> Model:
    """The rewrites that leave the last layer its tokens."""
    # Linear layers give a scale to each token of each group; a convolution has one for all tokens. Where scales are
    # fixed beforehand, or there are none, that makes no difference, and a convolution is one node.
    by_token = recipe.quantized and not recipe.static
    grouped = lowering.SlicedLinears if by_token else lowering.GroupedPointwise
    # A place more than a sequence has: a cut that may be the whole is two cases to a tracer.
    lowered = lowering.find_buckets(lowering.trim_positions(model, longest), max(longest, 3) + 1)
    lowered = lowering.convolve_tokens(lowering.fold_distances(lowering.fold_no_norms(lowered), longest, spare=0))
    lowered = lowering.tokens_before_channels(lowered, grouped)
    lowered = lowering.separate_convolutions(lowered)
    lowered = lowering.split_grouped_linears(lowering.columns_as_linears(lowered), grouped)
    return lowering.avoid_token_slices(lowered)


def measure(model: Model, samples: Samples, longest: int) -> dict[str, Range]:
    """What goes through each linear layer and 1x1 convolution of the lowered model, over all samples."""
    ranges: dict[str, Range] = {}

    def bounds(x: torch.Tensor) -> np.ndarray:
        rows = x.movedim(1, -1) if x.dim() == 4 else x
        flat = rows.reshape(-1, rows.shape[-1])
        return torch.stack([flat.amin(0), flat.amax(0)]).numpy()

    def merge(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.stack([np.minimum(old[0], new[0]), np.maximum(old[1], new[1])])

    def note(name: str, layer: nn.Module, entering: torch.Tensor, leaving: torch.Tensor) -> None:
        bias = 0 if layer.bias is None else layer.get_parameter("bias").detach().numpy()
        new = Range(bounds(entering), bounds(leaving) - bias)
        old = ranges.get(name, new)
        ranges[name] = Range(merge(old.enters, new.enters), merge(old.leaves, new.leaves))

    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    observe(model, layers, samples, note, longest)
    return ranges


def _groups(model: Model, plan: Plan) -> dict[str, int]:
    """Linear layers that take 4 bits, and how many weights share a scale; a tied decoder is the 8-bit table."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name: 0 if module.in_features % BLOCK else BLOCK
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and plan.mode(name) == "rows"
        and id(module.weight) not in tables
        and module.in_features % 2 == 0
    }


def _convert(
    model: Model, plan: Plan, lengths: tuple[int, ...], half: bool, told: Mapping[str, str]
) -> tuple[bytes, dict[str, Stored]]:
    """The file's bytes, with `half` a second form in them, and how each parameter of the lowered model is stored."""
    longest, fixed = lengths[-1], model.family.token_cuts
    names = list(model(*common.examples(1, longest).values()))
    forms: dict[str, Translator] = {}

    def translate(program: Any, length: int, name: Callable[[str], str], block: int = 0) -> None:
        for form in (FLOAT, HALF) if half else (FLOAT,):
            translator = Translator(program, plan, length, half=form == HALF, block=block)  # see `Translator.linear`
            translator.run()
            forms[name(form)] = translator

    for length in reversed(lengths) if fixed else (longest,):
        translate(_trace(model, length, fixed), length, partial(method_name, length=length, longest=longest))
    if long := _long_texts(model, longest):
        block = lowering.window_block(model)
        program = _trace_blocks(lowering.shift_windows(model), block, long[-1] // block)
        translate(program, long[-1], lambda form: f"{form}{LONG}", block)
    feeds = [(translator, feed) for translator in forms.values() for feed in translator.feeds.values()]
    readers = {feed.table: translator for translator, feed in reversed(feeds) if feed.table}
    tables = {name: _table(translator, name) for name, translator in readers.items()}
    pairs = {feed.source: form.tensors[feed.source].numpy() for form, feed in feeds if feed.kind == "pairs"}
    notes: dict[str, str | int] = {
        "producer": f"edgebert {version('edgebert')}",
        **{key: text for key, text in told.items() if text},
        "input_names": ",".join(INPUTS),
        "output_names": ",".join(names),
        "get_max_seq_len": longest,
        "get_vocab_size": model.config.vocab_size,
        "get_type_vocab_size": max(model.config.type_vocab_size, 1),  # without a table there is 0
        **({FIXED_LENGTHS: ",".join(map(str, lengths))} if fixed else {}),
        **({LONG_TEXTS: f"{long[0]},{long[-1]}"} if long else {}),
    }
    methods = {
        name: Method(
            form.graph, list(form.feeds.values()), form.outputs(names), form.graph.longest if fixed else TOKENS
        )
        for name, form in forms.items()
    }
    return assemble(methods, tables, pairs, notes), _stored(forms[FLOAT], tables)


def _trace(model: Model, length: int, fixed: bool) -> Any:
    """The model as torch.export sees it, for a number of tokens or for any up to it."""
    if fixed:
        examples = tuple(common.examples(1, length).values())
        program = torch.export.export(model, examples, strict=False)
    else:
        # torch.export makes a constant of a token axis of size 1.
        examples = tuple(common.examples(1, max(length, 2)).values())
        tokens = torch.export.Dim("tokens", min=1, max=max(length, 3))
        program = torch.export.export(model, examples, dynamic_shapes=({1: tokens},) * len(INPUTS), strict=False)
    keep_groups_apart(program.graph)
    return program


def _trace_blocks(model: Model, block: int, most: int) -> Any:
    """The model as torch.export sees it, for any number of whole blocks of tokens up to `most`."""
    examples = tuple(common.examples(1, block * most).values())
    blocks = torch.export.Dim("blocks", min=2, max=most)
    return torch.export.export(model, examples, dynamic_shapes=({1: block * blocks},) * len(INPUTS), strict=False)


def _table(translator: Translator, name: str) -> Weights:
    """A table: a layer's in 8 bits with a scale a row, in float where the recipe or the plan says so, or it is a row.

    What is no layer's weight is float: the angles of rotary positions, the terms of distances.
    """
    matrix = translator.tensors[name].detach().numpy()
    modules = [alias.rpartition(".")[0] for alias in translator.aliases[name]]
    layers = name.endswith(".weight")
    if not layers or matrix.ndim == 1 or translator.plan.mode(*modules) == "float":
        return Weights(name, "fp32", matrix.shape, matrix)
    return quantize(name, matrix, 8)


def _stored(translator: Translator, tables: dict[str, Weights]) -> dict[str, Stored]:
    """What the file holds under each name, scales included."""
    found: dict[str, Stored] = {}
    graph = translator.graph
    kinds = {name: kind for (name, _), kind in graph.kinds.items()} | {t.name: t.kind for t in tables.values()}
    arrays = graph.constants | {t.name: t.data for t in tables.values()}
    scales = {t.name: t.scale.nbytes for t in tables.values() if t.scale is not None}
    for name, kind in kinds.items():
        extra = scales.get(name, arrays[f"{name}.scale"].nbytes if f"{name}.scale" in arrays else 0)
        found[name] = Stored(DTYPES[kind], arrays[name].nbytes + extra)
    return found


DTYPES = {"fp32": "float32", "qcint8": "int8", "qcint4": "int4", "qbint4": "int4", "qcint32": "int32"}
