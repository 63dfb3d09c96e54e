"""Many texts by command: an answer a line, in order, and a line that cannot be answered does not stop the others."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from answering import TEXTS, save, save_sentence_encoder

import edgebert
from edgebert.cli.main import main

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for each of some tasks."""
    place = tmp_path_factory.mktemp("bundles")
    for task in ("sequence-classification", "multiple-choice", "question-answering"):
        save(place / f"{task}-checkpoint", task)
        edgebert.export(
            place / f"{task}-checkpoint", target="executorch", recipe="fp32", lengths=(32,), out=place / task
        )
    return place


def answered(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, the lines of answers, and what was told beside them."""
    capsys.readouterr()
    code = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_a_text_a_line(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "texts.txt"
    file.write_bytes(b"".join(text.encode() + b"\r\n" for text in TEXTS) + b"\n\xff\xfe\n" + TEXTS[0].encode())
    code, lines, told = answered(capsys, bundles / "sequence-classification", "--file", file)
    with edgebert.open(bundles / "sequence-classification") as bundle:
        assert lines[: len(TEXTS)] == bundle.predict(TEXTS)
    assert [line.get("error", "")[:26] for line in lines[len(TEXTS) :]] == [
        "the text '' has no words: ", "the line is not UTF-8 (byt", "",
    ]  # fmt: skip
    assert lines[-1] == lines[0]
    assert code == 2
    assert told.endswith("8 answered, 2 of them with an error\n")


def test_many_vectors_are_those_of_each_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    edgebert.export(save_sentence_encoder(tmp_path / "encoder"), recipe="fp32", lengths=(8, 24), out=bundle)
    file = tmp_path / "texts.txt"
    # More than are answered at once; the last ones with a line that fails.
    file.write_text("\n".join(TEXTS * 60 + ("", TEXTS[0])), encoding="utf-8")
    code, lines, told = answered(capsys, bundle, "--file", file)
    with edgebert.open(bundle) as opened:
        each = [opened.embed(text) for text in TEXTS]
    assert lines[:300] == each * 60
    assert lines[300]["error"].startswith("the text '' has no words")
    assert lines[301] == each[0]
    assert code == 2
    assert told.endswith("302 answered, 1 of them with an error\n")


def test_objects_a_line(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "asked.jsonl"
    rows = [
        {"text": TEXTS[1], "choices": [TEXTS[0], TEXTS[2]]},
        {"id": 7, "question": TEXTS[1], "choices": [TEXTS[2], TEXTS[0]]},
        {"text": TEXTS[1]},
        {"text": TEXTS[1], "sentence": TEXTS[0]},
        {"text": [TEXTS[1]], "choices": [TEXTS[0]]},
        {},
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n", encoding="utf-8")
    code, lines, _ = answered(capsys, bundles / "multiple-choice", "--file", file)
    assert [sorted(line)[0] for line in lines] == ["choice", "choice"] + ["error"] * 5
    assert lines[0]["scores"] == pytest.approx(lines[1]["scores"][::-1])
    assert code == 2


def test_standard_input(bundles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = json.dumps({"question": TEXTS[1], "context": TEXTS[0]})
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(asked.encode() + b"\n")))
    code, (line,), _ = answered(capsys, bundles / "question-answering", "--file", "-")
    assert code == 0
    assert line["answer"] in TEXTS[0]


def test_one_text_that_is_cut_is_told(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["predict", str(bundles / "sequence-classification"), TEXTS[0] * 9]) == 0
    out, err = capsys.readouterr()
    assert "truncated: True" in out
    assert err == "edgebert: the text has 101 tokens, of which the first 32 were read\n"


@pytest.mark.parametrize("arguments", [[], ["a text", "--file", "x"]])
def test_a_text_or_a_file(bundles: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(bundles / "sequence-classification"), *arguments]) == 2
    assert "one text, or --file with many, is needed" in capsys.readouterr().err


def test_files_that_are_refused(bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (tmp_path / "absent.txt", tmp_path, Path("/dev/zero")):
        assert main(["predict", str(bundles / "sequence-classification"), "--file", str(file)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
