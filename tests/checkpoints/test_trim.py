"""Trimmed vocabularies: the same pieces and the same answers on the corpus, in fewer rows."""

import dataclasses
import json
import shutil
from pathlib import Path

import pipelines
import pytest
import tokenizers
import torch
import transformers
from cases import PROSE, TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import DATA
from reference import cells, reference
from tokenizers import AddedToken, models
from words import trained_model, trained_vocab

import edgebert
from edgebert.checkpoints import checkpoint
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.checkpoints.trim import trim
from edgebert.errors import ConversionFailed, InputError
from edgebert.models import MODELS, Model
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.corpus import read_corpus

UTTERANCES = DATA / "utterances.tsv"
SENTENCES = [
    "The quick brown fox sat.",
    "What is the weather like in Zürich?\tSet an alarm, please.",
    "东京 日本",
    "x'y 7:45",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vocabularies of both kinds, each trained once, and a corpus that needs a part of them."""
    folder = tmp_path_factory.mktemp("trim")
    (folder / "vocab.txt").write_text(trained_vocab(lowercase=True))
    (folder / "sentencepiece.model").write_bytes(trained_model())
    (folder / "corpus.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    return folder


def made(place: Path, name: str, task: str = "sequence-classification", seed: int = 0) -> Checkpoint:
    """A random tiny model of a family with a real tokenizer, saved by transformers; its table has rows to spare."""
    folder = place / f"{name}-{task}-{seed}"
    if not folder.exists():
        file = "sentencepiece.model" if name == "rembert" else "vocab.txt"
        folder.mkdir()
        shutil.copy(place / file, folder)
        config = dataclasses.replace(MODELS[name].config.tiny(), vocab_size=tokenizer.load(folder).vocab_size + 7)
        reference(name, task, config, seed).save_pretrained(folder)
    return checkpoint.load(folder)


def texts_of(corpus: Path) -> list:
    return [line if len(line) == 2 else line[0] for line in read_corpus(corpus)]


def answers(source: Checkpoint, texts: list) -> dict[str, torch.Tensor]:
    assert source.tokenizer is not None
    with torch.no_grad():
        inputs = source.tokenizer.batch(texts, max_length=source.model.config.max_position_embeddings)
        return source.model(**{key: torch.from_numpy(value) for key, value in inputs.items()})


def assert_same_pieces(old: Checkpoint, new: Checkpoint, texts: list) -> None:
    assert old.tokenizer is not None
    assert new.tokenizer is not None
    for text in texts:
        first, second = (c.tokenizer.encode(*([text] if isinstance(text, str) else text)) for c in (old, new))
        assert (first.tokens, first.offsets, first.token_type_ids) == (
            second.tokens, second.offsets, second.token_type_ids
        )  # fmt: skip
        assert torch.equal(old.model.encoder.embeddings.word.weight[first.ids],
                           new.model.encoder.embeddings.word.weight[second.ids])  # fmt: skip


@pytest.mark.parametrize(("name", "task"), cells())
def test_every_family_and_task_answers_as_before(place: Path, name: str, task: str) -> None:
    source, corpus = made(place, name, task), place / "corpus.txt"
    before = {key: value.clone() for key, value in source.model.state_dict().items()}
    small = trim(source, corpus)
    rows, total = small.model.config.vocab_size, source.model.config.vocab_size
    assert small.tokenizer.vocab_size == rows < total // 2
    assert small.notes[-1].startswith(f"vocabulary trimmed to {rows} of {total} pieces by corpus corpus.txt (sha256 ")
    texts = texts_of(corpus)
    assert_same_pieces(source, small, texts)
    old, new = answers(source, texts), answers(small, texts)
    assert old.keys() == new.keys()
    for key in old:
        wanted = old[key]
        if task in ("masked-lm", "causal-lm"):
            names = [small.tokenizer.backend.id_to_token(i) for i in range(rows)]
            wanted = wanted[..., [source.tokenizer.backend.token_to_id(text) for text in names]]
            assert small.model.tied == source.model.tied
            assert torch.allclose(new[key], wanted, rtol=0, atol=1e-6)
        else:
            assert torch.equal(new[key], wanted)
    assert all(torch.equal(value, before[key]) for key, value in source.model.state_dict().items())
    assert sum(p.numel() for p in small.model.parameters()) < sum(p.numel() for p in source.model.parameters())


@pytest.mark.parametrize(("name", "task"), [("bert", "masked-lm"), ("rembert", "masked-lm"), ("convbert", "base")])
def test_saved_and_loaded_it_is_the_same_here_and_in_transformers(
    place: Path, tmp_path: Path, name: str, task: str
) -> None:
    source, texts = made(place, name, task), texts_of(place / "corpus.txt")
    small = trim(source, place / "corpus.txt")
    again = checkpoint.load(small.save(tmp_path / "small"))
    assert (again.model.config, again.model.tied) == (small.model.config, small.model.tied)
    assert (again.tokenizer.ids, again.tokenizer.vocab_size) == (small.tokenizer.ids, small.tokenizer.vocab_size)
    assert_same_pieces(small, again, [*texts, *TEXTS[:300]])
    assert all(torch.equal(value, answers(small, texts)[key]) for key, value in answers(again, texts).items())

    architecture = json.loads((tmp_path / "small" / "config.json").read_text())["architectures"][0]
    theirs = getattr(transformers, architecture).from_pretrained(tmp_path / "small").eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path / "small")
    for text in texts:
        pair = (text,) if isinstance(text, str) else text
        inputs = words(*pair, return_tensors="pt", return_token_type_ids=True)
        assert inputs["input_ids"][0].tolist() == small.tokenizer.encode(*pair).ids
        with torch.no_grad():
            out = theirs(**inputs)
        for key, value in answers(small, [text]).items():
            assert torch.allclose(out[key], value, rtol=0, atol=1e-5), key


def test_positions_are_counted_from_the_new_id_of_padding(place: Path, tmp_path: Path) -> None:
    """Ids before padding's that no text needs go, and as many rows of the position table."""
    shutil.copy(place / "vocab.txt", tmp_path)
    words = tokenizer.load(tmp_path)
    config = dataclasses.replace(MODELS["roberta"].config.tiny(), vocab_size=words.vocab_size, pad_token_id=40)
    config = dataclasses.replace(config, max_position_embeddings=41 + 64)
    model = Model(MODELS["roberta"], config, "base").random_init()
    source = Checkpoint(model, words, "x", {"pad_token_id": 40}, "random", ())
    small = trim(source, place / "corpus.txt")
    moved = config.pad_token_id - small.model.config.pad_token_id
    assert moved > 0
    assert small.model.config.max_position_embeddings == config.max_position_embeddings - moved
    assert small.model.family.longest(small.model.config) == 64
    texts = texts_of(place / "corpus.txt")
    assert torch.equal(*(answers(one, texts)["last_hidden_state"] for one in (source, small)))


def test_the_embedded_default_on_its_utterances(tmp_path: Path) -> None:
    source = edgebert.load("default")
    small = trim(source, UTTERANCES)
    texts = [text for _, text in read_corpus(UTTERANCES)]
    assert small.model.config.vocab_size < source.model.config.vocab_size / 3
    assert_same_pieces(source, small, texts)
    assert torch.equal(answers(small, texts[:100])["logits"], answers(source, texts[:100])["logits"])
    again = checkpoint.load(small.save(tmp_path / "small"))
    assert torch.equal(answers(again, texts[:100])["logits"], answers(source, texts[:100])["logits"])
    assert again.model.config.labels == source.model.config.labels


HALF = "\n".join(PROSE.splitlines()[:4]) + "\n"


@pytest.fixture(scope="module")
def both(place: Path) -> list[tuple[Checkpoint, Checkpoint]]:
    """Models of both kinds of tokenizer before and after trimming by PROSE's first half."""
    corpus = place / "half.txt"
    corpus.write_text(HALF, encoding="utf-8")
    return [(source, trim(source, corpus)) for source in (made(place, "bert"), made(place, "rembert"))]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(HALF.split()), max_size=30))
