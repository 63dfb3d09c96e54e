"""A phone over adb: the real client against a daemon on loopback that stands for the phone, see adbd.py."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import adbd
import numpy as np
import pytest
from foreign import SIZE, onnx_file, tflite_file

from edgebert.errors import EdgebertError, InputError, MissingDependency
from edgebert.profiling.subject import devices
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import open_device
from edgebert.runtimes.devices.adb import client, device, payload
from edgebert.runtimes.devices.device import PHONE, Job
from edgebert.runtimes.devices.pixel import sandbox

needs_client = pytest.mark.skipif(shutil.which("adb") is None, reason="needs the client: apt-get install adb")
needs_sandbox = pytest.mark.skipif(
    sandbox.missing() is not None or RUNTIMES["onnx"].missing() is not None or RUNTIMES["tflite"].missing() is not None,
    reason=f"needs onnx and tflite, here and in the sandbox: {sandbox.SETUP}",
)
Plug = Callable[..., adbd.Daemon]
FASTEST = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """The disk of a new phone."""
    made = tmp_path / "new-phone"
    made.mkdir()
    adbd.make_root(made)
    return made


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A sandbox of three files in place of 100 MB, for what happens before it runs."""
    files = {payload.LOADER: 10, "lib/libc.so.6": 1_500_000, "site/numpy/__init__.py": 0}
    for name, size in files.items():
        (tmp_path / "small" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "small" / name).write_bytes(np.random.default_rng(size).bytes(size))
    found = {name: tmp_path / "small" / name for name in files}
    monkeypatch.setattr(payload, "missing", lambda runtime=None: None)
    monkeypatch.setattr(payload, "files", lambda runtime: found)
    return found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    return tmp_path / "a.onnx"


def left(phone: adbd.Daemon) -> list[str]:
    """What is on the phone besides kept sandboxes, once all that ran there has ended."""
    until = time.monotonic() + 20
    while time.monotonic() < until and (phone.running or list(phone.folder.glob("edgebert-run-*"))):
        time.sleep(0.05)
    assert not phone.running
    processes = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [line for line in processes if str(phone.folder).encode() in line]
    return [path.name for path in phone.folder.iterdir() if not path.name.startswith(("edgebert-onnx", "edgebert-tfl"))]


def here(server: Path) -> list[str]:
    return [path.name for path in server.iterdir() if path.name.startswith("edgebert-")]


@needs_client
@needs_sandbox
def test_a_file_runs_on_the_phone_and_all_but_the_runtime_is_removed(
    plug: Plug, root: Path, server: Path, tmp_path: Path
) -> None:
    phone = plug(root)
    path = onnx_file(tmp_path / "a.onnx")
    table = np.load(tmp_path / "table.npy")
    tokens = np.array([[1, 2, 3], [4, 5, 6]])
    np.savez(tmp_path / "in.npz", tokens=tokens, scale=np.array([[2.0], [3.0]], np.float32))
    job = Job(path, inputs=tmp_path / "in.npz", outputs=tmp_path / "out.npz", runs=3)
    device = open_device("adb")
    assert (device.missing(), device.name, device.how) == (None, "adb", PHONE)
    found = device.measure(job)
    assert np.allclose(
        np.load(tmp_path / "out.npz")["rows"], table[tokens] * np.array([2, 3])[:, None, None], atol=1e-6
    )
    assert (found.how, found.runtime, found.threads, found.device) == (PHONE, "onnx", 1, "adb")
    assert found.latency is not None
    assert (found.latency.runs, found.latency.min_ms > 0) == (3, True)
    assert found.machine["affinity"] == [FASTEST]
    assert found.machine["machine"] == "aarch64"
    told = [found.machine[name] for name in ("serial", "model", "android", "governor")]
    assert told == [phone.serial, "Pixel 4", "13", "schedutil"]
    assert found.machine["clock"]["fell"] is False
    assert found.machine["clock"][f"cpu{FASTEST}_mhz"]["max"] == 2842
    assert found.machine["celsius"]["before"] == {"cpu": 41.3, "skin": 30.1}
    assert found.notes == ()
    assert left(phone) == []
    # A second run finds the runtime there; meanwhile the phone grows hot and lowers its clock.
    phone.sent.clear()
    core = root / f"sys/devices/system/cpu/cpu{FASTEST}/cpufreq"

    def hot(message: str) -> bool:
        if "guest.py job.json" in message:
            (core / "scaling_cur_freq").write_text("1401600\n")
            (root / "sys/class/thermal/thermal_zone1/temp").write_text("44000\n")
        return False

    phone.cut = hot
    again = open_device(f"adb:{phone.serial}").measure(job)
    assert not [message for message in phone.sent if message.startswith("SEND") and "sandbox" in message]
    assert again.machine["clock"]["fell"] is True
    assert again.notes == (f"the clock had fallen: core {FASTEST} ended at 1402 of 2842 MHz",)
    assert (again.machine["celsius"]["before"]["skin"], again.machine["celsius"]["after"]["skin"]) == (30.1, 44.0)
    (core / "scaling_cur_freq").write_text("2841600\n")
    assert (left(phone), here(server)) == ([], [])


