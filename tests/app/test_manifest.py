"""Binary manifests and tables of resources with another id and label, read back by a reader of the tests' own."""

import struct

import pytest
import templates
from templates import NUMBERS, PACKAGE

from edgebert.app import manifest, resources
from edgebert.errors import InputError

OWN, LABEL, VERSION = "org.example.helper", "Aðstoð 助手 👩\u200d🚀", "0.1.0 abcd"
Told = list[tuple[str, dict[str, str | int | None]]]


def elements(content: bytes) -> Told:
    """Each element with its attributes; a value that is no text is its number. Written for texts in UTF-16 alone."""
    kind, _, size = struct.unpack_from("<HHI", content)
    assert (kind, size) == (3, len(content))
    count, styles, flags, start, _ = struct.unpack_from("<5I", content, 16)
    assert (styles, flags) == (0, 0)
    (whole,) = struct.unpack_from("<I", content, 12)
    assert whole % 4 == 0
    strings = []
    for place in struct.unpack_from(f"<{count}I", content, 36):
        at = 8 + start + place
        (units,) = struct.unpack_from("<H", content, at)
        assert units < 0x8000
        assert content[at + 2 + 2 * units : at + 4 + 2 * units] == b"\0\0"
        strings.append(content[at + 2 : at + 2 + 2 * units].decode("utf-16-le"))
    numbers = dict(zip(strings, NUMBERS, strict=False))
    assert all(name in strings for name in numbers)
    found: Told = []
    at = 8 + whole
    while at < len(content):
        kind, _, size = struct.unpack_from("<HHI", content, at)
        if kind == 0x0180:
            told = struct.unpack_from(f"<{size // 4 - 2}I", content, at + 8)
            assert [NUMBERS[name] for name in strings[: len(told)]] == list(told)
        if kind == 0x0102:
            name, attributes = struct.unpack_from("<I", content, at + 20)[0], {}
            for number in range(struct.unpack_from("<H", content, at + 28)[0]):
                _, key, raw, _, _, type_, data = struct.unpack_from("<3IHBBI", content, at + 36 + 20 * number)
                assert (raw == data) == (type_ == 3)
                attributes[strings[key]] = strings[data] if type_ == 3 else data
            found.append((strings[name], attributes))
        at += size
    return found


@pytest.mark.parametrize("utf8", [False, True], ids=["utf-16", "utf-8"])
def test_what_names_the_app_is_another_and_nothing_else(utf8: bool) -> None:
    changed, old = manifest.patch(templates.manifest(utf8=utf8), OWN, LABEL, VERSION)
    assert old == PACKAGE
    assert elements(changed) == [
        ("manifest", {"package": OWN, "versionName": VERSION}),
        ("permission", {"name": f"{OWN}.READ"}),
        ("uses-permission", {"name": "android.permission.VIBRATE"}),
        ("application", {"name": f"{PACKAGE}.App", "label": LABEL, "process": f"{OWN}.own"}),
        ("activity", {"name": f"{PACKAGE}.MainActivity", "label": LABEL, "exported": 1}),
        ("activity", {"name": f"{PACKAGE}.Other", "label": "another"}),
        (
            "provider",
            {
                "name": f"{PACKAGE}.Files",
                "authorities": f"{OWN}.files;{PACKAGE}else;other.files",
                "permission": f"{OWN}.READ",
            },
        ),
    ]


def test_a_label_that_is_a_resource_becomes_a_text() -> None:
    given = [("manifest", {"package": PACKAGE, "versionName": "1"}), ("application", {"label": ("@", 0x7F010000)})]
    changed, _ = manifest.patch(templates.manifest(given), OWN, LABEL, VERSION)
    assert elements(changed)[1] == ("application", {"label": LABEL})


def test_texts_of_any_length_are_read_in_both_encodings() -> None:
    long = "x" * 300 + "é" * 300
    given = [
        ("manifest", {"package": PACKAGE, "versionName": "1"}),
        ("application", {"label": "a", "name": f"a.{long}"}),
    ]
    for utf8 in (False, True):
        changed, _ = manifest.patch(templates.manifest(given, utf8), OWN, LABEL, VERSION)
        assert elements(changed)[1][1]["name"] == f"a.{long}"


def test_the_same_name_again_changes_no_text() -> None:
    changed, _ = manifest.patch(templates.manifest(), PACKAGE, "edgebert", "1.0")
    again, _ = manifest.patch(changed, PACKAGE, "edgebert", "1.0")
    assert changed == again


@pytest.mark.parametrize("lacking", ["package", "versionName", "label"])
def test_a_manifest_that_lacks_a_name_is_refused(lacking: str) -> None:
    given = [(kind, {name: v for name, v in attributes.items() if name != lacking})
             for kind, attributes in templates.ELEMENTS[:4]]  # fmt: skip
    with pytest.raises(InputError, match=lacking):
        manifest.patch(templates.manifest(given), OWN, LABEL, VERSION)


def test_every_cut_of_a_manifest_is_refused() -> None:
    whole = templates.manifest()
    for size in range(0, len(whole), 7):
        with pytest.raises(InputError, match="run make app again"):
            manifest.patch(whole[:size], OWN, LABEL, VERSION)


def test_damaged_manifests_are_refused_or_read_but_never_crash() -> None:
    whole = templates.manifest()
    refused = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        try:
            manifest.patch(bytes(damaged), OWN, LABEL, VERSION)
        except InputError:
            refused += 1
    assert refused > len(whole) // 10


def test_the_package_of_the_resources_is_another_and_its_neighbour_is_not() -> None:
    whole = templates.resources(PACKAGE, f"{PACKAGE}.other")
    changed = resources.patch(whole, PACKAGE, OWN)
    assert changed == templates.resources(OWN, f"{PACKAGE}.other")
    assert resources.patch(changed, OWN, PACKAGE) == whole
    for size in (0, 3, 11, 40, len(whole) - 1):
        with pytest.raises(InputError, match=r"resources\.arsc is damaged"):
            resources.patch(whole[:size], PACKAGE, OWN)
