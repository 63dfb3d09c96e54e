"""Which layers cost the accuracy: the torch model with one module at a time quantized as a recipe would.

This is told from torch, not from the file: what a runtime's kernels do to all layers together is the gate's to say.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from edgebert.gate.golden import Batch, answer
from edgebert.gate.parity import compare
from edgebert.gate.rounded import round_input
from edgebert.models import Model
from edgebert.models.convbert import GroupedLinear
from edgebert.quantization.gptq import GROUP
from edgebert.quantization.recipes import Recipe
from edgebert.quantization.sizes import part
from edgebert.report import Tolerance

# Modules whose weights a recipe quantizes.
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Embedding, GroupedLinear)


@dataclass(frozen=True, slots=True)
class Cost:
    """What quantizing one module alone does.

    Attributes:
        module: its path in the torch model, as `--keep-float` takes it.
        sqnr_db: signal to error of the worst output, in decibel; the lower, the more it costs.
        float_bytes: what keeping it in float adds to the file.
    """

    module: str
    sqnr_db: float
    float_bytes: int


def rank(
    model: Model,
    batch: Batch,
    recipe: Recipe,
    tolerance: Tolerance,
    progress: Callable[[str], None] = lambda step: None,
) -> list[Cost]:
    """Quantize each module alone and compare the model's answers; the costliest comes first.

    Args:
        model: the torch model in float32.
        batch: inputs with the model's own answers.
        recipe: a quantized one: its bits for weights and activations.
        tolerance: what the file is held to.
        progress: is told each module as its turn comes.
    """
    mask = batch.inputs["attention_mask"]
    costs = []
    modules = [(name, module) for name, module in model.named_modules() if isinstance(module, WEIGHTED)]
    for i, (name, module) in enumerate(modules):
        progress(f"quantize {name} alone ({i + 1} of {len(modules)})")
        bits = 8 if part(name) in ("embeddings", "head") else recipe.weight_bits
        with _quantized(module, bits, recipe.activation_bits):
            outputs = answer(model, batch.inputs)
        stats = [compare([batch.expected[key]], [outputs[key]], [mask], key, tolerance) for key in batch.expected]
        costs.append(
            Cost(name, min(one.sqnr_db for one in stats), module.get_parameter("weight").numel() * (32 - bits) // 8)
        )
    return sorted(costs, key=lambda cost: cost.sqnr_db)


@contextmanager
def _quantized(module: nn.Module, weight_bits: int, activation_bits: int) -> Iterator[None]:
    """One module with rounded weights, and rounded inputs where the recipe rounds them."""
    weight = module.get_parameter("weight")
    kept = weight.data
    # A batched product keeps its outputs last, every other weight first.
    turned = kept.transpose(1, 2).flatten(0, 1) if isinstance(module, GroupedLinear) else kept.flatten(1)
    rounded = _round_weight(turned, weight_bits)
    if isinstance(module, GroupedLinear):
        groups, inputs, outputs = kept.shape
        weight.data = rounded.reshape(groups, outputs, inputs).transpose(1, 2)
    else:
        weight.data = rounded.reshape(kept.shape)
    rounds_inputs = activation_bits <= 8 and not isinstance(module, nn.Embedding)
    hook = module.register_forward_pre_hook(lambda _, inputs: (round_input(inputs[0]),)) if rounds_inputs else None
    try:
        yield
    finally:
        weight.data = kept
        if hook is not None:
            hook.remove()


def _round_weight(weight: Tensor, bits: int) -> Tensor:
    """Symmetric, a scale a row; in 4 bits a scale for each group of a row that divides into groups."""
    rows = weight.reshape(-1, GROUP) if bits == 4 and weight.shape[1] % GROUP == 0 else weight
    highest = 2 ** (bits - 1) - 1
    scale = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / highest
    rounded: Tensor = (rows / scale).round() * scale
    return rounded.reshape(weight.shape)
