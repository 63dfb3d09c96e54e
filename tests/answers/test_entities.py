"""Entities of made-up labels, held to rules that others have written down; see test_pipelines.py for real models."""

import numpy as np
import pytest

from edgebert.answers import entities
from edgebert.answers.reading import READINGS
from edgebert.files import ASSETS
from edgebert.tokenizers import tokenizer

WORDS = tokenizer.load(ASSETS / "default")
READING = READINGS["token-classification"]


def found(said: list[str], labels: list[str]) -> list[tuple[str, str]]:
    """The entities of a text with a word for each label."""
    text = " ".join("the" for _ in said)
    encoding = WORDS.encode(text)
    logits = np.full((len(said) + 2, len(labels)), -5.0, np.float32)
    for i, label in enumerate(said):
        logits[i + 1, labels.index(label)] = 5.0
    answer = entities.find([text], encoding, logits, labels, READING, WORDS)
    assert [entry["label"] for entry in answer["words"]] == said
    return [(one["entity_group"], one["text"]) for one in answer["entities"]]


# What seqeval 1.2.2's `get_entities` gives, and for B and I alone transformers' `group_entities` as well.
@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("B-PER I-PER O B-LOC", ["PER 2", "LOC 1"]),
        ("B-PER B-PER I-PER", ["PER 1", "PER 2"]),
        ("I-PER I-PER I-LOC", ["PER 2", "LOC 1"]),
        ("I-PER O I-PER", ["PER 1", "PER 1"]),
        ("B-PER I-LOC I-LOC", ["PER 1", "LOC 2"]),
        ("S-PER S-PER O B-LOC E-LOC", ["PER 1", "PER 1", "LOC 2"]),
        ("B-LOC I-LOC E-LOC I-LOC", ["LOC 3", "LOC 1"]),
        ("B-LOC E-LOC E-LOC", ["LOC 2", "LOC 1"]),
        ("E-LOC S-LOC B-LOC", ["LOC 1", "LOC 1", "LOC 1"]),
        ("U-PER B-LOC L-LOC", ["PER 1", "LOC 2"]),
        ("PER PER O LOC", ["PER 2", "LOC 1"]),
        ("O O", []),
    ],
)
def test_words_become_entities(said: str, wanted: list[str]) -> None:
    labels = list(dict.fromkeys([*said.split(), "O"]))
    whole = labels if all(label == "O" or label[1:2] != "-" for label in labels) else [*labels, "B-X"]
    assert [f"{kind} {len(text.split())}" for kind, text in found(said.split(), whole)] == wanted


def test_a_word_has_its_first_pieces_label() -> None:
    text = "Unbelievably, é it"
    encoding = WORDS.encode(text)
    logits = np.zeros((len(encoding.ids), 2), np.float32)
    logits[1, 1] = 9.0  # the first piece alone
    answer = entities.find([text], encoding, logits, ["O", "X"], READING, WORDS)
    first = answer["words"][0]
    assert (first["word"], first["start"], first["end"], first["label"]) == ("unbelievably", 0, 12, "X")
    (entity,) = answer["entities"]
    assert (entity["entity_group"], entity["word"], entity["text"]) == ("X", "unbelievably", "Unbelievably")
    assert (entity["start"], entity["end"], entity["score"]) == (0, 12, first["score"])
    assert len(answer["tokens"]) > len(answer["words"])


def test_entities_of_a_pair_stand_in_their_own_texts() -> None:
    texts = ("the old man", "a boat")
    encoding = WORDS.encode(*texts)
    logits = np.zeros((len(encoding.ids), 2), np.float32)
    logits[:, 1] = 9.0  # all of one kind, which ends with the first text all the same
    answer = entities.find(texts, encoding, logits, ["O", "X"], READING, WORDS)
    assert [(one["text"], one["start"], one["end"]) for one in answer["entities"]] == [(t, 0, len(t)) for t in texts]
