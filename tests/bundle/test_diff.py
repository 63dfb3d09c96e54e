"""`edgebert diff`: what differs between two bundles."""

import json
from pathlib import Path

import pytest
from reference import reference

import edgebert
from edgebert.bundle.diff import compare
from edgebert.cli.main import main

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("bundles")
    reference("bert", "sequence-classification").save_pretrained(base / "checkpoint")
    reference("bert", "token-classification").save_pretrained(base / "tokens")
    for name, source, recipe, lengths in (
        ("float", "checkpoint", "fp32", (8, 16)),
        ("again", "checkpoint", "fp32", (8, 16)),
        ("int8", "checkpoint", "w8a8-dynamic", (8,)),
        ("tokens", "tokens", "fp32", (8,)),
    ):
        edgebert.export(base / source, target="executorch", recipe=recipe, lengths=lengths, out=base / f"{name}-bundle")
    return base


def test_two_exports_of_one_model_answer_the_same(folder: Path) -> None:
    found = compare(folder / "float-bundle", folder / "again-bundle")
    assert found.fields == {}
    assert found.parts == {}
    assert found.answers is not None
    assert found.answers["logits"].max_abs == 0.0


def test_a_quantized_bundle_differs_in_recipe_sizes_and_answers(folder: Path) -> None:
    found = compare(folder / "float-bundle", folder / "int8-bundle")
    assert found.fields["recipe"] == ("fp32", "w8a8-dynamic")
    assert set(found.parts) == {"embeddings", "attention", "feed-forward", "head"}
    assert all(a > b for a, b in found.parts.values())
    assert "model.pte" in found.files
    assert found.answers is not None
    assert 15 < found.answers["logits"].sqnr_db < 60


def test_answers_of_two_tasks_are_not_compared(folder: Path) -> None:
    found = compare(folder / "float-bundle", folder / "tokens-bundle")
    assert found.answers is None
    assert "sequence-classification" in found.why


def test_the_command_prints_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = str(folder / "float-bundle"), str(folder / "int8-bundle")
    assert main(["diff", a, b]) == 0
    assert "w8a8-dynamic" in capsys.readouterr().out
    assert main(["diff", a, b, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fields"]["recipe"] == ["fp32", "w8a8-dynamic"]
    assert main(["diff", a, str(folder / "nothing")]) == 2
