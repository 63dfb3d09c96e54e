"""What a processor says that computes in half precision: factors, headroom, refusals, and what phones say."""

import contextlib
import itertools
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiers import quick
from tiny import NORMS, batch, loud, samples, sqnr, visible
from torch.nn import functional as F

import edgebert
from edgebert.bundle.manifest import read
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import InputError, ParityFailed, Unsupported
from edgebert.exporters import EXPORTERS
from edgebert.gate import golden, half
from edgebert.gate.half import WHERE, Half, Where
from edgebert.gate.parity import TOLERANCES
from edgebert.lowering.half_norms import EMBEDDED, INNER, LARGEST, MARGIN, SMALLEST, Spread, find_factors
from edgebert.models import MODELS, Model
from edgebert.quantization.observers import Samples
from edgebert.quantization.recipes import RECIPES
from edgebert.report import Tolerance
from edgebert.runtimes.devices.pixel import sandbox

FAMILIES = ("bert", "squeezebert", "convbert", "rembert")
TASK = "token-classification"
TIMES = (100.0, 1_000.0, 10_000.0, 1_000_000.0)


ANSWERS = (8, 16)


def chosen(model: Model, target: str, recipe: str, texts: Samples = ()) -> Half:
    """What an export decides."""
    how = RECIPES[recipe]
    lower = partial(EXPORTERS[target].lower, model, how, 16, ())
    return half.choose(lower, target, how, texts or samples(), golden.make(model, None, ANSWERS))


def lowered(model: Model, target: str, recipe: str) -> Model:
    """What would go into a file that computes in half."""
    how = RECIPES[recipe]
    plain = EXPORTERS[target].lower(model, how, 16)
    return EXPORTERS[target].lower(model, how, 16, (), find_factors(plain, samples()))


@pytest.mark.parametrize("usual", [EMBEDDED, INNER])
def test_a_norms_factor_is_the_usual_one_where_it_fits(usual: float) -> None:
    assert Spread(1.0 / usual, 0.5 / usual).factor(usual) == usual
    for largest in (50.0, 300.0, 2_000.0, 12_000.0):
        spread = Spread(largest, largest / 100)
        factor = spread.factor(usual)
        assert math.frexp(factor)[0] == 0.5, "a power of two changes no digit"
        assert (largest * MARGIN * factor) ** 2 <= LARGEST
        assert (spread.smallest * factor) ** 2 >= SMALLEST
        nearer = {
            2.0**power for power in range(-24, 25) if abs(power - math.log2(usual)) < abs(math.log2(factor / usual))
        }
        assert not any(spread.fits(other) for other in nearer)
    # Wider apart than half precision is: nothing fits, and the usual one stays.
    assert not any(Spread(10_000.0, 0.1).fits(2.0**power) for power in range(-24, 25))
    assert Spread(10_000.0, 0.1).factor(usual) == usual


def test_norms_of_a_kind_share_a_factor_where_one_fits_them_all() -> None:
    """Layers that differ in it are not alike, and a converter takes each for itself."""
    names = [f"encoder.layers.{i}.norm" for i in range(2)]
    for times, shared in ((150.0, True), (1_000_000.0, False)):
        model = visible("bert", TASK)
        with torch.no_grad():
            model.encoder.get_submodule("layers.1.down").get_parameter("weight").mul_(times)
        found = find_factors(model, samples())
        assert (found[names[0]] == found[names[1]]) == shared
    assert found[names[1]] < found[names[0]] == INNER


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recipe", ["fp16", "w8a8-dynamic"])
def test_factors_chosen_on_texts_change_no_answer(family: str, recipe: str) -> None:
    inputs = [torch.from_numpy(value) for value in batch(12).values()]
    for norm, times in zip(NORMS, (1_000.0, 100.0, 100.0, 1_000.0), strict=True):
        model = loud(family, TASK, norm, times)
        want = model(*inputs)["logits"]
        told = lowered(model, "tflite", recipe)(*inputs)["logits"]
        assert (told - want).abs().max() < 1e-5 * want.abs().max() * max(times, 10)


@pytest.mark.parametrize(("target", "recipe"), WHERE)
@pytest.mark.parametrize(
    ("family", "norm"),
    quick(itertools.product(FAMILIES, NORMS), [("bert", "attention"), ("squeezebert", "embeddings")]),
)
def test_half_is_taken_where_it_holds_a_models_numbers_and_only_there(
    family: str, norm: str, target: str, recipe: str
) -> None:
    where, tolerance = WHERE[target, recipe], half.due(target, recipe).min_sqnr_db
    for times in TIMES:
        model = loud(family, TASK, norm, times)
        try:
            found = chosen(model, target, recipe)
        except Unsupported:
            assert (recipe, times) == ("fp16", TIMES[-1])
            continue
        if found.trial is None:
            assert found.factors is None
            assert "computes in float alone: on sample texts half precision overflows at" in found.note
        else:
            # A word's number alone is larger than half holds.
            assert not (times == TIMES[-1] and where.kinds is None and norm == "embeddings")
            assert found.trial.headroom >= MARGIN
            unseen = batch(16, seed=8)
            rounded, room = half.in_half(found.model, where, unseen)
            assert room >= 1
            assert sqnr(golden.answer(found.model, unseen)["logits"], rounded["logits"]) >= tolerance


