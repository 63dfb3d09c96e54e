"""Rewrites that several targets share say what the model says."""

from dataclasses import replace

import pytest
import torch
from reference import batch, cells

from edgebert import lowering
from edgebert.lowering.last_layer import FORMS
from edgebert.models import MODELS, Model

FIRST = ("sequence-classification", "multiple-choice")


@pytest.mark.parametrize(("family", "task"), cells())
def test_the_last_layer_answers_for_the_first_token_where_the_head_reads_no_other(family: str, task: str) -> None:
    model = Model(MODELS[family], MODELS[family].config.tiny(), task).random_init()
    plain = lowering.tokens_before_channels(model)
    lowered = lowering.first_token_only(plain)
    given = batch(model.config.vocab_size)
    for name, expected in model(**given).items():
        torch.testing.assert_close(lowered(**given)[name], expected, rtol=0, atol=1e-5)
    *before, last = lowered.encoder.get_submodule("layers").children()
    # ConvBERT's multiple choice reads the last token.
    reads_first = task in FIRST and (family, task) != ("convbert", "multiple-choice")
    assert (type(last) in FORMS.values()) == reads_first
    assert not any(type(layer) in FORMS.values() for layer in before)
    assert lowered.state_dict().keys() == plain.state_dict().keys()


def test_a_causal_mask_keeps_its_first_row() -> None:
    config = MODELS["rembert"].config.tiny()
    causal = Model(MODELS["rembert"], replace(config, is_decoder=True), FIRST[0]).random_init()
    given = batch(causal.config.vocab_size)
    answer = lowering.first_token_only(causal)(**given)["logits"]
    torch.testing.assert_close(answer, causal(**given)["logits"], rtol=0, atol=1e-5)


def test_other_layouts_come_back_as_they_are() -> None:
    model = Model(MODELS["squeezebert"], MODELS["squeezebert"].config.tiny(), FIRST[0]).random_init()
    *_, last = lowering.first_token_only(model).encoder.get_submodule("layers").children()
    assert type(last) not in FORMS.values()
