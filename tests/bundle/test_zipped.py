"""A bundle as one file: the same bytes each time, and nothing replaced that is not a zip."""

import zipfile
from pathlib import Path

import bundles
import pytest

from edgebert.bundle import read, zipped
from edgebert.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bundles.tflite(tmp_path / "assistant")


def test_a_zip_has_the_bundle_in_one_folder(folder: Path, tmp_path: Path) -> None:
    path = zipped.write(folder)
    assert path == tmp_path / "assistant.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"assistant/{one.name}" for one in sorted(folder.iterdir())]
        archive.extractall(tmp_path / "other")
    assert read(tmp_path / "other" / "assistant") == read(folder)


def test_the_same_bundle_gives_the_same_bytes(folder: Path) -> None:
    one = zipped.write(folder).read_bytes()
    for path in folder.iterdir():
        path.touch()
        path.chmod(0o600)
    assert zipped.write(folder).read_bytes() == one


def test_folders_inside_keep_their_place(folder: Path) -> None:
    (folder / "model.mlpackage/Data").mkdir(parents=True)
    (folder / "model.mlpackage/Data/weights").write_bytes(b"w")
    with zipfile.ZipFile(zipped.write(folder)) as archive:
        assert archive.read("assistant/model.mlpackage/Data/weights") == b"w"


def test_only_a_zip_is_replaced_and_only_by_force(folder: Path, tmp_path: Path) -> None:
    zipped.check_place(folder, force=False)
    zipped.write(folder)
    with pytest.raises(InputError, match="pass --force"):
        zipped.check_place(folder, force=False)
    zipped.check_place(folder, force=True)
    (tmp_path / "assistant.zip").write_text("mine")
    for force in (False, True):
        with pytest.raises(InputError, match="is no zip, so it is left alone"):
            zipped.check_place(folder, force)


def test_a_folder_named_by_a_dot_has_its_own_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    assert zipped.place(Path(".")).resolve() == tmp_path / "assistant.zip"
    assert zipped.place(Path("../assistant")) == Path("../assistant.zip")
