"""A stand-in for the built app: an APK with a binary manifest, resources and libraries of a few bytes.

It has what `edgebert app` reads and changes, and is written without the code that does so; Android's own tools see the
real one in tests/app/test_template.py.
"""

import struct
import zipfile
from pathlib import Path

PACKAGE = "dev.edgebert.app"
ANDROID = "http://schemas.android.com/apk/res/android"
# The numbers that Android knows these attributes by; `package` has none.
NUMBERS = {
    "versionName": 0x0101021C, "label": 0x01010001, "name": 0x01010003, "authorities": 0x01010018,
    "permission": 0x01010006, "process": 0x01010011, "exported": 0x01010010,
}  # fmt: skip
NONE = 0xFFFFFFFF
Value = str | int | tuple[str, int]  # a text, a number, or ("@", a resource's)
Element = tuple[str, dict[str, Value]]

ELEMENTS: list[Element] = [
    ("manifest", {"package": PACKAGE, "versionName": "1.0"}),
    ("permission", {"name": f"{PACKAGE}.READ"}),
    ("uses-permission", {"name": "android.permission.VIBRATE"}),
    ("application", {"name": ".App", "label": "edgebert", "process": f"{PACKAGE}.own"}),
    ("activity", {"name": f"{PACKAGE}.MainActivity", "label": "edgebert", "exported": 1}),
    ("activity", {"name": "Other", "label": "another"}),
    ("provider", {"name": ".Files", "authorities": f"{PACKAGE}.files;{PACKAGE}else;other.files",
                  "permission": f"{PACKAGE}.READ"}),
]  # fmt: skip


def chunk(kind: int, head: bytes, body: bytes = b"") -> bytes:
    """A chunk of Android's binary files: type, size of its header, size, and both parts."""
    return struct.pack("<HHI", kind, 8 + len(head), 8 + len(head) + len(body)) + head + body


def pool(strings: list[str], utf8: bool) -> bytes:
    """A pool of strings, sorted as it says or not."""
    data, places = b"", []
    for text in strings:
        places.append(len(data))
        if utf8:
            units = text.encode("utf-16-le")
            pairs = struct.unpack(f"<{len(units) // 2}H", units)
            # As Android's tools write it: each half of a surrogate pair for itself.
            encoded = b"".join(chr(unit).encode("utf-8", "surrogatepass") for unit in pairs)
            data += _size8(len(pairs)) + _size8(len(encoded)) + encoded + b"\0"
        else:
            units = text.encode("utf-16-le")
            data += struct.pack("<H", len(units) // 2) + units + b"\0\0"
    data += bytes(-len(data) % 4)
    start = 28 + 4 * len(places)
    head = struct.pack("<5I", len(places), 0, 256 if utf8 else 0, start, 0)
    return chunk(1, head, struct.pack(f"<{len(places)}I", *places) + data)


def _size8(size: int) -> bytes:
    return bytes([size]) if size < 128 else bytes([size >> 8 | 128, size & 255])


def manifest(elements: list[Element] = ELEMENTS, utf8: bool = False) -> bytes:
    """A binary manifest whose elements all stand side by side."""
    names = list(dict.fromkeys(name for _, attributes in elements for name in attributes if name in NUMBERS))
    texts = [value for _, attributes in elements for value in attributes.values() if isinstance(value, str)]
    others = ["package", "android", ANDROID, *(kind for kind, _ in elements), *texts]
    strings = [*names, *dict.fromkeys(other for other in others if other not in names)]
    place = {text: number for number, text in enumerate(strings)}
    body = chunk(0x0180, b"", struct.pack(f"<{len(names)}I", *(NUMBERS[name] for name in names)))
    body += chunk(0x0100, struct.pack("<2I", 1, NONE), struct.pack("<2I", place["android"], place[ANDROID]))
    for kind, attributes in elements:
        rows = b""
        for name, value in attributes.items():
            type_, data = (3, place[value]) if isinstance(value, str) else (16, value)
            if isinstance(value, tuple):
                type_, data = 1, value[1]
            space, raw = (place[ANDROID] if name in NUMBERS else NONE), (data if type_ == 3 else NONE)
            rows += struct.pack("<3IHBBI", space, place[name], raw, 8, 0, type_, data)
        head = struct.pack("<2I6H", NONE, place[kind], 20, 20, len(attributes), 0, 0, 0)
        body += chunk(0x0102, struct.pack("<2I", 1, NONE), head + rows)
        body += chunk(0x0103, struct.pack("<2I", 1, NONE), struct.pack("<2I", NONE, place[kind]))
    body += chunk(0x0101, struct.pack("<2I", 1, NONE), struct.pack("<2I", place["android"], place[ANDROID]))
    return chunk(3, b"", pool(strings, utf8) + body)


def resources(*packages: str) -> bytes:
    """A table of resources with packages that hold none."""
    held = b"".join(
        chunk(0x0200, struct.pack("<I", 0x7F - number) + name.encode("utf-16-le").ljust(256, b"\0") + bytes(20))
        for number, name in enumerate(packages)
    )
    return chunk(2, struct.pack("<I", len(packages)), pool(["a string"], utf8=True) + held)


def write(path: Path, libraries: tuple[str, ...] = ("libjnitensorflowlite.so",), **changed: bytes | None) -> Path:
    """Write the stand-in.

    Args:
        path: the APK.
        libraries: that it carries.
        changed: entries by `manifest` and `resources` that are others, or left out where None.
    """
    entries: dict[str, bytes | None] = {
        "AndroidManifest.xml": changed.get("manifest", manifest()),
        "resources.arsc": changed.get("resources", resources(PACKAGE)),
        "classes.dex": b"dex" * 1000,
        "META-INF/CERT.RSA": b"an older signature",
        "META-INF/services/x": b"kept",
        "assets/bundle/manifest.json": b"another bundle's",
        **{f"lib/arm64-v8a/{name}": name.encode() * 3000 for name in libraries},
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            stored = name.endswith((".so", ".arsc"))
            if content is not None:
                archive.writestr(name, content, zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
    return path
