"""What the tests of android_demo stand on: what `make app` built."""

import shutil
from pathlib import Path

import pytest
from paths import ROOT

BUILT = ROOT / "android_demo" / "build"


@pytest.fixture(scope="session")
def jar() -> Path:
    """The library's command line."""
    if shutil.which("java") is None:
        pytest.skip("there is no java to run the library by")
    if not (BUILT / "edgebert-jvm.jar").exists():
        pytest.skip("android_demo/build has no edgebert-jvm.jar: run make app, which needs java and mvn")
    return BUILT / "edgebert-jvm.jar"
