"""Files read within limits, folders that appear whole or not at all, and what a file's bytes hash to."""

import hashlib
import json
import math
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgebert.errors import InputError

# The embedded model, and texts of this project's own.
ASSETS = Path(__file__).parent / "assets"

# A config or a manifest has some kilobytes; a hundred thousand labels fit into this.
JSON_BYTES = 8 << 20
# Of a JSON file: how deep the deepest that is read here nests is 8, and the longest number has 31 digits (1e30).
DEPTH, DIGITS = 50, 40
# Only a text with this in it can have a number beyond DIGITS or a float's range.
LONG_NUMBER = re.compile(rf"[0-9]{{{DIGITS + 1}}}|[0-9][eE]\+?[0-9]{{3}}")
CONTAINERS = (dict, list)


def is_file(path: Path) -> bool:
    """Whether a regular file stands there; `Path.is_file` with the answer to what it raises.

    Raises:
        InputError: the system does not tell, for want of permission above all.
    """
    found = _status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_folder(path: Path) -> bool:
    """Whether a folder stands there.

    Raises:
        InputError: the system does not tell.
    """
    found = _status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def check_file(path: Path, limit: int) -> int:
    """See that a library may be given a file to read: pipes and devices would keep it for ever.

    Returns:
        The file's size in bytes.

    Raises:
        InputError: there is no regular file, it cannot be read, or it has more than `limit` bytes.
    """
    found = _status(path)
    if found is None:
        raise InputError(f"{path.parent} has no {path.name}: give a folder that holds one.")
    if not stat.S_ISREG(found.st_mode):
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe, socket or device"
        raise InputError(f"{path} is a {kind}; a file is needed.")
    _check_size(path, found.st_size, limit)
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    return found.st_size


def _check_size(path: Path, size: int, limit: int) -> None:
    if size > limit:
        raise InputError(
            f"{path} has {size:,} bytes or more; at most {limit:,} are read of such a file: is it the right one?"
        )


def read(path: Path, limit: int) -> bytes:
    """A file's bytes.

    Raises:
        InputError: as `check_file`.
    """
    check_file(path, limit)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)  # a file of /proc has more than it says
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    _check_size(path, len(content), limit)
    return content


def read_json(path: Path, limit: int = JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InputError: as `read` and `parse_json`.
    """
    return parse_json(read(path, limit), path)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object, strictly: what parsers take differently, or cannot all hold, is refused.

    Args:
        content: UTF-8 without a byte order mark.
        path: where it came from, for messages.

    Raises:
        InputError: it is no JSON object, names a key twice, nests deeper than DEPTH, or has a number with more than
            DIGITS digits or beyond a float's range, or half a surrogate pair.
    """
    try:
        text = content.decode("utf-8")
        odd = LONG_NUMBER.search(text) is not None
        value = json.loads(
            text,
            object_pairs_hook=_each_once,
            parse_constant=_finite,
            parse_float=_finite if odd else None,
            parse_int=_whole if odd else None,
        )
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise InputError(f"{path} nests too deep for what it is; at most {DEPTH} levels are read.") from None
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}; copy it again.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}; a JSON object is needed.")
    level: list[Any] = [value]
    depth = 0
    while level := [
        inner
        for outer in level
        for inner in (outer.values() if isinstance(outer, dict) else outer)
        if isinstance(inner, CONTAINERS)
    ]:
        depth += 1
        if depth > DEPTH:
            raise InputError(f"{path} nests too deep for what it is; at most {DEPTH} levels are read.")
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen = set[str]()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.80} comes twice")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text:.40} is not a finite number")
    return number


def _whole(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"a number has {len(text)} digits, and {text[:10]}... is none that belongs here")
    return int(text)


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
