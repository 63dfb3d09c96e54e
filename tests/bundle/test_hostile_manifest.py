"""Manifests that vouch for themselves and say what no export wrote: refused before a model file is opened."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bundles
import numpy as np
import pytest

from edgebert import bundle
from edgebert.bundle.manifest import SEAL, sealed
from edgebert.bundle.opened import Bundle
from edgebert.errors import InputError
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
    ({"lengths": [0]}, "ascending positive integers are needed"),
    ({"lengths": [10**9]}, "ascending positive integers are needed"),
    ({"vocab_size": 10**9}, "vocab_size, pad_id or labels are not its config's"),
    ({"pad_id": -1}, "vocab_size, pad_id or labels are not its config's"),
    ({"labels": ["a"]}, "labels are not its config's"),
    ({"labels": [1, 2]}, "labels is a list; "),
    ({"config": {}}, "config does not hold what a bert's does"),
    ({"inputs": [{"name": 3}]}, "inputs does not hold what belongs there"),
    ({"outputs": [[]]}, "outputs is a list; "),
    ({"modules": [{"name": "x"}]}, "modules does not hold what belongs there"),
    ({"parts": {"head": "264"}}, "parts is a dict; "),
    ({"graph": {}}, "graph does not hold what belongs there"),
    ({"graph": {"nodes": 1, "ops": [], "weight_bytes": {}, "delegation": None}}, "graph does not hold"),
    ({"parity": {"passed": "yes"}}, "parity does not hold what belongs there"),
    ({"peak_memory_bytes": 1.5}, "peak_memory_bytes is a float"),
    ({"tools": {"onnx": None}}, "tools is a dict; "),
    ({"notes": "none"}, "notes is a str; "),
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
    ({"labels": "ab"}, "config does not hold what a bert's does"),
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
