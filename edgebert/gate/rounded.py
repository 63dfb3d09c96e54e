"""What torch answers with the file's own weights and activations rounded as the runtime rounds them: what is due.

How far 8 bits take a model from itself is the model's own: 24 dB for one and 37 for another. A right file is as far as
torch with the same rounding, so that is what it is held to.
"""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from edgebert.gate.faithful import Made
from edgebert.gate.golden import Golden
from edgebert.gate.parity import TOLERANCES, compare, padded
from edgebert.models import Model
from edgebert.quantization.observers import Samples, observe
from edgebert.quantization.recipes import Recipe, scales_by_token
from edgebert.report import Tolerance

# What a file may be below torch with the same rounding, in decibel.
EXACT = 1.0, "weights alone are rounded, and the arithmetic is float"
AS_THEY_COME = 6.0, "as much error again: a sum on the edge of two steps goes either way, and layers after it follow"
BEFOREHAND = 12.0, "scales from sample texts, which targets choose in ways of their own; seen 8 less"
IN_HALF = 6.0, "as much error again: some runtimes round activations to half precision too"
# An error of half the answer's size: what is left says next to nothing.
LEAST = 6.0
# The table's row holds too, where torch is above it by half as much error again.
CLEAR = 3.0
SAMPLES = 128  # of a static recipe's, about as many as tell its layers' ranges

Ranges = dict[str, tuple[float, float]]  # the name of a layer to the least and the greatest number that enters it


def tolerance(
    made: Made, carrying: Model, packed: Set[str], golden: Golden, recipe: Recipe, samples: Samples = ()
) -> Tolerance:
    """What is due from a file: not much less than torch with its rounding; for float the table's row.

    Args:
        made: the file and its model.
        carrying: the lowered model with the file's numbers for its weights.
        packed: names of the weights that the file has as integers.
        golden: inputs with the model's answers in float.
        recipe: the file's.
        samples: inputs int32 (1, T) that a static recipe's scales were chosen on.
    """
    least = TOLERANCES[made.target, recipe.name]
    if recipe.weight_bits == 32:
        return least
    rounds = recipe.activation_bits == 8
    margin, reason = (BEFOREHAND if recipe.static else AS_THEY_COME) if rounds else EXACT
    margin, reason = IN_HALF if recipe.weight_bits == 16 else (margin, reason)
    packed = packed if rounds else set[str]()
    # Where four tokens share a scale, in LiteRT, they are held to torch with one for each, which is nearer to float.
    by_row = scales_by_token(made.target, recipe, made.model.task) or (made.target == "tflite" and not recipe.static)
    batches = (*golden.batches, golden.types)
    ranges = _ranges(carrying, packed, samples[:: max(len(samples) // SAMPLES, 1)]) if recipe.static else {}
    with rounding(carrying, packed, by_row, ranges):
        told = [made.answers(carrying, batch.inputs) for batch in batches]
    reached = min(
        compare([batch.expected[name]], [one[name]], [batch.inputs["attention_mask"]], name, least).sqnr_db
        for batch, one in zip(batches, told, strict=True)
        for name in batch.expected
    )
    reached = min(reached, padded(golden, told[:-1], made.model.family.padding_invariant))
    due = max(reached - margin, LEAST)
    if not recipe.quantized and due >= least.min_sqnr_db:  # sums in half take more than weights in it
        return least
    # A static file's own scales do better than torch's one for a whole input where a few channels are large.
    if due < least.min_sqnr_db and (recipe.static or least.min_sqnr_db <= reached - CLEAR):
        return least
    why = f"torch with this rounding reaches {reached:.1f} dB on its worst batch; {margin:.0f} less, for {reason}"
    return Tolerance(due, least.min_label_agreement, why)


@contextmanager
def rounding(model: Model, packed: Set[str], by_row: bool, ranges: Ranges) -> Iterator[None]:
    """Round what enters the products whose weights are integers to 8 bits, each entry of a batch for itself.

    Args:
        model: the lowered model with the file's numbers for weights.
        packed: names of the weights that the file has as integers; layers with these round their inputs.
        by_row: each row of a linear layer's input has a scale; else all of an entry have one.
        ranges: what is not cut off of the inputs of layers with a scale chosen beforehand.
    """
    hooks = []
    for name, module in _products(model, packed):
        along = -1 if by_row and isinstance(module, nn.Linear) else 1
        how = partial(round_input, along=along, within=ranges.get(name))
        hooks.append(module.register_forward_pre_hook(lambda _, given, how=how: (how(given[0]),)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _products(model: Model, packed: Set[str]) -> Iterator[tuple[str, nn.Module]]:
    """The layers whose weights are integers; a depthwise convolution multiplies floats."""
    for name, module in model.named_modules(remove_duplicate=False):
        product = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
        if product and f"{name}.weight" in packed:
            yield name, module


def _ranges(model: Model, packed: Set[str], samples: Samples) -> Ranges:
    """The least and the greatest number that enters each product on samples."""
    found: Ranges = {}

    def note(name: str, layer: nn.Module, entering: Tensor, leaving: Tensor) -> None:
        low, high = found.get(name, (0.0, 0.0))
        found[name] = min(low, float(entering.amin())), max(high, float(entering.amax()))

    if samples:
        observe(model, dict(_products(model, packed)), samples, note)
    return found


def round_input(x: Tensor, along: int = 0, within: tuple[float, float] | None = None) -> Tensor:
    """8 bits with one scale and zero point for all numbers from an axis on, or what a range leaves of them."""
    x = x if within is None else x.clamp(*within)
    axes = tuple(range(along % x.dim(), x.dim()))
    if within is None:
        low, high = x.amin(axes, keepdim=True).clamp(max=0), x.amax(axes, keepdim=True).clamp(min=0)
    else:
        low, high = (torch.tensor(end) for end in within)
    scale = ((high - low) / 255).clamp(min=1e-12)
    zero = (-low / scale).round()
    rounded: Tensor = ((x / scale + zero).round().clamp(0, 255) - zero) * scale
    return rounded
