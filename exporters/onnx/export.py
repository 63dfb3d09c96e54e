"""ONNX for ONNX Runtime: one file with a free batch and token axis, so that one graph serves every length.

Inputs are int64 with axes `batch_size` and `sequence_length`, as clients of Hugging Face's files feed them, and become
int32 inside.

`fp16` stores and computes in half precision, with outputs float32 as everywhere; where ONNX Runtime has no kernel in
half precision, as mostly on x86, it computes that operator in float. Where half does not hold a model's numbers, as
sample texts tell, it stores matrices in half and computes in float.

For the recipes with integers see `quantizer.py`, and for operators that stand for slower ones `rewrites.py`.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgebert import lowering
from edgebert.artifact import Artifact
from edgebert.errors import ConversionFailed, InputError
from edgebert.exporters import common
from edgebert.exporters.common import UNTOLD, USUAL, About
from edgebert.exporters.onnx.integers import activation_ranges
from edgebert.exporters.onnx.names import name_weights, stored
from edgebert.exporters.onnx.quantizer import Quantizer, bits_of
from edgebert.exporters.onnx.rewrites import lower_graph
from edgebert.exporters.provenance import by_origin, kept_float, origins
from edgebert.lowering.rewrite import derived
from edgebert.models import Model
from edgebert.models.layers import NoNorm
from edgebert.models.signature import INPUTS
from edgebert.quantization import gptq
from edgebert.quantization.observers import Samples
from edgebert.quantization.recipes import Recipe, scales_by_token
from edgebert.runtimes.onnx.file import BLANK, MAX_TOKENS, PRODUCER, SEAL, VOCABULARY, seal_of

NEEDS = ("onnx", "onnxscript", "onnxruntime")

# The first opset with Gelu as one operator: https://onnx.ai/onnx/operators/onnx__Gelu.html
OPSET = 20
# The first format with that opset, which ONNX Runtime 1.17 reads: https://onnx.ai/onnx/repo-docs/Versioning.html. What
# came with later ones, types of 4 bits among it, is not used: two 4-bit numbers are a byte here.
IR_VERSION = 9
AXES = ("batch_size", "sequence_length")
CHOICES = "num_choices"
# A protobuf message ends at 2 GiB; what a graph adds to its weights, some 100 KB a layer, fits the margin many times.
ONE_FILE = 2**31 - 2**26


def missing() -> str | None:
    """The command that installs what exporting needs; None when it is there."""
    return common.missing("onnx", NEEDS)


def check(model: Model, recipe: Recipe) -> None:
    """Refuse, before any work, what the target does not take; see `common.check` for what it raises."""
    common.check("onnx", NEEDS, model, recipe)


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
    """Write the model as one .onnx file; weights of 2 GiB and more stand beside it in `<name>.onnx_data`.

    Args:
        model: the torch model; it is not changed.
        recipe: one that `check` lets through.
        lengths: ascending; the last one bounds the token axis, and every length below it is served too.
        path: the file to write; one that exists is replaced, when all went well.
        keep_float: patterns of modules that a recipe with integers leaves in float, see `quantization/recipes.py`.
        samples: inputs int32 (1, T), unpadded, that `w8a8-static` finds its scales on, and `w4` its roundings; without
            any, `w4` rounds each weight for itself.
        in_half: None lets every recipe compute in float alone.
        about: what the file tells beside.

    Raises:
        InputError: a static recipe has no samples, or the file cannot be written there.
        ConversionFailed: the converter gave up; the message names the log.
    """
    longest = lengths[-1]
    with common.contained("onnx", f"{model.family.name} for {model.task} in {recipe.name}"):
        lowered = lower(model, recipe, longest)
        origin = origins(model, lowered)

        constants = {name for name, _ in lowered.named_buffers()}  # angles of rotary positions, and masks

        def kept(name: str) -> bool:
            return name in constants or kept_float(model, origin.get(name, ()), keep_float)

        ranges = activation_ranges(lowered, samples) if recipe.static else {}
        rounded = _rounded(lowered, kept, samples) if recipe.weight_bits == 4 and samples else {}
        given = _halved(lowered) if recipe.weight_bits == 16 and in_half is not None else lowered
        converted = _convert(given, max(longest, 2))
        name_weights(converted.graph, given)
        lower_graph(converted, recipe, in_half is not None)
        if recipe.quantized:
            by_token = scales_by_token("onnx", recipe, model.task)
            Quantizer(converted, recipe, by_token, kept, ranges, rounded).run()
        _finish(converted, model, longest, common.said(model, recipe, lengths, about))
        _write(converted, path)
        weights = by_origin(stored(converted.graph), origin)
    return Artifact(
        path,
        lengths,
        dynamic=True,
        tools={name: version(name) for name in ("torch", *NEEDS)},
        weights=weights,
        lowerings=lowered.lowerings,
        notes=tuple(lowered.notes),
    )


def lower(
    model: Model,
    recipe: Recipe,
    longest: int,
    keep_float: Sequence[str] = (),
    in_half: Mapping[str, float] | None = None,
) -> Model:
    """The exact rewrites this target gains from, in float32; see edgebert/lowering for what each does."""
    # Rows that no length reaches are dead weight: 384 of 512 in a file for 128 tokens. torch takes a dimension of size
    # 1 for a constant, so that the free axis reaches 2 at least.
    lowered = lowering.cut_windows(lowering.trim_positions(model, max(longest, 2)), longest)
    lowered = lowering.fold_distances(lowered, max(longest, 2))
    # The kernel of a LayerNorm adds its bias for nothing.
    lowered = lowering.fold_no_norms(lowering.fold_norm_biases(lowered, (NoNorm,)))
    if recipe.weight_bits == 16:
        # ONNX Runtime's grouped convolutions in half precision are wrong on ARM: 13 dB on a simulated Pixel.
        lowered = lowering.tokens_before_channels(lowered, lowering.SlicedLinears)
    if recipe.quantized:
        # A grouped convolution in int8 is 3 times slower than float on x86, and 2 times faster on a phone. Split into
        # linear layers it is quick on both: a Cortex-A76 needs the same instructions (0.672 G for 0.664 G,
        # SqueezeBERT-base at 128 tokens).
        lowered = lowering.tokens_before_channels(lowered, lowering.SlicedLinears)
        # A batched product with a constant would be quantized with a scale for each column of all groups together.
        lowered = lowering.split_grouped_linears(lowered, lowering.SlicedLinears)
        # The pointwise half of a separable convolution is a linear layer, which is quantized by channel.
        lowered = lowering.columns_as_linears(lowering.separate_convolutions(lowered))
    if recipe.activation_bits == 8:
        # The scores come from a product in half precision, which a division would follow as an operator of its own.
        lowered = lowering.scale_keys(lowered)
    if recipe.weight_bits != 16:
        # A single row of half numbers is multiplied into memory that ONNX Runtime 1.17 has not cleared: NaN.
        lowered = lowering.first_token_only(lowered)
    return lowering.query_inputs(lowered, lowering.SlicedLinears) if recipe.quantized else lowered


def _rounded(model: Model, kept: Callable[[str], bool], samples: Samples) -> dict[str, gptq.Rounded]:
    """The linear layers that get 4 bits, rounded for what they compute on the samples."""
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    chosen = [name for name in linear if bits_of(f"{name}.weight") == 4 and not kept(f"{name}.weight")]
    return gptq.round_weights(model, dict.fromkeys(chosen, gptq.GROUP), samples)


def _halved(model: Model) -> Model:
    """A copy in half precision; each weight is halved by itself, so that no second copy in float is made."""
    halved = lowering.duplicate(model)
    done: dict[nn.Parameter, nn.Parameter] = {}
    for module in halved.modules():
        for name, tensor in list(module.named_parameters(recurse=False)):
            if tensor not in done:
                done[tensor] = derived(tensor.half(), tensor)
            setattr(module, name, done[tensor])
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_floating_point():  # the angles of rotary positions
                setattr(module, name, buffer.half())
    return halved


def _convert(model: Model, longest: int) -> Any:
    """The model as an onnx_ir.Model whose outputs are float32."""
    # Two rows and more than one token, for torch.export makes constants of sizes 0 and 1; and three tensors, for it
    # takes one tensor that is given three times for one input.
    examples = tuple(common.examples(2, min(longest, 8)).values())
    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1, max=longest)
    with torch.no_grad():
        names = list(model(*examples))
        program = torch.export.export(
            model, examples, dynamic_shapes=({0: batch, 1: tokens},) * len(INPUTS), strict=False,
            # What holds of every number of tokens, but cannot be proven of one that is rounded up to blocks.
            prefer_deferred_runtime_asserts_over_guards=True,
        )  # fmt: skip
        exported = torch.onnx.export(
            program, (), dynamo=True, verbose=False, opset_version=OPSET, input_names=list(INPUTS), output_names=names
        )
    if exported is None:
        raise ConversionFailed("torch.onnx.export gave nothing back.")
    _widen_outputs(exported.model.graph)
    return exported.model


def _widen_outputs(graph: Any) -> None:
    """Cast outputs in half precision to float32, under their names."""
    import onnx_ir

    for i, value in enumerate(graph.outputs):
        if value.dtype == onnx_ir.DataType.FLOAT16:
            cast = onnx_ir.node("Cast", [value], {"to": int(onnx_ir.DataType.FLOAT)})
            graph.append(cast)
            wide = cast.outputs[0]
            wide.shape, wide.type = value.shape, onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
            name, value.name = value.name, f"{value.name}.half"
            wide.name = name
            graph.outputs[i] = wide


def _name_axes(graph: Any) -> None:
    """Call the free axes what Hugging Face's exporter calls them; torch has numbers for them."""
    import onnx_ir

    names = dict(zip((str(size) for size in graph.inputs[0].shape), AXES, strict=True))
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        if value.shape is not None:
            value.shape = onnx_ir.Shape([names.get(str(size), size) for size in value.shape])


