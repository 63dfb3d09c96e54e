"""What an open bundle makes of text, for each task: the same as torch's outputs say when read by hand."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answering import TEXTS, save_sentence_encoder
from reference import reference
from shared import shared

import edgebert
from edgebert.bundle.opened import Bundle
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import InputError
from edgebert.models.signature import Arrays
from edgebert.runtimes.session import Packing

pytestmark = pytest.mark.parity

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["where", "is", "the", "red", "house", "it", "stands", "on", "a", "hill", "by", "sea", "?", "."]
VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
QUESTION, CONTEXT = "where is the red house?", "the red house stands on a hill by the sea."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("predict")


def opened(place: Path, task: str, name: str = "bert") -> tuple[Checkpoint, Bundle]:
    """A tiny model with that head and a vocabulary, exported once for the module."""
    checkpoint, out = place / f"{name}-{task}", place / f"{name}-{task}-bundle"
    if not out.exists():
        reference(name, task).save_pretrained(checkpoint)
        (checkpoint / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
        edgebert.export(checkpoint, target="executorch", recipe="fp32", lengths=(32,), out=out)
    return edgebert.load(checkpoint), edgebert.open(out)


def torch_outputs(source: Checkpoint, *texts: str | tuple[str, str]) -> dict[str, np.ndarray]:
    assert source.tokenizer is not None
    inputs = source.tokenizer.batch(list(texts))
    with torch.no_grad():
        outputs = source.model(**{key: torch.from_numpy(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in outputs.items()}


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum()


def test_sequence_classification(place: Path) -> None:
    source, bundle = opened(place, "sequence-classification")
    answer = bundle.predict(CONTEXT)
    scores = softmax(torch_outputs(source, CONTEXT)["logits"][0])
    assert answer["label"] == f"kind_{scores.argmax()}"
    assert answer["score"] == pytest.approx(scores.max(), abs=1e-5)
    assert sum(entry["score"] for entry in answer["labels"]) == pytest.approx(1, abs=1e-5)


def test_token_classification(place: Path) -> None:
    source, bundle = opened(place, "token-classification")
    tokens = bundle.predict("The Red house")["tokens"]
    logits = torch_outputs(source, "The Red house")["logits"][0]
    assert [entry["token"] for entry in tokens] == ["the", "red", "house"]
    assert [(entry["start"], entry["end"]) for entry in tokens] == [(0, 3), (4, 7), (8, 13)]
    assert [entry["label"] for entry in tokens] == [f"kind_{i}" for i in logits[1:4].argmax(-1)]


def test_replaced_token_detection(place: Path) -> None:
    source, bundle = opened(place, "replaced-token-detection", "electra")
    tokens = bundle.predict("The Red house")["tokens"]
    logits = torch_outputs(source, "The Red house")["logits"][0, 1:4, 0]
    assert [(entry["token"], entry["start"], entry["end"]) for entry in tokens] == [
        ("the", 0, 3), ("red", 4, 7), ("house", 8, 13),
    ]  # fmt: skip
    assert [entry["score"] for entry in tokens] == pytest.approx((1 / (1 + np.exp(-logits))).tolist(), abs=1e-5)


def test_question_answering(place: Path) -> None:
    source, bundle = opened(place, "question-answering")
    answer = bundle.predict(QUESTION, CONTEXT)
    outputs = torch_outputs(source, (QUESTION, CONTEXT))
    first = len(source.tokenizer.encode(QUESTION).ids)  # type: ignore[union-attr]
    start, end = (outputs[name][0][first:-1] for name in ("start_logits", "end_logits"))
    chances = (
        softmax(np.append(outputs["start_logits"][0, 0], start)),
        softmax(np.append(outputs["end_logits"][0, 0], end)),
    )
    best = max(
        chances[0][1 + i] * chances[1][1 + j] for i in range(len(start)) for j in range(i, min(i + 15, len(end)))
    )
    assert answer["score"] >= best - 1e-5  # spans of the same text count together
    assert answer["no_answer"] == pytest.approx(chances[0][0] * chances[1][0], abs=1e-5)
    assert answer["answer"] == CONTEXT[answer["start"] : answer["end"]]
    assert answer["answer"]


def test_multiple_choice(place: Path) -> None:
    source, bundle = opened(place, "multiple-choice")
    choices = ("on a hill", "by the sea", "the red sea")
    answer = bundle.predict(QUESTION, *choices)
    scores = softmax(torch_outputs(source, *((QUESTION, choice) for choice in choices))["logits"][:, 0])
    assert answer["choice"] == scores.argmax()
    assert answer["label"] == choices[scores.argmax()]
    assert answer["scores"] == pytest.approx(scores.tolist(), abs=1e-5)


@pytest.mark.parametrize(("name", "task", "text", "place_of"), [
    ("bert", "masked-lm", "the red [MASK] stands", 3),
    ("rembert", "causal-lm", "the red house", 3),
])  # fmt: skip
def test_language_models_fill_and_continue(place: Path, name: str, task: str, text: str, place_of: int) -> None:
    source, bundle = opened(place, task, name)
    answer = bundle.predict(text)
    best = int(torch_outputs(source, text)["logits"][0, place_of, : len(VOCAB)].argmax())
    assert answer["words"][0][0]["label"] == source.tokenizer.decode([best], False)  # type: ignore[union-attr]
    assert len(answer["words"]) == 1


def test_base_gives_the_mean_vector(place: Path) -> None:
    source, bundle = opened(place, "base")
    answer = bundle.predict(CONTEXT)
    states = torch_outputs(source, CONTEXT)["last_hidden_state"][0]
    assert answer["shape"] == list(states.shape)
    assert answer["mean"] == pytest.approx(states.mean(0).tolist(), abs=1e-5)


REFUSALS = [
    ("question-answering", (QUESTION,), "which takes a context"),
    ("question-answering", (QUESTION, "a", "b"), "which takes a context"),
    ("multiple-choice", (QUESTION, "a"), "two choices or more"),
    ("sequence-classification", ("a", "b", "c"), "at most one"),
    ("masked-lm", ("no gap here",), r"has no \[MASK\] to fill"),
    ("question-answering", (QUESTION, " "), "the context has no words"),
    ("sequence-classification", ("",), "the text '' has no words"),
    ("sequence-classification", ("a", " "), "the text ' ' has no words"),
    ("masked-lm", ("the " * 40 + "[MASK]",), r"the first 32 of the text's 43 tokens.* have no \[MASK\]"),
]


@pytest.mark.parametrize(("task", "texts", "text"), REFUSALS)
def test_wrong_texts_are_refused(place: Path, task: str, texts: tuple[str, ...], text: str) -> None:
    _, bundle = opened(place, task)
    with pytest.raises(InputError, match=text):
        bundle.predict(*texts)


def test_a_long_text_is_cut_to_the_longest_length_and_says_so(place: Path) -> None:
    _, bundle = opened(place, "sequence-classification")
    long, fitting = bundle.predict(["the red house " * 50, "the red house " * 10])
    assert long["logits"] == fitting["logits"]
    assert [(one["truncated"], one["token_count"]) for one in (long, fitting)] == [(True, 152), (False, 32)]


def test_a_list_of_texts_gives_a_list_of_answers(place: Path) -> None:
    _, bundle = opened(place, "multiple-choice")
    asked = [(QUESTION, "on a hill", "by the sea"), (QUESTION, "the red sea", "it is")]
    assert bundle.predict(asked) == [bundle.predict(*one) for one in asked]
    with pytest.raises(InputError, match=r"a list of texts holds the second texts too"):
        bundle.predict(asked, "more")  # type: ignore[call-overload]


def test_a_verb_of_another_task_says_whose_it_is(place: Path) -> None:
    _, bundle = opened(place, "sequence-classification")
    for verb in (bundle.entities, bundle.fill, bundle.embed, bundle.states, bundle.replaced):
        with pytest.raises(InputError, match=r"is for sequence-classification, and this is for"):
            verb(CONTEXT)
    with pytest.raises(InputError, match=r"this is for question-answering"):
        bundle.answer(QUESTION, CONTEXT)


def test_a_model_without_tokenizer_says_so(tmp_path: Path) -> None:
    reference("bert", "base").save_pretrained(tmp_path / "checkpoint")
    edgebert.export(tmp_path / "checkpoint", target="executorch", recipe="fp32", lengths=(8,), out=tmp_path / "out")
    with edgebert.open(tmp_path / "out") as bundle, pytest.raises(InputError, match="its model came without one"):
        bundle.predict("hello")


LINES = [*TEXTS, *(" ".join(WORDS[: 1 + count % 13]) for count in range(3, 40)), "the " * 40]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Bundle]:
    """A sentence encoder's bundle, made once."""

    def get(target: str, recipe: str) -> Bundle:
        def make(folder: Path) -> Path:
            source = save_sentence_encoder(folder / "encoder", include_prompt=False, prompts={"query": "the "},
                                           default_prompt_name="query")  # fmt: skip
            edgebert.export(source, target=target, recipe=recipe, lengths=(8, 16, 24), out=folder / "bundle")
            return folder / "bundle"

        return edgebert.open(shared(tmp_path_factory, f"embed-{target}-{recipe}", make))

    return get