def test_weights_in_half_count_as_another_rounding() -> None:
    """Where one token makes the error, it is 49 dB with one rounding and 26 with another, and 16 on a phone."""
    model = loud("bert", TASK, "feed-forward", 1_000.0)
    answers = golden.make(model, None, (16,))
    lower = partial(EXPORTERS["onnx"].lower, model, RECIPES["fp16"], 16, ())
    trial = half.attempt(lower(None), WHERE["onnx", "fp16"], samples(), answers)
    assert trial.distance > half.SUMS.min_sqnr_db + half.CLEAR_DB
    found = half.choose(lower, "onnx", RECIPES["fp16"], samples(), answers)
    assert found.trial is None
    assert "computes in float alone" in found.note


@pytest.mark.parametrize("family", MODELS)
def test_ordinary_models_compute_in_half(family: str) -> None:
    model = visible(family, TASK)
    for target, recipe in WHERE:
        found = chosen(model, target, recipe)
        assert found.trial is not None, (target, recipe, found.note)
        assert found.trial.headroom > MARGIN


def test_recipes_that_ask_for_no_half_are_left_alone() -> None:
    found = chosen(visible("bert", TASK), "tflite", "w8")
    assert (found.factors, found.trial, found.note) == (None, None, "")


def test_masks_do_not_count_as_numbers_that_grow() -> None:
    found = chosen(loud("rembert", "causal-lm", "embeddings", 1.0), "tflite", "w8a8-dynamic")
    assert found.trial is not None
    assert found.trial.headroom >= MARGIN


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor([[list(values)]])


def test_numbers_are_rounded_and_small_ones_are_zero() -> None:
    given = torch.tensor([1 + 2**-12, 2**-14, 2**-14.5, -(2**-20), 65504.0, 70000.0])
    assert half.nearest(given).tolist() == [1.0, 2**-14, 0.0, 0.0, 65504.0, math.inf]
    with half._Rounding(Where()) as seen:
        made = numbers(1.0, 2000.0) + numbers(2**-12, 0.0)
    assert made.tolist() == [[[1.0, 2000.0]]]
    assert seen.headroom == LARGEST / 2000
    with half._Rounding(Where(kinds=("gelu", "product"))) as seen:
        assert (numbers(70000.0) + numbers(1.0)).item() == 70001.0  # in float
        F.gelu(numbers(5000.0))
    assert seen.headroom == LARGEST / 5000


def test_a_norm_squares_and_averages_in_half() -> None:
    x = numbers(*torch.linspace(-1, 1, 32).tolist())
    for size, right in ((1.0, True), (200.0, True), (300.0, False), (2**-8, False)):
        with half._Rounding(Where(norms=True)) as seen:
            made = F.layer_norm(x * size, (32,), eps=1e-12 * size**2)
        error = (made - F.layer_norm(x, (32,))).abs().max()
        assert bool(error < 0.01) == right
        if size > 1:
            assert seen.headroom == pytest.approx(LARGEST**0.5 / size, rel=0.01)
    with half._Rounding(Where()):  # in float but for the result
        assert (F.layer_norm(x * 300.0, (32,)) - F.layer_norm(x, (32,))).abs().max() < 0.01


def test_sums_in_half_are_looked_at_on_their_way() -> None:
    x, w = torch.ones(1, 1, 64), torch.cat([torch.full((1, 32), 3000.0), torch.full((1, 32), -3000.0)], 1)
    with half._Rounding(Where(sums=True)) as seen:
        F.linear(x, w)
    assert seen.headroom == LARGEST / 96_000  # though the result is 0
    with half._Rounding(Where()) as seen:
        assert F.linear(x, w).item() == 0  # sums of integers are exact
    assert seen.headroom > 1
    # Its error is that of as many additions in half.
    generator = torch.Generator().manual_seed(1)
    a, b = torch.rand(64, 512, generator=generator), torch.rand(512, 64, generator=generator)
    real = torch.zeros(64, 64, dtype=torch.float16)
    for k in range(512):
        real = (real.double() + a[:, k, None].double() * b[None, k].double()).half()
    with half._Rounding(Where()):
        made = a.half().float() @ b.half().float()
    exact = a.half().double() @ b.half().double()
    assert 0.7 < (made - exact).std() / (real - exact).std() < 1.4


def test_a_range_too_narrow_for_integers_spoils_a_product() -> None:
    weight = torch.ones(1, 2)
    with half._Rounding(Where()):
        assert F.linear(numbers(0.0, 2**-7), weight).item() == 2**-7
        assert math.isnan(F.linear(numbers(0.0, 2**-9), weight).item())
        assert F.linear(numbers(0.0, 0.0), weight).item() == 0
    with half._Rounding(Where(sums=True)):
        assert F.linear(numbers(0.0, 2**-9), weight).item() == 2**-9


