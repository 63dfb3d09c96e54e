"""What came of each cell is kept, whatever ends a sweep."""

from pathlib import Path

import pytest

from edgebert.errors import InputError
from edgebert.sweep import records
from edgebert.sweep.records import DONE, FILE, REFUSED, Record

ROW = {"device": "pixel-4", "how": "simulated", "tokens": 32, "threads": 1, "median_ms": 2.0, "low_ms": 1.5}


def record(key: str, **more: object) -> Record:
    return Record(key, "model", "tflite", "fp32", DONE, **more)  # type: ignore[arg-type]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert records.load(tmp_path) == {}
    whole = [record("a", rows=[ROW], figures={"accuracy": 0.5}, gate={"checks": []}), record("b", notes=["né"])]
    for one in whole:
        records.append(tmp_path, one)
    assert records.load(tmp_path) == {one.key: one for one in whole}
    records.append(tmp_path, record("a"))
    assert records.load(tmp_path)["a"] == record("a")


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path, kept: int) -> None:
    records.append(tmp_path, record("a"))
    whole = (tmp_path / FILE).read_bytes()
    records.append(tmp_path, record("b"))
    both = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(both[: len(whole) + kept] if kept > 0 else both[:kept])
    assert list(records.load(tmp_path)) == ["a"]
    records.append(tmp_path, record("b"))
    assert list(records.load(tmp_path)) == ["a", "b"]


@pytest.mark.parametrize("line", ["{}", "[1]", "garbage", '{"key": "a", "modle": ""}', "[" * 100_000])
def test_a_damaged_line_is_told(tmp_path: Path, line: str) -> None:
    records.append(tmp_path, record("a"))
    with (tmp_path / FILE).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="line 2 is damaged"):
        records.load(tmp_path)


def test_rows_have_the_loss_beside_them() -> None:
    torch = Record("t", "model", "torch", "fp32", DONE, figures={"accuracy": 0.9, "f1": 0.8})
    made = record("a", figures={"accuracy": 0.88, "f1": 0.9}, rows=[ROW, ROW | {"tokens": 64}], size_mb=1.0)
    refused = Record("r", "model", "onnx", "w4a8-dynamic", REFUSED, "onnx does not take it")
    rows = list(records.flat([torch, made, refused]))
    assert [(row["target"], row["tokens"], row["status"]) for row in rows] == [
        ("torch", None, DONE), ("tflite", 32, DONE), ("tflite", 64, DONE), ("onnx", None, REFUSED)
    ]  # fmt: skip
    assert rows[1]["loss_percent"] == pytest.approx(2.0)
    assert (rows[1]["figure"], rows[1]["value"], rows[1]["torch_value"]) == ("accuracy", 0.88, 0.9)
    assert len({tuple(row) for row in rows}) == 1
