"""The gate on rows of several texts: torch's own pass, and what mixes texts up is caught."""

import numpy as np
import pytest
import torch
from tiny import visible

from edgebert.errors import InputError
from edgebert.exporters.tflite.export import lower
from edgebert.gate import golden, packing
from edgebert.gate.parity import FLOAT
from edgebert.lowering.packed import Packed
from edgebert.models import Model
from edgebert.models.signature import Arrays
from edgebert.quantization.recipes import RECIPES

TOKENS, TEXTS = 16, 4


@pytest.fixture(scope="module")
def model() -> Model:
    return visible("bert", "sentence-embedding", type_vocab_size=1)


@pytest.fixture(scope="module")
def answers(model: Model) -> golden.Golden:
    return golden.make(model, None, (8, 16))


def answered(model: Model, rows: Arrays) -> np.ndarray:
    packed = Packed(lower(model, RECIPES["fp32"], TOKENS), TOKENS)
    with torch.no_grad():
        each = zip(*(torch.from_numpy(rows[name]) for name in ("input_ids", "segment_ids")), strict=True)
        return np.stack([packed(ids[None], of[None])["sentence_embedding"].numpy() for ids, of in each])


def test_several_texts_stand_in_a_row(answers: golden.Golden) -> None:
    rows, wanted = packing.questions(answers, TOKENS, TEXTS, 0)
    texts = sum(len(batch.inputs["input_ids"]) for batch in answers.batches)
    assert (~np.isnan(wanted).any(-1)).sum() == texts > len(wanted)
    assert rows["segment_ids"].max() > 1
    assert wanted.shape == (len(rows["input_ids"]), TEXTS, 32)


def test_torch_itself_passes(model: Model, answers: golden.Golden) -> None:
    told = packing.check(answers, (TOKENS, TEXTS), 0, lambda rows: answered(model, rows), FLOAT)
    assert told.passed, told.detail


@pytest.mark.parametrize("wrong", ["one text of all", "places of the row", "the next one's", "not finite"])
def test_what_mixes_texts_up_is_caught(model: Model, answers: golden.Golden, wrong: str) -> None:
    def run(rows: Arrays) -> np.ndarray:
        if wrong == "one text of all":
            return answered(model, rows | {"segment_ids": np.minimum(rows["segment_ids"], 1)})[:, :1].repeat(TEXTS, 1)
        if wrong == "places of the row":
            # Texts that see each other no more, but are counted on: shifted by one place.
            shifted = {name: np.roll(value, 1, 1) for name, value in rows.items()}
            shifted["segment_ids"][:, 0] = shifted["segment_ids"][:, 1]
            return answered(model, shifted)
        told = answered(model, rows)
        if wrong == "the next one's":
            return np.roll(told, 1, 1)
        told[0, -1] = np.nan
        return told

    assert not packing.check(answers, (TOKENS, TEXTS), 0, run, FLOAT).passed


def test_texts_of_nothing_but_what_is_left_out_are_not_asked(answers: golden.Golden) -> None:
    rows, wanted = packing.questions(answers, TOKENS, TEXTS, 3)
    assert (~np.isnan(wanted).any(-1)).sum() < sum(len(batch.inputs["input_ids"]) for batch in answers.batches)
    assert min(np.bincount(row[row > 0])[1:].min() for row in rows["segment_ids"]) > 3


def test_inputs_without_such_a_text_are_refused(answers: golden.Golden) -> None:
    with pytest.raises(InputError, match="no text"):
        packing.questions(answers, 0, TEXTS, 0)