@needs_client
@needs_sandbox
@pytest.mark.slow
def test_a_phone_with_few_tools_gets_file_by_file_and_keeps_nothing(plug: Plug, empty: Path, tmp_path: Path) -> None:
    for tool in ("tar", "sha256sum"):
        (empty / "bin" / tool).unlink()
    phone = plug(empty)
    path, weights = tflite_file(tmp_path / "a.tflite", True)
    values = np.linspace(-1, 1, SIZE, dtype=np.float32)[None]
    np.savez(tmp_path / "in.npz", x=values)
    open_device("adb").measure(Job(path, inputs=tmp_path / "in.npz", outputs=tmp_path / "out.npz", runs=1, warmup=1))
    (name,) = np.load(tmp_path / "out.npz").files
    assert np.abs(np.load(tmp_path / "out.npz")[name] - values @ weights.T).max() < 1e-4
    assert len([message for message in phone.sent if message.startswith("SEND")]) > 100
    assert left(phone) == []
    assert list(phone.folder.iterdir()) == []


@needs_client
@needs_sandbox
def test_a_cable_pulled_out_during_a_run_ends_it_on_the_phone_too(
    plug: Plug, root: Path, server: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = plug(root, program="/bin/sh")  # which, unlike Android's mksh, leaves its children when it is ended
    (model.parent / "guest.py").write_text("import time\nopen('started', 'w').close()\ntime.sleep(300)\n")
    monkeypatch.setattr(device.guest, "__file__", str(model.parent / "guest.py"))

    def pull_out() -> None:
        while not list(phone.folder.glob("edgebert-run-*/started")):
            time.sleep(0.05)
        phone.unplug()

    threading.Thread(target=pull_out, daemon=True).start()
    with pytest.raises(MissingDependency, match=r"disconnected while running a\.onnx"):
        open_device("adb").measure(Job(model))
    assert (left(phone), here(server)) == ([], [])


@needs_client
@needs_sandbox
def test_an_interrupt_leaves_nothing(plug: Plug, root: Path, server: Path, tmp_path: Path) -> None:
    phone = plug(root)
    path = onnx_file(tmp_path / "a.onnx")
    code = f"""
import signal
from pathlib import Path
from edgebert.runtimes.devices.adb.device import Adb
from edgebert.runtimes.devices.device import Job
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background work starts without
Adb("adb", None, lambda line: print(line, flush=True)).measure(Job(Path({str(path)!r}), runs=1_000_000))
"""
    call = [sys.executable, "-c", code]
    # A group of its own, all of which a terminal's Ctrl-C reaches.
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert next(line for line in process.stdout if line.startswith("running"))
    time.sleep(1.5)
    os.killpg(process.pid, signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert (left(phone), here(server)) == ([], [])


@needs_client
@needs_sandbox
@pytest.mark.slow
def test_what_the_guest_says_is_told_and_a_crash_is_the_files_fault(
    plug: Plug, root: Path, server: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = plug(root)
    with pytest.raises(InputError, match=r"a\.onnx: .*InvalidProtobuf"):
        open_device("adb").measure(Job(model))
    (model.parent / "guest.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setattr(device.guest, "__file__", str(model.parent / "guest.py"))
    with pytest.raises(InputError, match=r"the runtime crashed on it \(exit 137\)"):
        open_device("adb").measure(Job(model))
    assert (left(phone), here(server)) == ([], [])


@needs_client
def test_a_phone_that_does_not_run_the_sandbox_is_told_from_a_crash(
    plug: Plug, empty: Path, small: dict[str, Path], model: Path
) -> None:
    phone = plug(empty)
    with pytest.raises(MissingDependency, match=f"{phone.serial} does not run"):
        open_device("adb").measure(Job(model))
    assert left(phone) == []


@needs_client
def test_a_damaged_sandbox_is_copied_again_and_an_old_one_and_forgotten_runs_removed(
    plug: Plug, empty: Path, small: dict[str, Path], model: Path
) -> None:
    phone = plug(empty)
    old, forgotten = phone.folder / "edgebert-onnx-0123", phone.folder / "edgebert-run-0123"
    for folder in (old, forgotten):
        folder.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    (forgotten / "keeper").write_text(str(ended.pid))
    (phone.folder / "edgebert-tflite-0123").mkdir()

    def copied() -> bool:
        phone.sent.clear()
        with pytest.raises(MissingDependency, match="does not run"):
            open_device("adb").measure(Job(model))
        assert left(phone) == []
        return any(message.startswith("SEND") and "sandbox.tar" in message for message in phone.sent)

    assert copied()
    place = phone.folder / payload.name_of("onnx", payload.sums(small))
    assert {path.name for path in phone.folder.iterdir()} == {place.name, "edgebert-tflite-0123"}
    assert not copied()
    (place / "lib/libc.so.6").write_bytes(b"damaged")
    assert copied()
    (place / "more").write_bytes(b"")
    assert copied()
    assert not (place / "more").exists()


@needs_client
def test_a_cable_pulled_out_while_copying_is_told(
    plug: Plug, empty: Path, small: dict[str, Path], server: Path, model: Path
) -> None:
    for words in ("mkdir", "sandbox.tar", "tar -x", "a.onnx", "df -k"):
        shutil.rmtree(empty / "data")
        (empty / "data/local/tmp").mkdir(parents=True)
        place = {"a.onnx": "DATA .*model.onnx", "sandbox.tar": "DATA .*sandbox.tar"}.get(words, f"shell:.*{words}")
        phone = plug(empty, cut=_at(place))
        with pytest.raises(MissingDependency, match=f"{phone.serial} was disconnected while") as caught:
            open_device(f"adb:{phone.serial}").measure(Job(model))
        assert "\n" not in str(caught.value)
        assert (left(phone), here(server)) == ([], [])


def _at(pattern: str) -> Callable[[str], bool]:
    return lambda message: re.match(pattern, message, re.DOTALL) is not None


@needs_client
def test_a_full_disk_is_told_before_or_while_it_happens(
    plug: Plug, empty: Path, small: dict[str, Path], server: Path, model: Path
) -> None:
    phone = plug(empty, room=1_000_000)
    tools = empty / "bin"
    with pytest.raises(InputError, match=rf"the disk of {phone.serial} is full \(copying the sandbox\)"):
        open_device("adb").measure(Job(model))
    assert list(phone.folder.iterdir()) == []
    phone.room = 2_000_000
    (tools / "tar").unlink()
    (tools / "tar").write_text("#!/bin/sh\necho 'tar: lib/libc.so.6: No space left on device' >&2\nexit 1\n")
    (tools / "tar").chmod(0o755)
    with pytest.raises(InputError, match=r"is full \(copying the sandbox\)"):
        open_device("adb").measure(Job(model))
    assert list(phone.folder.iterdir()) == []
    (tools / "df").unlink()
    (tools / "df").write_text(
        "#!/bin/sh\necho 'Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/0 111111 90000 20480 82% /data'\n"
    )
    (tools / "df").chmod(0o755)
    phone.sent.clear()
    with pytest.raises(InputError, match=r"is full: 20 MB are free .* 34 MB are needed"):
        open_device("adb").measure(Job(model))
    assert not [message for message in phone.sent if message.startswith("SEND")]
    assert (left(phone), list(phone.folder.iterdir()), here(server)) == ([], [], [])


@needs_client
def test_phones_that_cannot_be_used_are_told_with_what_to_do(
    plug: Plug, root: Path, empty: Path, small: dict[str, Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)

    def refused(name: str, kind: type[EdgebertError], words: str) -> None:
        with pytest.raises(kind, match=words) as caught:
            open_device(name).measure(Job(model))
        assert "\n" not in str(caught.value)
        # The same before any work, with the exit code that fits.
        with pytest.raises(kind) as again:
            devices([name])
        assert str(caught.value) in str(again.value)

    refused("adb", MissingDependency, "no phone is attached.*USB debugging")
    one = plug(root)
    refused("adb:pixel", MissingDependency, rf"does not see pixel; attached: {one.serial} \(device\)")
    two = plug(empty)
    refused("adb", InputError, rf"2 phones are attached: .*--device adb:{min(one.serial, two.serial)}")
    assert open_device(f"adb:{two.serial}").missing() is None
    monkeypatch.setenv("ANDROID_SERIAL", two.serial)
    assert open_device("adb").missing() is None
    two.properties["ro.product.cpu.abilist"] = "armeabi-v7a,armeabi"
    refused("adb", InputError, "runs programs for armeabi-v7a,armeabi; arm64-v8a is needed")
    two.properties.clear()  # no Android: an Arm board, or this machine
    if os.uname().machine != "aarch64":
        refused("adb", InputError, f"runs programs for {os.uname().machine}; arm64-v8a is needed")
    two.unplug()
    refused("adb", MissingDependency, f"{two.serial} is offline: .*pull the cable out")


@needs_client
def test_a_phone_that_does_not_let_this_computer_in_is_told(
    server: Path, root: Path, small: dict[str, Path], model: Path, plug: Plug
) -> None:
    phone = adbd.Daemon(root)
    phone.locked = True
    connecting = subprocess.Popen(
        ["adb", "connect", phone.serial], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with pytest.raises(MissingDependency, match=r"is unauthorized: .*unlock it and accept") as caught:
            open_device(f"adb:{phone.serial}").measure(Job(model))
        assert "\n" not in str(caught.value)
    finally:
        connecting.kill()
        connecting.wait()
        phone.unplug()


def test_without_a_client_or_a_sandbox_it_says_how_to_get_them(
    model: Path, tmp_path: Path, small: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_device("adb").missing() == client.INSTALL
    with pytest.raises(MissingDependency, match=r"adb, which is not on this machine: install"):
        open_device("adb").measure(Job(model))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    with pytest.raises(MissingDependency, match=sandbox.SETUP):
        open_device("adb").measure(Job(model))
    for wrong in ("adb:", "adb-4"):
        with pytest.raises(InputError, match="adb"):
            open_device(wrong)
