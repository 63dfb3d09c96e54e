"""Half precision as a phone's processor computes it: here files compute in float, and nothing of it is seen.

A lowered torch model runs with every number rounded that a file computes in half, what is below the normal numbers
taken for zero, as LiteRT has it (seen on a simulated Pixel 4), and the largest numbers are held against what half
precision holds. Where products are added up in half, what is in between counts too.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import hardshrink
from torch.overrides import TorchFunctionMode

from edgebert.answers.reading import PLAIN, applied
from edgebert.errors import Unsupported
from edgebert.gate import golden
from edgebert.gate.golden import Batch, Golden
from edgebert.gate.parity import TOLERANCES, Run, as_logits, gate
from edgebert.lowering.half_norms import LARGEST, MARGIN, SMALLEST, find_factors
from edgebert.models import Model
from edgebert.models.heads import ACTIVATED
from edgebert.models.layers import MASKED
from edgebert.models.signature import Arrays, has_token_axis
from edgebert.quantization.observers import Samples
from edgebert.quantization.recipes import Recipe
from edgebert.report import Check, Tolerance

TEXTS = 16  # sample texts that half precision is tried on
TOGETHER = 8  # of them that are run as one batch
# Where integers make the rest of the error that the table allows, half may make a tenth of it; else half of it.
SHARE_DB, CLEAR_DB = 10.0, 3.0
TINY = 1e-30
BELOW_NORMAL = SMALLEST * (1 - 2.0**-11)  # the largest number that half precision has not among its normal ones
# XNNPACK multiplies by 255 over a range, in half, to make int8 of it: where the range is smaller that is infinite.
NARROWEST = 255 / LARGEST

# A sum in half is rounded at each term: this share of its square is the variance, 2^-20 / 12 for numbers from 1 to 2,
# and 0.54 of it on the mean of numbers from any power of two to the next.
STEP = 0.54 * 2.0**-20 / 12
NEXT_TO_NOTHING = 1_000.0  # in a mask, beside what hides a token
STRETCHES = 4  # of a sum's terms, at whose ends it is looked at

PRODUCTS = ("bmm", "matmul")
WEIGHTED = ("conv1d", "conv2d", "linear")


@dataclass(frozen=True, slots=True)
class Where:
    """What a file computes in half precision.

    Attributes:
        kinds: names of torch's operators, `product` for one of two activations; None for all.
        sums: whether linear layers have weights in half and add up in it; sums of integers are exact.
        norms: whether the steps of a norm are in half, and not its result alone.
    """

    kinds: tuple[str, ...] | None = None
    sums: bool = False
    norms: bool = False


# By target and recipe; those that are not here compute in float alone.
WHERE: dict[tuple[str, str], Where] = {
    ("tflite", "fp16"): Where(sums=True, norms=True),
    ("tflite", "w8a8-dynamic"): Where(norms=True),
    ("executorch", "w8a8-dynamic"): Where(),
    ("onnx", "fp16"): Where(sums=True),
    ("onnx", "w8a8-dynamic"): Where(kinds=("gelu", "product")),
    ("onnx", "w8a8-static"): Where(kinds=("gelu", "product")),
}

# What is due where a processor computes in half, if that is less than the table asks of files that are run in float.
SUMS = Tolerance(30.0, 0.99, "products are added up in half precision too; trained models 35 to 48 dB, tiny 57 to 70")


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a model in half precision.

    Attributes:
        headroom: how many times larger numbers may be before one overflows.
        distance: of its answers from those in float, in decibel, on the worst batch.
        told: its answers to each of the gate's batches, cut as `golden.answer` does.
    """

    headroom: float
    distance: float
    told: tuple[Arrays, ...]

    def fits(self, nearest: float) -> bool:
        """Whether numbers may be as much larger as they have to, and answers are within `nearest` decibel."""
        return self.headroom >= MARGIN and self.distance >= nearest


@dataclass(frozen=True, slots=True)
class Half:
    """What a file is to compute in half precision, where the processor can.

    Attributes:
        model: the lowered model, float32.
        factors: what its norms multiply by, see `lowering/half_norms.py`; None where the file computes in float alone.
        trial: what came of it; None likewise.
        note: why the file does without, for a reader of the manifest.
    """

    model: Model
    factors: Mapping[str, float] | None = None
    trial: Trial | None = None
    note: str = ""


