"""Norms whose squares fit into half precision, in which XNNPACK, LiteRT's delegate, computes between int8 products."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from edgebert.lowering.residual import stages, tell_stages
from edgebert.lowering.rewrite import duplicate, multiply
from edgebert.models.family import Model
from edgebert.quantization.observers import Samples, observe

# The largest number of half precision, and the smallest normal one; XNNPACK lets what is smaller be zero.
LARGEST, SMALLEST = 65504.0, 2.0**-14

# How many times larger numbers may be than on the texts that factors are chosen on; how many times smaller a deviation.
MARGIN, BELOW = 8.0, 2.0

# What norms multiply by where that fits, powers of two: embeddings' numbers are small, and a layer's have outliers.
EMBEDDED, INNER = 8.0, 1 / 8
POWERS = tuple(2.0**power for power in range(-24, 25))


@dataclass(slots=True)
class Spread:
    """What a norm is given: its largest number, and the smallest standard deviation of a token's."""

    largest: float = 0.0
    smallest: float = math.inf

    def fits(self, factor: float) -> bool:
        """Whether squares of the numbers times a factor, and their mean, are within half precision."""
        above = (self.largest * MARGIN * factor) ** 2 <= LARGEST
        return above and (self.smallest / BELOW * factor) ** 2 >= SMALLEST

    def factor(self, usual: float) -> float:
        """The power of two nearest to the usual one that fits; the usual one where none does."""
        nearest = sorted(POWERS, key=lambda power: abs(math.log2(power / usual)))
        return next(filter(self.fits, nearest), usual)


class HalfNorm(nn.LayerNorm):
    """LayerNorm of its input times a factor, which has the same result where eps is times the factor's square.

    It averages squares of distances from the mean, and half precision holds 0.00006 to 65,504 there: XNNPACK lets what
    is smaller be zero. In the embedded default model distances go up to 700 in a layer and their squares' mean down to
    0.003 in the embeddings: without factors its answers were 7 dB from torch's.
    """

    factor: float

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis of (B, T, C)."""
        return super().forward(x * self.factor)


def norms_in_half(model: Model, factors: Mapping[str, float]) -> Model:
    """Let every norm square numbers that fit into half precision, see HalfNorm.

    For accuracy, and free: between layers the factor is in the weights, of what gives a norm its input and in return of
    what reads the norm; as products they took 1.0 M of 362 M instructions. The last norm gives its plain numbers.

    Args:
        model: one whose layers work on (B, T, C).
        factors: what norms multiply by, powers of two, by name, see `find_factors`; others by the usual ones.
    """
    lowered = duplicate(model)
    tell_stages(lowered, "norms_in_half")
    names = {module: name for name, module in lowered.named_modules() if type(module) is nn.LayerNorm}
    done = set()
    for stage in stages(lowered):
        if not isinstance(stage.norm, nn.LayerNorm):
            continue
        done.add(stage.norm)
        factor = factors.get(names[stage.norm], INNER)
        for part in (stage.source, stage.joined):
            multiply(part, factor, "weight", "bias")
        for reader in stage.readers:
            multiply(reader, 1 / factor, "weight")
        stage.norm.eps *= factor**2
    for module, name in names.items():
        if module not in done:
            module.__class__ = HalfNorm
            assert isinstance(module, HalfNorm)
            module.factor = factors.get(name, _usual(name))
            module.eps *= module.factor**2
    return lowered


def find_factors(model: Model, samples: Samples) -> dict[str, float]:
    """The factor of each norm that suits what it is given, by name.

    Args:
        model: before `norms_in_half`.
        samples: inputs of texts, int32 (B, T). Where no factor fits them, as with outliers beyond a thousand times the
            rest of some tokens, it is the usual one.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)}
    spreads = {name: Spread() for name in norms}

    def note(name: str, norm: nn.Module, entering: Tensor, leaving: Tensor) -> None:
        seen = spreads[name]
        distances = (entering - entering.mean(-1, keepdim=True)).abs()
        seen.largest = max(seen.largest, float(entering.abs().amax()), float(distances.amax()))
        seen.smallest = min(seen.smallest, float(distances.square().mean(-1).amin()) ** 0.5)

    observe(model, norms, samples, note)
    # One for a kind of norm in all layers, where one fits: layers that are alike are converted once.
    found: dict[str, float] = {}
    for kind in {name.rpartition(".")[2] for name in spreads}:
        own = {name: spread for name, spread in spreads.items() if name.rpartition(".")[2] == kind and "layers" in name}
        if own:
            whole = Spread(max(one.largest for one in own.values()), min(one.smallest for one in own.values()))
            common = whole.factor(INNER)
            found |= {name: common if whole.fits(common) else spread.factor(INNER) for name, spread in own.items()}
    return {name: spread.factor(_usual(name)) for name, spread in spreads.items()} | found


def _usual(name: str) -> float:
    return EMBEDDED if name == "encoder.embeddings.norm" else INNER
