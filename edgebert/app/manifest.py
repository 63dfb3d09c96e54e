"""An APK's `AndroidManifest.xml` in its binary form, given another application id, label and version.

The format is that of `ResourceTypes.h` in Android's frameworks/base: chunks, each led by u16 type, u16 size of its
header and u32 size. A pool of strings, ids of the attributes' names, and then the elements, whose names and values are
places in the pool. New strings are put behind the old ones, so that no place changes. All numbers are little-endian.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from edgebert.errors import InputError

XML, POOL, ELEMENT = 0x0003, 0x0001, 0x0102
UTF8 = 1 << 8  # a pool's flag
TEXT = 0x03  # the type of a value that is a string
HEAD = struct.Struct("<HHI")
FIELDS = struct.Struct("<3I3xBI")  # an attribute: namespace, name, raw value, then the type of its value and that

# Attributes whose values name something that only one app on a phone may have, and elements whose name is such.
OWN = ("authorities", "permission", "readPermission", "writePermission", "process", "taskAffinity", "targetPackage")
PERMISSIONS = ("permission", "permission-group", "permission-tree", "uses-permission")
# Attributes that name classes, and elements whose name is one; Android completes short ones by the application id.
CLASSES = ("targetActivity", "parentActivityName", "backupAgent", "appComponentFactory", "manageSpaceActivity")
COMPONENTS = ("application", "activity", "activity-alias", "service", "receiver", "provider", "instrumentation")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of an element.

    Attributes:
        element, name: what it is called.
        value: type and data, as they stand there.
        text: the value; None where it is a number or points to a resource.
        at: where it stands among the elements' bytes.
    """

    element: str
    name: str
    value: tuple[int, int]
    text: str | None
    at: int


def patch(content: bytes, application: str, label: str, version: str) -> tuple[bytes, str]:
    """Give a manifest another application id, label and version name.

    Returns:
        The manifest, and the application id that it had.

    Raises:
        InputError: it is no binary manifest, or has none of the three.
    """
    try:
        strings, rest = _split(content)
        found = list(_attributes(strings, rest))
    except (struct.error, IndexError, UnicodeDecodeError):
        raise InputError("the template's AndroidManifest.xml is damaged: run make app again.") from None
    told = {(one.element, one.name): one for one in found}
    for wanted in (("manifest", "package"), ("manifest", "versionName"), ("application", "label")):
        if wanted not in told:
            raise InputError(f"the template's manifest has no {' '.join(wanted)}: run make app again.")
    old, named = told["manifest", "package"].text or "", told["application", "label"].value
    changed = bytearray(rest)
    for one in found:
        value = _value(one, old, application)
        if one.name == "label" and one.value == named:
            value = label
        elif (one.element, one.name) == ("manifest", "versionName"):
            value = version
        if value is not None and value != one.text:
            place = _place(strings, value)
            struct.pack_into("<IHBBI", changed, one.at + 8, place, 8, 0, TEXT, place)
    body = _pool(strings) + bytes(changed)
    return HEAD.pack(XML, HEAD.size, HEAD.size + len(body)) + body, old


def _value(one: Attribute, old: str, new: str) -> str | None:
    """What an attribute is to say in an app of another id; None where it stays."""
    if one.text is None:
        return None
    if (one.element, one.name) == ("manifest", "package"):
        return new
    if one.name in OWN or (one.name == "name" and one.element in PERMISSIONS):
        return ";".join(
            new + part.removeprefix(old) if part == old or part.startswith(f"{old}.") else part
            for part in one.text.split(";")
        )
    if one.name in CLASSES or (one.name == "name" and one.element in COMPONENTS):
        short = one.text.startswith(".") or "." not in one.text
        return f"{old}.{one.text.removeprefix('.')}" if short else one.text
    return None


def _split(content: bytes) -> tuple[list[str], bytes]:
    """The strings of the pool, and everything behind it.

    Raises:
        struct.error, IndexError, UnicodeDecodeError: the content is damaged.
    """
    kind, head, size = HEAD.unpack_from(content)
    pool, _, pool_size = HEAD.unpack_from(content, head)
    if kind != XML or pool != POOL or size != len(content) or head + pool_size > size:
        raise IndexError
    return _strings(content[head : head + pool_size]), content[head + pool_size :]


def _strings(pool: bytes) -> list[str]:
    count, styles, flags, start, _ = struct.unpack_from("<5I", pool, HEAD.size)
    if styles:
        raise IndexError  # a manifest has no text with styles
    places = struct.unpack_from(f"<{count}I", pool, HEAD.unpack_from(pool)[1])
    return [(_utf8 if flags & UTF8 else _utf16)(pool, start + place) for place in places]


def _utf16(pool: bytes, at: int) -> str:
    """u16 number of units, or two with the first's highest bit set, then the units."""
    (units,) = struct.unpack_from("<H", pool, at)
    if units & 0x8000:
        units = (units & 0x7FFF) << 16 | struct.unpack_from("<H", pool, at + 2)[0]
        at += 2
    return pool[at + 2 : at + 2 + 2 * units].decode("utf-16-le")


def _utf8(pool: bytes, at: int) -> str:
    """The numbers of UTF-16 units and of bytes, of one or two bytes each, then the bytes, maybe with surrogates."""
    at += 2 if pool[at] & 0x80 else 1
    size = pool[at]
    if size & 0x80:
        size = (size & 0x7F) << 8 | pool[at + 1]
        at += 1
    text = pool[at + 1 : at + 1 + size].decode("utf-8", "surrogatepass")
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def _pool(strings: list[str]) -> bytes:
    """A pool in UTF-16, which holds any text; not said to be sorted."""
    data, places = bytearray(), []
    for text in strings:
        places.append(len(data))
        encoded = text.encode("utf-16-le")
        units = len(encoded) // 2
        size = struct.pack("<H", units) if units < 0x8000 else struct.pack("<2H", units >> 16 | 0x8000, units & 0xFFFF)
        data += size + encoded + bytes(2)
    data += bytes(-len(data) % 4)
    start = HEAD.size + 20 + 4 * len(places)
    head = HEAD.pack(POOL, HEAD.size + 20, start + len(data))
    return head + struct.pack(f"<5I{len(places)}I", len(places), 0, 0, start, 0, *places) + bytes(data)


def _place(strings: list[str], text: str) -> int:
    """Where a text stands in the pool, to whose end it is put where it stands nowhere."""
    # Names of attributes come first, in the order of their ids, and are found by their place: they are not touched.
    if text not in strings:
        strings.append(text)
    return strings.index(text)


def _attributes(strings: list[str], rest: bytes) -> Iterator[Attribute]:
    """The attributes of all elements."""
    at = 0
    while at < len(rest):
        kind, head, size = HEAD.unpack_from(rest, at)
        if size < HEAD.size or at + size > len(rest):
            raise IndexError
        if kind == ELEMENT:
            # namespace, name, start and size of attributes, and their number
            _, name, start, each, count = struct.unpack_from("<2I3H", rest, at + head)
            for number in range(count):
                place = at + head + start + number * each
                _, own, _, type_, data = FIELDS.unpack_from(rest, place)
                text = strings[data] if type_ == TEXT else None
                yield Attribute(strings[name], strings[own], (type_, data), text, place)
        at += size
