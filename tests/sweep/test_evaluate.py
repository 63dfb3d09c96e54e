"""The task's own figure: texts with labels as they are read, and figures against scikit-learn's and SciPy's."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score

import edgebert
from edgebert.answers.reading import SIGMOID, SOFTMAX, Reading
from edgebert.errors import InputError, Unsupported
from edgebert.sweep import evaluate
from edgebert.sweep.evaluate import Asked, Example

LABELS = ("no", "yes", "maybe")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.tsv", "a text\tyes\nanother\tno\n", [Example("a text", None, "yes"), Example("another", None, "no")]),
        ("a.tsv", "text\tlabel\n\"quoted\tyes\n", [Example('"quoted', None, "yes")]),
        ("a.tsv", "text\tpair\tlabel\na\tb\t0.5\n", [Example("a", "b", "0.5")]),
        ("a.jsonl", '{"text": "a", "label": 1}\n\n{"text": "b", "label": "no"}\n',
         [Example("a", None, "1"), Example("b", None, "no")]),
        ("a.jsonl", '\ufeff{"text": "a", "pair": "b", "label": 0.5, "id": 7}', [Example("a", "b", "0.5")]),
    ],
)  # fmt: skip
def test_texts_are_read_from_columns_and_json_lines(
    tmp_path: Path, name: str, content: str, found: list[Example]
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert evaluate.read(path) == found


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "has no text"),
        ("text\tlabel\n", "has no text"),
        ("one column\n", "line 1: 1 columns"),
        ("a\tb\nc\n", "row 2: 1 columns, and 2 before"),
        ('{"text": "a"}\n', '"label": ...} is needed'),
        ('{"text": "a", "label": 1}\n{"text"\n', "line 2"),
        ('{"text": "a", "label": [1]}\n', "label a name or a number"),
        ('{"text": "a", "label": 1}\n{"text": "a", "pair": "b", "label": 1}\n', "some lines have a pair"),
    ],
)
def test_what_is_neither_is_refused_with_its_line(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "texts"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        evaluate.read(path)


def test_figures_are_those_of_the_field() -> None:
    random = np.random.default_rng(0)
    right, found = random.integers(0, 4, 50), random.integers(0, 5, 50)
    assert evaluate.macro_f1(right, found) == pytest.approx(f1_score(right, found, average="macro"))
    a, b = random.integers(0, 6, 50).astype(float), random.normal(size=50)
    assert evaluate.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert evaluate.spearman(a, np.zeros(50)) == 0.0


def asked(width: int, reading: Reading, task: str = "sequence-classification") -> Asked:
    """A model whose answer is the number of tokens that a text has."""
    words = edgebert.load().tokenizer
    assert words is not None

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        counts = inputs["attention_mask"].sum(1) - 2
        if task == "sentence-embedding":
            return {"sentence_embedding": np.stack([np.cos(counts), np.sin(counts)], 1).astype(np.float32)}
        return {"logits": np.eye(8, dtype=np.float32)[counts - 1][:, :width] if width > 1 else counts[:, None] * 1.0}

    return Asked(task, LABELS[:width], reading, words, "", 2, 16, run)


def test_a_classifier_is_right_as_often_as_it_is() -> None:
    texts = [
        Example("a", None, "no"),
        Example("a a", None, "yes"),
        Example("a a a", None, "0"),
        Example("a", None, "0"),
    ]
    found = evaluate.figures(asked(3, Reading(SOFTMAX)), texts)
    assert found == {"accuracy": 0.75, "f1": pytest.approx(f1_score([0, 1, 0, 0], [0, 1, 2, 0], average="macro"))}


def test_labels_may_stand_first() -> None:
    texts = [Example("no", None, "a"), Example("yes", None, "a a")]
    assert evaluate.figures(asked(3, Reading(SOFTMAX)), texts)["accuracy"] == 1.0


def test_scores_and_pairs_are_ranked() -> None:
    texts = [Example("a", None, "0.1"), Example("a a", None, "0.2"), Example("a a a", None, "0.15")]
    assert evaluate.figures(asked(1, Reading("none")), texts) == {"spearman": pytest.approx(0.5)}
    pairs = [Example("a", "a", "1"), Example("a", "a a", "0.5"), Example("a", "a a a", "0.1")]
    made = asked(1, Reading("none", similarity="cosine"), "sentence-embedding")
    assert evaluate.figures(made, pairs) == {"spearman": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("made", "texts", "told"),
    [
        (asked(3, Reading(SOFTMAX)), [Example("a", None, "perhaps")], "label 'perhaps' is none of the model's"),
        (asked(1, Reading("none")), [Example("a", None, "yes")], "labels are scores for this model"),
        (asked(1, Reading("none"), "sentence-embedding"), [Example("a", None, "1")], "is asked for pairs"),
    ],
)
def test_labels_that_a_model_has_not_are_refused(made: Asked, texts: list[Example], told: str) -> None:
    with pytest.raises(InputError, match=told):
        evaluate.figures(made, texts)


def test_other_tasks_are_refused() -> None:
    with pytest.raises(Unsupported, match=r"classification, regression and pairs, and this model is for masked-lm"):
        evaluate.check("masked-lm", (), Reading(SOFTMAX), [])
    with pytest.raises(Unsupported, match="several may apply"):
        evaluate.check("sequence-classification", LABELS, Reading(SIGMOID, threshold=0.5), [])
