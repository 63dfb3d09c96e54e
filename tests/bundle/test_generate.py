"""Greedy generation: a file says the same as torch and as transformers' own `generate`, piece by piece."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from reference import reference
from words import trained_model

import edgebert
from edgebert.bundle.generate import Generated, Run, greedy
from edgebert.checkpoints import checkpoint
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.checkpoints.trim import trim
from edgebert.errors import InputError
from edgebert.models import MODELS, Model
from edgebert.models.signature import Arrays
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.tokenizer import Tokenizer

PROMPTS = [
    "",
    "The quick brown fox",
    "What is the weather like in Zürich?",
    "Ёжик ест",
    "one two three four five six seven",
]
NEW, LONGEST = 10, 32
MARGIN = 0.02  # by which the chosen piece leads at every step; files in float are hundreds of times nearer to torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RemBERT that reads from left to right, tiny, with a SentencePiece tokenizer and answers that vary."""
    folder = tmp_path_factory.mktemp("generate") / "checkpoint"
    folder.mkdir()
    (folder / "sentencepiece.model").write_bytes(trained_model())
    words = tokenizer.load(folder)
    # Five rows that no piece has, as published tables have them.
    config = dataclasses.replace(MODELS["rembert"].config.tiny(), vocab_size=words.vocab_size + 5, is_decoder=True)
    model = reference("rembert", "causal-lm", config, seed=6)
    with torch.no_grad():
        model.rembert.embeddings.position_embeddings.weight.mul_(3)
        model.cls.predictions.decoder.weight.mul_(5)
        model.cls.predictions.decoder.bias[-5:] = -100.0  # transformers would choose them too
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(folder: Path) -> Checkpoint:
    return checkpoint.load(folder)


def torch_run(model: Model) -> Run:
    """A torch model as `greedy` calls it: arrays in, arrays out."""

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        with torch.no_grad():
            outputs = model(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def by_torch(source: Checkpoint, text: str, new: int = NEW, longest: int = LONGEST) -> Generated:
    assert source.tokenizer is not None
    return greedy(torch_run(source.model), source.tokenizer, text, new, longest)


def margins(source: Checkpoint, made: Generated) -> list[float]:
    """By how much the logit of each chosen piece leads."""
    run = torch_run(source.model)
    row = np.array([[*made.prompt_ids, *made.ids]], dtype=np.int32)
    inputs = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    best = np.sort(run(inputs)["logits"][0, len(made.prompt_ids) - 1 : -1], axis=-1)
    return (best[:, -1] - best[:, -2]).tolist()


def test_torch_and_transformers_make_the_same(folder: Path, source: Checkpoint) -> None:
    theirs = transformers.RemBertForCausalLM.from_pretrained(folder).eval()
    words = source.tokenizer
    assert words is not None
    seen, ends = set(), set()
    for text in PROMPTS:
        made = by_torch(source, text, longest=source.model.config.max_position_embeddings)
        assert made.prompt_ids == words.encode(text).ids[:-1]
        assert min(margins(source, made)) > MARGIN
        ids = torch.tensor([made.prompt_ids])
        with torch.no_grad():
            wanted = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW,
                eos_token_id=words.sep_id, pad_token_id=words.pad_id,
            )  # fmt: skip
        assert made.prompt_ids + made.ids == wanted[0].tolist()
        assert made.text == words.decode(made.ids)
        seen |= set(made.ids)
        ends.add(made.stopped)
    assert len(seen) > 8
    assert ends == {"sep", "max_new_tokens"}


@pytest.mark.parity
@pytest.mark.parametrize(
    ("target", "lengths"),
    [
        ("executorch", (LONGEST,)),
        pytest.param("onnx", (LONGEST,), marks=pytest.mark.slow),
        pytest.param("tflite", (8, LONGEST), marks=pytest.mark.slow),
    ],
)
def test_a_file_makes_the_same_as_torch(source: Checkpoint, tmp_path: Path, target: str, lengths: tuple) -> None:
    edgebert.export(source, target=target, recipe="fp32", lengths=lengths, out=tmp_path / "bundle")
    with edgebert.open(tmp_path / "bundle") as bundle:
        for text in PROMPTS:
            made = bundle.generate(text, NEW)
            assert made == by_torch(source, text)
            assert bundle.predict(text)["label"] == bundle.tokenizer.decode(made.ids[:1], False)
        assert bundle.generate("one").ids == by_torch(source, "one", 20).ids
        full = bundle.generate(PROMPTS[1], 100)
        assert full.stopped in ("length", "sep")
        assert full == by_torch(source, PROMPTS[1], 100)
        with pytest.raises(InputError, match=r"the text has \d+ tokens with \[CLS\], and the model takes 32"):
            bundle.generate("weather " * 40)


