"""Ranges of activations, found by running a model in torch on sample inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgebert.models import Model
from edgebert.runtimes.session import INPUTS, Arrays

PER_CALL = 2048  # numbers kept of one activation of one sample
TRIED = np.linspace(0.4, 1.0, 13)  # shares of the extremes that are tried as ends of a range


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers, zero among them, that 256 steps are spread over."""

    low: float
    high: float

    def scale(self) -> tuple[float, int]:
        """The size of a step and the int8 that stands for zero."""
        step = max((self.high - self.low) / 255, float(np.finfo(np.float32).tiny))
        return step, int(np.clip(round(-128 - self.low / step), -128, 127))


Ranges = Mapping[str, tuple[Range, Range]]


class _Seen:
    """Extremes of an activation, and a choice of its numbers."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0
        self.kept: list[np.ndarray] = []
        self.random = np.random.default_rng(0)

    def add(self, activation: Tensor) -> None:
        """Take note of one sample's numbers."""
        numbers = activation.detach().numpy().reshape(-1)
        self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
        self.kept.append(self.random.choice(numbers, PER_CALL) if numbers.size > PER_CALL else numbers.copy())

    def best(self) -> Range:
        """The range with the smallest squared error of those that cut off a part of either extreme."""
        numbers = np.concatenate(self.kept).astype(np.float32)
        numbers = self.random.choice(numbers, 2**15) if numbers.size > 2**15 else numbers
        tried = {}
        for share_low in TRIED:
            for share_high in TRIED:
                span = Range(self.low * share_low, self.high * share_high)
                step, zero = span.scale()
                rounded = (np.clip(np.rint(numbers / step) + zero, -128, 127) - zero) * step
                tried[span] = float(((rounded - numbers) ** 2).sum())
        return min(tried, key=tried.__getitem__)


def find_ranges(model: Model, samples: Sequence[Arrays], longest: int) -> dict[str, tuple[Range, Range]]:
    """Run a lowered model on samples and watch its encoder's linear layers.

    A head's are left out, and keep float inputs and outputs: samples do not reach every label, and one that they do not
    reach could never be answered.

    Args:
        model: any model with `nn.Linear` layers, in float.
        samples: inputs of one row each, int32 (1, T), unpadded.
        longest: tokens that a sample is cut to.

    Returns:
        The range of a layer's inputs and that of its outputs, by the name of its weight.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen: dict[str, tuple[_Seen, _Seen]] = {}
    hooks = []
    for module in model.encoder.modules():
        if isinstance(module, nn.Linear):
            watch = seen[names[id(module.weight)]] = (_Seen(), _Seen())

            def note(_: nn.Module, given: Any, result: Tensor, watch: tuple[_Seen, _Seen] = watch) -> None:
                watch[0].add(given[0])
                watch[1].add(result)

            hooks.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            for sample in samples:
                model(*(torch.from_numpy(sample[name][:, :longest]) for name in INPUTS))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (entry.best(), result.best()) for name, (entry, result) in seen.items() if entry.kept}
