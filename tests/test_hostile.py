"""Every file that is read, changed at random in its bytes and in its structure: nothing but EdgebertError comes of it.

A traceback of any other kind fails the test, as does what takes longer than SECONDS or more memory than MEGABYTES.
"""

import contextlib
import copy
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bundles
import pytest
import tiny
import torch
from cases import SPECIALS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paths import DATA
from safetensors.torch import load_file
from words import trained_model

from edgebert import bundle
from edgebert.bundle.manifest import SEAL, sealed
from edgebert.checkpoints import checkpoint
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.cli import render
from edgebert.errors import EdgebertError
from edgebert.files import peak_memory
from edgebert.gate import golden
from edgebert.models import MODELS
from edgebert.models.heads import Dense, Pooling
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.corpus import read_corpus

SECONDS, MEGABYTES = 20, 1000
QUICK, MANY = 20, 220  # inputs of each kind

TEXT = "A b [MASK] é ﷺ  中``x''\u0000\u2028 ab" + "a" * 300


def look_at_bundle(folder: Path) -> None:
    manifest = bundle.read(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        render.manifest(manifest)


def use_tokenizer(path: Path) -> None:
    words = tokenizer.load(path)
    words.decode(words.encode(TEXT, "b").ids)
    words.batch([TEXT, ("a", TEXT)], length=8)


def load_sentences(folder: Path) -> None:
    """A sentence encoder, by its folder or that of one of its modules."""
    checkpoint.load(folder if folder.name == "sentences" else folder.parent)


@dataclass(frozen=True)
class Target:
    """A file that is changed, and what reads it."""

    file: str
    read: Callable[[Path], object]
    structured: bool = False


TARGETS = {
    **{f"config of {name}": Target(f"{name}/config.json", checkpoint.outline, True) for name in MODELS},
    "config": Target("bert/config.json", checkpoint.load, True),
    "manifest": Target("bundle/manifest.json", look_at_bundle, True),
    "tokenizer.json": Target("words/tokenizer.json", use_tokenizer, True),
    "tokenizer.json of a Unigram": Target("pieces/tokenizer.json", use_tokenizer, True),
    "tokenizer_config.json": Target("words/tokenizer_config.json", use_tokenizer, True),
    "special_tokens_map.json": Target("vocab/special_tokens_map.json", use_tokenizer, True),
    "added_tokens.json": Target("vocab/added_tokens.json", use_tokenizer, True),
    "vocab.txt": Target("vocab/vocab.txt", use_tokenizer),
    "a .model": Target("sentencepiece/a.model", use_tokenizer),
    "safetensors": Target("bert/model.safetensors", checkpoint.load),
    "an index": Target("index/model.safetensors.index.json", checkpoint.load, True),
    "a torch file": Target("torch/pytorch_model.bin", checkpoint.load),
    "a torch file of old": Target("old/pytorch_model.bin", checkpoint.load),
    "h5": Target("h5/tf_model.h5", checkpoint.load),
    **{
        f"{name} of a sentence encoder": Target(f"sentences/{name}", load_sentences, name.endswith(".json"))
        for name in (
            "modules.json",
            "config_sentence_transformers.json",
            "1_Pooling/config.json",
            "2_Dense/config.json",
        )
    },
    "a dense layer's weights": Target("sentences/2_Dense/model.safetensors", load_sentences),
    "golden answers": Target("bundle/golden.npz", lambda folder: golden.load(folder / "golden.npz")),
    "a corpus": Target("corpus/texts.txt", lambda folder: read_corpus(folder / "texts.txt")),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with a sound file of each kind."""
    root = tmp_path_factory.mktemp("sound")
    made = {name: tiny.visible(name, "sequence-classification") for name in MODELS}
    for name, model in made.items():
        Checkpoint(model, None, name, {}, "", ()).save(root / name)
    pooling = Pooling(("mean", "cls"), (Dense(8),), True, "query: ", 0, "dot")
    sentences = tiny.visible("bert", "sentence-embedding", pooling=pooling)
    Checkpoint(sentences, None, "sentences", {}, "", ()).save(root / "sentences")
    (root / "sentences/vocab.txt").write_text("\n".join([*SPECIALS, *"ab", "##a", "##b"]))
    for name in ("torch", "old", "index", "bundle", "vocab", "sentencepiece", "corpus", "h5"):
        (root / name).mkdir()
    config, tensors = (root / "bert/config.json").read_bytes(), load_file(root / "bert/model.safetensors")
    for name in ("torch", "old", "index"):
        (root / name / "config.json").write_bytes(config)
    torch.save(tensors, root / "torch/pytorch_model.bin")
    torch.save(tensors, root / "old/pytorch_model.bin", _use_new_zipfile_serialization=False)
    (root / "index/a.safetensors").write_bytes((root / "bert/model.safetensors").read_bytes())
    weight_map = {"weight_map": dict.fromkeys(tensors, "a.safetensors")}
    (root / "index/model.safetensors.index.json").write_text(json.dumps(weight_map))
    for name in ("config.json", "tf_model.h5"):
        (root / "h5" / name).write_bytes((DATA / "tf_checkpoints/convbert-base" / name).read_bytes())
    bundles.write(root / "bundle")
    (root / "vocab/vocab.txt").write_text("\n".join([*SPECIALS, *"ab", "##a", "##b"]))
    (root / "vocab/special_tokens_map.json").write_text(json.dumps({"cls_token": "[CLS]", "unk_token": "[UNK]"}))
    (root / "vocab/added_tokens.json").write_text(json.dumps({"<new>": 9}))
    (root / "sentencepiece/a.model").write_bytes(trained_model())
    tokenizer.load(root / "vocab").save(root / "words")
    tokenizer.load(root / "sentencepiece").save(root / "pieces")
    (root / "corpus/texts.txt").write_text("one two\nthree\tfour\n" * 20)
    for target in TARGETS.values():
        target.read((root / target.file).parent)
    return root


# What a value becomes; those of the second table are no JSON that Python would write.
VALUES = (
    None, True, False, -1, 0, 1, 2, 3.5, 1e-300, 1e300, 2**31, 2**63, 10**18, 10**30, "", "a", "\0", "x" * 3000, "10",
    "é\n", "[MASK]", "/etc/passwd", "../..", [], {}, [[]], {"a": 1}, [1, "a", None], {"0": "a", "1": "b"}, [1] * 1000,
    {"type": "Sequence"}, {"content": "[CLS]"}, {"Regex": "(a+)+$"}, {"String": ""},
)  # fmt: skip
RAW = {
    "@0": "NaN", "@1": "-Infinity", "@2": "1e999", "@3": "9" * 5000, "@4": '"\\ud800"', "@5": "[" * 5000 + "]" * 5000,
    "@6": '{"a": 1, "a": 2}', "@7": "", "@8": "[[" * 30 + "]]" * 30,
}  # fmt: skip


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside of one."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(path for key, inner in inside for path in places(inner, (*above, key)))]


def restructured(content: bytes, rng: random.Random) -> bytes:
    """The JSON with one to four changes: a value replaced, taken away, doubled, nested, renamed or moved."""
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        path = rng.choice(places(value)[1:] or [()])
        if not path:
            return json.dumps(rng.choice(VALUES)).encode()
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        how = rng.randrange(8)
        if how < 4:
            holder[path[-1]] = copy.deepcopy(rng.choice((*VALUES, *RAW)))
        elif how == 4:
            del holder[path[-1]]
        elif how == 5:
            holder[path[-1]] = rng.choice(([holder[path[-1]]] * 2, {"a": holder[path[-1]]}, [[holder[path[-1]]]]))
        elif isinstance(holder, dict):
            name = rng.choice(("x", "", "0", "é\n\x1b[31m", "type", "{}", path[-1].upper(), *holder))
            holder[name] = holder.pop(path[-1]) if how == 6 else copy.deepcopy(rng.choice(VALUES))
        else:
            holder.append(holder[path[-1]])
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    for mark, raw in RAW.items():
        text = text.replace(f'"{mark}"', raw)
    return text.encode(errors="surrogatepass")


def rebitten(content: bytes, rng: random.Random) -> bytes:
    """The bytes with some changed, cut away, doubled or put in; more of them at the head, which steers the rest."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 10, 40))):
        at = rng.randrange(rng.choice((16, 64, 1024, len(data) + 1, len(data) + 1))) % (len(data) + 1)
        how, size = rng.randrange(8), rng.choice((1, 2, 8, 100, len(data)))
        if how < 4:
            data[at : at + 1] = bytes([rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))])
        elif how == 4:
            del data[at : at + size]
        elif how == 5:
            data[at:at] = data[at : at + min(size, 5000)]
        elif how == 6:
            data[at : at + 8] = rng.choice((
                b"\xff" * 8,
                bytes(8),
                (1 << 40).to_bytes(8, "little"),
                b"\xff\xff\xff\x7f",
            ))
        else:
            data[at:at] = bytes(rng.randrange(256) for _ in range(min(size, 100)))
    return bytes(data)


