"""Golden sentences: of each kind of tokenizer, written, read back, and held to."""

import json
import unicodedata
from pathlib import Path

import pytest
from words import trained_model, trained_vocab

from edgebert.errors import InputError
from edgebert.gate import golden, sentences
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="module", params=["wordpiece", "unigram"])
def words(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "wordpiece":
        (folder / "vocab.txt").write_text(trained_vocab(lowercase=True), encoding="utf-8")
    else:
        (folder / "sentencepiece.model").write_bytes(trained_model())
    return tokenizer.load(folder)


def test_they_are_the_gates_texts_and_hard_ones_with_all_their_ids(words: Tokenizer) -> None:
    made = sentences.make(words)
    texts = golden.texts()
    assert [(one.text, one.pair) for one in made][: len(texts)] == [
        (t[0], t[1] if len(t) == 2 else None) for t in texts
    ]
    assert [(one.text, one.pair) for one in made][len(texts) :] == list(sentences.HARD)
    assert all(one.ids == words.encode(one.text, one.pair).ids for one in made)
    assert max(len(one.ids) for one in made) > 128  # longer than any length of a file


def test_hard_ones_have_what_goes_wrong() -> None:
    text = "".join(part for pair in sentences.HARD for part in pair if part)
    kinds = {unicodedata.category(c) for c in text}
    assert {"Mn", "Lo", "Lm", "So", "Cf", "Cc", "Sk", "Nd", "No", "Zs"} <= kinds
    names = " ".join(unicodedata.name(c, "") for c in text)
    for script in ("CJK UNIFIED", "ARABIC", "HANGUL", "COMBINING", "EMOJI MODIFIER", "CYRILLIC", "GREEK"):
        assert script in names
    assert any(ord(c) > 0xFFFF for c in text)
    assert any(pair for _, pair in sentences.HARD)


def test_what_is_written_is_read_back(words: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    made = sentences.make(words)
    sentences.save(made, path)
    assert sentences.load(path) == made
    assert json.loads(path.read_text(encoding="utf-8"))["sentences"][0] == {
        "text": made[0].text, "pair": None, "ids": made[0].ids,
    }  # fmt: skip
    assert sentences.check(sentences.load(path), words).passed


def test_another_tokenizer_is_caught(words: Tokenizer, tmp_path: Path) -> None:
    made = sentences.make(words)
    last = sentences.Sentence(made[-1].text, made[-1].pair, [*made[-1].ids[:-1], 0])
    told = sentences.check([*made[:-1], last], words)
    assert not told.passed
    assert "becomes" in told.detail
    assert not sentences.check([], words).passed


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"sentences": 3}',
        '{"sentences": [], "more": 1}',
        '{"sentences": [3]}',
        '{"sentences": [{"text": "a", "ids": []}]}',
        '{"sentences": [{"text": 1, "pair": null, "ids": []}]}',
        '{"sentences": [{"text": "a", "pair": 1, "ids": []}]}',
        '{"sentences": [{"text": "a", "pair": null, "ids": 1}]}',
        '{"sentences": [{"text": "a", "pair": null, "ids": [true]}]}',
        '{"sentences": [{"text": "\\ud800", "pair": null, "ids": []}]}',
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "golden.json").write_text(content)
    with pytest.raises(InputError, match=r"golden\.json"):
        sentences.load(tmp_path / "golden.json")
