"""The comparison with peers: which files are asked for, what the table says of them, and what texts cost."""

import argparse
import importlib
import json
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT

from edgebert.models import Model
from edgebert.models.squeezebert import SQUEEZEBERT, SqueezeBertConfig
from edgebert.runtimes import RUNTIMES

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))

import lowerings  # noqa: E402
import peers  # noqa: E402
import peers_count  # noqa: E402
import peers_files  # noqa: E402
import peers_table  # noqa: E402
import start  # noqa: E402
import text_lengths  # noqa: E402


def operators(path: Path) -> dict[str, int]:
    """What stands in a file, and how often."""
    with closing(RUNTIMES["onnx"].open(path, 1)) as session:
        return session.facts().ops


def row(maker: str, ms: float | None = None, **more: Any) -> dict[str, Any]:
    """A row of one group; with a time, counted on pixel-4."""
    figures = {"instructions": 1e9, "cycles": (ms or 0) * 1e6, "ms": ms}
    same = {"model": "bert", "precision": "int8", "runtime": "onnx"}
    return same | {"maker": maker, "devices": {"pixel-4": figures} if ms else {}, **more}


def test_each_group_has_edgeberts_file_and_every_peer_that_makes_the_precision() -> None:
    asked = argparse.Namespace(
        models=["bert"], precisions=["fp16", "int8"], runtimes=list(peers.RUNTIMES), makers=["edgebert", *peers.MAKERS]
    )
    found = [(cell["precision"], cell["runtime"], cell["maker"]) for cell in peers.cells(asked)]
    assert found == [
        ("fp16", "tflite", "edgebert"), ("fp16", "tflite", "litert-torch"),
        ("int8", "tflite", "edgebert"), ("int8", "tflite", "litert-torch"), ("int8", "tflite", "litert-torch, half"),
        ("int8", "onnx", "edgebert"), ("int8", "onnx", "torch.onnx"), ("int8", "onnx", "torch.onnx, optimized"),
        ("int8", "onnx", "MatMulNBits"), ("int8", "onnx", "optimum-onnx"),
        ("int8", "executorch", "edgebert"), ("int8", "executorch", "executorch"),
    ]  # fmt: skip


def test_ratios_are_against_edgeberts_row_and_failures_stay_with_their_reason() -> None:
    rows = [row("edgebert", 10.0, bytes=1_000_000), row("torch.onnx", 25.0), row("optimum-onnx", reason="not | there")]
    assert peers_table.times(rows[1], rows, "pixel-4", "cycles") == 2.5
    assert peers_table.times(rows[2], rows, "pixel-4", "cycles") is None
    lines = peers_table.markdown(rows, ["pixel-4", "host"]).removeprefix(peers_table.ABOUT).splitlines()
    assert len(lines) == 2 + len(rows)
    assert "| 2.50 |" in lines[3]
    assert lines[4].endswith("| not / there |")
    assert len({line.count("|") for line in lines}) == 1


def test_the_picture_is_drawn_also_where_files_failed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    peers_table.draw([row("edgebert", 10.0), row("torch.onnx", reason="no")], "pixel-4", tmp_path / "it.png")
    assert (tmp_path / "it.png").stat().st_size > 1000


def test_rows_of_earlier_runs_stay_and_a_changed_file_loses_its_old_figures() -> None:
    old = [row("torch.onnx", 25.0, bytes=5, path="a"), row("edgebert", 10.0, bytes=7, path="b")]
    fresh = [row("edgebert", bytes=8, path="b"), row("torch.onnx", bytes=5, path="a")]
    found = peers.merged(old, fresh)
    assert [one["maker"] for one in found] == ["edgebert", "torch.onnx"]
    assert not found[0]["devices"]
    assert found[1]["devices"]["pixel-4"]["ms"] == 25.0


def test_answers_are_known_by_their_shape_and_the_worst_counts() -> None:
    expected = {"last_hidden_state": np.ones((1, 4, 2), np.float32), "pooler_output": np.ones((1, 2), np.float32)}
    told = peers_count.parity(expected, {"output_1": np.full((1, 2), 1.1), "output_0": np.ones((1, 4, 2))})
    assert told["compared"] == ["last_hidden_state", "pooler_output"]
    assert told["max_abs"] == pytest.approx(0.1, rel=1e-5)
    assert told["sqnr_db"] == pytest.approx(20.0, abs=1e-4)
    assert peers_count.parity(expected, {"other": np.ones(3)})["sqnr_db"] is None


def test_a_failed_conversion_is_a_reason_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[list[str]] = []
    monkeypatch.setattr(peers_files, "_run", lambda call, log, own: tried.append(call) or "exit 1: no operator")
    for precision in ("fp32", "fp32", "int8"):  # int8 is made from fp32
        with pytest.raises(peers_files.Failed, match="exit 1: no operator"):
            peers_files.made(tmp_path, "bert", "onnx", precision, "torch.onnx")
    assert len(tried) == 1
    with pytest.raises(peers_files.Failed, match="not installed: pip install"):
        peers_files.made(tmp_path, "bert", "onnx", "fp32", "optimum-onnx")


