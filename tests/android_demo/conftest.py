"""What the tests of android_demo stand on: what `make app` built."""

from pathlib import Path

import jvm
import pytest


@pytest.fixture(scope="session")
def jar() -> Path:
    """The library's command line."""
    if why := jvm.missing():
        pytest.skip(why)
    return jvm.JAR
