"""What the tests of apps stand on: a template that stands in for the built one, and keys in a folder of their own."""

from pathlib import Path

import pytest
import templates

from edgebert.app import template


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's folder of settings; the debug key of all tests is made in it once."""
    return tmp_path_factory.mktemp("settings")


@pytest.fixture(autouse=True)
def settings(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(keys))
    monkeypatch.delenv("EDGEBERT_KEY_PASSWORD", raising=False)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template that is found."""
    path = templates.write(tmp_path / "stand-in.apk")
    monkeypatch.setattr(template, "BUILT", path)
    return path
