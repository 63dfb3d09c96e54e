"""The gate itself: what it measures, and that each of its checks can fail."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from reference import reference

from edgebert.checkpoints.weights import assemble
from edgebert.errors import InputError
from edgebert.gate import golden, parity
from edgebert.gate.golden import Golden
from edgebert.gate.parity import TOLERANCES
from edgebert.models import MODELS, Model
from edgebert.quantization.recipes import TARGET_RECIPES
from edgebert.report import ErrorStats, Report, Tolerance
from edgebert.tokenizers import tokenizer

Arrays = dict[str, np.ndarray]
VOCABULARY = 120
FLOAT = TOLERANCES["tflite", "fp32"]


def make(task: str = "sequence-classification", name: str = "bert") -> Model:
    theirs = reference(name, task)
    family = MODELS[name]
    return assemble(family, family.config.from_hf(theirs.config.to_dict()), task, dict(theirs.state_dict()))[0]


@pytest.fixture(scope="module")
def model() -> Model:
    return make()


@pytest.fixture(scope="module")
def answers(model: Model) -> Golden:
    return golden.make(model, None, (8, 16))


class Runtime:
    """Stands for an exported file: torch itself, with one thing wrong where a test asks for it."""

    def __init__(self, model: Model, wrong: str = "") -> None:
        self.model, self.wrong = model, wrong

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        given = dict(inputs)
        ids = given["input_ids"]
        if self.wrong != "takes any id" and (ids.min() < 0 or ids.max() >= VOCABULARY):
            raise InputError("outside")
        given["input_ids"] = ids.clip(0, VOCABULARY - 1)
        if self.wrong == "drops token types":
            given["token_type_ids"] = np.zeros_like(ids)
        if self.wrong == "ignores the mask":
            given["attention_mask"] = np.ones_like(ids)
        out = golden.answer(self.model, given)
        if self.wrong == "nan on empty rows" and not given["attention_mask"].any():
            out = {key: value * np.nan for key, value in out.items()}
        if self.wrong == "nan":
            out = {key: value * np.nan for key, value in out.items()}
        if self.wrong == "longest length off" and ids.shape[1] == 16:
            out = {key: value[::-1] for key, value in out.items()}
        return out


def judge(answers: Golden, run: Runtime, recipe: str = "fp32") -> Report:
    return parity.gate(answers, run, TOLERANCES["tflite", recipe], run.model.family.padding_invariant, VOCABULARY)


@pytest.mark.parametrize(("name", "task"), [(name, task) for name in MODELS for task in MODELS[name].heads])
def test_torch_passes_against_itself(name: str, task: str) -> None:
    model = make(task, name)
    report = judge(golden.make(model, None, (8, 16)), Runtime(model))
    assert report.passed, report.checks
    assert report.checks[-1].detail.startswith("caught: word embeddings shifted by one row")


FAULTS = [
    ("drops token types", {"equals torch", "token_type_ids matter", "padding"}),
    ("ignores the mask", {"equals torch", "padding", "token_type_ids matter"}),
    ("nan on empty rows", {"a fully padded row is finite"}),
    ("takes any id", {"ids outside the vocabulary are refused"}),
    ("nan", {"equals torch", "padding", "token_type_ids matter", "a fully padded row is finite"}),
    ("longest length off", {"equals torch", "padding"}),
]


@pytest.mark.parametrize(("wrong", "expected"), FAULTS, ids=[wrong for wrong, _ in FAULTS])
def test_each_fault_is_named(model: Model, answers: Golden, wrong: str, expected: set[str]) -> None:
    report = judge(answers, Runtime(model, wrong))
    failed = {check.name for check in report.checks if not check.passed}
    assert failed
    assert failed <= expected | {"a damaged model is caught"}
    assert not report.passed


@pytest.mark.parametrize("recipe", TARGET_RECIPES["tflite"])
def test_every_damaged_model_fails(model: Model, answers: Golden, recipe: str) -> None:
    for what, broken in golden.damage(model):
        report = judge(answers, Runtime(broken), recipe)
        if what.startswith("word embeddings") or recipe == "fp32":
            assert not report.passed, what


def test_a_gate_that_cannot_see_damage_fails(model: Model, answers: Golden) -> None:
    blind = dataclasses.replace(answers, damaged={"nothing": answers.batches[0].expected})
    report = judge(blind, Runtime(model))
    assert [check.name for check in report.checks if not check.passed] == ["a damaged model is caught"]


def test_figures_of_a_known_error() -> None:
    expected = np.array([[3.0, 4.0], [0.0, 5.0]], np.float32)
    actual = np.array([[3.5, 4.0], [0.0, 5.0]], np.float32)
    stats = parity.compare([expected], [actual], [np.ones((2, 7))], "logits", FLOAT)
    assert stats.max_abs == 0.5
    assert stats.mean_abs == 0.125
    assert stats.sqnr_db == pytest.approx(10 * math.log10(50 / 0.25))
    assert stats.cosine == pytest.approx((3 * 3.5 + 16 + 25) / math.sqrt(50 * (3.5**2 + 16 + 25)))
    assert stats.label_agreement == 1.0
    assert stats.labels == 2


def test_only_tokens_count_and_not_their_padding() -> None:
    mask = np.array([[1, 1, 0]])
    expected, actual = np.zeros((1, 3, 2), np.float32), np.zeros((1, 3, 2), np.float32)
    expected[0, :2], actual[0, :2] = [[1, 2], [4, 3]], [[1, 2], [3, 4]]
    actual[0, 2] = 99
    stats = parity.compare([expected], [actual], [mask], "logits", FLOAT)
    assert stats.max_abs == 1.0
    assert stats.label_agreement == 0.5
    assert stats.labels == 2


def test_a_tie_in_torch_does_not_decide() -> None:
    expected = np.array([[1.0, 1.0 + 1e-7], [2.0, 1.0]], np.float32)
    stats = parity.compare([expected], [expected[:, ::-1].copy()], [np.ones((2, 3))], "logits", FLOAT)
    assert stats.label_agreement == 0.0
    assert stats.decided_agreement == 0.0
    stats = parity.compare([expected], [expected - [[0, 2e-7], [0, 0]]], [np.ones((2, 3))], "logits", FLOAT)
    assert stats.label_agreement == 0.5
    assert stats.decided_agreement == 1.0


def test_a_weak_row_is_decided_by_the_error_that_the_whole_output_may_have() -> None:
    """Allowed are 20 dB of rows of 10: 0.5 and 0.3 say the same, though a row of such logits alone would not."""
    tolerance = Tolerance(20.0, 1.0, "")
    expected = np.array([[0.5, 0.3], [14.0, 2.0], [-14.0, 2.0]], np.float32)
    actual = np.array([[0.3, 0.5], [13.5, 2.5], [-13.5, 1.5]], np.float32)
    stats = parity.compare([expected], [actual], [np.ones((3, 4))], "logits", tolerance)
    assert (stats.labels, stats.decided, stats.agreeing) == (3, 2, 2)
    assert stats.within(tolerance)
    alone = parity.compare([expected[:1]], [actual[:1]], [np.ones((1, 4))], "logits", tolerance)
    assert (alone.decided, alone.agreeing) == (1, 0)
    # Spans' rows likewise.
    stats = parity.compare([expected], [actual], [np.ones((3, 2))], "start_logits", tolerance)
    assert (stats.labels, stats.decided, stats.agreeing) == (3, 2, 2)


@pytest.mark.parametrize(("decided", "other", "least", "enough"), [
    (29, 1, 0.97, True), (16, 1, 0.97, False), (1, 1, 0.97, False), (29, 2, 0.97, False), (200, 6, 0.97, True),
    (200, 7, 0.97, False), (1000, 1, 1.0, False), (0, 0, 0.97, True),
])  # fmt: skip
def test_labels_agree_to_the_nearest_one(decided: int, other: int, least: float, enough: bool) -> None:
    share = 1 - other / decided if decided else None
    stats = ErrorStats(0.1, 0.1, 1.0, 40.0, share, share, decided, decided)
    assert stats.within(Tolerance(20.0, least, "")) == enough


def test_another_shape_is_no_close_answer(model: Model, answers: Golden) -> None:
    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        return {key: value[:, :2] for key, value in Runtime(model)(inputs).items()}

    with pytest.raises(InputError, match="not the same model"):
        parity.gate(answers, run, FLOAT, True, VOCABULARY)


def test_golden_comes_back_from_its_file(tmp_path: Path, answers: Golden) -> None:
    answers.save(tmp_path / "golden.npz")
    again = golden.load(tmp_path / "golden.npz")
    assert [batch.name for batch in again.batches] == ["tokens_8", "tokens_16"]
    assert again.types.name == "types_8"
    assert set(again.damaged) == set(answers.damaged)
    for batch, same in zip((*answers.batches, answers.types), (*again.batches, again.types), strict=True):
        for key, value in (batch.inputs | batch.expected).items():
            assert np.array_equal(value, (same.inputs | same.expected)[key])


def test_damaged_golden_file_is_refused(tmp_path: Path, answers: Golden) -> None:
    answers.save(tmp_path / "golden.npz")
    whole = (tmp_path / "golden.npz").read_bytes()
    for cut in range(0, len(whole), max(1, len(whole) // 20)):
        (tmp_path / "cut.npz").write_bytes(whole[:cut])
        with pytest.raises(InputError, match="is damaged"):
            golden.load(tmp_path / "cut.npz")


def test_golden_inputs_hold_real_sentences_of_each_length(tmp_path: Path) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), "the", "a", "to"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocab) + "\n")
    words = tokenizer.load(tmp_path)
    made = golden.make(make(), words, (16, 64))
    for batch in made.batches:
        length = int(batch.name.removeprefix("tokens_"))
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        assert ids.dtype == np.int32
        assert ids.shape == (len(ids), length)
        assert (ids[:, 0] == words.cls_id).sum() >= golden.ROWS
        assert mask.sum(1).min() == 1
        assert mask.sum(1).max() == length
        assert batch.inputs["token_type_ids"].max() == 1
    short, long = made.batches
    assert np.array_equal(
        short.inputs["input_ids"][: golden.REPEATED], long.inputs["input_ids"][: golden.REPEATED, :16]
    )


def test_every_pair_has_a_tolerance_with_its_reason() -> None:
    assert set(TOLERANCES) == {(target, recipe) for target, recipes in TARGET_RECIPES.items() for recipe in recipes}
    assert all(tolerance.reason for tolerance in TOLERANCES.values())
