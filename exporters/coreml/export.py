"""Core ML: an .mlpackage holding an ML program that the Neural Engine takes.

The model works on (B, C, 1, T), every linear layer a 1x1 convolution (edgebert/lowering/channels_first.py). One length
makes a program for iOS 17 and macOS 14 on; several are enumerated shapes of the token axis, which need iOS 18 and macOS
15, and so do 4-bit weights. Batch 1.

`fp32` computes in float32, everything else in float16, the one float that the Neural Engine has. `w8` stores each layer
and table as int8 with a scale for each output or row. `w4` stores layers as int4 with a scale for each 32 weights of a
row, chosen on sample texts where there are some (edgebert/quantization/gptq.py); tables stay int8. `w8a8-static` adds a
quantize and a dequantize before every layer, with one scale for a layer's input found on sample texts; Core ML
multiplies in int8 where the processor can. Biases and norms stay float.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgebert import lowering
from edgebert.artifact import Artifact, Stored
from edgebert.exporters import common
from edgebert.exporters.common import UNTOLD, USUAL, About
from edgebert.exporters.coreml.quantizer import Layers
from edgebert.exporters.provenance import by_origin, origins
from edgebert.files import new_folder
from edgebert.models import Model
from edgebert.models.signature import INPUTS
from edgebert.quantization.observers import Samples
from edgebert.quantization.recipes import Recipe
from edgebert.runtimes.coreml import package
from edgebert.runtimes.coreml.mil import read_weights

NEEDS = ("coremltools",)

DESCRIPTIONS = {
    "input_ids": "Token ids of one text, padded on the right.",
    "attention_mask": "1 for a token, 0 for padding.",
    "token_type_ids": "0 for the first text, 1 for the second.",
    "logits": "Unnormalized log-probabilities (natural logarithm).",
    "start_logits": "Unnormalized log-probabilities (natural logarithm) of each token as the answer's first.",
    "end_logits": "Unnormalized log-probabilities (natural logarithm) of each token as the answer's last.",
    "last_hidden_state": "Hidden states of each token, without a unit.",
    "pooler_output": "Summary of the text, without a unit, from -1 to 1.",
    "sentence_embedding": "The text as one vector, without a unit.",
}
UNITS = {"input_ids": "id", "attention_mask": "0 or 1", "token_type_ids": "0 or 1", "logits": "nat"}
UNITS |= {"start_logits": "nat", "end_logits": "nat", "last_hidden_state": "1", "pooler_output": "1"}
UNITS |= {"sentence_embedding": "1"}


def missing() -> str | None:
    """The command that installs what exporting needs; None when it is there."""
    return common.missing("coreml", NEEDS)


def check(model: Model, recipe: Recipe) -> None:
    """Refuse, before any work, what the target does not take; see `common.check` for what it raises."""
    common.check("coreml", NEEDS, model, recipe)


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
    """Write the model as an .mlpackage, a folder; one that stands there is replaced, when all went well.

    Args:
        model: the torch model; it is not changed.
        recipe: one that `check` lets through.
        lengths: of the token axis, ascending.
        path: the folder to write.
        keep_float: patterns of modules to leave in float, weights and arithmetic.
        samples: inputs (1, T) without padding, for `w8a8-static` and `w4`.
        in_half: nothing here; `fp16` computes in half precision on any device, and this one.
        about: what the file tells beside.

    Raises:
        InputError: a static recipe has no samples, or the file cannot be written there.
        ConversionFailed: the converter gave up; the message names the log.
    """
    # Of several lengths the tracer knows none, and the converter fills no blocks up by what it does not know.
    lowered = lower(lowering.cut_windows(model, lengths[-1]) if len(lengths) == 1 else model, recipe, lengths[-1])
    with common.contained("coreml", f"{model.family.name} for {model.task} in {recipe.name}"):
        # coremltools takes no more than one input of enumerated shapes below iOS 18, and int4 came with it.
        modern = len(lengths) > 1 or recipe.weight_bits == 4
        layers = Layers(lowered, recipe, modern, keep_float, samples)
        made = _convert(lowered, recipe, lengths, modern, layers.rewrite)
        spec = made.get_spec()
        _describe(spec.description, recipe, common.said(model, recipe, lengths, about))
        with new_folder(path, True, package.MANIFEST) as folder:
            _write(folder, spec, Path(made.weights_dir))
    return Artifact(
        path,
        lengths,
        dynamic=False,
        tools={name: version(name) for name in ("torch", "coremltools")},
        weights=by_origin(_stored(lowered, path), origins(model, lowered)),
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
    """The exact rewrites this target gains from; parameters keep their names."""
    lowered = lowering.fold_bias(lowering.trim_positions(lowering.fold_no_norms(model), longest), longest)
    lowered = lowering.fold_distances(lowered, longest, spare=0)
    return lowering.channels_before_tokens(lowered, longest)


class _Outputs(nn.Module):
    """A model that answers with a tuple, which the tracer wants."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(*inputs).values())