def _widen_inputs(graph: Any) -> None:
    """Take inputs in int64, under their names, and cast them to the int32 that the graph computes with."""
    import onnx_ir

    first = graph[0]
    for i, value in enumerate(list(graph.inputs)):
        wide = onnx_ir.Input(value.name, value.shape, onnx_ir.TensorType(onnx_ir.DataType.INT64))
        graph.inputs[i] = wide
        if not value.uses():  # a family without token types takes them all the same
            continue
        cast = onnx_ir.node("Cast", [wide], {"to": int(onnx_ir.DataType.INT32)})
        graph.insert_before(first, cast)
        narrow = cast.outputs[0]
        narrow.name, narrow.shape, narrow.type = f"{value.name}.int32", value.shape, value.type
        value.replace_all_uses_with(narrow)


def _by_choice(graph: Any) -> None:
    """Take (batch, choices, tokens) and give (batch, choices), as transformers' models for multiple choice do."""
    import onnx_ir

    first, batch, tokens = graph[0], *AXES
    for i, rows in enumerate(list(graph.inputs)):
        whole = onnx_ir.Input(rows.name, onnx_ir.Shape([batch, CHOICES, tokens]), rows.type)
        graph.inputs[i] = whole
        if rows.uses():
            flat = onnx_ir.node("Flatten", [whole], {"axis": 2})
            graph.insert_before(first, flat)
            flat.outputs[0].name, flat.outputs[0].type = f"{rows.name}.rows", rows.type
            rows.replace_all_uses_with(flat.outputs[0])
    shape = onnx_ir.node("Shape", [graph.inputs[0]], {"start": 0, "end": 2})
    scores = graph.outputs[0]
    told = onnx_ir.node("Reshape", [scores, shape.outputs[0]])
    graph.extend([shape, told])
    (given,), name = told.outputs, scores.name
    shape.outputs[0].name, scores.name, given.name = "choices.shape", f"{name}.rows", name
    given.shape, given.type = onnx_ir.Shape([batch, CHOICES]), scores.type
    graph.outputs[0] = given


