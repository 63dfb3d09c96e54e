"""The tokenizer of android_demo makes Python's ids, places, words and spellings, whatever the text and the pipeline."""

import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import jvm
import pipelines
import pytest
from paths import ROOT
from shared import shared
from tiers import quick
from tokenizers import normalizers
from trained import minilm

from edgebert.errors import InputError
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.tokenizer import Encoding, Tokenizer

DEFAULT = ROOT / "edgebert" / "assets" / "default" / "tokenizer.json"
# A WordPiece, a Unigram and a BPE with all that a pipeline can have; the others are variants of theirs.
MAIN = ("bert-added", "rembert", "roberta")
QUICK, VARIANT, MANY = 5_000, 1_000, 500_000
PARTS = 5  # of MANY texts, for two processors
# Of the variants one for each kind of step.
CHOSEN = ("albert", "bert-cased", "bpe-unknown", "byte-pieces", "deberta-v3", "modernbert", "nfkc", "xlm-roberta")
ONE, PAIR, WINDOWS = range(3)


@pytest.fixture(scope="module")
def compare(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that holds Kotlin's answers against a file of rows."""
    if why := jvm.missing():
        pytest.skip(why)
    shared(tmp_path_factory, "kotlin-test-classes", lambda _: jvm.compiled())
    return jvm.command("dev.edgebert.tokenizer.CompareKt", "-Xmx512m")


def checksum(ours: Tokenizer, encodings: list[Encoding]) -> int:
    """Of all that is known of each token, and of the text that the first encoding's ids stand for."""
    out = []
    for found in encodings:
        starts, ends = zip(*found.offsets, strict=True)
        lists = (found.ids, found.token_type_ids, starts, ends, found.special_tokens_mask, found.words, found.sequences)
        out += [struct.pack(">7i", *row) for row in zip(*lists, strict=True)]
        out += [(token + "\0").encode() for token in found.tokens]
    out += [ours.decode(encodings[0].ids, skip_special_tokens=skip).encode() for skip in (False, True)]
    return zlib.crc32(b"".join(out))


def rows(ours: Tokenizer, texts: list[str], seed: int) -> Iterator[bytes]:
    """A row of Compare.kt for each text: most alone, some as pairs with the next, some cut, some in windows."""
    rng = random.Random(seed)
    for text, pair in zip(texts, [*texts[1:], ""], strict=True):
        kind = rng.choices((ONE, PAIR, WINDOWS if len(pair) < 200 else PAIR), (80, 15, 5))[0]
        length = rng.randrange(4, 60) if kind == WINDOWS or rng.random() < 0.2 else -1
        stride = rng.randrange(length) if kind == WINDOWS else 0
        try:
            if kind == WINDOWS:
                found = ours.windows(text, pair, length, stride)
            else:
                found = [ours.encode(text, pair if kind == PAIR else None, None if length < 0 else length)]
        except InputError:  # the first text leaves no room for the second; the caller counts
            continue
        given = [text.encode()] if kind == ONE else [text.encode(), pair.encode()]
        packed = b"".join(struct.pack(">i", len(part)) + part for part in given)
        yield struct.pack(">bii", kind, length, stride) + packed + struct.pack(">I", checksum(ours, found))


def assert_same(compare: list[str], file: Path, texts: list[str], folder: Path) -> None:
    ours = tokenizer.load(file)
    count = 0
    with (folder / "rows").open("wb") as out:
        for row in rows(ours, texts, seed=count):
            out.write(row)
            count += 1
    done = subprocess.run([*compare, str(file), str(folder / "rows")], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == [f"{count} rows, 0 differ"], (done.stdout[:3000], done.stderr[-3000:])
    assert count > 0.9 * len(texts)


@pytest.mark.parametrize("name", quick(sorted(pipelines.PIPELINES), [*MAIN, *CHOSEN]))
def test_ids_are_pythons(compare: list[str], tmp_path: Path, name: str) -> None:
    count = QUICK if name in MAIN else VARIANT
    assert_same(
        compare,
        pipelines.save(tmp_path, name),
        pipelines.texts(sorted(pipelines.PIPELINES).index(name), count),
        tmp_path,
    )


def test_the_default_models_too(compare: list[str], tmp_path: Path) -> None:
    assert_same(compare, DEFAULT, pipelines.texts(seed=40, count=QUICK // 4), tmp_path)


def test_real_vocabulary_of_bert(compare: list[str], tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone = tmp_path / "alone" / "tokenizer.json"
    alone.write_bytes((minilm() / "tokenizer.json").read_bytes())
    assert_same(compare, alone, pipelines.texts(seed=41, count=QUICK // 4), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part"),
    [*product(MAIN, range(PARTS)), *product(["albert", "xlm-roberta", "deberta-v3", "modernbert", "clusters"], [0])],
)
def test_many_more_texts(compare: list[str], tmp_path: Path, name: str, part: int) -> None:
    texts = pipelines.texts(seed=100 + part, count=MANY // PARTS)
    assert_same(compare, pipelines.save(tmp_path, name), texts, tmp_path)


def test_comparing_finds_a_difference(compare: list[str], tmp_path: Path) -> None:
    """One token's place, a hundred rows in, is enough."""
    file = pipelines.save(tmp_path, "bert")
    found = list(rows(tokenizer.load(file), pipelines.texts(seed=1, count=200), seed=0))
    found[100] = found[100][:-1] + bytes([found[100][-1] ^ 1])
    (tmp_path / "rows").write_bytes(b"".join(found))
    done = subprocess.run([*compare, str(file), str(tmp_path / "rows")], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("row 100: ")
    assert done.stdout.endswith(f"{len(found)} rows, 1 differ\n")


@pytest.mark.slow
def test_it_opens_and_encodes_within_its_bounds(compare: list[str]) -> None:
    script = ROOT / "benchmarks" / "phone_tokenizer.py"
    done = subprocess.run([sys.executable, script, "--texts", "500"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_unicode_tables_are_the_librarys() -> None:
    tables = pipelines.unicode_tables()
    assert tables.packed() == tables.OUT.read_bytes(), "the library changed: run tools/unicode_tables.py"


def test_lower_case_is_final() -> None:
    """The Kotlin side asks again of what it made lower case in place: that must have no lower case itself."""
    lower = pipelines.unicode_tables().mapped(normalizers.Lowercase())
    assert all(lower[ord(to)] == to for c, text in lower.items() if text != chr(c) for to in text)
