"""The guest script on this host: files of all three runtimes, whoever made them, and what it says of bad ones."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign import SIZE, onnx_file, pte_file, tflite_file
from tiny import visible

from edgebert.errors import InputError, MissingDependency
from edgebert.exporters.executorch import export as executorch
from edgebert.quantization.recipes import RECIPES
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import DEVICES, device_names, open_device
from edgebert.runtimes.devices.device import HOST, Job, Latency, Measurement
from edgebert.runtimes.devices.guest import guest

needs = {
    name: pytest.mark.skipif(RUNTIMES[name].missing() is not None, reason=f"needs {RUNTIMES[name].missing()}")
    for name in ("tflite", "onnx", "executorch")
}


def measure(path: Path, **asked: Any) -> Measurement:
    return open_device("host").measure(Job(path, runs=3, warmup=2, **asked))


def test_every_device_is_in_the_registry_by_each_of_its_names() -> None:
    for name in device_names():
        assert open_device(name).name == name
    assert {name.partition("-")[0] for name in device_names()} == set(DEVICES)
    for wrong in ("pixel-1", "iphone", "", "host-2"):
        with pytest.raises(InputError, match="pixel-4"):
            open_device(wrong)


def test_latency_is_told_by_its_median_and_not_its_mean() -> None:
    latency = Latency.of([5_000_000, 1_000_000, 2_000_000, 3_000_000, 100_000_000])
    assert (latency.median_ms, latency.min_ms, latency.max_ms, latency.runs) == (3.0, 1.0, 100.0, 5)
    assert latency.p90_ms == pytest.approx(62.0)  # between 5 and 100, at 3.6 of 0 to 4
    assert latency.spread == pytest.approx((62.0 - 1.4) / 3.0)
    assert Latency.of([7_000_000]).p90_ms == 7.0


@needs["onnx"]
def test_an_onnx_file_with_free_axes_takes_the_length_it_is_asked_for(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    for length in (None, 7):
        found = measure(path, length=length)
        assert [(spec.name, spec.dtype, spec.shape) for spec in found.inputs] == [
            ("tokens", "int64", (1, length or guest.DEFAULT_LENGTH)),
            ("scale", "float32", (1, 1)),
        ]
        assert found.outputs[0].shape == (1, length or guest.DEFAULT_LENGTH, SIZE)
    assert (found.how, found.runtime, found.device) == (HOST, "onnx", "host")
    assert found.latency is not None
    assert found.latency.runs == 3
    assert 0 < found.latency.min_ms <= found.latency.median_ms <= found.latency.p90_ms <= found.latency.max_ms
    assert found.load_ms is not None
    assert found.load_ms > 0
    assert found.peak_bytes is not None
    assert 10**7 < found.peak_bytes < 10**10
    assert set(found.versions) == {"python", "numpy", "onnxruntime"}


@needs["onnx"]
def test_given_inputs_are_answered_row_by_row(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    table = np.load(tmp_path / "table.npy")
    tokens = np.array([[1, 2, 3], [4, 5, 6]], np.int32)
    scale = np.array([[2.0], [3.0]], np.float32)
    np.savez(tmp_path / "in.npz", scale=scale, tokens=tokens)
    measure(path, inputs=tmp_path / "in.npz", outputs=tmp_path / "out.npz")
    out = np.load(tmp_path / "out.npz")
    assert np.allclose(out["rows"], table[tokens] * scale[:, :, None], atol=1e-6)


@needs["onnx"]
def test_a_bundles_golden_inputs_are_answered_case_by_case(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    table = np.load(tmp_path / "table.npy")
    cases = {name: np.arange(rows * length).reshape(rows, length) % 20 for name, rows, length in
             (("tokens_4", 3, 4), ("tokens_8", 2, 8))}  # fmt: skip
    flat = {f"{name}/in/tokens": value for name, value in cases.items()}
    flat |= {f"{name}/in/scale": np.ones((len(value), 1), np.float32) for name, value in cases.items()}
    flat |= {"tokens_4/out/rows": np.zeros(1), "damaged/layer/rows": np.zeros(1)}
    np.savez(tmp_path / "golden.npz", **flat)  # type: ignore[arg-type]
    found = measure(path, inputs=tmp_path / "golden.npz", outputs=tmp_path / "out.npz", length=4)
    assert found.inputs[0].shape == (1, 4)
    assert measure(path, inputs=tmp_path / "golden.npz").inputs[0].shape == (1, 8)
    out = np.load(tmp_path / "out.npz")
    assert set(out.files) == {"tokens_4/out/rows", "tokens_8/out/rows"}
    for name, tokens in cases.items():
        assert np.allclose(out[f"{name}/out/rows"], table[tokens], atol=1e-6)


@needs["tflite"]
@pytest.mark.parametrize("signature", [True, False], ids=["signature", "plain"])
def test_a_tflite_file_runs_with_and_without_a_signature(tmp_path: Path, signature: bool) -> None:
    path, weights = tflite_file(tmp_path / "a.tflite", signature)
    values = np.linspace(-1, 1, 3 * SIZE, dtype=np.float32).reshape(3, SIZE)
    np.savez(tmp_path / "in.npz", whatever=values)
    found = measure(path, inputs=tmp_path / "in.npz", outputs=tmp_path / "out.npz")
    assert found.entry == ("answer" if signature else None)
    assert found.inputs[0].shape == (1, SIZE)
    (name,) = np.load(tmp_path / "out.npz").files
    assert np.allclose(np.load(tmp_path / "out.npz")[name], values @ weights.T, atol=1e-5)
    assert "ai-edge-litert" in found.versions


@needs["executorch"]
def test_a_pte_file_runs_by_whatever_name_its_method_has(tmp_path: Path) -> None:
    path = pte_file(tmp_path / "a.pte", "encode")
    found = measure(path, outputs=tmp_path / "out.npz")
    assert found.entry == "encode"
    assert [(spec.dtype, spec.shape) for spec in found.inputs] == [("int32", (1, 16)), ("float32", (1, 1))]
    given = {"ids": np.arange(16, dtype=np.int32).reshape(1, 16), "scale": np.full((1, 1), 2, np.float32)}
    np.savez(tmp_path / "in.npz", **given)  # type: ignore[arg-type]
    measure(path, inputs=tmp_path / "in.npz", outputs=tmp_path / "out.npz")
    out = np.load(tmp_path / "out.npz")["output_0"]
    assert np.abs(out - np.load(tmp_path / "expected.npy")).max() < 1e-5


@needs["executorch"]
def test_of_methods_for_several_lengths_the_one_that_fits_is_run(tmp_path: Path) -> None:
    path = tmp_path / "a.pte"
    executorch.export(visible("deberta-v2", "base"), RECIPES["fp32"], (8, 16), path)
    for length, entry, taken in ((6, "forward_8", 8), (8, "forward_8", 8), (9, "forward", 16), (None, "forward", 16)):
        found = measure(path, length=length)
        assert (found.entry, [spec.shape for spec in found.inputs]) == (entry, [(1, taken)] * 3)
    with pytest.raises(InputError, match="length 17; the file takes at most 16"):
        measure(path, length=17)


@needs["onnx"]
def test_what_cannot_be_run_is_told_in_one_line(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    whole = path.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "in.npz", other=np.zeros((1, 2)))
    cases: list[tuple[str, Job]] = [
        ("cut.onnx", Job(tmp_path / "cut.onnx")),
        ("takes", Job(path, inputs=tmp_path / "in.npz")),
        ("is not a file", Job(tmp_path / "none.onnx")),
        ("none of .tflite, .onnx, .pte", Job(tmp_path / "in.npz")),
    ]
    for words, job in cases:
        with pytest.raises(InputError, match=words) as caught:
            open_device("host").measure(job)
        assert "\n" not in str(caught.value)


@needs["tflite"]
def test_a_length_that_no_signature_holds_is_refused() -> None:
    assert guest.nearest({"a": 8, "b": 16}, 9) == "b"
    assert guest.nearest({"a": 8, "b": 16}, 8) == "a"
    assert guest.nearest({"a": 8, "b": 16}, None) == "b"
    assert guest.nearest({"free": 1}, 300) == "free"
    with pytest.raises(guest.GuestError, match="at most 16"):
        guest.nearest({"a": 8, "b": 16}, 17)


def test_a_runtime_that_crashes_is_the_files_fault_and_one_that_is_not_there_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(site))
    (site / "onnxruntime.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(InputError, match="crashed"):
        measure(tmp_path / "a.onnx")
    (site / "onnxruntime.py").write_text("raise ImportError('libsomething is not there')")
    with pytest.raises(MissingDependency, match="libsomething"):
        measure(tmp_path / "a.onnx")


def test_the_script_needs_nothing_of_edgebert(tmp_path: Path) -> None:
    """It is copied to a phone alone: an interpreter that finds no edgebert runs it."""
    job = {"model": str(tmp_path / "a.onnx"), "runtime": "onnx", "result": str(tmp_path / "r.json")}
    (tmp_path / "job.json").write_text(json.dumps(job))
    (tmp_path / "guest.py").write_bytes(Path(guest.__file__).read_bytes())
    (tmp_path / "onnxruntime.py").write_text(
        "import sys; assert sys.modules['edgebert'] is None; raise ImportError('x')"
    )
    code = (
        "import sys, runpy; sys.modules['edgebert'] = None; del sys.argv[0]; runpy.run_path('guest.py', {}, '__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "guest.py", "job.json"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "error": "the runtime onnx is not usable: x",
        "kind": "missing",
    }