def _finish(model: Any, source: Model, longest: int, told: Mapping[str, str]) -> None:
    """Take out what tells of this machine, and write in what the runtime asks for."""
    import onnx_ir.passes.common as passes

    _name_axes(model.graph)
    _widen_inputs(model.graph)
    if source.task == "multiple-choice":
        _by_choice(model.graph)
    passes.ClearMetadataAndDocStringPass()(model)  # stack traces with this machine's paths
    model.ir_version = IR_VERSION
    model.graph.name, model.producer_name, model.producer_version = "edgebert", PRODUCER, version("edgebert")
    model.metadata_props.clear()
    model.metadata_props.update({f"{PRODUCER}.{key}": text for key, text in told.items() if text})
    model.metadata_props.update({
        MAX_TOKENS: str(longest),
        VOCABULARY: str(source.config.vocab_size),
        SEAL: BLANK.decode(),
    })


def _write(model: Any, path: Path) -> None:
    """Write the file beside its place, seal it, and move it there.

    Raises:
        InputError: the folder is not there or cannot be written to.
    """
    import onnx_ir

    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
            data = f"{path.name}_data" if size > ONE_FILE else None  # as optimum and transformers.js call it
            onnx_ir.save(model, scratch / path.name, external_data=data)
            _seal(scratch / path.name)
            for file in sorted(scratch.iterdir(), reverse=True):  # the data before the file that names it
                os.replace(file, path.parent / file.name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None


def _seal(file: Path) -> None:
    """Write the hash of the file's bytes into its metadata."""
    found = seal_of(file.read_bytes())
    if found is None:
        raise ConversionFailed("the metadata is not where a protobuf writer puts it, at the end of the file.")
    start, _, wanted = found
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(wanted.encode())
