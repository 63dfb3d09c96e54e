"""What a phone tells of itself, and what is sent to it: no phone and no client are needed."""

from pathlib import Path

import pytest

from edgebert.runtimes.devices.adb import device, payload
from edgebert.runtimes.devices.adb import phone as asked
from edgebert.runtimes.devices.pixel import sandbox


def test_the_fastest_cores_that_may_be_used_are_chosen() -> None:
    clocks = {0: 1_800_000, 1: 1_800_000, 4: 2_400_000, 5: 2_400_000, 7: 2_840_000}
    state = asked.State({core: {"cpuinfo_max_freq": str(khz)} for core, khz in clocks.items()}, {})

    def chosen(threads: int, allowed: tuple[int, ...]) -> list[int] | None:
        return asked.big_cores(asked.Phone(None, None, None, "/", frozenset(), allowed), state, threads)

    assert chosen(1, tuple(range(8))) == [7]
    assert chosen(3, tuple(range(8))) == [4, 5, 7]
    assert chosen(2, (0, 1, 4)) == [1, 4]
    assert chosen(6, tuple(range(8))) is None  # cores that tell no clock are not counted on
    assert asked._numbers("0-3,6,8-9") == (0, 1, 2, 3, 6, 8, 9)
    assert asked._numbers("") == ()


def test_clocks_and_temperatures_are_read_as_phones_write_them() -> None:
    cores = asked.clocks("noise\ncpu7 cpuinfo_max_freq 2841600\ncpu7 scaling_max_freq 1804800\ncpu4 x y\n")
    assert cores == {7: {"cpuinfo_max_freq": "2841600", "scaling_max_freq": "1804800"}, 4: {"x": "y"}}
    state = asked.State(cores, {})
    report, note = asked.clock_report([7], state, state)
    assert report == {"fell": True, "cpu7_mhz": {"max": 2842, "cap": 1805}}
    assert note == "the clock had fallen: core 7 ended at 1805 of 2842 MHz"
    assert asked.clock_report([3], state, state) == ({"fell": None, "cpu3_mhz": {}}, None)
    readings = [
        ("BIG", 51.0),
        ("LITTLE", 44.5),
        ("cpu-0-0", 0.0),
        ("VIRTUAL-SKIN", 31.5),
        ("battery", 28.0),
        ("soc", 999.0),
    ]
    assert asked._hottest(readings) == {"cpu": 51.0, "skin": 31.5}


def test_files_that_a_model_names_go_along(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"...location...weights.bin...")
    for name in ("weights.bin", "other.bin", "b"):
        (tmp_path / name).write_bytes(b"")
    assert device._named_by(tmp_path / "a.onnx") == {"weights.bin": tmp_path / "weights.bin"}
    (tmp_path / "a.tflite").write_bytes(b"weights.bin")
    assert device._named_by(tmp_path / "a.tflite") == {}


@pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs the sandbox: {sandbox.SETUP}")
def test_a_runtimes_own_files_alone_are_sent() -> None:
    """Less than 110 MB each; ExecuTorch's 330 MB go to phones that run its files."""
    for runtime in ("tflite", "onnx"):
        found = payload.files(runtime)
        names = set(found)
        assert {payload.LOADER, "lib/libc.so.6", "lib/libstdc++.so.6", "site/numpy/__init__.py"} <= names
        assert not [name for name in names if "torch" in name or name.endswith(".pyc")]
        assert payload.size_of(found) < 110e6
    assert payload.name_of("onnx", {"a": "1"}) != payload.name_of("onnx", {"a": "2"})
