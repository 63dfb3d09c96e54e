"""What every test stands on: the network is off; phones are plugged in for the tests that ask for one."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
import adbd

from edgebert.runtimes.devices.pixel import sandbox

Plug = Callable[..., adbd.Daemon]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A server of the client's own, with keys, log and temporary files in a folder of its own."""
    home = tmp_path_factory.mktemp("home")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    temporary = home / "tmp"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(sandbox.folder().parents[1]))
        patch.setenv("HOME", str(home))
        patch.setenv("TMPDIR", str(temporary))
        patch.setattr("tempfile.tempdir", None)
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.delenv("ANDROID_SERIAL", raising=False)
        subprocess.run(["adb", "start-server"], check=True, capture_output=True, timeout=30)
        yield temporary
        subprocess.run(["adb", "kill-server"], capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The disk of a phone on which what was copied once stays from test to test."""
    made = tmp_path_factory.mktemp("phone")
    adbd.make_root(made)
    # As fast as a phone's, which has the processor's own instructions for it: Debian's toybox has not.
    (made / "bin/sha256sum").unlink()
    (made / "bin/sha256sum").symlink_to(shutil.which("sha256sum") or "/bin/false")
    return made


@pytest.fixture
def plug(server: Path) -> Iterator[Plug]:
    """Plug in a phone with a disk; all are pulled out after the test."""
    phones: list[adbd.Daemon] = []

    def plugged(root: Path, **changed: Any) -> adbd.Daemon:
        phones.append(adbd.Daemon(root))
        for name, value in changed.items():
            setattr(phones[-1], name, value)
        subprocess.run(["adb", "connect", phones[-1].serial], capture_output=True, timeout=60)
        # A busy machine is not done shaking hands by then.
        subprocess.run(["adb", "-s", phones[-1].serial, "wait-for-device"], capture_output=True, timeout=60)
        return phones[-1]

    yield plugged
    for phone in phones:
        phone.unplug()
    subprocess.run(["adb", "disconnect"], capture_output=True, timeout=30)
