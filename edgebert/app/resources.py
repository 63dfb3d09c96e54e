"""An APK's `resources.arsc`, whose package is given the application id.

Code and layouts find resources by number, and asking for one by its name takes the application id: both then agree.
The format is that of `ResourceTypes.h` in Android's frameworks/base; see `manifest.py` for its chunks.
"""

import struct

from edgebert.app.manifest import HEAD
from edgebert.errors import InputError

TABLE, PACKAGE = 0x0002, 0x0200
LONGEST = 127  # UTF-16 units of a package's name, which a zero ends


def patch(content: bytes, old: str, new: str) -> bytes:
    """Give the package of a name another one.

    Args:
        content: the file.
        old: the application id that it was built for; other packages are left alone.
        new: of up to LONGEST characters.

    Raises:
        InputError: it is no table of resources.
    """
    changed = bytearray(content)
    try:
        kind, at, size = HEAD.unpack_from(content)
        if kind != TABLE or size != len(content):
            raise IndexError
        while at < size:
            kind, _, length = HEAD.unpack_from(content, at)
            if length < HEAD.size or at + length > size:
                raise IndexError
            place = at + HEAD.size + 4  # behind the package's number
            name = content[place : place + 2 * (LONGEST + 1)].decode("utf-16-le", "replace").partition("\0")[0]
            if kind == PACKAGE and name == old:
                changed[place : place + 2 * (LONGEST + 1)] = new.encode("utf-16-le").ljust(2 * (LONGEST + 1), b"\0")
            at += length
    except (struct.error, IndexError):
        raise InputError("the template's resources.arsc is damaged: run make app again.") from None
    return bytes(changed)
