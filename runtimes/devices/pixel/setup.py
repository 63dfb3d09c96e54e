"""Setting the sandbox up: each part is made beside its place, stamped, and moved there when it is whole."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgebert.errors import InputError, MissingDependency
from edgebert.files import interrupts, sha256, swap
from edgebert.runtimes.devices.pixel import counter, packages, sandbox

Tell = Callable[[str], None]

QEMU_NEEDED = (
    "the counter needs a qemu-aarch64 of QEMU 6.0 to 8.2 that is linked dynamically and built with --enable-plugins, "
    "as Debian 12's package qemu-user is (7.2); Debian 13's is static and has no plugins"
)


def setup(
    tell: Tell = lambda line: None,
    executorch: bool = True,
    sysroot: Path | None = None,
) -> sandbox.Sandbox:
    """Make what is not there yet of the sandbox, and check what is.

    Args:
        tell: gets a line for each step.
        executorch: with the part that ExecuTorch needs.
        sysroot: an aarch64 root folder to take instead of Debian's packages.

    Raises:
        MissingDependency: a tool is not on this machine, or a package cannot be had; the message says what to do.
        InputError: the sysroot is none.
    """
    if not sys.platform.startswith("linux"):
        raise MissingDependency(
            f"a simulated Pixel needs Linux, where QEMU runs programs of another processor; {sandbox.SETUP}"
        )
    at = sandbox.folder()
    at.mkdir(parents=True, exist_ok=True)
    with _locked(at):
        for name, make in MAKERS.items():
            if name in sandbox.ALONE and not executorch:
                continue
            if name == "system" and sysroot is not None:
                _build(at, name, lambda part, _: _borrow(part, sysroot), tell, again=True)
            elif sandbox.current(at / name, name) and _whole(at / name):
                tell(f"{name}: there, and whole")
            else:
                _build(at, name, make, tell)
    box = sandbox.open("executorch" if executorch else None)
    _try_out(box)
    tell(f"the sandbox works, in {at}")
    return box


@contextmanager
def _locked(at: Path) -> Iterator[None]:
    """One set-up at a time; a second one waits."""
    import fcntl

    with (at / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in at.glob(".part-*"):  # what an interrupted one left
            shutil.rmtree(left, ignore_errors=True)
        yield


def _build(at: Path, name: str, make: Callable[[Path, Path], dict[str, str]], tell: Tell, again: bool = False) -> None:
    """Make a part beside its place, stamp it and move it there."""
    tell(f"{name}: {'linking' if again else 'fetching' if name != 'counter' else 'compiling'}")
    place = at / name
    with tempfile.TemporaryDirectory(prefix=f".part-{name}-", dir=at) as made:
        part, scratch = Path(made, name), Path(made, "scratch")
        part.mkdir()
        scratch.mkdir()
        facts = make(part, scratch)
        sums = {str(path.relative_to(part)): sha256(path) for path in _own_files(part)}
        stamp = {"wanted": sandbox.wanted(name), "facts": facts, "files": sums}
        (part / sandbox.STAMP).write_text(json.dumps(stamp, indent=1))
        with interrupts(put_off=True):
            swap(part, place)
    megabytes = sum((place / path).stat().st_size for path in sums) / 1e6
    tell(f"{name}: {len(sums)} files, {megabytes:.0f} MB{_versions(facts)}")


def _versions(facts: dict[str, str]) -> str:
    told = ", ".join(f"{key} {value}" for key, value in facts.items())
    return f" ({told})" if told else ""


def _own_files(part: Path) -> list[Path]:
    """The files of a part, without links, its stamp and what Python compiles by itself."""
    found = (Path(top, name) for top, _, names in os.walk(part) for name in names)
    return sorted(
        path for path in found
        if path.is_file() and not path.is_symlink() and path.name != sandbox.STAMP and path.suffix != ".pyc"
    )  # fmt: skip


def _whole(place: Path) -> bool:
    """Whether the files of a part are what they were when it was made."""
    sums = json.loads((place / sandbox.STAMP).read_text())["files"]
    return all((place / path).is_file() and sha256(place / path) == digest for path, digest in sums.items())


def _make_qemu(part: Path, scratch: Path) -> dict[str, str]:
    """Take the machine's emulator where it has plugins, else unpack Debian's; nothing is installed."""
    found = shutil.which("qemu-aarch64")
    if found and _takes_plugins(Path(found), None):
        return {"path": found}
    for deb in packages.fetch_debs(scratch, ("qemu-user",)):
        packages.unpack_deb(deb, part)
    emulator = part / "usr" / "bin" / "qemu-aarch64"
    for other in part.glob("usr/bin/*"):
        if other != emulator:
            other.unlink()
    shutil.rmtree(part / "usr" / "share", ignore_errors=True)
    libraries = next(iter(sorted(part.glob("usr/lib/*-linux-*"))), None)
    if not emulator.is_file() or not _takes_plugins(emulator, libraries):
        raise MissingDependency(f"the qemu-aarch64 of {found or 'apt'} takes no plugins: {QEMU_NEEDED}.")
    return {}


def _takes_plugins(emulator: Path, libraries: Path | None) -> bool:
    """Whether an emulator knows `-plugin`; one that does complains about the plugin that is not there."""
    call = [str(emulator), "-plugin", "file=/nonexistent/plugin.so", "/nonexistent/program"]
    tried = subprocess.run(call, capture_output=True, text=True, errors="replace", env=sandbox.environment(libraries))
    return "load plugin" in tried.stderr and "unknown option" not in tried.stderr


def _make_system(part: Path, scratch: Path) -> dict[str, str]:
    """Unpack Debian's Python for arm64 and everything below it."""
    for deb in packages.fetch_debs(scratch, sandbox.DEBS, "arm64"):
        packages.unpack_deb(deb, part)
    for useless in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var", "usr/lib/systemd"):
        shutil.rmtree(part / useless, ignore_errors=True)
    return {"python": _interpreter(part)}


