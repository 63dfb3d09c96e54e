"""`edgebert profile` and `edgebert validate` on a phone, see test_adb.py for what stands for it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adbd
import pytest
from reference import reference

import edgebert
from edgebert.cli.main import main
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import correction
from edgebert.runtimes.devices.device import PHONE, SIMULATED
from edgebert.runtimes.devices.pixel import sandbox

pytestmark = [
    pytest.mark.skipif(shutil.which("adb") is None, reason="needs the client: apt-get install adb"),
    pytest.mark.skipif(
        sandbox.missing() is not None or RUNTIMES["onnx"].missing() is not None,
        reason=f"needs onnx, here and in the sandbox: {sandbox.SETUP}",
    ),
    pytest.mark.parity,
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    reference("squeezebert", "sequence-classification").save_pretrained(folder / "checkpoint")
    return edgebert.export(
        folder / "checkpoint", target="onnx", recipe="w8a8-dynamic", lengths=(8,), out=folder / "out"
    ).folder


@pytest.mark.slow
def test_a_phone_is_profiled_compared_with_its_simulation_and_held_to_torch(
    plug: Callable[..., adbd.Daemon], root: Path, bundle: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    kept = tmp_path / "calibration.json"
    monkeypatch.setattr(correction, "file", lambda: kept)
    phone = plug(root)
    command = ["profile", str(bundle), "--device", "adb", "--runs", "2"]
    assert main([*command, "--calibrate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["how"]: row for row in found["rows"]}
    assert set(rows) == {PHONE, SIMULATED}
    assert rows[PHONE]["machine"]["serial"] == phone.serial
    # From now on simulations of that phone take what it took.
    assert rows[SIMULATED]["latency"]["median_ms"] == pytest.approx(rows[PHONE]["latency"]["median_ms"])
    (made,) = found["calibrations"]
    assert (made["phone"], made["runtime"], made["kind"]) == ("pixel-4", "onnx", "int8")
    assert list(json.loads(kept.read_text())) == ["pixel-4/onnx/int8"]
    assert main(["profile", str(bundle), "--device", "pixel-4"]) == 0
    assert "times the model's, as measured on a Pixel 4" in capsys.readouterr().out
    assert main([*command, "--calibrate"]) == 0
    assert "kept: pixel-4 with onnx and int8 weights takes" in capsys.readouterr().out
    assert main(["validate", str(bundle), "--device", "adb", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["passed"], report["device"]) == (True, "adb")


def test_bad_usage_and_bad_files_are_told(
    plug: Callable[..., adbd.Daemon], root: Path, bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    plug(root)
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    cases = [
        (["profile", str(tmp_path / "a.onnx"), "--device", "adb"], "a.onnx"),
        (["profile", str(bundle), "--calibrate"], "--calibrate compares a whole file on a phone"),
        (["profile", str(bundle), "--device", "adb", "--calibrate", "--extrapolate-layers"], "--calibrate compares"),
    ]
    for command, words in cases:
        assert main(command) == 2
        assert words in capsys.readouterr().err
