"""Manifests that vouch for themselves and say what no export wrote: refused before a model file is opened."""

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bundles
import numpy as np
import pytest

from edgebert import bundle
from edgebert.answers.reading import ACTIVATIONS, Reading
from edgebert.bundle.manifest import SCHEMA, SEAL, VERSION, Manifest, sealed
from edgebert.bundle.opened import Bundle
from edgebert.errors import InputError
from edgebert.files import ASSETS
from edgebert.models.heads import MODES, Pooling
from edgebert.quantization.sizes import Touched
from edgebert.runtimes.session import Spec
from edgebert.tokenizers import tokenizer


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return bundles.write(tmp_path)


def edit(folder: Path, changes: dict[str, Any]) -> None:
    raw = json.loads((folder / "manifest.json").read_text())
    raw = {key: value for key, value in raw.items() if key != SEAL} | changes
    (folder / "manifest.json").write_bytes(sealed(raw))


def config(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"config": json.loads((folder / "manifest.json").read_text())["config"] | changes}


SAID = {"bytes": 4, "sha256": "0" * 64}
REFUSED = [
    ({"format": ["edgebert-bundle"]}, "this is no bundle's manifest"),
    ({"version": {"a": 1}}, r"version \{'a': 1\}; this edgebert reads \d"),
    ({"family": "gpt2"}, "no gpt2 for sequence-classification is known here"),
    ({"task": "causal-lm"}, "no bert for causal-lm is known here"),
    ({"task": "question-answering"}, "labels are not its config's"),
    ({"lengths": [0]}, r"lengths\[0\] must be bigger than or equal to 1"),
    ({"lengths": [10**9]}, "ascending numbers of tokens are needed"),
    ({"vocab_size": 10**9}, "vocab_size, pad_id or labels are not its config's"),
    ({"pad_id": -1}, "pad_id must be bigger than or equal to 0"),
    ({"pad_id": 1 << 60}, "vocab_size, pad_id or labels are not its config's"),
    ({"labels": ["a"]}, "labels are not its config's"),
    ({"labels": [1, 2]}, r"labels\[0\] must be string"),
    ({"config": {}}, "config does not hold what a bert's does"),
    ({"inputs": [{"name": 3}]}, r"inputs\[0\] must contain \['dtype', 'shape'\] properties"),
    ({"outputs": [[]]}, r"outputs\[0\] must be object"),
    ({"modules": [{"name": "x"}]}, r"modules\[0\] must contain \['bytes_after', "),
    ({"parts": {"head": "264"}}, "parts.head must be integer"),
    ({"graph": {}}, r"graph must contain \['delegation', "),
    ({"graph": {"nodes": 1, "ops": [], "weight_bytes": {}, "delegation": None}}, "graph.ops must be object"),
    ({"parity": {"passed": "yes"}}, "parity.passed must be boolean"),
    ({"peak_memory_bytes": 1.5}, "peak_memory_bytes must be integer or null"),
    ({"tools": {"onnx": None}}, "tools.onnx must be string"),
    ({"notes": "none"}, "notes must be array"),
    ({"parameters": 10**41}, "a number has 42 digits"),
    ({"files": {"a\0b": SAID}}, "cannot be read: embedded null"),
    ({"files": {"a" * 5000: SAID}}, "cannot be read: File name too long"),
    ({"files": {"/etc/passwd": SAID}}, "is not a file's entry"),
    ({"files": {"model.onnx/../model.onnx": SAID}}, "is not a file's entry"),
    ({"files": {"model.onnx": SAID}}, "is not the file that was exported"),
    ({"files": {"": SAID}}, "is not a file's entry|has no "),
]


@pytest.mark.parametrize(("changes", "text"), REFUSED, ids=[f"{next(iter(c))} {i}" for i, (c, _) in enumerate(REFUSED)])
def test_what_no_export_wrote_is_refused(made: Path, changes: dict[str, Any], text: str) -> None:
    listed = bundle.read(made).files
    if isinstance(changes.get("files"), dict):
        changes = {"files": listed | changes["files"]}
    edit(made, changes)
    with pytest.raises(InputError, match=text) as caught:
        bundle.read(made)
    assert "\n" not in str(caught.value)


CONFIGS = [
    ({"hidden_size": 10**18}, r"manifest\.json: config\.json: hidden_size=1000000000000000000"),
    ({"type_vocab_size": "2"}, "type_vocab_size='2' in a BertConfig; a value of type int"),
    ({"labels": "ab"}, "config.labels must be array"),
    ({"pooling": {}}, r"config.pooling must contain \['dense', "),
    ({"dropout": 1}, "config does not hold what a bert's does"),
]


@pytest.mark.parametrize(("changes", "text"), CONFIGS)
def test_a_config_that_no_checkpoint_has_is_refused(made: Path, changes: dict[str, Any], text: str) -> None:
    edit(made, config(made, **changes))
    with pytest.raises(InputError, match=text):
        bundle.read(made)


@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(made: Path) -> None:
    (made / "model.onnx").unlink()
    os.mkfifo(made / "model.onnx")
    with pytest.raises(InputError, match=r"has no model\.onnx, which its manifest lists"):
        bundle.read(made)


def test_a_file_that_answers_another_task_is_told(made: Path) -> None:
    (made / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    words, manifest = tokenizer.load(made), bundle.read(made)
    for answer in (
        {"logits": np.zeros((1, 3))},
        {"logits": np.zeros((1, 8, 2))},
        {"start_logits": np.zeros((1, 8))},
        {},
    ):
        session = SimpleNamespace(run=lambda inputs, answer=answer: answer)
        opened = Bundle(made, manifest, session, words)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="says sequence-classification and answers"):
            opened.predict("a")
    session = SimpleNamespace(run=lambda inputs: {"logits": np.zeros((1, 2), np.float32)})
    assert Bundle(made, manifest, session, words).predict("a")["label"] == "LABEL_0"  # type: ignore[arg-type]


def test_the_schema_tells_every_field_that_is_written() -> None:
    schema = json.loads((ASSETS / SCHEMA).read_bytes())
    told = {field.name for field in fields(Manifest)} | {SEAL}
    assert set(schema["properties"]) == set(schema["required"]) == told
    assert schema["properties"]["version"]["const"] == VERSION
    assert schema["$id"].endswith(f":{VERSION}")
    for name, kind in (("reading", Reading), ("modules", Touched), ("inputs", Spec)):
        said = schema["properties"][name]
        assert set(said.get("items", said)["properties"]) == {field.name for field in fields(kind)}
    assert schema["properties"]["reading"]["properties"]["activation"]["enum"] == list(ACTIVATIONS)
    pooling = schema["properties"]["config"]["properties"]["pooling"]["properties"]
    assert set(pooling) == {field.name for field in fields(Pooling)}
    assert pooling["modes"]["items"]["enum"] == list(MODES)


def described(schema: dict[str, Any], place: str = "") -> Iterator[str]:
    """Where in a schema nothing is said of a field."""
    for name, said in schema.get("properties", {}).items():
        if not said.get("description"):
            yield f"{place}.{name}"
        yield from described(said.get("items", said), f"{place}.{name}")


def test_the_schema_says_what_each_field_is() -> None:
    assert list(described(json.loads((ASSETS / SCHEMA).read_bytes()))) == []
