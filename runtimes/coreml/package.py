"""An .mlpackage as it lies on disk: a folder with a manifest, a Core ML specification and a file of weights.

Nothing here trusts what it reads: a package may be cut short, changed in any bit, or made to lead out of its folder.
One that edgebert wrote carries a seal in its metadata, the SHA-256 of manifest, specification and weights.

Formats: https://apple.github.io/coremltools/mlmodel/index.html and, for the weights, the storage format of
https://github.com/apple/coremltools/tree/main/mlmodel/src/MILBlob/Blob.
"""

import hashlib
import importlib
import importlib.util
import json
import mmap
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from edgebert.errors import InputError
from edgebert.runtimes.session import EDITED, WHOLE

MANIFEST = "Manifest.json"
AUTHOR = "com.apple.CoreML"
MARK = "edgebert."
SEAL = f"{MARK}sha256"
BLANK = b"0" * 64  # what stands in the seal's place while the hash is taken

# A manifest lists two or three items; more bytes than this are no manifest.
MANIFEST_LIMIT = 2**20
SPEC_LIMIT = 2**31 - 1  # where a protobuf message ends

# The weight file: a header of 64 bytes, and one of 64 bytes for each tensor, little endian.
HEADER = struct.Struct("<II56x")  # count, version
ENTRY = struct.Struct("<IIQQQ32x")  # sentinel, type, bytes, offset, bits that pad the last byte
SENTINEL = 0xDEADBEEF
STORAGE_VERSION = 2
# The storage format's own numbers of types.
TYPES = {
    1: "float16", 2: "float32", 3: "uint8", 4: "int8", 5: "bfloat16", 6: "int16", 7: "uint16", 8: "int4", 9: "uint1",
    10: "uint2", 11: "uint4", 12: "uint3", 13: "uint6", 14: "int32", 15: "uint32",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Blob:
    """One tensor's bytes in a weight file."""

    dtype: str
    data: memoryview


@dataclass(frozen=True, slots=True)
class Package:
    """A package whose parts are there.

    Attributes:
        path: the folder.
        spec: the specification, a protobuf message `CoreML.Specification.Model`.
        root: folder of the specification, which names of weight files start from.
        file_bytes: size of everything that the manifest lists.
        seal: what its seal says of it, see `edgebert.runtimes.session.Facts`.
    """

    path: Path
    spec: Any
    root: Path
    file_bytes: int
    seal: str | None

    def blob(self, name: str, offset: int) -> Blob:
        """The tensor at an offset of a weight file such as `@model_path/weights/weight.bin`.

        Raises:
            InputError: the file, or what should stand at the offset, is not there.
        """
        below = PurePosixPath(name.removeprefix("@model_path/"))
        if not name.startswith("@model_path/") or below.is_absolute() or ".." in below.parts:
            raise InputError(f"{self.path} leads to weights outside its folder, {name!r}; that is never read.")
        data = _mapped(_inside(self.path, self.root / below))
        if len(data) < HEADER.size or HEADER.unpack_from(data)[1] != STORAGE_VERSION:
            raise InputError(f"{self.path}: {below} is no weight file of version {STORAGE_VERSION}: export it again.")
        if not 0 < offset <= len(data) - ENTRY.size:
            raise InputError(f"{self.path}: {below} has no weight at byte {offset}: it is cut short, or changed.")
        sentinel, kind, size, start, _ = ENTRY.unpack_from(data, offset)
        if sentinel != SENTINEL or kind not in TYPES or size > len(data) - start or start < HEADER.size:
            raise InputError(f"{self.path}: {below} has no whole weight at byte {offset}: it is cut short, or changed.")
        return Blob(TYPES[kind], data[start : start + size])


def schema(name: str) -> ModuleType:
    """One of coremltools' generated protobuf modules, such as `Model_pb2`.

    They are imported from where they lie, for coremltools itself imports torch, scikit-learn and all its converters:
    ten seconds, and a dozen lines of warnings.
    """
    alias = "edgebert_coreml_schema"
    if alias not in sys.modules:
        found = importlib.util.find_spec("coremltools")
        assert found is not None, "callers ask missing() first"
        package = ModuleType(alias)
        package.__path__ = [str(Path(place) / "proto") for place in found.submodule_search_locations or ()]
        sys.modules[alias] = package
    return importlib.import_module(f"{alias}.{name}")


def read(path: Path) -> Package:
    """Read a package's manifest and specification, and look at its seal.

    Raises:
        InputError: it is no package, or lacks a part.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; an .mlpackage is one.")
    manifest = _bytes(path / MANIFEST, MANIFEST_LIMIT)
    files = _listed(path, manifest)
    raw = _bytes(files[0], SPEC_LIMIT)
    try:
        spec = schema("Model_pb2").Model.FromString(raw)
    except Exception as error:  # protobuf's DecodeError, or what a hostile message makes Python raise
        raise InputError(
            f"{path}: {files[0].name} is no Core ML specification, or is cut short ({type(error).__name__})."
        ) from None
    if spec.WhichOneof("Type") is None:
        raise InputError(f"{path}: {files[0].name} holds no model: it is cut short, or changed.")
    size = len(manifest) + sum(file.stat().st_size for file in files)
    return Package(path, spec, files[0].parent, size, _read_seal(raw, manifest, files[1:]))


def seal(path: Path) -> None:
    """Write the seal into a package whose specification has a blank one."""
    manifest = _bytes(path / MANIFEST, MANIFEST_LIMIT)
    files = _listed(path, manifest)
    raw = files[0].read_bytes()
    place = _seal_place(raw)
    assert place is not None, "the metadata has a blank seal"
    digest = _digest(raw, place, manifest, files[1:])
    files[0].write_bytes(raw[:place] + digest + raw[place + len(BLANK) :])


def _seal_place(raw: bytes) -> int | None:
    """Where the seal's 64 digits start in a specification."""
    # A map entry of strings: the key, then the value's tag 0x12 and its length.
    key = SEAL.encode() + b"\x12" + bytes([len(BLANK)])
    start = raw.find(key) + len(key)
    return start if start >= len(key) and start + len(BLANK) <= len(raw) else None


def _digest(raw: bytes, place: int, manifest: bytes, others: list[Path]) -> bytes:
    """SHA-256 of all parts, the seal blank, in hex; each part's length goes before it."""
    digest = hashlib.sha256()
    parts: list[bytes | memoryview] = [raw[:place], BLANK, raw[place + len(BLANK) :], manifest]
    for part in (*parts, *(_mapped(file) for file in others)):
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return digest.hexdigest().encode()


def _read_seal(raw: bytes, manifest: bytes, others: list[Path]) -> str | None:
    """What a package's seal says; None for one of another tool's, which has none."""
    place = _seal_place(raw)
    if place is None:
        # A seal that was lost to a changed bit leaves the other entries' marks behind.
        return EDITED if MARK.encode() in raw else None
    return WHOLE if raw[place : place + len(BLANK)] == _digest(raw, place, manifest, others) else EDITED


def _listed(path: Path, manifest: bytes) -> list[Path]:
    """Every file that a manifest lists, those of its folders too; the specification comes first."""
    try:
        said = json.loads(manifest)
        entries, root = said["itemInfoEntries"], said["rootModelIdentifier"]
        places = {key: PurePosixPath(entry["path"]) for key, entry in entries.items()}
        first = places[root]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path / MANIFEST} is no package's manifest ({type(error).__name__}): export it again."
        ) from None
    files = []
    for place in (first, *sorted(place for key, place in places.items() if key != root)):
        if place.is_absolute() or ".." in place.parts or "\0" in str(place):
            raise InputError(f"{path / MANIFEST} leads outside the package, to {str(place)!r}; that is never read.")
        files += sorted(_walk(_inside(path, path / "Data" / place)))
    if not _inside(path, path / "Data" / first).is_file():
        raise InputError(f"{path}: {first} is not a file: copy the whole package, or export it again.")
    return files


