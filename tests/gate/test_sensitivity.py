"""Which layers cost the accuracy, told in torch one module at a time."""

from pathlib import Path

import pytest
import torch
from reference import reference

import edgebert
from edgebert import api
from edgebert.errors import InputError
from edgebert.gate import golden, sensitivity
from edgebert.gate.parity import FLOAT
from edgebert.models import MODELS, Model
from edgebert.quantization.recipes import RECIPES


def ranked(name: str, recipe: str, wound: str | None = None) -> list[sensitivity.Cost]:
    model = Model(MODELS[name], MODELS[name].config.tiny(), "base").random_init(1)
    if wound is not None:  # one huge weight, so that a row's other weights fall to nothing
        with torch.no_grad():
            model.get_submodule(wound).get_parameter("weight").flatten(1)[:, 0] = 1000.0
    batch = golden.make(model, None, (8,)).batches[0]
    return sensitivity.rank(model, batch, RECIPES[recipe], FLOAT)


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_matrix_is_ranked_and_the_model_left_as_it_was(name: str) -> None:
    model = Model(MODELS[name], MODELS[name].config.tiny(), "base").random_init(1)
    before = {key: value.clone() for key, value in model.named_parameters()}
    costs = sensitivity.rank(model, golden.make(model, None, (8,)).batches[0], RECIPES["w8a8-dynamic"], FLOAT)
    modules = {key.rpartition(".")[0] for key, value in before.items() if value.dim() > 1 and not key.endswith("bias")}
    assert {cost.module for cost in costs} == modules
    assert [cost.sqnr_db for cost in costs] == sorted(cost.sqnr_db for cost in costs)
    assert all(torch.equal(before[key], value) for key, value in model.named_parameters())
    assert 15 < costs[0].sqnr_db < 60, costs


def test_the_costliest_module_comes_first() -> None:
    assert ranked("bert", "w8", wound="encoder.layers.1.attention.out")[0].module == "encoder.layers.1.attention.out"


def test_four_bits_cost_more_than_eight() -> None:
    four, eight = ({c.module: c.sqnr_db for c in ranked("bert", recipe)} for recipe in ("w4", "w8"))
    assert all(four[name] < eight[name] for name in four if name.startswith("encoder.layers"))


@pytest.mark.parity
def test_a_bundle_is_ranked_from_the_model_it_came_from(tmp_path: Path) -> None:
    reference("bert", "sequence-classification").save_pretrained(tmp_path / "checkpoint")
    edgebert.export(tmp_path / "checkpoint", target="executorch", lengths=(8,), out=tmp_path / "out")
    costs = api.rank_layers(tmp_path / "out")
    assert {"head.classifier", "encoder.embeddings.word"} < {cost.module for cost in costs}
    reference("bert", "sequence-classification", seed=1).save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="is not the model that"):
        api.rank_layers(tmp_path / "out")
    edgebert.export(tmp_path / "checkpoint", target="executorch", recipe="fp32", lengths=(8,), out=tmp_path / "float")
    with pytest.raises(InputError, match="no layer is quantized"):
        api.rank_layers(tmp_path / "float")