@pytest.mark.parity
def test_a_trimmed_model_makes_the_same_where_its_pieces_are_kept(source: Checkpoint, tmp_path: Path) -> None:
    """A corpus of prompts and continuations keeps every piece that greedy choice takes."""
    made = [by_torch(source, text) for text in PROMPTS]
    words = source.tokenizer
    assert words is not None
    kept = sorted({i for one in made for i in one.ids})
    (tmp_path / "corpus.txt").write_text("\n".join([*PROMPTS, *(words.decode([i], False) for i in kept)]))
    small = trim(source, tmp_path / "corpus.txt")
    left = {
        words.backend.token_to_id(small.tokenizer.backend.id_to_token(i)) for i in range(small.tokenizer.vocab_size)
    }
    compared = 0
    for text, before in zip(PROMPTS, made, strict=True):
        if set(before.ids) <= left:
            now = by_torch(small, text)
            assert [small.tokenizer.backend.id_to_token(i) for i in now.ids] == [
                words.backend.id_to_token(i) for i in before.ids
            ]
            compared += 1
    assert compared >= 3


def stand_in(words: Tokenizer, *chosen: int) -> tuple[list[list[int]], object]:
    """A model that chooses these ids one after the other, and a list of the rows that it was given."""
    rows: list[list[int]] = []

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        assert {name: value.dtype for name, value in inputs.items()} == dict.fromkeys(
            ("input_ids", "attention_mask", "token_type_ids"), np.dtype(np.int32)
        )
        assert (inputs["attention_mask"] == 1).all()
        assert (inputs["token_type_ids"] == 0).all()
        rows.append(inputs["input_ids"][0].tolist())
        logits = np.zeros((1, len(rows[-1]), words.vocab_size + 5), np.float32)
        logits[0, :-1, 7] = 9.0  # what another place says does not count
        logits[0, -1, words.vocab_size :] = 9.0  # nor rows that no piece has
        logits[0, -1, chosen[len(rows) - 1]] = 1.0
        return {"logits": logits}

    return rows, run


def test_it_stops_at_sep_at_its_limit_and_at_the_longest_length(source: Checkpoint) -> None:
    words = source.tokenizer
    assert words is not None
    prompt = words.encode("one two").ids[:-1]
    rows, run = stand_in(words, 20, 21, words.sep_id, 22)
    made = greedy(run, words, "one two", 9, 99)
    assert (made.ids, made.stopped, made.prompt_ids) == ([20, 21, words.sep_id], "sep", prompt)
    assert made.text == words.decode([20, 21])
    assert rows == [prompt, [*prompt, 20], [*prompt, 20, 21]]

    made = greedy(stand_in(words, 20, 21, 22)[1], words, "one two", 2, 99)
    assert (made.ids, made.stopped) == ([20, 21], "max_new_tokens")
    rows, run = stand_in(words, 20, 21, 22)
    made = greedy(run, words, "one two", 9, len(prompt) + 1)
    assert (made.ids, made.stopped) == ([20, 21], "length")
    assert max(map(len, rows)) == len(prompt) + 1
    assert greedy(stand_in(words, 20)[1], words, "one two", 1, len(prompt)).stopped == "max_new_tokens"


def test_what_is_refused(source: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_new_tokens=0; it must be at least 1"):
        by_torch(source, "one", 0)
    with pytest.raises(InputError, match=r"tokens with \[CLS\], and the model takes 3: shorten the text"):
        by_torch(source, "one two three four", 5, longest=3)


@pytest.mark.parity
def test_bundles_that_do_not_continue_a_text(tmp_path: Path) -> None:
    edgebert.export("default", target="executorch", recipe="fp32", lengths=(16,), out=tmp_path / "other")
    with (
        edgebert.open(tmp_path / "other") as bundle,
        pytest.raises(InputError, match="is for sequence-classification; only a bundle for causal-lm"),
    ):
        bundle.generate("one")
    reference("rembert", "causal-lm").save_pretrained(tmp_path / "bare")
    edgebert.export(tmp_path / "bare", target="executorch", recipe="fp32", lengths=(8,), out=tmp_path / "out")
    with edgebert.open(tmp_path / "out") as bundle, pytest.raises(InputError, match="its model came without one"):
        bundle.generate("one")
