"""Files read within limits, folders that appear whole or not at all, and what a file's bytes hash to."""

import ctypes
import errno
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
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


def cache(name: str) -> Path:
    """Where something of that name is kept from run to run: below $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgebert" / name


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
    value = _parsed(content, path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}; a JSON object is needed.")
    return value


def parse_json_list(content: bytes, path: Path) -> list[Any]:
    """A JSON list, as strictly as `parse_json`, which says what is raised."""
    value = _parsed(content, path)
    if not isinstance(value, list):
        raise InputError(f"{path} holds a {type(value).__name__}; a JSON list is needed.")
    return value


def _parsed(content: bytes, path: Path) -> Any:
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
    level: list[Any] = [value] if isinstance(value, CONTAINERS) else []
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


# Signals that ask a process to end; Windows has no SIGHUP.
INTERRUPTS = tuple(number for number in signal.Signals if number.name in {"SIGINT", "SIGTERM", "SIGHUP"})
Handler = Callable[[int, FrameType | None], object]


@contextmanager
def new_folder(final: Path, force: bool, ours: str) -> Iterator[Path]:
    """Give a folder to write into, and move it to `final` when the block ends well; else leave nothing behind.

    At every moment the old folder or the new one stands at `final`, whole. Only one process at a time makes a folder
    for a place; it clears away first what a killed one left beside it. What appears at `final` while the block runs is
    left alone, unless it is one of ours and `force` is given: the new folder is then kept beside it.

    Args:
        final: where the folder is to stand; a link is followed. Its parents are made.
        force: replace a folder that is there already.
        ours: a file name that proves that a folder there is one of ours; nothing else is ever replaced.

    Raises:
        InputError: something stands at `final`, or appeared there, and may not be replaced, or another process makes a
            folder for the same place.
    """
    final = Path(os.path.realpath(final))
    if final.is_mount():
        raise InputError(f"{final} is where a file system is mounted, so no folder moves there: choose one in it.")
    final.parent.mkdir(parents=True, exist_ok=True)
    with _workshop(final) as work:
        check_folder(final, force, ours)
        made = work / NEW
        made.mkdir()
        yield made
        with interrupts(put_off=True):
            _place(made, final, force, ours)


def check_folder(final: Path, force: bool, ours: str) -> None:
    """Refuse what `new_folder` may not replace, before any work; see there for what it takes and raises."""
    final = Path(os.path.realpath(final))
    if not os.path.lexists(final) or _is_empty(final):
        return
    if not _is_ours(final, ours):
        raise InputError(f"{final} exists and holds no {ours}, so it is left alone: choose another --out.")
    if not force:
        raise InputError(f"{final} exists already: pass --force to replace it, or choose another --out.")


def _is_ours(folder: Path, ours: str) -> bool:
    return not folder.is_symlink() and (folder / ours).is_file()


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def _place(made: Path, final: Path, force: bool, ours: str) -> None:
    """Move a finished folder to its place, or beside it where something stands there that is to stay."""
    try:
        made.rename(final)  # takes the place of nothing or of an empty folder, and of nothing else
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR} or not os.path.lexists(final):
            raise
    else:
        return
    why = "appeared meanwhile and is left alone"
    if force and _is_ours(final, ours):
        try:
            swap(made, final)
            return
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            why = "is part of a container's image, whose folders cannot be moved: remove it"
    spare = _spare(final)
    made.rename(spare)
    raise InputError(f"{final} {why}; what was made is whole, and is in {spare}.")


def _spare(final: Path) -> Path:
    """A new empty folder beside a place: `out-2` of `out`."""
    for number in itertools.count(2):
        with suppress(FileExistsError):
            spare = final.with_name(f"{final.name}-{number}")
            spare.mkdir()
            break
    return spare


# What stands in a workshop: the lock of who works there, what is made, and what a swap in several steps moves aside.
LOCK, NEW, ASIDE = "lock", "new", "new.aside"


@contextmanager
def _workshop(final: Path) -> Iterator[Path]:
    """A folder beside a place, on the same file system, for one process at a time; it is gone afterwards."""
    work = final.with_name(f".{final.name}.part")
    lock = _locked(work, final)
    try:
        if (work / ASIDE).exists() and not os.path.lexists(final):
            (work / ASIDE).rename(final)  # killed between the steps of a swap
        _clear(work)
        yield work
    finally:
        with interrupts(put_off=True):
            _clear(work)
            # In this order, and the folder only if it is empty: who comes next may have made its own lock in it by now.
            with suppress(OSError):
                (work / LOCK).unlink()
                work.rmdir()
            os.close(lock)


def _clear(work: Path) -> None:
    for name in (NEW, ASIDE):
        shutil.rmtree(work / name, ignore_errors=True)


def _locked(work: Path, final: Path) -> int:
    """Lock a workshop, which is made where there is none; gives the lock's descriptor.

    The system lets go of the lock of a process that ends, however it ends.
    """
    import fcntl  # not on Windows

    while True:
        with suppress(FileExistsError):  # of one that is just being removed Path.mkdir makes an error
            os.mkdir(work)
        try:
            # A file and not the folder: over NFS a lock needs something that is open to be written.
            lock = os.open(work / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # whose it was has just removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(work / LOCK)):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise InputError(
                f"another edgebert is writing {final}: wait until it is done, or choose another --out."
            ) from None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # of a workshop that was removed between the two calls


def swap(made: Path, place: Path) -> None:
    """Put one folder in the place of another, which is then where the first one was; at no moment is there neither.

    Args:
        made: a folder.
        place: where it is to stand; where nothing does, it is moved there.
    """
    if not os.path.lexists(place):
        made.rename(place)
    elif not _exchanged(made, place):
        # Some file systems, such as NFS, exchange no names. A polite kill waits for these steps (see
        # `interrupts`); after any other what was moved aside is put back when the next folder is made for this place.
        aside = made.with_name(f"{made.name}.aside")
        place.rename(aside)
        try:
            made.rename(place)
        except BaseException:
            aside.rename(place)
            raise
        aside.rename(made)


# From Linux' fcntl.h and fs.h, and macOS' stdio.h.
AT_FDCWD, RENAME_EXCHANGE, RENAME_SWAP = -100, 2, 2


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system has no call for it."""
    if sys.platform == "win32":
        return False
    library, names = ctypes.CDLL(None, use_errno=True), (os.fsencode(one), os.fsencode(other))
    if hasattr(library, "renameat2"):
        failed = library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    elif hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, RENAME_SWAP)
    else:
        return False
    number = ctypes.get_errno()
    if failed and number not in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
        raise OSError(number, os.strerror(number), str(other))
    return not failed


@contextmanager
def interrupts(put_off: bool) -> Iterator[list[int]]:
    """Note the interrupts that come while the block runs: Ctrl-C, a polite kill, a terminal that is closed.

    Args:
        put_off: raise them when the block has ended, and not in the middle of it.

    Returns:
        The numbers of the signals that came. None come where no handler of Python's is set for them, and none outside
        the main thread.
    """
    came: list[int] = []
    kept: dict[int, Handler] = {}

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if not put_off:
            kept[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for interrupt in INTERRUPTS:
            handler = signal.getsignal(interrupt)
            if callable(handler):
                kept[interrupt] = handler
                signal.signal(interrupt, note)
    try:
        yield came
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        for number in came if put_off else ():
            kept[number](number, None)


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