def _convert(
    model: Model, recipe: Recipe, lengths: tuple[int, ...], modern: bool, rewrite: Callable[[Any], None]
) -> Any:
    """The model as a coremltools MLModel, `rewrite` applied to its program after all of the converter's own passes."""
    import coremltools
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil import register_torch_op
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.pass_registry import register_pass

    @register_torch_op(torch_alias=["edgebert::channel_norm"], override=True)  # type: ignore[untyped-decorator]
    def channel_norm(context: Any, node: Any) -> None:
        x, gamma, beta, epsilon = _get_inputs(context, node, expected=4)
        context.add(mb.layer_norm(x=x, axes=[1], gamma=gamma, beta=beta, epsilon=epsilon, name=node.name))

    @register_torch_op(torch_alias=["int"], override=True)  # type: ignore[untyped-decorator]
    def to_int(context: Any, node: Any) -> None:
        # coremltools 9's own calls int() on an array of one size, which NumPy 2.4 refuses.
        (x,) = _get_inputs(context, node, expected=1)
        if x.val is not None:
            context.add(mb.const(val=np.int32(np.asarray(x.val).item()), name=node.name))
        else:
            whole = mb.squeeze(x=x, name=f"{node.name}_item") if x.shape else x
            context.add(mb.cast(x=whole, dtype="int32", name=node.name))

    @register_pass(namespace="edgebert", override=True)
    class quantize_layers(AbstractGraphPass):  # type: ignore[misc]  # coremltools has no types
        def apply(self, prog: Any) -> None:
            for block in prog.functions.values():
                with block:
                    rewrite(block)

    passes = coremltools.PassPipeline.DEFAULT
    # No id is negative: a bundle refuses it. Guarded, -1 would be answered as the last row.
    passes.remove_passes({"common::guard_negative_gather_indices"})
    # MobileBERT's norms are a product and a sum, which would go into the layers before them: every number of a file is
    # to be one of the model's.
    fusing = ("fuse_elementwise_to_batchnorm", "fuse_conv_scale", "fuse_conv_bias")
    passes.remove_passes({f"common::{name}" for name in fusing})
    passes.append_pass("edgebert::quantize_layers")
    examples = tuple(common.examples(1, lengths[-1]).values())
    with torch.no_grad():
        names = list(model(*examples))
        traced = torch.jit.trace(_Outputs(model), examples, check_trace=False)  # type: ignore[no-untyped-call]
    shapes = [(1, length) for length in lengths]
    shape = shapes[0] if len(shapes) == 1 else coremltools.EnumeratedShapes(shapes, default=shapes[-1])
    half = coremltools.precision.FLOAT16
    return coremltools.convert(
        traced,
        source="pytorch",
        convert_to="mlprogram",
        inputs=[coremltools.TensorType(name, shape, dtype=np.int32) for name in INPUTS],
        outputs=[coremltools.TensorType(name, dtype=np.float32) for name in names],
        minimum_deployment_target=coremltools.target.iOS18 if modern else coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT32 if recipe.name == "fp32" else half,
        pass_pipeline=passes,
        skip_model_load=True,
    )


def _describe(description: Any, recipe: Recipe, told: Mapping[str, str]) -> None:
    """Say in the file what it is, for a person who opens it and for an app."""
    for feature in (*description.input, *description.output):
        feature.shortDescription = DESCRIPTIONS[feature.name]
    names = [feature.name for feature in (*description.input, *description.output)]
    meta = description.metadata
    meta.shortDescription = f"{told['family']} for {told['task']}, {recipe.name}: {recipe.about}."
    meta.author = f"edgebert {version('edgebert')}"
    # The day it was made is no part of what it is: one model gives one package, to the last byte.
    meta.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    meta.license = told["license"]  # the weights'
    units = json.dumps({name: UNITS[name] for name in names})
    meta.userDefined.update({f"{package.MARK}{key}": text for key, text in {**told, "units": units}.items() if text})


def _write(folder: Path, spec: Any, weights: Path) -> None:
    """Fill a package: manifest, weights and the sealed program."""
    data = folder / "Data" / package.AUTHOR
    (data / "weights").mkdir(parents=True)
    shutil.copyfile(weights / "weight.bin", data / "weights" / "weight.bin")
    items = {"model.mlmodel": "CoreML Model Specification", "weights": "CoreML Model Weights"}
    # The same names for the same thing, so that one model gives one package to the last byte.
    keys = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, name)).upper() for name in items}
    entries = {
        keys[name]: {
            "author": package.AUTHOR, "description": about, "name": name,
            "path": f"{package.AUTHOR}/{name}",
        }
        for name, about in items.items()
    }  # fmt: skip
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": entries,
        "rootModelIdentifier": keys["model.mlmodel"],
    }
    (folder / package.MANIFEST).write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")
    spec.description.metadata.userDefined[package.SEAL] = package.BLANK.decode()
    (data / "model.mlmodel").write_bytes(spec.SerializeToString(deterministic=True))
    package.seal(folder)


def _stored(lowered: Model, path: Path) -> Iterator[tuple[str, Stored]]:
    """How each parameter of the lowered model stands in the package, as read back from it."""
    known = {
        "".join(c if c.isalnum() else "_" for c in name): name
        for name, _ in lowered.named_parameters(remove_duplicate=False)
    }
    for weight in read_weights(package.read(path)):
        name = known.get(weight.name.removesuffix("_quantized"))
        if name is not None:
            yield name, Stored(weight.dtype, weight.bytes)