def _walk(place: Path) -> Iterator[Path]:
    """A file itself, or every file below a folder."""
    if place.is_dir():
        for folder, _, names in os.walk(place):
            yield from (Path(folder) / name for name in names)
    else:
        yield place


def _inside(package: Path, place: Path) -> Path:
    """A place that exists and, its links followed, is inside the package."""
    try:
        real = place.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise InputError(
            f"{package} has no {place.name}, which it refers to: copy the whole package, or export it again."
        ) from None
    if not real.is_relative_to(package.resolve()):
        raise InputError(f"{package} leads outside its folder, to {place.name!r}; that is never read.")
    return place


def _bytes(file: Path, limit: int) -> bytes:
    """A file's bytes."""
    try:
        if not file.is_file():
            raise InputError(f"{file} is not a file: copy the whole package, or export it again.")
        if file.stat().st_size > limit:
            raise InputError(f"{file} has {file.stat().st_size} bytes; at most {limit} are read.")
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None


def _mapped(file: Path) -> memoryview:
    """A file's bytes without reading them yet; what is written there stays in memory."""
    try:
        if not file.is_file():  # a pipe would wait for ever
            raise InputError(f"{file} is not a file.")
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                return memoryview(b"")
            # Private pages and not read-only ones: torch warns of arrays that it may not write to.
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}.") from None
