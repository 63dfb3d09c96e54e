"""Integers for ONNX files: weights as 8-bit or 4-bit integers, and the range of activations over sample texts.

Nothing here knows of a graph. Weights come and go as (outputs, inputs), a scale for each output or block.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import nn

from edgebert.models import Model
from edgebert.quantization.gptq import GROUP, Rounded
from edgebert.quantization.integers import by_row, chunks
from edgebert.quantization.observers import Samples, observe

# Shares of a block's largest weight over 8 that are tried as its scale: 0.3 dB better than 1.0 alone; 16 gain no more.
TRIES = np.linspace(0.75, 1.1, 8, dtype=np.float32)

BINS = 4096


def wide_block(inputs: int) -> int:
    """How many 8-bit weights share a scale where a scale a row is not to be had: the largest power of 2 that fits."""
    return next((block for block in (128, 64, 32) if inputs % block == 0), 16)


def eight_bits_in_blocks(floats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric 8-bit integers with a scale for each block of a row, as MatMulNBits packs them.

    Args:
        floats: (outputs, inputs) float32; rows are padded to whole blocks of `wide_block(inputs)`.

    Returns:
        uint8 (outputs, blocks, block), the integers plus 128, and float32 scales (outputs, blocks).
    """
    outputs, inputs = floats.shape
    block = wide_block(inputs)
    blocks = -(-inputs // block)
    padded = np.pad(floats, ((0, 0), (0, blocks * block - inputs)))
    integers, scales = by_row(padded.reshape(-1, block))
    return (integers.view(np.uint8) + 128).reshape(outputs, blocks, block), scales.reshape(outputs, blocks)


def four_bits(floats: np.ndarray) -> Rounded:
    """Integers from -8 to 7, each weight for itself, for a model that comes without samples (see quantization/gptq.py).

    A block's largest weight is put near -8, the wider side, and its scale may be negative for that. Of a few scales the
    one with the smallest squared error is taken; 1.5 dB less error than with the largest magnitude over 7.

    Args:
        floats: (outputs, inputs) float32.
    """
    outputs, inputs = floats.shape
    blocks = -(-inputs // GROUP)
    integers = np.empty((outputs, inputs), np.int8)
    scales = np.empty((outputs, blocks), np.float32)
    for rows in chunks(floats):
        part = np.pad(floats[rows].astype(np.float32), ((0, 0), (0, blocks * GROUP - inputs)))
        rounded, scales[rows] = _search(part.reshape(-1, blocks, GROUP))
        integers[rows] = rounded.reshape(len(part), -1)[:, :inputs]
    return Rounded(integers, scales, GROUP)


def pack(rounded: Rounded) -> tuple[np.ndarray, np.ndarray]:
    """4-bit weights as MatMulNBits takes them.

    Returns:
        uint8 (outputs, blocks, block / 2), two integers plus 8 in a byte, the lower half first; and float32 scales
        (outputs, blocks). What fills the last block up is 0.
    """
    blocks = rounded.scales.shape[1]
    outputs, inputs = rounded.integers.shape
    moved = np.full((outputs, blocks * rounded.group), 8, np.uint8)
    moved[:, :inputs] = rounded.integers + 8
    moved = moved.reshape(outputs, blocks, rounded.group)
    return moved[..., 0::2] | moved[..., 1::2] << 4, rounded.scales


def _search(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For blocks (..., block) their integers and scales (...)."""
    place = np.abs(blocks).argmax(-1)[..., None]
    largest = np.take_along_axis(blocks, place, -1)
    best = np.full(blocks.shape[:-1], -1, np.float32)
    integers = np.zeros(blocks.shape, np.float32)
    scales = np.zeros(blocks.shape[:-1], np.float32)
    for factor in TRIES:
        step = largest * (-factor / 8)
        tried = np.clip(np.rint(np.divide(blocks, step, out=np.zeros_like(blocks), where=step != 0)), -8, 7)
        # With the scale that suits these integers best, the squared error is what the block has, less `explained`.
        along, square = (blocks * tried).sum(-1), (tried * tried).sum(-1)
        explained = np.divide(along * along, square, out=np.zeros_like(along), where=square > 0)
        better = explained > best
        best = np.where(better, explained, best)
        integers[better] = tried[better]
        fitted = np.divide(along, square, out=np.zeros_like(along), where=square > 0)
        scales = np.where(better, fitted, scales)
    return integers.astype(np.int8), scales


@dataclass(slots=True)
class Histogram:
    """How often values came up, in BINS equal parts of (-bound, bound); the bound doubles when a value exceeds it."""

    bound: float = 2.0**-10
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS))

    def add(self, values: np.ndarray) -> None:
        """Count finite values of any shape."""
        while (largest := float(np.abs(values).max(initial=0))) >= self.bound:
            halved = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(halved, BINS // 4)
            self.bound *= 2
            assert np.isfinite(largest)
        self.counts += np.histogram(values, BINS, (-self.bound, self.bound))[0]

    def range(self) -> tuple[float, int]:
        """The uint8 scale and zero point under which rounding and clipping change the counted values least."""
        width = 2 * self.bound / BINS
        centres = (np.arange(BINS) + 0.5) * width - self.bound
        filled = self.counts > 0
        values, counts = centres[filled], self.counts[filled]
        if not len(values):
            return 1.0, 0
        low, high = min(values[0] - width / 2, 0.0), max(values[-1] + width / 2, 0.0)
        best, found = np.inf, (1.0, 0)
        # A bin's values are spread evenly over it, hence a step below its width is judged too well; 16 bins make one
        # step at most where the range is not clipped to less than a sixteenth.
        for a in _SHARES if low < 0 else (0.0,):
            for b in _SHARES if high > 0 else (0.0,):
                scale = max((high * b - low * a) / 255, float(np.finfo(np.float32).tiny))
                zero = int(np.clip(np.rint(-low * a / scale), 0, 255))
                restored = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
                error = float((counts * (restored - values) ** 2).sum())
                if error < best:
                    best, found = error, (float(scale), zero)
        return found


_SHARES = tuple(np.linspace(1.0, 0.1, 19))


def activation_ranges(model: Model, samples: Samples) -> dict[str, tuple[float, int]]:
    """What each linear layer of a model gets to see on sample texts, as uint8 scales and zero points.

    Args:
        model: the model in the form whose graph is quantized.
        samples: as `observe` takes them.

    Returns:
        Path of the linear layer to scale and zero point of its input.

    Raises:
        InputError: see `observe`.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    seen = {name: Histogram() for name in layers}
    observe(model, layers, samples, lambda name, module, entering, leaving: seen[name].add(entering.numpy()))
    return {name: histogram.range() for name, histogram in seen.items() if histogram.counts.any()}
