"""Files of texts that are none, or more than memory holds."""

import os
from pathlib import Path

import pytest

from edgebert.errors import InputError
from edgebert.files import peak_memory
from edgebert.quantization.samples import MOST, load_samples
from edgebert.tokenizers.corpus import read_corpus

REFUSED = [
    (b"a\n" + b"x" * 100_001, "line 2: 100,001 characters; a text has up to 100,000"),
    (b"\xef\xbb\xbf\n", "holds no text"),
    ("a".encode("utf-16"), r"is not UTF-8 \(byte 0\)"),
    (b"a\x00b\n\xed\xa0\x80", r"is not UTF-8 \(byte 4\)"),
]


@pytest.mark.parametrize(("content", "text"), REFUSED, ids=[text for _, text in REFUSED])
def test_files_that_are_no_texts_are_refused(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "texts.txt").write_bytes(content)
    with pytest.raises(InputError, match=text):
        read_corpus(tmp_path / "texts.txt")


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX's")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="cannot read"):
            read_corpus(path)


def test_more_than_memory_should_hold_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "texts.txt").open("wb") as file:
        file.truncate(6 << 30)
    with pytest.raises(InputError, match=r"has 6,442,450,944 bytes or more; at most 67,108,864 are read"):
        read_corpus(tmp_path / "texts.txt")
    (tmp_path / "texts.txt").write_text("a\n\n" * 6)
    with pytest.raises(InputError, match="has more than 5 texts: give a sample of them"):
        read_corpus(tmp_path / "texts.txt", 5)
    (tmp_path / "texts.txt").write_bytes(b"\n" * (4 << 20) + b"a")
    before = peak_memory() or 0
    assert read_corpus(tmp_path / "texts.txt") == [("a",)]
    assert (peak_memory() or 0) - before < 60 << 20


def test_calibration_takes_no_more_texts_than_it_can_use(tmp_path: Path) -> None:
    import edgebert

    default = edgebert.load("default")
    (tmp_path / "texts.txt").write_text("a\n" * (MOST + 1))
    with pytest.raises(InputError, match="has more than 10,000 texts"):
        load_samples(default.tokenizer, default.model.config, 8, tmp_path / "texts.txt")
