"""The app that `make app` built, with a bundle in it, as Android's own tools and androguard read it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bundles
import pytest
from paths import ROOT
from shared import default_bundle

from edgebert.app import make, template
from edgebert.app.make import Made

NAME = "Aðstoðarmaður 助手 👩\u200d🚀"
ANDROGUARD = ROOT / "build" / "androguard"
READS = """
import json, sys
from loguru import logger
logger.remove()
from androguard.core.apk import APK
apk = APK(sys.argv[1])
print(json.dumps({
    "valid": apk.is_valid_APK(), "signed": [apk.is_signed_v1(), apk.is_signed_v2(), apk.is_signed_v3()],
    "id": apk.get_package(), "name": apk.get_app_name(), "main": apk.get_main_activity(),
    "least": apk.get_min_sdk_version(), "permissions": apk.get_permissions(),
    "resources": apk.get_android_resources().get_packages_names(),
    "certificates": [one.subject.native for one in apk.get_certificates_v2()],
}))
"""

pytestmark = pytest.mark.skipif(
    not template.BUILT.exists(),
    reason="android_demo/build has no app-template.apk: run make app, which needs java and mvn",
)


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.tflite(tmp_path_factory.mktemp("bundle") / "assistant", b"\0" * 3_000_001)


@pytest.fixture
def made(assistant: Path, tmp_path: Path) -> Made:
    return make.apk(assistant, tmp_path / "assistant.apk", name=NAME, application_id="org.example.Helper_2")


def tool(name: str) -> str:
    """A program of Android's, or a skip."""
    if shutil.which(name) is None:
        pytest.skip(f"needs the package {name}")
    return name


@pytest.fixture
def aapt2() -> Path:
    """As the build of the app took it from Maven."""
    found = next((ROOT / "android_demo").glob("*/target/**/aapt2_64"), None)
    if found is None:
        pytest.skip("needs aapt2 below android_demo/app/target: run make app")
    return found


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_apksigner_verifies_it_for_every_android_that_it_runs_on(made: Made) -> None:
    for least in ("24", "30"):
        told = run(tool("apksigner"), "verify", "--verbose", "--min-sdk-version", least, made.path)
        assert "Verified using v2 scheme (APK Signature Scheme v2): true" in told
        assert "Number of signers: 1" in told
        assert "WARNING" not in told


def test_apksigner_refuses_it_with_one_bit_changed(made: Made) -> None:
    whole = made.path.read_bytes()
    for place in (100, len(whole) // 2, len(whole) - 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        made.path.write_bytes(damaged)
        done = subprocess.run([tool("apksigner"), "verify", made.path], capture_output=True, check=False)
        assert done.returncode != 0


def test_zipalign_finds_every_stored_entry_aligned(made: Made) -> None:
    assert "Verification successful" in run(tool("zipalign"), "-c", "-v", "4", made.path)
    done = subprocess.run(
        [tool("zipalign"), "-c", "-v", "16384", made.path], capture_output=True, text=True, check=False
    )
    bad = re.findall(r"\d+ (\S+) \(BAD", done.stdout)
    assert bad == ["resources.arsc"]  # read as words, and never mapped by itself
    good = re.findall(r"\d+ (\S+) \(OK\)", done.stdout)
    assert "assets/bundle/model.tflite" in good
    assert sum(name.startswith("lib/arm64-v8a/") for name in good) >= 2


def test_aapt2_reads_what_it_is_called(made: Made, aapt2: Path) -> None:
    told = run(aapt2, "dump", "badging", made.path)
    assert "package: name='org.example.Helper_2'" in told
    assert f"application-label:'{NAME}'" in told
    assert f"launchable-activity: name='{template_activity(told)}'" in told
    assert re.search(r"^minSdkVersion:'24'$", told, re.MULTILINE)
    assert "native-code: 'arm64-v8a'" in told
    assert "uses-permission" not in told
    assert "Package name=org.example.Helper_2 id=7f" in run(aapt2, "dump", "resources", made.path)
    tree = run(aapt2, "dump", "xmltree", "--file", "AndroidManifest.xml", made.path)
    names = re.findall(r'authorities\(\w+\)="([^"]*)"|:permission\(\w+\)="([^"]*)"', tree)
    assert not any("dev.edgebert.app" in name for found in names for name in found)


def template_activity(told: str) -> str:
    """The activity's name, which is absolute and does not follow the id."""
    found = re.search(r"launchable-activity: name='(dev\.edgebert\.app\.\w+)'", told)
    assert found is not None
    return found[1]


def test_androguard_reads_it_too(made: Made) -> None:
    if not ANDROGUARD.is_dir():
        pytest.skip("build has no androguard: make test installs it")
    done = subprocess.run(
        [sys.executable, "-c", READS, made.path], env={"PYTHONPATH": str(ANDROGUARD)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == {
        "valid": True, "signed": [False, True, False], "id": "org.example.Helper_2", "name": NAME,
        "main": "dev.edgebert.app.MainActivity", "least": "24", "permissions": [],
        "resources": ["org.example.Helper_2"], "certificates": [{"common_name": "edgebert debug"}],
    }  # fmt: skip


@pytest.mark.parity
@pytest.mark.slow
def test_the_default_model_makes_an_app_of_20_mb_at_most(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with template.opened(template.BUILT) as built:
        if any(name.startswith("lib/x86_64/") for name in built.namelist()):
            pytest.skip("the template is for emulators too: run make app without ABIS")
    assert make.apk(default_bundle(tmp_path_factory), tmp_path / "default.apk").size <= 20e6
