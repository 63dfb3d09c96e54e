"""The embedded default model, through every target and recipe, on utterances written for this project."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import DATA
from shared import default_bundle
from tiers import quick

import edgebert
from edgebert import bundle
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.checkpoints.read import ASSETS
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES

FILE = DATA / "utterances.tsv"
UTTERANCES = [line.split("\t") for line in FILE.read_text(encoding="utf-8").splitlines()]
TEXTS = [text for _, text in UTTERANCES]
# Each target's 8-bit recipe that is nearest to `w8a8-dynamic`.
NEAREST = {t: "w8a8-dynamic" if "w8a8-dynamic" in recipes else "w8" for t, recipes in TARGET_RECIPES.items()}
# `make test` takes the bundle that is made by default, and one that is held to its size; `make test-all` every recipe.
CELLS = quick(
    [(target, recipe) for target, recipes in TARGET_RECIPES.items() for recipe in recipes],
    [("tflite", "w8a8-dynamic"), ("executorch", "w8a8-dynamic")],
)


@pytest.fixture(scope="module")
def default() -> Checkpoint:
    return edgebert.load()


@pytest.fixture(scope="module")
def torch_labels(default: Checkpoint) -> np.ndarray:
    assert default.tokenizer is not None
    inputs = default.tokenizer.batch(TEXTS)
    with torch.no_grad():
        logits = default.model(**{key: torch.from_numpy(value) for key, value in inputs.items()})["logits"]
    return logits.argmax(-1).numpy()


def test_two_utterances_for_each_intent(default: Checkpoint) -> None:
    assert len(UTTERANCES) == 300
    assert sorted(intent for intent, _ in UTTERANCES) == sorted(default.model.config.labels * 2)
    assert len(set(TEXTS)) == 300


def test_assets_are_small_and_carry_their_card() -> None:
    files = list((ASSETS / "default").iterdir())
    assert sum(file.stat().st_size for file in files) <= 10_000_000
    card = (ASSETS / "default" / "README.md").read_text(encoding="utf-8")
    for owed in ("CLINC150", "CC BY 3.0", "all-MiniLM-L6-v2", "Apache"):
        assert owed in card


def test_understands_utterances_it_has_never_seen(default: Checkpoint, torch_labels: np.ndarray) -> None:
    named = [default.model.config.labels[i] for i in torch_labels]
    right = np.mean([name == intent for name, (intent, _) in zip(named, UTTERANCES, strict=True)])
    assert right >= 0.85  # seen: 0.88; the sentences are shorter and freer than the training data


@pytest.fixture(scope="module")
def made(default: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Bundles of the default model, each made when it is first asked for."""
    folder = tmp_path_factory.mktemp("bundles")

    @cache
    def export(target: str, recipe: str) -> Path:
        if (target, recipe) == ("tflite", "w8a8-dynamic"):
            return default_bundle(tmp_path_factory)
        out = folder / f"{target}-{recipe}"
        return edgebert.export(default, target=target, recipe=recipe, lengths=(32,), out=out).folder

    return export


@pytest.mark.parity
@pytest.mark.parametrize(("target", "recipe"), CELLS)
def test_answers_like_torch(
    made: Callable[[str, str], Path], torch_labels: np.ndarray, target: str, recipe: str
) -> None:
    with edgebert.open(made(target, recipe)) as opened:
        assert opened.tokenizer is not None
        labels = opened.run(opened.tokenizer.batch(TEXTS))["logits"].argmax(-1)
        assert opened.predict("please set an alarm for seven in the morning")["label"] == "alarm"
    agreement = float((labels == torch_labels).mean())
    # Labels equal to torch's in float are equal among the targets, too.
    assert agreement >= (0.985 if RECIPES[recipe].quantized else 1.0)


@pytest.mark.parity
@pytest.mark.parametrize("target", quick(TARGET_RECIPES, ["executorch"]))
def test_int8_file_is_at_most_30_percent_of_fp32(made: Callable[[str, str], Path], target: str) -> None:
    sizes = {}
    for recipe in ("fp32", NEAREST[target]):
        sizes[recipe] = bundle.read(made(target, recipe)).model_bytes
    assert sizes[NEAREST[target]] <= 0.30 * sizes["fp32"]
