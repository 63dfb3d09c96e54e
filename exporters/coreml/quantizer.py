"""What Core ML's quantized recipes make of a program: weights in integers, inputs of layers rounded to int8."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgebert.models import Model
from edgebert.quantization import gptq
from edgebert.quantization.integers import by_row
from edgebert.quantization.observers import Samples, observe
from edgebert.quantization.recipes import Recipe, kept

# Rows narrower than this get 8 bits under `w4`: a depthwise kernel has 9 weights, and a scale would cost as much.
NARROWEST = 8
# Shares of the largest input seen that a static scale may cut at; what is lost most is squared error.
CLIPS = [1.0 - 0.025 * i for i in range(25)]
KEPT_INPUTS = 2048  # inputs of a layer kept from each sample, to choose among these


@dataclass(frozen=True, slots=True)
class Steps:
    """What int8 stands for: `scale * (integer - zero)`."""

    scale: float
    zero: int


class Layers:
    """What becomes of each layer and table: rewrites the converter's program, once it stands in its precision."""

    def __init__(self, model: Model, recipe: Recipe, modern: bool, keep_float: Sequence[str], samples: Samples) -> None:
        """Round weights and find scales ahead, in torch; `modern` programs have iOS 18's operators."""
        self.modern = modern
        # A tied table stands in the program under one of its names.
        names: dict[int, list[str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            if parameter.dim() > 1:  # biases and norms stay float
                names.setdefault(id(parameter), []).append(name)
        groups = names.values() if recipe.quantized else ()
        floats = {n for group in groups for n in group if any(kept(m.rpartition(".")[0], keep_float) for m in group)}
        self.quantized = {name for group in groups for name in group} - floats
        layers = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and f"{name}.weight" in self.quantized
        }
        shared = {name for group in names.values() if len(group) > 1 for name in group}
        small = {n: m for n, m in layers.items() if recipe.weight_bits == 4 and f"{n}.weight" not in shared}
        self.rounded = _four_bits(model, {n: b for n, m in small.items() if (b := _block(m.weight))}, samples)
        steps = _static_steps(model, layers, samples) if recipe.static else {}
        self.steps = {n: steps[m] for group in groups for n in group for m in group if m in steps}

    def rewrite(self, block: Any) -> None:
        """Quantize the weights and inputs of a block's operators, in place."""
        for op in list(block.operations):
            if op.op_type == "const":
                op.name = op.outputs[0].name = _parameter(op.name)
        made: dict[Any, Any] = {}
        for op in list(block.operations):
            # A layer's weight, a lookup's table, or the table of positions, sliced and added.
            found = {key: var for key, var in op.inputs.items() if self._is_weight(var)}
            for key, weight in found.items():
                if weight not in made:
                    made[weight] = self._constant(weight)
                    block._copy_scope_info(weight, made[weight])  # an operator without an origin is not written
                op.set_inputs(no_check_var_types=True, **{key: made[weight]})
            name = found["weight"].op.name if "weight" in found else ""
            if name in self.steps:
                static = (op.inputs["x"], self.steps[name])
                if static not in made:
                    made[static] = _static(*static, op)
                    block._copy_scope_info(op.outputs[0], made[static])
                op.set_inputs(no_check_var_types=True, x=made[static])

    def _is_weight(self, var: Any) -> bool:
        """Whether a value is a constant that is to be stored in integers."""
        source = getattr(var, "op", None)
        return source is not None and source.op_type == "const" and source.name in self.quantized

    def _constant(self, weight: Any) -> Any:
        """The operator that unpacks the quantized form of a constant."""
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil import types

        value, name, dtype = weight.val, weight.op.name, weight.val.dtype
        place: dict[str, Any] = {"before_op": weight.op, "name": f"{name}_quantized"}
        rounded = self.rounded.get(name.removesuffix(".weight"))
        if rounded is not None:
            integers = rounded.integers.reshape(value.shape).astype(types.np_int4_dtype)
            scales = rounded.scales.reshape(len(value), -1, *(1,) * (value.ndim - 2)).astype(dtype)
            return mb.constexpr_blockwise_shift_scale(data=integers, scale=scales, **place)
        integers, scale = _eight_bits(value)
        if self.modern:
            scale = scale.reshape(-1, *(1,) * (value.ndim - 1))
            return mb.constexpr_blockwise_shift_scale(data=integers, scale=scale, **place)
        return mb.constexpr_affine_dequantize(
            quantized_data=integers, zero_point=np.zeros(len(value), np.int8), scale=scale, axis=np.int32(0), **place
        )


def _static(x: Any, steps: Steps, before: Any) -> Any:
    """A layer's input rounded to int8 and back, in the program."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    numbers = {"scale": types.nptype_from_builtin(x.dtype)(steps.scale), "zero_point": np.int8(steps.zero)}
    whole = mb.quantize(input=x, output_dtype="int8", before_op=before, **numbers)
    return mb.dequantize(input=whole, before_op=before, **numbers)


def _eight_bits(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 (O, ...) and a scale for each output, of the weight's dtype (O,)."""
    integers, scale = by_row(weight.reshape(len(weight), -1), float(np.finfo(np.float16).tiny))
    return integers.reshape(weight.shape), scale[:, 0]


def _block(weight: Tensor) -> int:
    """How many weights of a row share a scale: a divisor of its width, as the format asks; 0 leaves it to 8 bits."""
    block = math.gcd(int(weight.shape[1]), gptq.GROUP)
    return block if block >= NARROWEST else 0


def _four_bits(model: Model, blocks: dict[str, int], samples: Samples) -> dict[str, gptq.Rounded]:
    """4-bit weights of layers, chosen on sample texts, or each for itself where there are none."""
    if samples:
        return gptq.round_weights(model, blocks, samples)
    weights = {name: model.get_submodule(name).get_parameter("weight") for name in blocks}
    return {name: _nearest(weights[name], block) for name, block in blocks.items()}


def _nearest(weight: Tensor, block: int) -> gptq.Rounded:
    """Each weight to the nearest step, the scale of a block the one that loses least."""
    rows = weight.detach().float().reshape(len(weight), -1, block)
    largest = rows.abs().amax(2, keepdim=True).clamp(min=1e-6)
    scales = torch.stack([largest * clip / gptq.HIGHEST for clip in gptq.CLIPS])
    whole = (rows / scales).round().clamp(gptq.LOWEST, gptq.HIGHEST)
    best = (whole * scales - rows).square().sum(3, keepdim=True).argmin(0, keepdim=True)
    scale = scales.gather(0, best)[0]
    whole = (rows / scale).round().clamp(gptq.LOWEST, gptq.HIGHEST)
    return gptq.Rounded(whole.flatten(1).to(torch.int8).numpy(), scale[:, :, 0].numpy(), block)


def _static_steps(model: Model, layers: Mapping[str, nn.Module], samples: Samples) -> dict[str, Steps]:
    """Int8 for each layer's input, by the name of its weight: the steps that lose least of what the samples bring."""
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def look(name: str, module: nn.Module, entering: Tensor, leaving: Tensor) -> None:
        flat = entering.flatten()
        # Evenly spread ones, and both ends: a step may cut them, but not without having seen them.
        kept = flat[:: max(1, flat.numel() // KEPT_INPUTS)]
        seen[name].append(torch.cat([kept, flat.min()[None], flat.max()[None]]))

    observe(model, layers, samples, look)
    return {f"{name}.weight": _steps(torch.cat(values)) for name, values in seen.items() if values}


def _steps(values: Tensor) -> Steps:
    """The steps that lose least of these values; 0 is always one of them, as padding and silence need it."""
    lowest, highest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    found = []
    for clip in CLIPS:
        scale = max((highest - lowest) * clip / 255, 1e-5)
        zero = round(-128 - lowest * clip / scale)
        lost = ((values / scale).round() + zero).clamp(-128, 127).sub(zero).mul(scale).sub(values)
        found.append((float(lost.square().sum()), Steps(scale, zero)))
    return min(found, key=lambda one: one[0])[1]


def _parameter(name: str) -> str:
    """`model.encoder.layers.0.up.weight_to_fp16`, the converter's name of a constant, as the parameter's own."""
    return name.removeprefix("model.").removesuffix("_to_fp16")