def _borrow(part: Path, sysroot: Path) -> dict[str, str]:
    """Link a root folder that the user made."""
    sysroot = sysroot.resolve()
    if not sysroot.is_dir():
        raise InputError(f"--sysroot {sysroot} is no folder; an aarch64 root with usr/bin/python3 is needed.")
    facts = {"python": _interpreter(sysroot), "path": str(sysroot)}
    for entry in sysroot.iterdir():
        if entry.name != sandbox.STAMP:
            (part / entry.name).symlink_to(entry)
    return facts


def _interpreter(root: Path) -> str:
    """The path of Python below a root folder; it must be an aarch64 program."""
    found = sorted(root.glob("usr/bin/python3.*[0-9]"))
    if not found:
        raise InputError(f"{root} has no usr/bin/python3.*: an aarch64 root with Python 3.11 or later is needed.")
    with found[-1].open("rb") as file:
        head = file.read(20)
    if head[:4] != b"\x7fELF" or head[18:20] != b"\xb7\x00":
        raise InputError(f"{found[-1]} is not a program for aarch64.")
    return str(found[-1].relative_to(root))


def _make_runtimes(part: Path, scratch: Path) -> dict[str, str]:
    return _unpack(packages.fetch_wheels(scratch, sandbox.WHEELS, sandbox.python()), part, lambda name: True)


def _make_executorch(part: Path, scratch: Path) -> dict[str, str]:
    wheels = packages.fetch_wheels(scratch, sandbox.EXECUTORCH, sandbox.python(), needs=False)
    return _unpack(wheels, part, lambda name: name.startswith(sandbox.EXECUTORCH_FILES) or name.endswith("/METADATA"))


def _unpack(wheels: list[Path], part: Path, wanted: Callable[[str], bool]) -> dict[str, str]:
    """Unpack wheels, less what no model needs; gives their versions."""

    def loaded(name: str) -> bool:
        return wanted(name) and not any(word in name for word in sandbox.NOT_LOADED)

    for wheel in wheels:
        packages.unpack_wheel(wheel, part, loaded)
    return dict(wheel.name.split("-")[:2] for wheel in wheels)


def _make_counter(part: Path, scratch: Path) -> dict[str, str]:
    """Compile the plugin."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise MissingDependency("the counter is compiled on this machine, which has no C compiler: apt-get install gcc")
    call = [compiler, "-O2", "-shared", "-fPIC", "-o", str(part / "counter.so"), str(sandbox.SOURCE)]
    done = subprocess.run(call, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise MissingDependency(f"{compiler} does not compile {sandbox.SOURCE}: {done.stderr.strip()[:300]}")
    return {}


def _try_out(box: sandbox.Sandbox) -> None:
    """Run Python on an emulated core and count a region of it."""
    said = counter.try_out(box)
    if said:
        raise MissingDependency(f"{box.qemu} does not run the counter: {said}. Is it another version? {QEMU_NEEDED}.")


# What makes each of `sandbox.PARTS` in a folder, given another one to work in; it gives facts to be kept in the stamp.
MAKERS: dict[str, Callable[[Path, Path], dict[str, str]]] = {
    "qemu": _make_qemu,
    "system": _make_system,
    "runtimes": _make_runtimes,
    "executorch": _make_executorch,
    "counter": _make_counter,
}