@pytest.mark.parametrize(("target", "recipe"), [
    ("tflite", "w8a8-dynamic"), ("tflite", "fp32"), ("tflite", "w8a8-static"), ("onnx", "w8a8-dynamic"),
    ("onnx", "fp32"),
])  # fmt: skip
def test_many_texts_get_the_vectors_that_each_gets_alone(
    encoders: Callable[[str, str], Bundle], target: str, recipe: str
) -> None:
    with encoders(target, recipe) as bundle:
        alone = [bundle.embed(line) for line in LINES]
        together = bundle.embed(LINES)
        assert bundle.predict(LINES) == together
        assert bundle.embed([]) == []
    for one, other in zip(alone, together, strict=True):
        assert other["token_count"] == one["token_count"]
        assert other["truncated"] == one["truncated"]
        # Sums of a batch may come in another order; what shares a row is the same to the last bit.
        np.testing.assert_allclose(other["embedding"], one["embedding"], rtol=0, atol=1e-6 if target == "onnx" else 0)
    assert together[-1]["truncated"]
    assert not together[0]["truncated"]


def test_short_texts_share_rows_of_a_file_with_fixed_lengths(encoders: Callable[[str, str], Bundle]) -> None:
    with encoders("tflite", "fp32") as bundle:
        assert isinstance(bundle.session, Packing)
        assert bundle.session.packed == (24, 6)
        calls = Counter[str]()
        told = counted(bundle, calls).embed(["by", "it", "by the sea", "is it red", "on a hill", "the red house"] * 4)
        assert len(told) == 24
        assert 0 < calls["run_packed"] < 12
        assert calls["run"] <= 3  # what is left over


def test_one_of_many_texts_without_words_is_refused(encoders: Callable[[str, str], Bundle]) -> None:
    with encoders("tflite", "fp32") as bundle, pytest.raises(InputError, match="no words"):
        bundle.embed(["by the sea", " "])


def counted(bundle: Bundle, calls: Counter[str]) -> Bundle:
    """The bundle, whose session's calls are counted."""
    session: Any = bundle.session

    class Counting:
        packed = session.packed

        def run_packed(self, rows: Arrays) -> np.ndarray:
            calls["run_packed"] += 1
            told: np.ndarray = session.run_packed(rows)
            return told

        def run(self, inputs: Arrays) -> Arrays:
            calls["run"] += 1
            told: Arrays = session.run(inputs)
            return told

        def facts(self) -> Any:
            return session.facts()

        def close(self) -> None:
            session.close()

    return replace(bundle, session=Counting())
