"""`edgebert sweep` and `edgebert report`, as people call them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from reference import reference

import edgebert
from edgebert.cli.main import main
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices.pixel import sandbox
from edgebert.sweep import records

pytest.importorskip("distributed")
pytest.importorskip("plotly")
pytestmark = [
    pytest.mark.skipif(RUNTIMES["onnx"].missing() is not None, reason="needs onnx"),
    pytest.mark.parity,
]
TEXTS = "text\tlabel\nwake me up\tkind_0\nwhat is the weather\tkind_1\nplay a song\tkind_1\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier with the default's tokenizer."""
    folder = tmp_path_factory.mktemp("my models") / "tiny one"
    words = edgebert.load().tokenizer
    assert words is not None
    reference("bert", "sequence-classification", vocab_size=words.vocab_size).save_pretrained(folder)
    words.save(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "dev.tsv"
    path.write_text(TEXTS, encoding="utf-8")
    return path


def asked(checkpoint: Path, texts: Path, out: Path, *more: str) -> list[str]:
    named = ["--target", "onnx", "--recipe", "fp32,w4a8-dynamic", "--lengths", "8", "--device", "host", "--runs", "3"]
    return ["sweep", str(checkpoint), *named, "--eval", str(texts), "-o", str(out), "--workers", "2", *more]


def test_a_sweep_from_nothing_to_its_report_and_on(checkpoint: Path, texts: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "sweep"
    assert main([*asked(checkpoint, texts, out), "--json"]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)["rows"]
    assert [(row["target"], row["recipe"], row["status"]) for row in rows] == [
        ("torch", "fp32", "done"), ("onnx", "fp32", "done"), ("onnx", "w4a8-dynamic", "refused")
    ]  # fmt: skip
    made = rows[1]
    assert made["how"] == "measured-on-host"
    assert made["tokens"] == 8
    assert 0 < made["low_ms"] <= made["median_ms"] <= made["high_ms"]
    assert made["loss_percent"] == pytest.approx(0.0)
    assert made["size_mb"] > 0
    assert made["sqnr_db"] > 60
    assert "onnx does not take w4a8-dynamic" in rows[2]["reason"]
    for name in ("report.html", "report.md", "results.csv", "results.jsonl", "plan.json"):
        assert (out / name).stat().st_size > 0, name
    # A second run has nothing to do, and another budget changes no cell.
    before = (out / "results.jsonl").read_bytes()
    assert main(asked(checkpoint, texts, out, "--budget", "size_mb=50", "--budget", "loss=1%")) == 0
    told = capsys.readouterr()
    assert "3 of 3 cells are there already" in told.err
    assert "keeps to size_mb=50 and loss=1%: edgebert export" in told.out
    assert (out / "results.jsonl").read_bytes() == before
    assert main(asked(checkpoint, texts, out, "--budget", "latency_ms=0.00001@host")) == 7
    assert "no cell keeps to latency_ms=1e-05@host; the nearest is edgebert export" in capsys.readouterr().err
    # The report is made again, of what is there.
    lines = before.splitlines(keepends=True)
    (out / "results.jsonl").write_bytes(b"".join(lines[:-1]))
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert "2 of 3 cells" in capsys.readouterr().out
    assert "1 cells are not done as yet" in (out / "report.html").read_text(encoding="utf-8")


def test_a_plan_file_is_taken_and_the_command_line_counts(
    checkpoint: Path, texts: Path, tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(f"model = {json.dumps(str(checkpoint))}\ntarget = 'onnx'\nrecipe = ['fp32']\n", encoding="utf-8")
    assert main(["sweep", "--plan", str(path), "--recipe", "w4a8-dynamic", "-o", str(tmp_path / "out"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["recipe"], row["status"]) for row in rows] == [("w4a8-dynamic", "refused")]


WRONG = [
    (["--target", "tflight"], 2, "did you mean tflite"),
    (["--device", "pixel-66"], 2, "device 'pixel-66' is not known; did you mean pixel-6"),
    (["--eval", "/no/such/file"], 2, "/no/such/file is no file"),
    (["--budget", "speed=1"], 2, "latency_ms=20@pixel-6"),
    (["--budget", "latency_ms=1@pixel-4"], 2, "add --device pixel-4"),
    (["--budget", "loss=1%"], 2, "add --eval FILE"),
    (["--plan", "/no/plan"], 2, "cannot be read as a plan"),
    (["no/such/folder/here"], 2, "no such folder"),
    (["--runs", "0"], 2, "runs 0; at least 1 is needed"),
    (["--workers", "0"], 2, "--workers 0; at least 1 is needed"),
]


@pytest.mark.parametrize(("more", "code", "told"), WRONG, ids=lambda value: str(value)[:30])
def test_what_no_cell_could_do_is_a_line(
    more: list[str], code: int, told: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", *more]) == code
    assert told in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_no_folder_of_a_sweep_is_a_line(tmp_path: Path, capsys: Any) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "is no folder of a sweep" in capsys.readouterr().err
    for content, told in (
        ('{"cells": [], "colour": 1}', "key of a plan 'colour' is not known"),
        ('{"cells": [], "runs": "many"}', "runs = 'many'; int is needed"),
        ('{"cells": {}}', "lists no cells"),
        ("[", "plan.json"),
    ):
        (tmp_path / "plan.json").write_text(content, encoding="utf-8")
        assert main(["report", str(tmp_path)]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_travels_to_a_cluster_and_its_files_are_as_here(
    checkpoint: Path, texts: Path, tmp_path: Path, capsys: Any
) -> None:
    from dask_cluster import cluster

    there = tmp_path / "kept there"
    with cluster(2, XDG_CACHE_HOME=str(there)) as (address, _):
        command = asked(checkpoint, texts, tmp_path / "far", "--json")
        command[command.index("--workers") :] = ["--scheduler", address, "--json"]
        assert main(command) == 0
        far = json.loads(capsys.readouterr().out)["rows"]
    assert main([*asked(checkpoint, texts, tmp_path / "near"), "--json"]) == 0
    near = json.loads(capsys.readouterr().out)["rows"]
    same = ("target", "recipe", "status", "value", "sqnr_db", "size_mb", "tokens")
    assert [[row[name] for name in same] for row in far] == [[row[name] for name in same] for row in near]
    arrived = sorted(path.relative_to(there).as_posix().split("/", 3)[3] for path in there.rglob("*") if path.is_file())
    assert {"model.safetensors", "config.json", "tokenizer.json", "content"} <= set(arrived)


@pytest.mark.slow
@pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs the sandbox: {sandbox.SETUP}")
def test_an_interrupt_keeps_what_is_done_and_the_same_command_goes_on(
    checkpoint: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sweep"
    more = ["--target", "tflite,executorch", "--recipe", "w8", "--device", "pixel-4"]
    command = [sys.executable, "-m", "edgebert", *asked(checkpoint, texts, out, *more)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (out / records.FILE).exists():
        time.sleep(0.1)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert "Traceback" not in error
    kept = len(records.load(out))
    assert f"edgebert: interrupted; {kept} of " in error.splitlines()[-1]
    assert "the same command goes on with the others" in error
    time.sleep(2)  # nothing works on
    running = subprocess.run(["pgrep", "-f", "edgebert.sweep.cell"], capture_output=True, text=True, check=False).stdout
    assert running == ""
    assert subprocess.run(command, check=False, capture_output=True, text=True).returncode == 0
    found = records.load(out)
    assert len(found) == len((out / records.FILE).read_text(encoding="utf-8").splitlines()) > kept
    shutil.rmtree(out)