def attack(target: Target, sound: Path, examples: int) -> dict[str, int]:
    """Read changed copies of a file; how many were refused, and how many still were sound."""
    path, said, read = sound / target.file, list[str](), list[bytes]()
    whole = path.read_bytes()

    @settings(
        max_examples=examples, deadline=SECONDS * 1000, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**32))
    def one(seed: int) -> None:
        rng = random.Random(seed)
        change = restructured if target.structured and rng.random() < 0.8 else rebitten
        content = change(whole, rng)
        if target.file.endswith("manifest.json"):
            with contextlib.suppress(ValueError, RecursionError, AttributeError):  # sealed, to be read to its end
                raw = json.loads(content)
                content = sealed({key: value for key, value in raw.items() if key != SEAL})
        path.write_bytes(content)
        try:
            target.read(path.parent)
            read.append(content)
        except EdgebertError as error:
            said.append(str(error))

    before = peak_memory() or 0
    try:
        one()
    finally:
        path.write_bytes(whole)
    assert (peak_memory() or 0) - before < MEGABYTES << 20
    assert all(len(line.splitlines()) == 1 and len(line) < 5000 for line in said)
    return {"refused": len(said), "read": len(read)}


@pytest.mark.parametrize("name", TARGETS)
def test_changed_files_are_read_or_refused(sound: Path, name: str) -> None:
    count = attack(TARGETS[name], sound, QUICK)
    assert count["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_many_changed_files_are_read_or_refused(sound: Path, name: str) -> None:
    count = attack(TARGETS[name], sound, MANY)
    assert sum(count.values()) >= MANY
    print(name, count)
