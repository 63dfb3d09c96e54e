"""What stands around a model file is the checkpoint's: another tokenizer, other labels or answers are found."""

import dataclasses
from pathlib import Path

import pytest

import edgebert
from edgebert.bundle import proof
from edgebert.bundle.opened import Bundle
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.gate.parity import FLOAT
from edgebert.tokenizers import tokenizer

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Bundle]:
    out = tmp_path_factory.mktemp("proof") / "out"
    edgebert.export("default", target="executorch", recipe="fp32", lengths=(32,), out=out)
    return edgebert.load("default"), edgebert.open(out)


def failed(source: Checkpoint, opened: Bundle) -> list[str]:
    return [check.name for check in proof.check(opened, source, FLOAT) if not check.passed]


def test_a_right_bundle_is_the_checkpoints(made: tuple[Checkpoint, Bundle]) -> None:
    source, opened = made
    assert failed(source, opened) == []
    assert proof.check(opened, source, FLOAT)[2].detail.startswith(f"{proof.TEXTS} ")


def test_two_labels_swapped_are_found(made: tuple[Checkpoint, Bundle]) -> None:
    source, opened = made
    labels = opened.manifest.labels[::-1]
    wrong = dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, labels=labels))
    assert failed(source, wrong) == ["labels are the checkpoint's", "predict says torch's labels"]


def test_another_tokenizer_is_found(made: tuple[Checkpoint, Bundle], tmp_path: Path) -> None:
    source, opened = made
    assert opened.tokenizer is not None
    text = (opened.folder / "tokenizer.json").read_text(encoding="utf-8")
    changed = text.replace('"the"', '"\u0000"').replace('"a":', '"the":').replace('"\u0000"', '"a"')
    (tmp_path / "tokenizer.json").write_text(changed, encoding="utf-8")
    wrong = dataclasses.replace(opened, tokenizer=tokenizer.load(tmp_path / "tokenizer.json"))
    assert "texts become the checkpoint's ids" in failed(source, wrong)
    assert failed(source, dataclasses.replace(opened, tokenizer=None))[0] == "texts become the checkpoint's ids"