def choose(
    lower: Callable[[Mapping[str, float] | None], Model], target: str, recipe: Recipe, texts: Samples, answers: Golden
) -> Half:
    """Whether a file is to compute in half precision, tried on texts and on all that the gate asks.

    Args:
        lower: the exporter's, of the model; it is told the norms' factors.
        target: of the file.
        recipe: of the file.
        texts: inputs int32 (1, T); some are taken from all over them.
        answers: the model's, to the gate's inputs.

    Raises:
        Unsupported: a weight is larger than half precision holds, and the recipe stores it in that.
    """
    plain, where = lower(None), WHERE.get((target, recipe.name))
    if where is None:
        return Half(plain)
    if recipe.weight_bits == 16:
        _check_weights(plain, recipe)
    some = _joined(texts[:: max(len(texts) // TEXTS, 1)])
    every = [*some, *(batch.inputs for batch in _batches(answers))]
    factors = find_factors(plain, every) if where.norms else {}
    model = lower(factors) if where.norms else plain
    trial = attempt(model, where, some, answers)
    if recipe.weight_bits == 16:
        # A few tokens may make most of an error, and another rounding then another error: weights alone are one more.
        trial = replace(trial, distance=min(trial.distance, _with_weights_in_half(plain, answers)))
    nearest = due(target, recipe.name).min_sqnr_db + (SHARE_DB if recipe.quantized else CLEAR_DB)
    if trial.fits(nearest):
        return Half(model, factors, trial)
    note = (
        f"computes in float alone: on sample texts half precision overflows at {trial.headroom:.2g} times their "
        f"numbers (at least {MARGIN:g} are asked for) and is {trial.distance:.0f} dB from torch ({nearest:.0f} are)"
    )
    return Half(plain, note=note)


def due(target: str, recipe: str, held: Tolerance | None = None) -> Tolerance:
    """What a file is held to where it is run in half precision: its row of the table, or what sums in half come to.

    Args:
        target: with `recipe`, a key of WHERE.
        recipe: likewise.
        held: what the file is held to in float, which may be less for a model that rounding takes that far.
    """
    row = SUMS if WHERE[target, recipe].sums else TOLERANCES[target, recipe]
    return min(row, held or row, key=lambda tolerance: tolerance.min_sqnr_db)


def attempt(model: Model, where: Where, texts: Samples, answers: Golden) -> Trial:
    """A lowered model in half precision, on texts int32 (B, T) and on the gate's batches."""
    rooms, distances, told = [math.inf], [math.inf], []
    held = [(batch.inputs, batch.expected) for batch in _batches(answers)]
    for inputs, expected in [*held, *((dict(some), golden.answer(model, dict(some))) for some in texts)]:
        rounded, room = in_half(model, where, inputs)
        distances += _distances(expected, rounded, inputs["attention_mask"])
        rooms.append(room)
        told.append(rounded)
    return Trial(min(rooms), min(distances), tuple(told[: len(held)]))


def in_half(model: Model, where: Where, inputs: Mapping[str, np.ndarray]) -> tuple[Arrays, float]:
    """A lowered model's answers to inputs (B, T) in half precision, cut as `golden.answer` does, and the headroom."""
    with _Rounding(where) as seen, np.errstate(invalid="ignore", over="ignore"):
        return golden.answer(model, dict(inputs)), seen.headroom


def _batches(answers: Golden) -> tuple[Batch, ...]:
    return (*answers.batches, answers.types)


def _with_weights_in_half(model: Model, answers: Golden) -> float:
    """How far a model with rounded weights is from itself, in decibel, on the worst of the gate's batches."""
    distances = [math.inf]
    with _Stored():
        for batch in _batches(answers):
            told = golden.answer(model, batch.inputs)
            distances += _distances(batch.expected, told, batch.inputs["attention_mask"])
    return min(distances)


def _joined(texts: Samples) -> list[Arrays]:
    """Texts int32 (1, T) in batches of those that are about as long, padded."""
    rows = sorted((dict(text) for text in texts), key=lambda row: row["input_ids"].shape[1])
    batches = [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
    return [golden.join([golden.pad(row, batch[-1]["input_ids"].shape[1]) for row in batch]) for batch in batches]


def _distances(expected: Arrays, told: Arrays, mask: np.ndarray) -> list[float]:
    """How far each output is from what was expected, in decibel, where there is a token."""
    return [
        _decibel(_power(name, value, mask), _power(name, told[name] - value, mask)) for name, value in expected.items()
    ]


def _decibel(strength: float, error: float) -> float:
    if not math.isfinite(error):  # half overflowed
        return -math.inf
    return 10 * math.log10(max(strength, TINY) / max(error, TINY))


def _power(name: str, output: np.ndarray, mask: np.ndarray) -> float:
    """The mean square of an output where there is a token."""
    kept = output[mask[:, : output.shape[1]].astype(bool)] if has_token_axis(name, output.ndim) else output
    return float(np.square(kept, dtype=np.float64).mean())


def _check_weights(model: Model, recipe: Recipe) -> None:
    """Refuse weights that cannot be stored in half precision; see `choose` for what it raises."""
    for name, weight in model.named_parameters():
        if (largest := float(weight.abs().amax())) > LARGEST:
            raise Unsupported(
                f"{name} has numbers up to {largest:.3g}, and {recipe.name} ends at {LARGEST:.0f}: choose fp32, or a "
                "recipe with 8-bit weights."
            )


def check(half: Half, run: Run, answers: Golden, tolerance: Tolerance) -> Check:
    """What the gate would say on a processor that computes in half.

    What half changes in torch's answers is added to the file's own, which are computed in float here.

    Args:
        half: with a trial on the same answers.
        run: the file.
        answers: the model's, to inputs.
        tolerance: what is due there, see `due`.
    """
    assert half.trial is not None
    changed = list(zip(_batches(answers), half.trial.told, strict=True))

    def run_in_half(inputs: Mapping[str, np.ndarray]) -> Arrays:
        found = ((batch.expected, rounded) for batch, rounded in changed if batch.inputs is inputs)
        given = {name: golden.cut(value) for name, value in run(inputs).items()}
        plain, rounded = next(found, (given, given))  # what is not asked for its answer, but for a refusal
        return {name: _moved(name, value, plain[name], rounded[name]) for name, value in given.items()}

    there = gate(answers, run_in_half, tolerance, half.model.family.padding_invariant, half.model.config.vocab_size)
    failed = "; ".join(f"{one.name} ({one.detail})" for one in there.checks if not one.passed)
    lowest = min(stats.sqnr_db for stats in there.outputs.values())
    detail = f"{lowest:.1f} dB from torch on a processor that has it (at least {tolerance.min_sqnr_db:.0f}), headroom"
    return Check("half precision", there.passed, failed or f"{detail} {half.trial.headroom:.1f} times")


def _moved(name: str, value: np.ndarray, plain: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """An output, moved by as much as another is by rounding."""
    value, plain, rounded = (as_logits(name, each) for each in (value, plain, rounded))
    moved: np.ndarray = value + rounded - plain
    activation = next((activation for activation, output in ACTIVATED.items() if output == name), PLAIN)
    return moved if activation == PLAIN else applied(activation, moved)


class _Stored(TorchFunctionMode):
    """Rounds weights, as a file has them, and nothing else."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute as torch does with other weights."""
        return func(*(nearest(value) if isinstance(value, Parameter) else value for value in args), **(kwargs or {}))


class _Rounding(TorchFunctionMode):
    """Rounds what torch computes, and takes note of the headroom."""

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.headroom = math.inf
        # Drawn once for a shape: it takes as long as the product.
        self.noise = cache(partial(torch.randn, generator=torch.Generator().manual_seed(0)))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute as torch does, and round where the file does."""
        kwargs = kwargs or {}
        kind = "product" if func.__name__ in PRODUCTS else func.__name__
        if self.where.kinds is not None and kind not in self.where.kinds:
            return func(*args, **kwargs)
        if kind == "layer_norm" and self.where.norms:
            return self.norm(*args, **kwargs)
        if self.where.kinds is not None or self.adds_up(kind, args):
            args = tuple(self.round(value) if _numbers(value) else value for value in args)
        if self.adds_up(kind, args):
            made = self.sum(kind, *args, **kwargs)
        else:
            made = func(*args, **kwargs)
            made = _spoilt(kind, args[0], made) if kind in WEIGHTED and not _depthwise(args[1]) else made
        if not _numbers(made) or (made._is_view() and kind not in WEIGHTED):
            return made
        hidden = kind in ("add", "mul") and any(_hides(value) for value in (made, *args) if _numbers(value))
        return nearest(made) if hidden else self.round(made)

    def adds_up(self, kind: str, args: tuple[Any, ...]) -> bool:
        """Whether an operator adds many products up in half."""
        return kind == "product" or (kind in WEIGHTED and self.where.sums and not _depthwise(args[1]))

    def sum(self, kind: str, x: Tensor, y: Tensor, bias: Tensor | None = None, *how: Any) -> Tensor:
        """A product whose terms are added one after the other in half: as many roundings, and what is in between."""
        if kind == "product":
            return self.added(x, y)
        if kind == "linear":
            made = self.added(x, y.T)
            return made if bias is None else made + bias
        groups = how[-1]  # of a 1x1 convolution
        weight = y.reshape(groups, -1, y.shape[1])
        made = self.added(weight, x.reshape(len(x), groups, weight.shape[2], -1)).reshape(len(x), -1, *x.shape[2:])
        return made if bias is None else made + bias.reshape(-1, *(1,) * (x.dim() - 2))

    def added(self, x: Tensor, y: Tensor) -> Tensor:
        """(..., M, K) times (..., K, N)."""
        terms = x.shape[-1]
        stretch = -(-terms // STRETCHES)
        total, steps = torch.zeros(()), torch.zeros(())
        for start in range(0, terms, stretch):
            end = min(start + stretch, terms)
            total = total + x[..., start:end] @ y[..., start:end, :]
            self.note(total)
            steps = torch.addcmul(steps, total, total, value=(end - start) * STEP)
        return torch.addcmul(total, self.noise(total.shape), steps.sqrt_())

    def round(self, x: Tensor, power: int = 1) -> Tensor:
        """The nearest half numbers, of numbers that grow with a power of the activations."""
        self.note(x, power)
        return nearest(x)

    def note(self, x: Tensor, power: int = 1) -> None:
        """Take note of the largest number."""
        largest = max(-float(x.amin()), float(x.amax()))
        if math.isfinite(largest):  # else something before it overflowed
            self.headroom = min(self.headroom, (LARGEST / max(largest, SMALLEST)) ** (1 / power))

    def norm(self, x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        """LayerNorm in the steps that LiteRT's converter makes of it; means are summed up in float."""
        mean = self.round(x.mean(-1, keepdim=True))
        squares = self.round(self.round(x - mean).square(), power=2)
        variance = self.round(self.round(squares.mean(-1, keepdim=True)) + eps)
        inverse = self.round(torch.rsqrt(variance))
        made = self.round(self.round(x * inverse) - self.round(mean * inverse))
        made = made if weight is None else self.round(made * weight)
        return made if bias is None else self.round(made + bias)


def nearest(x: Tensor) -> Tensor:
    """The nearest half numbers, as float32; what is below the normal ones is zero."""
    return hardshrink(x.half().float(), BELOW_NORMAL)


def _numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32


def _depthwise(weight: Tensor) -> bool:
    """Whether this is a kernel for each channel, which stays float in every recipe."""
    return weight.dim() > 2 and weight.shape[1] == 1


def _hides(x: Tensor) -> bool:
    """Whether this is a mask, whose numbers do not grow: what hides tokens once or twice, and next to nothing else.

    MPNet's has a term for each distance in it.
    """
    if x.dim() not in (2, 4) or float(x.amin()) > MASKED / 2 or float(x.amax()) > NEXT_TO_NOTHING:
        return False
    away = torch.stack([(x - times * MASKED).abs() for times in (0, 1, 2)]).amin(0)
    return float(away.amax()) <= NEXT_TO_NOTHING


def _spoilt(kind: str, x: Tensor, made: Tensor) -> Tensor:
    """What a product of integers makes, spoilt where the range of its input is too narrow to be rounded in half."""
    axes = (-1,) if kind == "linear" else tuple(range(1, x.dim()))
    span = x.amax(axes, keepdim=True).clamp(min=0) - x.amin(axes, keepdim=True).clamp(max=0)
    narrow = (span > 0) & (span < NARROWEST)
    return made.masked_fill(narrow, math.nan) if bool(narrow.any()) else made
