"""The zip that an APK is: entries in a fixed order, dated alike, and aligned where Android maps them.

A phone maps what is stored uncompressed straight from the APK: libraries and models have to begin at a page, of 16 KiB
on newer phones, and the table of resources at a word.
"""

import io
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PAGE, WORD = 16384, 4
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip can tell
ALIGNMENT = 0xD935  # the id of Android's own extra field for it: u16 alignment, then zeros


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an APK.

    Attributes:
        name: its path in the APK.
        content: its bytes, or the file that holds them.
        alignment: a multiple of which it begins at, stored; None for one that is compressed.
    """

    name: str
    content: bytes | Path
    alignment: int | None


def write(path: Path, entries: list[Entry]) -> None:
    """Write the entries, sorted by name; the same entries give the same bytes."""
    with path.open("wb") as file, zipfile.ZipFile(file, "w", compresslevel=9) as archive:
        for entry in sorted(entries, key=lambda one: one.name):
            info = zipfile.ZipInfo(entry.name, EPOCH)
            info.create_system = 0  # the same on every machine
            info.compress_type = zipfile.ZIP_DEFLATED if entry.alignment is None else zipfile.ZIP_STORED
            if entry.alignment is not None:
                info.extra = _padding(file.tell() + 30 + len(entry.name.encode()), entry.alignment)
            with _opened(entry.content) as (source, size):
                info.file_size = size
                with archive.open(info, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)


def _padding(at: int, alignment: int) -> bytes:
    """An extra field that makes what follows a header which ends at a place begin at a multiple."""
    head = 6
    return (
        ALIGNMENT.to_bytes(2, "little")
        + (2 + -(at + head) % alignment).to_bytes(2, "little")
        + alignment.to_bytes(2, "little")
        + bytes(-(at + head) % alignment)
    )


@contextmanager
def _opened(content: bytes | Path) -> Iterator[tuple[IO[bytes], int]]:
    """A content to be read, and its size."""
    if isinstance(content, bytes):
        yield io.BytesIO(content), len(content)
    else:
        with content.open("rb") as file:
            yield file, content.stat().st_size