def test_weights_that_fp16_cannot_store_are_refused() -> None:
    model = loud("bert", TASK, "embeddings", 1_000_000.0)
    for target in ("tflite", "onnx"):
        with pytest.raises(
            Unsupported, match=r"embeddings.word.weight has numbers up to .*fp16 ends at 65504: choose fp32"
        ):
            chosen(model, target, "fp16")


def test_the_gate_hears_what_half_says() -> None:
    model, pair = visible("bert", TASK), ("tflite", "w8a8-dynamic")
    answers = golden.make(model, None, ANSWERS)

    def run(inputs: Mapping[str, np.ndarray]) -> golden.Arrays:
        if not ((inputs["input_ids"] >= 0) & (inputs["input_ids"] < 120)).all():
            raise InputError("not in the vocabulary")
        return golden.answer(model, dict(inputs))

    tolerance = half.due(*pair)
    good = lowered(model, *pair)
    told = half.check(Half(good, {}, half.attempt(good, WHERE[pair], samples(), answers)), run, answers, tolerance)
    assert told.passed
    assert "dB from torch on a processor that has it (at least 18), headroom" in told.detail
    # A model that overflows is caught, though the file here is right.
    large = loud("bert", TASK, "attention", 10_000.0)
    wrong = EXPORTERS["tflite"].lower(large, RECIPES["w8a8-dynamic"], 16, (), {})
    trial = half.attempt(wrong, WHERE[pair], samples(), golden.make(large, None, ANSWERS))
    assert not trial.fits(0.0)
    assert not half.check(Half(wrong, {}, trial), run, answers, tolerance).passed


def test_a_file_is_held_to_less_on_a_phone_where_rounding_takes_its_model_further() -> None:
    held = Tolerance(12.0, 0.97, "so far is torch")
    assert half.due("tflite", "w8a8-dynamic", held) is held
    assert half.due("tflite", "w8a8-dynamic", Tolerance(30.0, 0.97, "")) is TOLERANCES["tflite", "w8a8-dynamic"]
    assert half.due("tflite", "fp16", TOLERANCES["tflite", "fp16"]) is half.SUMS


simulated = pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs the sandbox: {sandbox.missing()}")


def exported(model: Model, target: str, recipe: str, out: Path) -> Path | None:
    """A bundle; None where the export is refused in a line."""
    source = Checkpoint(model, None, "here", {}, "random, seed 0", ())
    with contextlib.suppress(ParityFailed, Unsupported):
        edgebert.export(source, target=target, recipe=recipe, lengths=(16,), out=out)
    return out if out.exists() else None


# Two norms of BERT's in every file that computes in half, and each other family by turns.
PHONED = [("bert", NORMS[(i + turn) % len(NORMS)], *where) for i, where in enumerate(WHERE) for turn in (0, 2)]
PHONED += [
    (family, NORMS[i % 3], *[*WHERE][(i + turn) % len(WHERE)])
    for i, family in enumerate(name for name in MODELS if name != "bert")
    for turn in (0, 3)
]


@simulated
@pytest.mark.slow
@pytest.mark.parametrize(("family", "norm", "target", "recipe"), PHONED)
def test_a_phone_says_the_same_or_the_export_is_refused(
    tmp_path: Path, family: str, norm: str, target: str, recipe: str
) -> None:
    taken = []
    for times in TIMES:
        bundle = exported(loud(family, TASK, norm, times), target, recipe, tmp_path / f"{times:g}")
        if bundle is None:
            continue
        report = edgebert.validate(bundle, device="pixel-4")
        assert report.passed, (times, [check for check in report.checks if not check.passed])
        manifest = read(bundle)
        assert (manifest.headroom is not None) or any("in float alone" in note for note in manifest.notes)
        taken.append(times)
    # One scale for a whole input has no room for a channel so much larger: static files are refused for that.
    # In ModernBERT's stream, which is normalized at its end alone, an outlier drowns all else: no damage would show.
    assert set(TIMES[:-1]) <= set(taken) or RECIPES[recipe].static or family == "modernbert"


@simulated
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "target", "recipe"),
    [(family, *[*WHERE][(i + turn) % len(WHERE)]) for i, family in enumerate(MODELS) for turn in (0, 2)],
)
def test_an_ordinary_model_says_the_same_on_a_phone(tmp_path: Path, family: str, target: str, recipe: str) -> None:
    bundle = exported(visible(family, TASK), target, recipe, tmp_path / "bundle")
    assert bundle is not None
    assert read(bundle).headroom is not None
    report = edgebert.validate(bundle, device="pixel-4")
    assert report.passed, [check for check in report.checks if not check.passed]


@simulated
@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fp16", "w8a8-dynamic"])
@pytest.mark.parametrize("times", [1.0, 1_000.0])
def test_a_core_without_half_precision_says_the_same(tmp_path: Path, recipe: str, times: float) -> None:
    """A Pixel 2's: its Cortex-A73 is of Armv8.0."""
    bundle = exported(loud("bert", TASK, "attention", times), "tflite", recipe, tmp_path / "bundle")
    assert bundle is not None
    report = edgebert.validate(bundle, device="pixel-2")
    assert report.passed, [check for check in report.checks if not check.passed]
