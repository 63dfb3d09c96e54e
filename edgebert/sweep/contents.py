"""Models and texts by what they are: a worker gets them once, whatever the place that they have on another machine."""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgebert.errors import InputError
from edgebert.files import cache, is_file, sha256

DEFAULT = "default"
# Of a checkpoint's folder what stands beside its weights, and how large such a file is at most, in bytes.
BESIDE, LARGEST = frozenset({".json", ".txt", ".model", ".md"}), 1 << 26
SHARDS = {".safetensors": "*.safetensors", ".bin": "*.bin", ".h5": "*.h5"}


@dataclass(frozen=True, slots=True)
class Content:
    """A folder or file.

    Attributes:
        sha256: of its files and their names; of what needs none, as a preset, its own name.
        path: where it stands on the machine that asks; None where it needs none.
    """

    sha256: str
    path: str | None = None


def of_model(name: str, random_init: bool, presets: frozenset[str]) -> Content:
    """What a model's name stands for.

    Raises:
        InputError: there is no such folder, and none that the hub has.
    """
    from edgebert.checkpoints.read import WEIGHT_FILES, locate  # brings torch, which workers do without

    if name == DEFAULT or (name in presets and not Path(name).is_dir()):
        return Content(name)
    folder = locate(name)
    paths = list(_files(folder))
    if not random_init and not any(path.suffix in SHARDS for path in paths):
        raise InputError(f"{folder} has none of {', '.join(WEIGHT_FILES)}.")
    return Content(_digest(folder, paths), str(folder.resolve()))


def of_file(path: Path) -> Content:
    """What a file holds."""
    if not is_file(path):
        raise InputError(f"{path} is no file.")
    return Content(sha256(path), str(path.resolve()))


def _files(folder: Path) -> Iterator[Path]:
    """What a checkpoint is read from: its weights in the form that is read, and small files beside them."""
    from edgebert.checkpoints.read import WEIGHT_FILES

    kind = next((Path(name.removesuffix(".index.json")).suffix for name in WEIGHT_FILES if is_file(folder / name)), "")
    for path in sorted(folder.rglob("*")):
        small = path.suffix in BESIDE and is_file(path) and path.stat().st_size <= LARGEST
        if len(path.relative_to(folder).parts) <= 2 and (small or (kind and path.match(SHARDS[kind]))):
            yield path


def _digest(folder: Path, paths: list[Path]) -> str:
    whole = hashlib.sha256()
    for path in paths:
        whole.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return whole.hexdigest()


def pack(content: Content) -> bytes:
    """A folder or file as it travels: a tar archive."""
    assert content.path is not None
    place, packed = Path(content.path), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        for path in _files(place) if place.is_dir() else [place]:
            archive.add(path, path.relative_to(place).as_posix() if place.is_dir() else FILE)
    return packed.getvalue()


FILE = "content"  # the name of a file that travels alone


def kept() -> Path:
    """Where what travelled is kept."""
    return cache("sweep")


def unpack(digest: str, packed: bytes) -> None:
    """Keep what travelled, unless it is there already."""
    place = kept() / digest
    if place.exists():
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f"{digest}.{os.getpid()}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(beside, filter="data")
    try:
        beside.rename(place)
    except OSError:  # another worker of this machine was first
        shutil.rmtree(beside)


def place(content: Content) -> Path | None:
    """Where a worker finds it: as it travelled, or where the machine that asks has it; None where it needs none."""
    if content.path is None:
        return None
    arrived = kept() / content.sha256
    if arrived.exists():
        return arrived / FILE if (arrived / FILE).is_file() else arrived
    if Path(content.path).exists():
        return Path(content.path)
    raise InputError(f"{content.path} is not on this machine, and did not travel here: start the sweep again.")
