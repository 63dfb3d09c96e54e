"""Apps onto phones, by the real adb client and a daemon that stands in for a phone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import adbd
import bundles
import pytest

from edgebert.cli.main import main

pytestmark = pytest.mark.skipif(shutil.which("adb") is None, reason="needs the package adb")
Plug = Callable[..., adbd.Daemon]


def test_an_app_is_installed_on_the_phone_that_is_attached(
    plug: Plug, root: Path, stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phone = plug(root)
    folder = bundles.tflite(tmp_path / "assistant")
    assert main(["app", str(folder), "--out", str(tmp_path / "a.apk"), "--name", "Hæ", "--install"]) == 0
    assert phone.apps == [(tmp_path / "a.apk").read_bytes()]
    assert capsys.readouterr().out.splitlines()[-1] == f"installed Hæ on {phone.serial} (Pixel 4)"
    assert main(["app", str(folder), "--out", str(tmp_path / "b.apk"), "--install", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["device"] == f"{phone.serial} (Pixel 4)"


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("Failure [INSTALL_FAILED_UPDATE_INCOMPATIBLE: Existing package signatures do not match]", "another key"),
        ("Failure [INSTALL_FAILED_NO_MATCHING_ABIS: Failed to extract native libraries, res=-113]", "no libraries for"),
        ("Failure [INSTALL_PARSE_FAILED_NOT_APK: no]", "INSTALL_PARSE_FAILED_NOT_APK"),
    ],
)
def test_a_phone_that_does_not_take_it_says_why(
    verdict: str,
    text: str,
    plug: Plug,
    root: Path,
    stand_in: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    phone = plug(root, verdict=verdict)
    folder = bundles.tflite(tmp_path / "assistant")
    assert main(["app", str(folder), "--out", str(tmp_path / "a.apk"), "--install"]) == 2
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"edgebert: {phone.serial} did not take {tmp_path}/a.apk: ")
    assert text in told


def test_a_phone_that_goes_away_is_told(
    plug: Plug, root: Path, stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plug(root, cut=lambda message: message.startswith("exec:cmd package"))
    folder = bundles.tflite(tmp_path / "assistant")
    assert main(["app", str(folder), "--out", str(tmp_path / "a.apk"), "--install"]) == 3
    assert "was disconnected while installing" in capsys.readouterr().err


def test_without_a_phone_nothing_is_made(
    server: Path, stand_in: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bundles.tflite(tmp_path / "assistant")
    assert main(["app", str(folder), "--out", str(tmp_path / "a.apk"), "--install"]) == 3
    assert "no phone is attached" in capsys.readouterr().err
    assert not (tmp_path / "a.apk").exists()