def test_words_of_the_corpus_in_any_order(both: list, words: list[str]) -> None:
    for source, small in both:
        assert_same_pieces(source, small, [" ".join(words)])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(HALF.splitlines()), max_size=4), st.sampled_from([" ", "\n", "  ", " [SEP] "]))
def test_lines_of_the_corpus_joined(both: list, lines: list[str], glue: str) -> None:
    for source, small in both:
        assert_same_pieces(source, small, [glue.join(lines), (glue.join(lines), "".join(lines[:1]))])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(st.sampled_from(sorted({*HALF} - {"\n"})), max_size=40))
def test_other_text_of_the_same_letters_is_no_less_known(both: list, text: str) -> None:
    for source, small in both:
        old, new = source.tokenizer.encode(text), small.tokenizer.encode(text)
        assert new.ids.count(small.tokenizer.unk_id) <= old.ids.count(source.tokenizer.unk_id), text


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(max_size=60), st.text(max_size=20))
def test_any_text_still_encodes_and_runs(both: list, text: str, pair: str) -> None:
    for _, small in both:
        ids = small.tokenizer.encode(text, pair, max_length=64).ids
        assert max(ids) < small.model.config.vocab_size
        assert small.tokenizer.decode(ids) is not None


def bare(model: models.Model, special: str = "[PAD] [UNK] [CLS] [SEP] [MASK]", **extra: AddedToken) -> Checkpoint:
    """A random BERT around a tokenizer made by hand, which splits at spaces."""
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens(special.split())
    backend.add_tokens(list(extra.values()))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    ids = {role: backend.token_to_id(text) for role, text in names.items()} | {
        "mask_token": backend.token_to_id("[MASK]")
    }
    words = tokenizer.Tokenizer(backend, ids, backend.get_vocab_size())
    config = dataclasses.replace(MODELS["bert"].config.tiny(), vocab_size=words.vocab_size)
    return Checkpoint(Model(MODELS["bert"], config, "base").random_init(), words, "here", {}, "random, seed 0", ())


SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def wordpiece(*pieces: str) -> models.Model:
    return models.WordPiece({text: i for i, text in enumerate([*SPECIALS, *pieces])}, unk_token="[UNK]")


def corpus_of(folder: Path, *lines: str) -> Path:
    (folder / "corpus.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "corpus.txt"


def test_a_word_that_was_given_up_stays_given_up(tmp_path: Path) -> None:
    """Greedy matching takes "ab" of "abc" and is stuck; without that piece it would go "a", "##bc"."""
    source = bare(wordpiece("a", "ab", "##bc", "##d", "z", "##bcd"))
    assert source.tokenizer.encode("abc").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    small = trim(source, corpus_of(tmp_path, "abc", "a z", "zbc"))
    assert_same_pieces(source, small, ["abc", "zbc", "z"])
    assert set(small.tokenizer.backend.get_vocab()) == {*SPECIALS, "a", "ab", "##bc", "z"}


def test_the_score_of_unknown_text_stays(tmp_path: Path) -> None:
    """It lies 10 below the lowest score of all pieces, so the piece with that one is kept though no text has it."""
    pieces = [
        *((text, 0.0) for text in SPECIALS),
        ("qa", -8.0),
        ("b", -8.0),
        ("c", -8.0),
        ("abc", -1.0),
        ("rare", -30.0),
    ]
    source = bare(models.Unigram([*pieces, ("unused", -9.0)], unk_id=1))
    small = trim(source, corpus_of(tmp_path, "qabc", "abc"))
    assert small.tokenizer.encode("qabc").tokens == ["[CLS]", "qa", "b", "c", "[SEP]"]
    assert_same_pieces(source, small, ["qabc", "abc", "qqabc"])
    assert set(small.tokenizer.backend.get_vocab()) == {text for text, _ in pieces}


def test_bytes_that_stand_for_unknown_text_are_kept(tmp_path: Path) -> None:
    fallback = [(f"<0x{i:02X}>", -20.0) for i in range(256)]
    pieces = [*((text, 0.0) for text in SPECIALS), ("a", -1.0), ("unused", -2.0), *fallback]
    source = bare(models.Unigram(pieces, unk_id=1, byte_fallback=True))
    small = trim(source, corpus_of(tmp_path, "a é"))
    assert small.model.config.vocab_size == source.model.config.vocab_size - 1
    assert_same_pieces(source, small, ["a é", "\U0001f600a"])


@pytest.mark.parametrize("name", ["roberta", "modernbert", "bpe-whole", "bpe-unknown", "bpe-fused", "xlm-roberta"])
def test_other_pipelines_are_trimmed_too(tmp_path: Path, name: str) -> None:
    """Byte-level models keep all that stands on the way to a piece; two [SEP] stay two, and white space trimmed."""
    words = tokenizer.load(pipelines.save(tmp_path, name))
    config = dataclasses.replace(MODELS["bert"].config.tiny(), vocab_size=words.vocab_size)
    config = dataclasses.replace(config, pad_token_id=words.pad_id)
    source = Checkpoint(Model(MODELS["bert"], config, "base").random_init(), words, "here", {}, "random, seed 0", ())
    lines = PROSE.splitlines()[:3]
    small = trim(source, corpus_of(tmp_path, *lines))
    assert small.tokenizer.vocab_size < words.vocab_size
    assert_same_pieces(source, small, [*lines, (lines[0], lines[1]), *lines[0].split(), lines[1] + "  " + lines[2]])
    small.tokenizer.save(tmp_path / "small")
    again = tokenizer.load(tmp_path / "small")
    assert (again.doubled, again.typed, again.ids) == (words.doubled, words.typed, small.tokenizer.ids)
    for text in [*lines, *TEXTS[:200]]:
        assert again.encode(text, "a") == small.tokenizer.encode(text, "a")


def test_added_tokens_are_kept_on_top_and_in_the_middle(tmp_path: Path) -> None:
    top = AddedToken("<top>", normalized=False), AddedToken("mid", single_word=True)
    source = bare(wordpiece("x", "mid", "no", "##o", "n"), top=top[0], mid=top[1])
    small = trim(source, corpus_of(tmp_path, "x<top>"))
    assert [small.tokenizer.backend.id_to_token(i) for i in range(8)] == [*SPECIALS, "x", "mid", "<top>"]
    assert_same_pieces(source, small, ["x<top> mid x", "<top>mid"])
    assert small.tokenizer.encode("midx").tokens == source.tokenizer.encode("midx").tokens


def test_a_mask_that_the_vocabulary_lacks_stays_on_top(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    reference("bert", "base").save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three"]))
    source = checkpoint.load(folder)
    small = trim(source, corpus_of(tmp_path, "two three [MASK]"))
    assert (small.tokenizer.mask_id, small.model.config.vocab_size) == (6, 7)
    assert_same_pieces(source, small, ["two [MASK] three"])


def test_ids_in_the_config_are_renumbered_and_kept(tmp_path: Path) -> None:
    source = bare(wordpiece("first", "second", "third"))
    raw = {
        "bos_token_id": 6, "eos_token_id": [3, 7], "sep_token_id": None, "decoder_start_token_id": 99,
        "bad_words_ids": [[7]], "hidden_size": 6,
    }  # fmt: skip
    config = dataclasses.replace(source.model.config, pad_token_id=99)
    model = Model(source.model.family, config, "base").random_init()
    small = trim(dataclasses.replace(source, model=model, raw_config=raw), corpus_of(tmp_path, "nothing of it"))
    assert small.raw_config == {
        "bos_token_id": 5, "eos_token_id": [3, 6], "sep_token_id": None, "decoder_start_token_id": None,
        "bad_words_ids": [[6]], "hidden_size": 6,
    }  # fmt: skip
    assert small.model.config.pad_token_id == small.tokenizer.pad_id == 0
    assert set(small.tokenizer.backend.get_vocab()) == {*SPECIALS, "second", "third"}


def test_a_text_that_would_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = bare(wordpiece("ab", "a", "##b"))
    monkeypatch.setattr("edgebert.checkpoints.trim._needed", lambda words, texts: {1})
    with pytest.raises(ConversionFailed, match=r"the text 'ab' would be \['\[UNK\]'\] and no longer \['ab'\]"):
        trim(source, corpus_of(tmp_path, "ab"))


REFUSED = [
    (None, r"cannot read .*corpus\.txt: No such file"),
    (b"", "holds no text"),
    (b"\n  \n\t\n", "holds no text"),
    ("caf\u00e9".encode("latin-1"), r"is not UTF-8 \(byte 3\)"),
    (b"one\ntwo\tthree\tfour\n", "line 2: 2 tabs"),
]


@pytest.mark.parametrize(("content", "message"), REFUSED)
def test_corpora_that_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "corpus.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        trim(edgebert.load("default"), tmp_path / "corpus.txt")


def test_lines_and_pairs_of_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes("\ufeffone\r\n\r\ntwo\u2028half\tthree\n\tfour".encode())
    assert read_corpus(tmp_path / "c.txt") == [("one",), ("two\u2028half", "three"), ("", "four")]


def test_checkpoints_that_are_refused(tmp_path: Path) -> None:
    corpus, source = corpus_of(tmp_path, "a"), edgebert.load("default")
    with pytest.raises(InputError, match="has no tokenizer to trim"):
        trim(dataclasses.replace(source, tokenizer=None), corpus)
    backend = tokenizers.Tokenizer.from_str(source.tokenizer.backend.to_str())
    backend.add_tokens(["[beyond]"])
    words = dataclasses.replace(source.tokenizer, backend=backend)
    with pytest.raises(InputError, match=r"'\[beyond\]' has the id \d+, .* they do not belong together"):
        trim(dataclasses.replace(source, tokenizer=words), corpus)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["bert", "rembert"])
def test_a_bundle_of_it_has_the_small_tokenizer_and_the_old_answers(place: Path, tmp_path: Path, name: str) -> None:
    source = made(place, name)
    small = trim(source, place / "corpus.txt")
    made_of = edgebert.export(small, target="executorch", recipe="fp32", lengths=(64,), out=tmp_path / "bundle")
    assert made_of.manifest.vocab_size == small.model.config.vocab_size
    assert made_of.manifest.notes[-1] == small.notes[-1]
    with edgebert.open(tmp_path / "bundle") as bundle:
        for text in texts_of(place / "corpus.txt"):
            pair = (text,) if isinstance(text, str) else text
            assert bundle.tokenizer.encode(*pair).tokens == source.tokenizer.encode(*pair).tokens
            scores = torch.softmax(answers(source, [text])["logits"][0], 0)
            assert bundle.predict(*pair)["score"] == pytest.approx(float(scores.max()), abs=1e-5)