def test_files_are_timed_in_turn(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from foreign import onnx_product

    inputs = tmp_path / "in.npz"
    np.savez(inputs, x=np.ones((64, 64), np.float32))
    files = [onnx_product(tmp_path / f"{quantized}.onnx", quantized) for quantized in (True, False)]
    told = peers_count.race(files, inputs, rounds=3)
    assert len(told) == 2
    assert all(one["median_ms"] > 0 for one in told)
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(RuntimeError, match=r"empty\.onnx"):
        peers_count.race([tmp_path / "empty.onnx"], inputs, rounds=1)


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="needs Linux, which tells of a process' memory")
def test_starts_tell_time_and_whether_the_file_is_mapped_or_copied(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ai_edge_litert")
    from foreign import onnx_product, tflite_file

    mapped, _ = tflite_file(tmp_path / "a.tflite", signature=True)
    copied = onnx_product(tmp_path / "a.onnx", quantized=False)
    cache = tmp_path / "packed"
    found = start.starts([(mapped, ""), (copied, ""), (mapped, str(cache))], None, turns=1)
    assert all(set(one) == set(start.COLUMNS) for one in found)
    assert all(one["load_ms"] > 0 for one in found)
    assert all(one["start_ms"] == pytest.approx(one["load_ms"] + one["first_ms"]) for one in found)
    assert found[0]["mapped_mb"] > 0
    assert found[1]["mapped_mb"] == 0
    assert cache.stat().st_size > 0
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(RuntimeError, match=r"empty\.onnx"):
        start.starts([(tmp_path / "empty.onnx", "")], None, turns=1)


def test_a_start_is_told_in_the_table_beside_the_peers() -> None:
    begun = {"load_ms": 5.0, "first_ms": 95.0, "start_ms": 100.0, "own_mb": 40.0, "mapped_mb": 25.0}
    rows = [row("edgebert"), row("torch.onnx")]
    rows[0]["devices"]["host"] = {"median_ms": 50.0} | begun
    rows[1]["devices"]["host"] = {"median_ms": 50.0} | begun | {"start_ms": 300.0, "mapped_mb": 0.0}
    lines = peers_table.markdown(rows, ["host"]).removeprefix(peers_table.ABOUT).splitlines()
    assert "| 50.0 | 1.00 | 5 | 95 | 100 | 1.00 | 40 | 25 |" in lines[2]
    assert "| 300 | 3.00 | 40 | 0 |" in lines[3]


@pytest.mark.parametrize("mean", text_lengths.MEANS)
def test_made_up_texts_have_their_mean_and_repeat(mean: int) -> None:
    lengths = text_lengths.mix(mean)
    assert lengths.mean() == pytest.approx(mean, abs=0.05)
    assert lengths.min() >= text_lengths.SHORTEST
    assert lengths.max() <= 128
    assert (lengths == text_lengths.mix(mean)).all()


def test_texts_pay_for_the_length_that_holds_them() -> None:
    counted = {32: 1.0, 64: 3.0, 128: 9.0}
    lengths = np.array([5, 32, 33, 64, 128])
    assert text_lengths.cost(lengths, counted, free=False) == pytest.approx((1 + 1 + 3 + 3 + 9) / 5)
    assert text_lengths.cost(np.array([16, 48, 96]), counted, free=True) == pytest.approx((1 + 2 + 6) / 3)


def test_peers_of_a_runtime_are_read_from_the_table(tmp_path: Path) -> None:
    table = tmp_path / "peers.json"
    assert text_lengths.peers(table, "onnx", "bert", "int8", "pixel-4") == {}
    table.write_text(json.dumps([row("edgebert", 10.0), row("torch.onnx", 25.0), row("optimum-onnx")]))
    assert text_lengths.peers(table, "onnx", "bert", "int8", "pixel-4") == {"torch.onnx": 25e6}
    assert text_lengths.peers(table, "onnx", "bert", "fp32", "pixel-4") == {}


@pytest.mark.parametrize(
    ("target", "module", "name"), [(t, *place) for t, own in lowerings.LOWERINGS.items() for place in own]
)
def test_the_exporters_call_the_lowerings_by_these_names(target: str, module: str, name: str) -> None:
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.slow
def test_a_lowering_left_out_makes_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("trim_positions", "scale_keys", "first_token_only")
    monkeypatch.setitem(lowerings.LOWERINGS, "onnx", tuple(("edgebert.lowering", name) for name in names))
    model = Model(SQUEEZEBERT, SqueezeBertConfig.tiny(), "sequence-classification").random_init(0)
    made = lowerings.files(tmp_path, model, "onnx", "w8a8-dynamic", length=16)
    found = {name: operators(path) for name, path in made.items() if isinstance(path, Path)}
    assert found.keys() == {"", *names}
    assert found["trim_positions"] == found[""]  # fewer rows in a table, the same operators
    assert found["scale_keys"] != found[""] != found["first_token_only"]
