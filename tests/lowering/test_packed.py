"""Rows of several texts, in torch: each gets the vector that it gets alone, in every family whose texts can share."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny import visible

from edgebert.exporters.tflite.export import lower
from edgebert.lowering.packed import Packed, packs
from edgebert.models import MODELS, Model
from edgebert.models.heads import Dense, Pooling
from edgebert.quantization.recipes import RECIPES
from edgebert.runtimes.packing import lay

TOKENS, SIZES = 48, (3, 7, 12, 2, 9, 8)
POOLINGS = {
    "mean": Pooling(),
    "cls": Pooling(("cls",), normalize=True),
    "max": Pooling(("max",), dense=(Dense(8),)),
    "last": Pooling(("last",)),
    "joined": Pooling(("cls", "mean"), skipped=1),
}
# Convolutions and trigrams see what stands beside a token.
APART = ("convbert", "mobilebert")


def encoder(family: str, pooling: str, **changes: object) -> Model:
    return visible(family, "sentence-embedding", pooling=POOLINGS[pooling], **changes)


def vectors(model: Model, lowered: Model) -> tuple[np.ndarray, np.ndarray]:
    """Of texts in one row, and of each alone."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 120, size).astype(np.int32) for size in SIZES]
    row = {name: torch.from_numpy(value) for name, value in lay(texts, TOKENS).items()}
    with torch.no_grad():
        together = Packed(lowered, TOKENS)(**row)["sentence_embedding"].numpy()
        alone = [model(torch.from_numpy(text[None]))["sentence_embedding"][0].numpy() for text in texts]
    return together, np.stack(alone)


@pytest.mark.parametrize("recipe", ["fp32", "w8a8-dynamic", "w8a8-static"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("family", sorted(set(MODELS) - set(APART)))
def test_each_text_gets_the_vector_that_it_gets_alone(family: str, pooling: str, recipe: str) -> None:
    model = encoder(family, pooling)
    assert packs(model)
    together, alone = vectors(model, lower(model, RECIPES[recipe], TOKENS, (), {} if recipe != "fp32" else None))
    assert together.shape[0] == TOKENS // 4
    assert np.isfinite(together).all()
    np.testing.assert_allclose(together[: len(SIZES)], alone, rtol=0, atol=2e-6 * np.abs(alone).max())


def test_the_model_that_it_is_made_of_stays_as_it_is() -> None:
    model = encoder("bert", "cls")
    lowered = lower(model, RECIPES["fp32"], TOKENS)
    before = {name: type(module) for name, module in lowered.named_modules()}
    vectors(model, lowered)
    assert {name: type(module) for name, module in lowered.named_modules()} == before
    assert lowered.encoder.layers[-1].firsts is None


@pytest.mark.parametrize("family", APART)
def test_texts_of_families_that_see_across_borders_stand_apart(family: str) -> None:
    assert not packs(encoder(family, "mean"))


def test_a_convolution_in_front_of_a_large_deberta_keeps_texts_apart() -> None:
    config = dataclasses.replace(MODELS["deberta-v2"].config.tiny(), conv_kernel_size=3)
    assert not packs(Model(MODELS["deberta-v2"], config, "sentence-embedding"))


def test_only_sentence_encoders_have_such_rows() -> None:
    assert not packs(visible("bert", "sequence-classification"))
