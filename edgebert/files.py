"""Folders that appear whole or not at all, and what a file's bytes hash to."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgebert.errors import InputError

# The embedded model, and texts of this project's own.
ASSETS = Path(__file__).parent / "assets"


@contextmanager
def new_folder(final: Path, force: bool, ours: str) -> Iterator[Path]:
    """Give a folder to write into, and move it to `final` when the block ends well; else leave nothing behind.

    Args:
        final: where the folder is to stand. Its parents are made.
        force: replace a folder that is there already.
        ours: a file name that proves that a folder there is one of ours; nothing else is ever replaced.

    Raises:
        InputError: something stands at `final` and may not be replaced.
    """
    final = Path(os.path.abspath(final))
    if final.exists() or final.is_symlink():
        if not final.is_dir() or (any(final.iterdir()) and not (final / ours).is_file()):
            raise InputError(f"{final} exists and holds no {ours}, so it is left alone: choose another --out.")
        if any(final.iterdir()) and not force:
            raise InputError(f"{final} exists already: pass --force to replace it, or choose another --out.")
    final.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that the move is a rename on one file system.
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent))
    try:
        staging.chmod(0o755)
        yield staging
        _swap(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Give a file to write beside its place, and move it to `path` when the block ends well; else leave nothing behind.

    The file keeps the ending, which tells some writers what to write.

    Raises:
        InputError: the place cannot be written to.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.absolute().parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    beside = Path(name)
    try:
        beside.chmod(0o644)
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        beside.unlink(missing_ok=True)


def _swap(staging: Path, final: Path) -> None:
    """Put `staging` in the place of `final`; on failure the old folder is back."""
    if not final.exists():
        staging.rename(final)
        return
    old = staging.with_suffix(".old")
    final.rename(old)
    try:
        staging.rename(final)
    except BaseException:
        old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)


def sha256(*paths: Path) -> str:
    """The SHA-256 of the files' bytes, one after the other, in hex."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def peak_memory() -> int | None:
    """The most memory, in bytes, that this process held at once; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB
