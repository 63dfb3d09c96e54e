"""Folders appear whole or not at all: killed at each step of a swap, met by others, beside what appeared meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgebert import files
from edgebert.errors import InputError
from edgebert.files import interrupts, new_folder, swap

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs the signals and locks of POSIX")

# Makes a folder in the place of another, and sends itself a signal before or after the n-th of the watched calls.
CHILD = """
import os, shutil, signal, sys
from pathlib import Path
from edgebert import files

final, at, number, exchanges, watched = Path(sys.argv[1]), *map(int, sys.argv[2:5]), sys.argv[5]
steps = 0

def step():
    global steps
    if steps == at:
        os.kill(os.getpid(), number)
    steps += 1

def seen(call):
    def called(*given, **named):
        step()
        try:
            return call(*given, **named)
        finally:
            step()
    return called

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupt)
if not exchanges:
    files._exchanged = lambda one, other: False
calls = {
    "swap": [(Path, "rename"), (files, "_exchanged")],
    "end": [(shutil, "rmtree"), (Path, "unlink"), (Path, "rmdir")],
}
for where, name in calls[watched]:
    setattr(where, name, seen(getattr(where, name)))
try:
    with files.new_folder(final, True, "mark") as made:
        for name in ("mark", "body"):
            (made / name).write_text("new")
except KeyboardInterrupt:
    sys.exit(130)
print(steps)
"""


def fill(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("mark", "body"):
        (folder / name).write_text(text)


def content(folder: Path) -> str:
    """The one text that both files of a whole folder hold."""
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(texts) == {"mark", "body"}
    assert len(set(texts.values())) == 1
    return texts["mark"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "asked to end"])
@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "renames"])
@pytest.mark.parametrize("watched", ["swap", pytest.param("end", marks=pytest.mark.slow)])
def test_a_folder_stands_whole_wherever_its_making_is_ended(
    tmp_path: Path, number: signal.Signals, exchanges: bool, watched: str
) -> None:
    final, found, ended = tmp_path / "out", [], False
    for at in range(100):
        fill(final, "old")
        call = [sys.executable, "-c", CHILD, str(final), str(at), str(int(number)), str(int(exchanges)), watched]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
        if ended := done.returncode == 0:
            break
        assert done.returncode == (130 if number == signal.SIGTERM else -number), done.stderr
        if number == signal.SIGTERM:
            assert [path.name for path in tmp_path.iterdir()] == ["out"]
        if exchanges or number == signal.SIGTERM:
            assert content(final) in {"old", "new"}
        with pytest.raises(InputError, match="exists already"), new_folder(final, False, "mark"):
            pass
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        found.append(content(final))
    assert ended, "every step was tried"
    assert int(done.stdout) == len(found) >= 4
    assert found == sorted(found, reverse=True)  # old up to a step, new from there on
    # A polite kill waits until a swap is done.
    assert set(found) == ({"new"} if (watched, number) == ("swap", signal.SIGTERM) else {"old", "new"})


def appear_file(final: Path) -> None:
    final.write_text("a letter")


def appear_folder(final: Path) -> None:
    final.mkdir()
    (final / "letter").write_text("a letter")


def appear_link(final: Path) -> None:
    appear_folder(final.with_name("elsewhere"))
    final.symlink_to("elsewhere")


def appear_ours(final: Path) -> None:
    fill(final, "another")


APPEARED = [(appear, force) for appear in (appear_file, appear_folder, appear_link) for force in (False, True)]


def test_a_place_is_looked_at_as_it_is_written_to(tmp_path: Path) -> None:
    """Beforehand too a link is followed."""
    with new_folder(tmp_path / "out", False, "mark") as made:
        (made / "mark").write_text("ours")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for place in ("out", "link"):
        files.check_folder(tmp_path / place, True, "mark")
        with pytest.raises(InputError, match="out exists already"):
            files.check_folder(tmp_path / place, False, "mark")
        with pytest.raises(InputError, match="holds no other"):
            files.check_folder(tmp_path / place, True, "other")


@pytest.mark.parametrize(("appear", "force"), [*APPEARED, (appear_ours, False)])
def test_what_appears_meanwhile_is_left_alone_and_the_new_folder_kept(
    tmp_path: Path, appear: object, force: bool
) -> None:
    final = tmp_path / "out"
    (tmp_path / "out-2").mkdir()  # a name that is taken
    assert callable(appear)

    def make() -> None:
        with new_folder(final, force, "mark") as made:
            fill(made, "new")
            appear(final)

    with pytest.raises(
        InputError, match=r"appeared meanwhile and is left alone; .* whole, and is in .*out-3\."
    ) as told:
        make()
    assert "\n" not in str(told.value)
    assert content(tmp_path / "out-3") == "new"
    assert not any((tmp_path / "out-2").iterdir())
    if appear is appear_ours:
        assert content(final) == "another"
    else:
        assert (final if final.is_file() else final / "letter").read_text() == "a letter"
        assert final.is_symlink() == (appear is appear_link)
    assert not list(tmp_path.glob(".*"))


def test_one_of_ours_that_appears_is_replaced_by_force(tmp_path: Path) -> None:
    with new_folder(tmp_path / "out", True, "mark") as made:
        fill(made, "new")
        appear_ours(tmp_path / "out")
    assert content(tmp_path / "out") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_second_one_for_the_same_place_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    with new_folder(tmp_path / "there" / "out", False, "mark") as made:
        fill(made, "first")
        for place in ("there/out", "link/out"):
            with pytest.raises(InputError, match=r"another edgebert is writing .*there/out: wait"):
                new_folder(tmp_path / place, True, "mark").__enter__()
        with new_folder(tmp_path / "there" / "other", False, "mark") as other:
            fill(other, "other")
    assert content(tmp_path / "there" / "out") == "first"
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["other", "out"]


def test_many_at_once_leave_one_whole_folder(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from edgebert.errors import InputError
from edgebert.files import new_folder
made = 0
while made < 15:
    try:
        with new_folder(Path("out"), True, "mark") as folder:
            for name in ("mark", "body"):
                (folder / name).write_text(f"{sys.argv[1]} {made}")
        made += 1
    except InputError as error:
        assert "another edgebert is writing" in str(error), error
"""
    call = [sys.executable, "-c", code]
    running = [subprocess.Popen([*call, str(i)], cwd=tmp_path) for i in range(4)]
    assert [process.wait(timeout=120) for process in running] == [0] * 4
    assert content(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "real", "old")
    (tmp_path / "out").symlink_to("real")
    with new_folder(tmp_path / "out", True, "mark") as made:
        fill(made, "new")
    assert (tmp_path / "out").is_symlink()
    assert content(tmp_path / "real") == "new"


def test_the_root_is_no_place_for_a_folder() -> None:
    with pytest.raises(InputError, match="a file system is mounted"), new_folder(Path("/"), True, "mark"):
        pass


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "renames"])
def test_a_swap_changes_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    fill(tmp_path / "one", "one")
    swap(tmp_path / "one", tmp_path / "two")
    fill(tmp_path / "one", "another")
    swap(tmp_path / "one", tmp_path / "two")
    assert (content(tmp_path / "one"), content(tmp_path / "two")) == ("one", "another")
    with pytest.raises(FileNotFoundError):
        swap(tmp_path / "absent", tmp_path / "two")
    assert content(tmp_path / "two") == "another"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_bundle_of_a_containers_image_is_kept_and_the_new_one_beside_it(tmp_path: Path) -> None:
    """Overlay file systems move no folder of a lower layer, by any call."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting an overlay file system needs root and mount")
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for folder in (lower, upper, work, merged):
        folder.mkdir()
    fill(lower / "out", "old")
    layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
    made = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, merged], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no overlay may be mounted here: {made.stderr!r}")
    try:
        with (
            pytest.raises(InputError, match=r"is part of a container's image, .* whole, and is in .*out-2\."),
            new_folder(merged / "out", True, "mark") as folder,
        ):
            fill(folder, "new")
        assert (content(merged / "out"), content(merged / "out-2")) == ("old", "new")
        assert sorted(path.name for path in merged.iterdir()) == ["out", "out-2"]
    finally:
        subprocess.run(["umount", merged], check=True)


@pytest.mark.parametrize("put_off", [True, False])
def test_interrupts_are_noted_and_raised_at_once_or_afterwards(put_off: bool) -> None:
    # What runs in the background of a shell ignores them, and its children too.
    before, handler = signal.signal(signal.SIGINT, signal.default_int_handler), signal.default_int_handler
    reached: list[object] = []

    def block() -> None:
        with interrupts(put_off) as came:
            try:
                signal.raise_signal(signal.SIGINT)
                reached.append("the end")
            finally:
                reached.append(came == [signal.SIGINT])

    try:
        with pytest.raises(KeyboardInterrupt):
            block()
        assert reached == (["the end", True] if put_off else [True])
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
