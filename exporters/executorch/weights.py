"""Numbers for XNNPACK: weights as integers, scales found beforehand, and which layer gets what."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgebert.quantization.gptq import Rounded
from edgebert.quantization.integers import by_row
from edgebert.quantization.recipes import Recipe, kept

Shape = tuple[int, ...]

# Neighbours in a row that share a scale in 4 bits: the only size XNNPACK has kernels for is a multiple of this.
BLOCK = 32
INT8 = (-128, 127)
# One scale for all channels is set by the largest; before that, each is divided by its own size to this power, and the
# weights that it meets are multiplied by it (SmoothQuant, arXiv 2211.10438).
SMOOTHING = 0.75
# A channel that the samples hardly touched keeps this many times the mean channel's room.
LEAST = 1.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A constant matrix or kernel as it is stored.

    Attributes:
        name: of the tensor in the torch model; its data and scales are kept under it.
        kind: `fp32`, `qcint8`, `qcint4` (a scale a row) or `qbint4` (a scale for each `block` of a row).
        shape: of the tensor XNNPACK sees.
        data: the bytes, two values a byte for 4 bits.
        scale: float32 (rows), or bfloat16 as uint16 (rows, blocks); None for float.
        block: values that share a scale.
    """

    name: str
    kind: str
    shape: Shape
    data: np.ndarray
    scale: np.ndarray | None = None
    block: int = 0


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Round float32 to the nearest bfloat16, as uint16 (ties to even)."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def quantize(name: str, weight: np.ndarray, bits: int, shape: Shape | None = None) -> Weights:
    """Round a matrix (rows, columns) to integers, symmetric around zero.

    8 bits have a scale for each row, 4 bits one for each 32 values where the columns divide so, else one for each row.
    Values that already lie on such a grid, whose largest is 127 (or 7) steps, come back as they are.

    Args:
        name: the tensor's name.
        weight: float32 (rows, columns).
        bits: 8 or 4; an odd number of columns takes 8.
        shape: what XNNPACK is told of the shape; None for that of `weight`.
    """
    rows, columns = weight.shape
    if bits == 8 or columns % 2:
        data, scale = by_row(weight)  # XNNPACK takes no subnormal scale
        return Weights(name, "qcint8", shape or weight.shape, data, scale[:, 0])
    if columns % BLOCK:
        scale = _scale(np.abs(weight).max(1), 7)
        return four_bits(name, np.clip(np.rint(weight / scale[:, None]), -7, 7), scale[:, None], shape)
    blocks = weight.reshape(rows, -1, BLOCK)
    scale = from_bfloat16(to_bfloat16(_scale(np.abs(blocks).max(2), 7)))
    data = np.clip(np.rint(blocks / scale[..., None]), -8, 7).reshape(rows, columns)
    return four_bits(name, data, scale, shape)


def four_bits(name: str, integers: np.ndarray, scales: np.ndarray, shape: Shape | None = None) -> Weights:
    """Integers from -8 to 7 (rows, columns) and their scales (rows, blocks) as XNNPACK reads them.

    One block a row has a float32 scale, blocks of 32 have bfloat16 ones.
    """
    shape = shape or integers.shape
    if scales.shape[1] == 1:
        return Weights(name, "qcint4", shape, _pack(integers), np.ascontiguousarray(scales[:, 0], np.float32))
    return Weights(name, "qbint4", shape, _pack(integers), to_bfloat16(scales), BLOCK)


def from_bfloat16(halves: np.ndarray) -> np.ndarray:
    """The float32 values of bfloat16 ones given as uint16."""
    values: np.ndarray = (halves.astype(np.uint32) << 16).view(np.float32)
    return values


def _scale(largest: np.ndarray, steps: int) -> np.ndarray:
    """The step of a grid that reaches the largest value; XNNPACK takes no subnormal one."""
    scale: np.ndarray = np.maximum(largest.astype(np.float32) / np.float32(steps), np.finfo(np.float32).tiny)
    return scale


def _pack(data: np.ndarray) -> np.ndarray:
    """Two 4-bit values a byte, the even column in the low half, moved up by XNNPACK's zero point of 8."""
    moved = (data + 8).astype(np.uint8)
    packed: np.ndarray = moved[:, ::2] | (moved[:, 1::2] << 4)
    return packed


@dataclass(frozen=True, slots=True)
class Range:
    """What went through a layer on sample texts: lowest and highest value of each channel, float32.

    Attributes:
        enters: of its input, (2, inputs).
        leaves: of its output before the bias, (2, outputs).
    """

    enters: np.ndarray
    leaves: np.ndarray


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of each module's numbers.

    Attributes:
        recipe: the recipe.
        keep_float: patterns of modules that stay float.
        ranges: module to what went through it, for static recipes.
        rounded: module to weights that are in 4 bits already.
    """

    recipe: Recipe
    keep_float: tuple[str, ...] = ()
    ranges: Mapping[str, Range] = field(default_factory=dict)
    rounded: Mapping[str, Rounded] = field(default_factory=dict)

    def mode(self, *modules: str) -> str:
        """`float`; or how activations meet the integers of these modules: `rows` (as they come) or `fixed`."""
        if not self.recipe.quantized or any(kept(module, self.keep_float) for module in modules):
            return "float"
        # A head's layers have float results in static recipes too: samples do not reach every label, and the scale of a
        # label that they missed would cut it off. These layers are small.
        head = any(module.startswith("head.") for module in modules)
        return "fixed" if self.recipe.static and not head else "rows"


def step(bounds: np.ndarray) -> tuple[float, int]:
    """Scale and zero point of int8 over all channels' bounds (2, channels); 0 is on the grid."""
    low, high = min(float(bounds[0].min()), 0.0), max(float(bounds[1].max()), 0.0)
    scale = max((high - low) / 255, 1e-8)
    return float(np.float32(scale)), int(np.clip(round(INT8[0] - low / scale), *INT8))


def size(bounds: np.ndarray) -> np.ndarray:
    """How large each channel gets, none of them next to nothing."""
    largest = np.abs(bounds).max(0)
    room: np.ndarray = np.maximum(largest, max(LEAST * float(largest.mean()), 1e-6))
    return room
