"""APK Signature Scheme v2: a block between a zip's entries and its directory, with the digests of both, signed.

Android knows it from version 7 on, the oldest that the app runs on, and needs no other. Told at
source.android.com/docs/security/features/apksigning/v2. All numbers are little-endian; `_sized` puts a u32 length
first.
"""

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from edgebert.app.key import Key

MAGIC, SCHEME = b"APK Sig Block 42", 0x7109871A
END = struct.Struct("<4s4H2IH")  # the end of a zip's directory, without a comment
CHUNK = 1 << 20


def sign(path: Path, key: Key) -> None:
    """Sign a zip in its place; it has no comment and no such block yet."""
    with path.open("r+b") as file:
        file.seek(-END.size, 2)
        end = file.read()
        size, start = END.unpack(end)[5:7]
        file.seek(start)
        directory = file.read(size)
        block = _block(_digest(file, start, directory, end, key.digest), key)
        file.seek(start)
        file.write(block + directory + end[:16] + struct.pack("<I", start + len(block)) + end[20:])


def _digest(file: IO[bytes], start: int, directory: bytes, end: bytes, algorithm: str) -> bytes:
    """The digest over those of all chunks of entries, directory and end, the last as if there were no block."""
    file.seek(0)
    chunks = [
        hashlib.new(algorithm, b"\xa5" + struct.pack("<I", len(chunk)) + chunk).digest()
        for chunk in (*_chunks(file, start), *_cut(directory), *_cut(end))
    ]
    return hashlib.new(algorithm, b"\x5a" + struct.pack("<I", len(chunks)) + b"".join(chunks)).digest()


def _chunks(file: IO[bytes], size: int) -> Iterator[bytes]:
    for at in range(0, size, CHUNK):
        yield file.read(min(CHUNK, size - at))


def _cut(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), CHUNK):
        yield data[at : at + CHUNK]


def _block(digest: bytes, key: Key) -> bytes:
    algorithm = struct.pack("<I", key.algorithm)
    digests = _sized(_sized(algorithm + _sized(digest)))
    signed = digests + _sized(_sized(key.certificate)) + _sized(b"")
    signatures = _sized(_sized(algorithm + _sized(key.sign(signed))))
    signer = _sized(signed) + signatures + _sized(key.public)
    pair = struct.pack("<I", SCHEME) + _sized(_sized(signer))
    pairs = struct.pack("<Q", len(pair)) + pair
    size = struct.pack("<Q", len(pairs) + 8 + len(MAGIC))
    return size + pairs + size + MAGIC


def _sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data
