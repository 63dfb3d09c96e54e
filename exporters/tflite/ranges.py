"""Ranges of activations, found by running a model in torch on sample inputs."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgebert.models import Model
from edgebert.quantization.observers import Samples, observe

PER_CALL = 2048  # numbers kept of one activation of one sample
TRIED = np.linspace(0.4, 1.0, 13)  # shares of the extremes that are tried as ends of a range

# Rounding to 256 steps may add this share of the median channel's variance to a layer's outputs. In all-MiniLM-L6-v2
# a few channels of the feed-forward's are so large that for half of the others it is 5% to 60%, elsewhere at most 0.4%:
# with such layers left out the model is 18 dB from torch, and was 8.
COARSE = 0.01


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers, zero among them, that 256 steps are spread over."""

    low: float
    high: float

    def scale(self) -> tuple[float, int]:
        """The size of a step and the int8 that stands for zero."""
        step = max((self.high - self.low) / 255, float(np.finfo(np.float32).tiny))
        return step, int(np.clip(round(-128 - self.low / step), -128, 127))

    def error(self, numbers: np.ndarray) -> float:
        """The mean square of what rounding to the steps changes."""
        step, zero = self.scale()
        rounded = (np.clip(np.rint(numbers / step) + zero, -128, 127) - zero) * step
        return float(((rounded - numbers) ** 2).mean())


Ranges = Mapping[str, tuple[Range, Range]]


class _Seen:
    """Extremes of an activation, the spread of its channels, and a choice of its numbers."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0
        self.moments: list[Tensor] = []  # of each sample, mean and mean square (2, C)
        self.kept: list[np.ndarray] = []
        self.random = np.random.default_rng(0)

    def add(self, activation: Tensor) -> None:
        """Take note of one sample's numbers, (..., C)."""
        rows = activation.detach().flatten(0, -2)
        self.moments.append(torch.stack([rows.mean(0), rows.square().mean(0)]))
        numbers = rows.numpy().reshape(-1)
        self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
        self.kept.append(self.random.choice(numbers, PER_CALL) if numbers.size > PER_CALL else numbers.copy())

    def best(self) -> tuple[Range, bool]:
        """The range with the smallest error of those that cut off a part of either end, and whether it is coarse."""
        numbers = np.concatenate(self.kept).astype(np.float32)
        numbers = self.random.choice(numbers, 2**15) if numbers.size > 2**15 else numbers
        tried = (Range(self.low * low, self.high * high) for low in TRIED for high in TRIED)
        errors = {span: span.error(numbers) for span in tried}
        span = min(errors, key=errors.__getitem__)
        mean, square = torch.stack(self.moments).mean(0)
        return span, errors[span] > COARSE * float((square - mean**2).median())


def find_ranges(model: Model, samples: Samples, longest: int) -> dict[str, tuple[Range, Range]]:
    """Run a lowered model on samples and watch its encoder's linear layers.

    A head's are left out, and keep float inputs and outputs: samples do not reach every label, and one that they do not
    reach could never be answered. So are layers whose outputs the steps would be too coarse for.

    Args:
        model: any model with `nn.Linear` layers, in float.
        samples: inputs of one row each, int32 (1, T), unpadded.
        longest: tokens that a sample is cut to.

    Returns:
        The range of a layer's inputs and that of its outputs, by the name of its weight.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    layers = {names[id(m.weight)]: m for m in model.encoder.modules() if isinstance(m, nn.Linear)}
    seen = {name: (_Seen(), _Seen()) for name in layers}

    def note(name: str, module: nn.Module, entering: Tensor, leaving: Tensor) -> None:
        seen[name][0].add(entering)
        seen[name][1].add(leaving)

    observe(model, layers, samples, note, longest)
    found = {name: (entry.best()[0], *result.best()) for name, (entry, result) in seen.items() if entry.kept}
    return {name: (entry, result) for name, (entry, result, coarse) in found.items() if not coarse}
