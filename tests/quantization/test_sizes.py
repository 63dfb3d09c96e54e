"""What recipes make models weigh, and which part of a model bytes belong to."""

import pytest
import torch

from edgebert.artifact import Stored
from edgebert.errors import ConversionFailed
from edgebert.models import MODELS, Model
from edgebert.quantization import sizes
from edgebert.quantization.recipes import RECIPES


def outline(name: str, task: str) -> Model:
    with torch.device("meta"):
        return Model(MODELS[name], next(iter(MODELS[name].presets.values())), task)


@pytest.mark.parametrize("family", MODELS)
def test_every_parameter_of_every_family_has_a_part(family: str) -> None:
    for task in MODELS[family].heads:
        parts = {name: sizes.part(name) for name, _ in outline(family, task).named_parameters()}
        assert "other" not in parts.values(), parts
        for name, part in parts.items():
            assert (part == "head") == name.startswith("head."), (name, part)
            inputs = ("encoder.embeddings", "encoder.project", "encoder.position_bias")
            assert (part == "embeddings") == name.startswith(inputs), (name, part)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("bert.encoder.layer.3.attention.self.query.weight", "attention"),
        ("encoder.layers.0.attention.out.weight", "attention"),
        ("encoder.layers.0.out.bias", "attention"),
        ("encoder_layers_0_out_weight", "attention"),
        ("encoder.layers.11.up.weight", "feed-forward"),
        ("encoder_layers_11_down_weight_quantized", "feed-forward"),
        ("bert.encoder.layer.3.intermediate.dense.weight", "feed-forward"),
        ("bert.embeddings.LayerNorm.weight", "embeddings"),
        ("head.decoder.weight", "head"),
        ("MobilenetV1/Conv2d_0/weights", "other"),
    ],
)
def test_parts_by_name_also_in_files_from_elsewhere(name: str, part: str) -> None:
    assert sizes.part(name) == part


def test_estimates_are_the_papers_sizes() -> None:
    rembert = outline("rembert", "sequence-classification")
    assert sizes.estimate(rembert, RECIPES["fp32"]) == pytest.approx(2.30e9, rel=0.01)
    assert sizes.estimate(rembert, RECIPES["w8a8-dynamic"]) == pytest.approx(0.58e9, rel=0.02)
    squeezebert = outline("squeezebert", "base")
    half, quarter = (sizes.estimate(squeezebert, RECIPES[name]) for name in ("fp16", "w8"))
    assert half == 2 * sum(p.numel() for p in squeezebert.parameters())
    assert quarter < 0.26 * 2 * half
    assert sizes.estimate(squeezebert, RECIPES["w8"], ("encoder.layers.*",)) > quarter


def test_a_size_far_from_what_the_recipe_implies_is_refused() -> None:
    how = RECIPES["w8"]
    sizes.check_size(10_000_000, 10_000_000, 10_000_000, how)
    for stored, message in ((40_000_000, "left in float or is stored twice"), (3_000_000, "weights are missing")):
        with pytest.raises(ConversionFailed, match=message):
            sizes.check_size(stored, stored, 10_000_000, how)
    with pytest.raises(ConversionFailed, match="something else than the model"):
        sizes.check_size(10_000_000, 5_000_000, 10_000_000, how)


def test_the_table_of_modules_holds_every_weight_once() -> None:
    model = Model(MODELS["bert"], MODELS["bert"].config.tiny(), "masked-lm")
    weights = {name: Stored("int8", p.numel()) for name, p in model.named_parameters()}
    rows = sizes.touched(model, weights)
    assert sum(row.parameters for row in rows) == sum(p.numel() for p in model.parameters())
    assert sum(row.bytes_after for row in rows) * 4 == sum(row.bytes_before for row in rows)
    word = next(row for row in rows if row.name == "encoder.embeddings.word")
    assert (word.type, word.part, word.dtype) == ("Embedding", "embeddings", "int8")
    assert sizes.by_part((row.name, row.bytes_after) for row in rows).keys() == {
        "embeddings", "attention", "feed-forward", "head",
    }  # fmt: skip
