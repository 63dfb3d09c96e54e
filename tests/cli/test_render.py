"""What the command line shows: numbers to the right, tables in any width, each step's number, words for a ratio."""

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from answering import TEXTS, save

from edgebert.cli import render
from edgebert.cli.main import main
from edgebert.report import ErrorStats, Report, Tolerance

HEAD = ("file", "tokens", "median ms", "SQNR dB", "within", "numbers are")
ROWS = [
    ("a.onnx", "32", "7.12", "123.4", "6.5 to 8.0", "simulated"),
    ("another-model.tflite", "128", "12.34", "-", "-", "measured on host"),
]


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    render.table(HEAD, ROWS)
    return capsys.readouterr().out.splitlines()


def test_numbers_stand_to_the_right_and_names_to_the_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (line for line in shown(capsys, monkeypatch, 120) if "ms" not in line and line.startswith("│"))
    cells = [[cell[1:-1] for cell in line.strip("│").split("│")] for line in (first, second)]
    assert [cell[-1] for cell in cells[0][1:5]] == ["2", "2", "4", "0"]
    assert [cell[-1] for cell in cells[1][1:5]] == ["8", "4", "-", "-"]
    assert cells[0][0].startswith("a.onnx ")


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_a_table_holds_in_a_narrow_window(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is cut, no name or number is broken in two, and no line is longer than the window."""
    lines = shown(capsys, monkeypatch, columns)
    assert max(map(len, lines)) <= columns
    words = " ".join(lines)
    for cell in [*HEAD, *(cell for row in ROWS for cell in row)]:
        assert cell in words


def stats(sqnr_db: float) -> ErrorStats:
    return ErrorStats(0.1, 0.01, 0.999, sqnr_db, 1.0, 1.0, 10, 10)


@pytest.mark.parametrize(("sqnr_db", "word"), [(33.0, "good"), (26.0, "fair"), (14.0, "poor")])
def test_a_ratio_is_explained_once_in_words(sqnr_db: float, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    render.report(Report({"a": stats(40.0), "b": stats(sqnr_db)}, (), Tolerance(25.0, 0.9, "")))
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("SQNR is"))
    assert f"{sqnr_db} dB is an error of {10 ** (-sqnr_db / 20):.2%}, {word} for this recipe" in line
    assert "held to 25.0 dB" in line


def test_equal_answers_need_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    render.report(Report({"a": stats(math.inf)}, (), Tolerance(25.0, 0.9, "")))
    assert "equal" in capsys.readouterr().out.splitlines()[3]


ASKED = [([], 5), (["--no-validate"], 4), (["--trim-vocab", "TEXTS"], 6), (["--no-validate", "--zip"], 4)]


@pytest.mark.parity
@pytest.mark.parametrize(
    ("options", "steps"), [*ASKED[2:], *(pytest.param(*one, marks=pytest.mark.slow) for one in ASKED[:2])]
)
def test_steps_are_counted_right_with_every_option(
    options: list[str], steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And without a terminal too each one's end says how long it took."""
    source = save(tmp_path / "source", "sequence-classification")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    given = [str(tmp_path / "texts.txt") if option == "TEXTS" else option for option in options]
    made = ["export", str(source), "--recipe", "fp32", "--lengths", "16", "-o", str(tmp_path / "made"), *given]
    assert main([*made, "--target", "onnx"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line[: line.index("]") + 1] for line in lines] == [
        f"[{n}/{steps}]" for n in range(1, steps + 1) for _ in "12"
    ]
    assert all(re.search(r": done after \d+\.\d s$", line) for line in lines[1::2])


@pytest.mark.parity
def test_numbers_for_a_spreadsheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, source = str(tmp_path / "made"), str(save(tmp_path / "source", "sequence-classification"))
    assert main(["export", source, "--target", "onnx", "--lengths", "16", "-o", made, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert main(["profile", made, "--csv", "--lengths", "8,16", "--runs", "2"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["tokens"] for row in rows] == ["8", "16"]
    assert float(rows[0]["median_ms"]) > 0
    assert float(rows[0]["size_mb"]) == pytest.approx(
        sum(entry["bytes"] for name, entry in told["manifest"]["files"].items() if "onnx/" in name) / 1e6, abs=1e-3
    )
