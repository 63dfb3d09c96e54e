"""A simulated phone's times are held against a real one's, and the ratio is kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from foreign import onnx_product

from edgebert.errors import InputError
from edgebert.profiling.subject import subject
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import correction
from edgebert.runtimes.devices.device import HOST, PHONE, SIMULATED, Latency, Measurement
from edgebert.runtimes.session import Spec


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgebert" / "calibration.json"


def found(how: str, milliseconds: float, **changed: Any) -> Measurement:
    x = (Spec("x", "float32", (1, 64)),)
    machine = {"model": "Pixel 4 XL", "clock": {"fell": False}} if how == PHONE else {}
    device = "adb" if how == PHONE else "pixel-4"
    latency = Latency.of([round(milliseconds * 1e6), round(milliseconds * 3e6), round(milliseconds * 1e6)])
    made = Measurement(device, how, "onnx", 1, None, x, x, None, None, latency, None, {}, machine)
    return replace(made, **changed)


def test_a_phones_ratio_is_kept_and_applied_to_that_phone_runtime_and_kind_alone(cache: Path) -> None:
    simulated = found(SIMULATED, 10.0)
    assert correction.apply(simulated, "float32") == simulated
    made = correction.calibrate(simulated, found(PHONE, 12.5), "float32")
    assert (made.phone, made.ratio, made.phone_ms, made.model) == ("pixel-4", pytest.approx(1.25), 12.5, "Pixel 4 XL")
    assert correction.keep(made) == cache
    assert correction.kept("pixel-4", "onnx", "float32") == made
    applied = correction.apply(simulated, "float32")
    assert applied.latency is not None
    assert simulated.latency is not None
    for name in ("median_ms", "p90_ms", "min_ms", "max_ms"):
        assert getattr(applied.latency, name) == pytest.approx(1.25 * getattr(simulated.latency, name))
    assert (applied.latency.spread, applied.latency.runs) == (simulated.latency.spread, simulated.latency.runs)
    assert "1.25 times" in applied.notes[-1]
    assert "Pixel 4 XL" in applied.notes[-1]
    assert correction.apply(applied, "float32") == applied  # not twice
    for other in (replace(simulated, device="pixel-6"), replace(simulated, runtime="tflite")):
        assert correction.apply(other, "float32") == other
    assert correction.apply(simulated, "int8") == simulated


def test_a_new_calibration_takes_the_place_of_the_old_one_and_leaves_others(cache: Path) -> None:
    for kind, milliseconds in (("float32", 20.0), ("int8", 5.0), ("float32", 11.0)):
        correction.keep(correction.calibrate(found(SIMULATED, 10.0), found(PHONE, milliseconds), kind))
    ratios = {kind: one.ratio for kind in ("float32", "int8") if (one := correction.kept("pixel-4", "onnx", kind))}
    assert ratios == {"float32": pytest.approx(1.1), "int8": pytest.approx(0.5)}
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_only_one_model_on_one_phone_is_compared() -> None:
    simulated, phone = found(SIMULATED, 10.0), found(PHONE, 12.0)
    cases = [
        (found(HOST, 10.0), phone, "are compared"),
        (simulated, replace(phone, threads=2), "threads differ"),
        (simulated, replace(phone, inputs=(Spec("x", "float32", (1, 32)),)), "inputs differ"),
        (simulated, replace(phone, machine={"model": "Pixel 6"}), r"Pixel 6 \(pixel-6\)"),
        (simulated, replace(phone, machine={"model": "SM-G991B"}), "none of pixel, pixel-2"),
        (replace(simulated, latency=None), phone, "no time"),
        (replace(simulated, machine={"calibrated": 2.0}), phone, "already"),
    ]
    for left, right, words in cases:
        with pytest.raises(InputError, match=words):
            correction.calibrate(left, right, "float32")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": {}}', '{"a": 1}', "\u0000"])
def test_a_damaged_file_is_told(cache: Path, text: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    with pytest.raises(InputError, match=r"calibration\.json.*remove it"):
        correction.apply(found(SIMULATED, 10.0), "float32")


def test_phones_are_known_by_what_they_call_themselves() -> None:
    names = {
        "Pixel 4": "pixel-4", "Pixel 3a XL": "pixel-3a", "Pixel 9 Pro XL": "pixel-9", "Pixel 9 Pro Fold": "pixel-9",
        "Pixel 6a": "pixel-6a", "Pixel XL": "pixel", "Pixel 10 Pro": "pixel-10", "Pixel Tablet": None,
        "Nexus 5": None, "": None, None: None,
    }  # fmt: skip
    assert {name: correction.phone_of(name) for name in names} == names


@pytest.mark.skipif(RUNTIMES["onnx"].missing() is not None, reason=f"needs {RUNTIMES['onnx'].missing()}")
def test_a_files_kind_is_that_of_most_of_its_weights(tmp_path: Path) -> None:
    assert subject(onnx_product(tmp_path / "a.onnx", False)).kind == "float32"
    assert subject(onnx_product(tmp_path / "b.onnx", True)).kind == "int8"
