"""4-bit weights that are chosen for what the layers compute, not each for itself.

Rounding every weight to the nearest of 16 steps costs the embedded default model 3 dB more than rounding them one
column after the other, each time moving the columns that are left so that the outputs on sample texts stay put: GPTQ
(Frantar et al., arXiv 2210.17323, algorithm 1).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgebert.models.family import Model
from edgebert.quantization.observers import Samples, observe

GROUP = 32  # weights of one row that share a scale: the block that every target's 4-bit kernel takes
LOWEST, HIGHEST = -8, 7  # what 4 bits with a sign hold
# Added to the diagonal of the input statistics, as a share of its mean: the paper's own figure.
DAMPING = 0.01
# A scale below the largest weight's cuts that weight and rounds all others finer.
CLIPS = torch.linspace(0.6, 1.0, 17, dtype=torch.float64).tolist()


@dataclass(frozen=True, slots=True)
class Rounded:
    """A matrix in 4 bits.

    Attributes:
        integers: int8 (O, I), from -8 to 7.
        scales: float32 (O, ceil(I / group)); a weight is its integer times its group's scale.
        group: neighbours in a row that share a scale.
    """

    integers: np.ndarray
    scales: np.ndarray
    group: int

    def floats(self) -> np.ndarray:
        """The weights these stand for, float32 (O, I)."""
        spread = np.repeat(self.scales, self.group, axis=1)[:, : self.integers.shape[1]]
        floats: np.ndarray = self.integers.astype(np.float32) * spread
        return floats


def round_weights(
    model: Model, groups: Mapping[str, int], samples: Samples, longest: int | None = None
) -> dict[str, Rounded]:
    """Choose 4-bit weights for linear layers and 1x1 convolutions of a model.

    Args:
        model: the torch model, as it is about to be converted; it is not changed.
        groups: modules to round, `nn.Linear` or `nn.Conv2d` with a 1x1 kernel, grouped or not, and how many neighbours
            in a row share a scale; 0 takes a scale a row.
        samples: inputs as `Model.forward` takes them, int32 (1, T), without padding.
        longest: tokens that a sample is cut to.

    Returns:
        Module name to its matrix, (outputs, inputs of one group).

    Raises:
        InputError: there are no samples.
    """
    products: dict[str, list[Tensor]] = {}

    def add(name: str, module: nn.Module, entering: Tensor, leaving: Tensor) -> None:
        # For each group of a layer the sum over tokens of its inputs' outer products, float32 (I, I).
        parts = [part.T @ part for part in _inputs(module, entering)]
        old = products.get(name)
        products[name] = parts if old is None else [a + b for a, b in zip(old, parts, strict=True)]

    observe(model, {name: model.get_submodule(name) for name in groups}, samples, add, longest)
    return {name: _rounded(model.get_submodule(name), products.pop(name), group) for name, group in groups.items()}


def _rounded(module: nn.Module, products: Sequence[Tensor], group: int) -> Rounded:
    """One layer's weight in 4 bits, given its inputs' products."""
    weight = module.get_parameter("weight").detach().flatten(1).double()
    # Each group of a grouped convolution has inputs, and so statistics, of its own.
    pairs = zip(weight.chunk(len(products)), products, strict=True)
    parts = [_round(rows, product.double(), group) for rows, product in pairs]
    integers, scales = (torch.cat(side) for side in zip(*parts, strict=True))
    return Rounded(integers.to(torch.int8).numpy(), scales.float().numpy(), group or max(integers.shape[1], 1))


def _inputs(module: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """What each group of a layer reads, (tokens, I)."""
    if isinstance(module, nn.Conv2d):
        x = x.permute(0, 2, 3, 1)
        yield from x.reshape(-1, x.shape[-1]).chunk(module.groups, dim=1)
    else:
        yield x.reshape(-1, x.shape[-1])


def _round(weight: Tensor, products: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """GPTQ's algorithm 1 over one matrix (O, I), float64; gives integers and scales (O, ceil(I / group))."""
    weight, width = weight.clone(), weight.shape[1]
    group = group or width
    importance = torch.diagonal(products)
    damped = products + torch.eye(width, dtype=products.dtype) * (DAMPING * importance.mean() + 1e-12)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    integers, scales = torch.zeros_like(weight), []
    for start in range(0, width, group):
        end = min(start + group, width)
        scale = _scale(weight[:, start:end], importance[start:end])
        scales.append(scale)
        errors = torch.zeros_like(weight[:, start:end])
        for column in range(start, end):
            now = weight[:, column : column + 1]
            whole = (now / scale).round().clamp(LOWEST, HIGHEST)
            integers[:, column : column + 1] = whole
            error = (now - whole * scale) / inverse[column, column]
            weight[:, column + 1 : end] -= error @ inverse[column : column + 1, column + 1 : end]
            errors[:, column - start : column - start + 1] = error
        weight[:, end:] -= errors @ inverse[start:end, end:]
    return integers, torch.cat(scales, dim=1)


def _scale(weight: Tensor, importance: Tensor) -> Tensor:
    """The scale (O, 1) of one group that loses least, an input's weight counting by how strong that input is."""
    largest = weight.abs().amax(1, keepdim=True).clamp(min=1e-12)
    losses = []
    for clip in CLIPS:
        scale = largest * clip / HIGHEST
        lost = (weight / scale).round().clamp(LOWEST, HIGHEST) * scale - weight
        losses.append((lost.square() * importance).sum(1))
    best = torch.tensor(CLIPS, dtype=weight.dtype)[torch.stack(losses).argmin(0)]
    return largest * best[:, None] / HIGHEST
