"""Reading: what is no file, too large or no sound JSON is refused in one line and at once; devices and pipes too."""

import os
import time
from pathlib import Path

import pytest

from edgebert.bundle import manifest
from edgebert.checkpoints import checkpoint
from edgebert.errors import HEAD, TAIL, InputError
from edgebert.files import DEPTH, JSON_BYTES, read, read_json

GIGABYTE = 1 << 30

JSONS = {
    "empty": (b"", "is not JSON: Expecting value"),
    "cut": (b'{"a": [1, 2', "is not JSON: Expecting ',' delimiter"),
    "no object": (b"[1]", "holds a list; a JSON object is needed"),
    "a name": (b"null", "holds a NoneType; a JSON object is needed"),
    "5,000 digits": (b'{"a": %s}' % (b"9" * 5000), "a number has 5000 digits"),
    "beyond floats": (b'{"a": 1e999}', "1e999 is not a finite number"),
    "NaN": (b'{"a": NaN}', "NaN is not a finite number"),
    "Infinity": (b'{"a": [-Infinity]}', "-Infinity is not a finite number"),
    "100,000 deep": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", f"at most {DEPTH} levels"),
    "deep and cut": (b'{"a": ' * 100_000, f"at most {DEPTH} levels"),
    "100 deep": (b'{"a": ' * 100 + b"1" + b"}" * 100, f"at most {DEPTH} levels"),
    "a key twice": (b'{"b": {"a": 1, "c": 2, "a": 1}}', "the key 'a' comes twice"),
    "half a surrogate pair": (b'{"a": ["\\ud800"]}', "is not JSON: .*surrogates not allowed"),
    "half a pair as a key": (b'{"\\uDC00": 1}', "is not JSON: .*surrogates not allowed"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is not JSON: .*can't decode byte 0xff"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "is not JSON: .*BOM"),
    "latin-1": ('{"a": "é"}'.encode("latin-1"), "is not JSON: .*can't decode byte 0xe9"),
}


@pytest.mark.parametrize("how", JSONS)
def test_unsound_json_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    content, text = JSONS[how]
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=text) as caught:
        read_json(tmp_path / "config.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) <= HEAD + TAIL + 10


def test_sound_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '{"a": "\\ud83d\\ude00 \\\\ud800", "b": 1000000000000000019884624838656, "c": [{}]}'
    )
    assert read_json(tmp_path / "a.json") == {"a": "\U0001f600 \\ud800", "b": int(1e30), "c": [{}]}


def sparse(path: Path, size: int) -> None:
    """A file of that size that takes no room."""
    with path.open("wb") as file:
        file.truncate(size)


KINDS = {
    "folder": (Path.mkdir, "is a folder; a file is needed"),
    "pipe": (os.mkfifo, "is a pipe, socket or device; a file is needed"),
    "endless device": (lambda path: path.symlink_to("/dev/zero"), "is a pipe, socket or device"),
    "6 GB": (lambda path: sparse(path, 6 * GIGABYTE), "has 6,442,450,944 bytes or more; at most 8,388,608 are read"),
    "file that cannot be read": (lambda path: path.symlink_to("/proc/self/mem"), "cannot be read: Input/output error"),
    "link to itself": (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    "nothing": (lambda path: None, "has no .*json: give a folder that holds one"),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX's")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_readable_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    make, text = KINDS[kind]
    make(tmp_path / "config.json")
    started = time.monotonic()
    with pytest.raises(InputError, match=text):
        checkpoint.load(tmp_path)
    make(tmp_path / "manifest.json")
    with pytest.raises(InputError, match=r"is no bundle" if kind in NO_FILE else text):
        manifest.read(tmp_path)
    assert time.monotonic() - started < 5


# Of which a folder is just no bundle.
NO_FILE = ("folder", "pipe", "endless device", "nothing")


def test_a_file_of_proc_that_says_it_is_empty_is_held_to_the_limit() -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc here")
    with pytest.raises(InputError, match="at most 100 are read"):
        read(Path("/proc/self/maps"), 100)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="users are POSIX's")
def test_a_file_without_leave_is_said_to_be_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "config.json").chmod(0)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    user = os.geteuid()
    if not user:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(InputError, match=r"^config\.json cannot be read: Permission denied"):
            checkpoint.load(".")
    finally:
        os.seteuid(user)


def test_names_that_no_file_system_has_are_refused(tmp_path: Path) -> None:
    for name in ("a\0b", "a" * 5000):
        with pytest.raises(InputError, match="cannot be read"):
            read_json(tmp_path / name, JSON_BYTES)
        with pytest.raises(InputError, match="cannot be read"):
            checkpoint.load(tmp_path / name)


def test_a_message_stays_one_line_whatever_a_file_puts_into_it() -> None:
    error = InputError("a\nb\x1b[31m\u202e\ud800\x85é😀" + "x" * 10_000 + "; copy it again")
    assert str(error).startswith(r"a\nb\x1b[31m\u202e\ud800\x85é😀x")
    assert str(error).endswith("xxx; copy it again")
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < HEAD + TAIL + 100
