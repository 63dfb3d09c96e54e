"""A bundle as one file, to be sent to a phone, whose app opens it."""

import shutil
import zipfile
from pathlib import Path

from edgebert.errors import InputError
from edgebert.files import is_file, replaced

EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip can tell


def place(folder: Path) -> Path:
    """Where a bundle's zip stands: beside it."""
    final = folder.resolve() if folder.name in ("", "..") else folder
    return final.with_name(f"{final.name}.zip")


def check_place(folder: Path, force: bool) -> None:
    """Refuse what may not be replaced, before any work.

    Raises:
        InputError: something that is no zip, or may not be replaced, stands where the zip is to be.
    """
    path = place(folder)
    if not path.exists() and not path.is_symlink():
        return
    if not is_file(path) or not zipfile.is_zipfile(path):
        raise InputError(f"{path} exists and is no zip, so it is left alone: choose another --out.")
    if not force:
        raise InputError(f"{path} exists already: pass --force to replace it, or choose another --out.")


def write(folder: Path) -> Path:
    """Write a bundle's zip, with one folder in it; the same bundle gives the same bytes.

    Raises:
        InputError: the place cannot be written to.
    """
    path = place(folder)
    with replaced(path) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            info = zipfile.ZipInfo(f"{path.stem}/{file.relative_to(folder).as_posix()}", EPOCH)
            info.compress_type, info.create_system = zipfile.ZIP_DEFLATED, 0  # the same on every machine
            info.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return path
