"""The sandbox: an emulator, an aarch64 system with Python, the three runtimes built for it, and the block counter.

It stands in the user's cache and is made of parts, each a folder that is built beside its place and renamed when it is
whole, with a stamp of what was asked for and the SHA-256 of every file. So making it can be interrupted and repeated:
parts that are whole stay.

    qemu        qemu-aarch64, where the machine has none that takes plugins
    system      Debian's Python and C libraries for arm64
    runtimes    numpy, LiteRT and ONNX Runtime
    executorch  ExecuTorch's bindings and the torch libraries they are linked to: large, so it can be left out
    counter     the plugin, compiled
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgebert.errors import InputError, MissingDependency
from edgebert.files import sha256
from edgebert.runtimes.pixel import packages

Tell = Callable[[str], None]

SETUP = "edgebert device setup pixel"
STAMP = "stamp.json"

DEBS = ("python3-minimal", "python3", "libstdc++6")
# The versions that this host runs; ExecuTorch's bindings need torch, whose last aarch64 wheel without CUDA is 2.10.0,
# and that one's pair, 1.1.0, runs the programs of 1.4.
WHEELS = ("numpy>=2,<3", "ai-edge-litert==2.3.*", "onnxruntime==1.31.*")
EXECUTORCH = ("executorch==1.1.0", "torch==2.10.0")
# What the bindings load of those two wheels.
EXECUTORCH_FILES = ("torch/_C.", "torch/lib/lib", "executorch/extension/pybindings/", "executorch/kernels/quantized/")
NOT_LOADED = ("/tests/", "/aot/", "WebGpu", "libaoti", "_with_compiler", "libtorchbind_test", "libjitbackend_test")
QEMU_NEEDED = (
    "the counter needs a qemu-aarch64 of QEMU 6.0 to 8.2 that is linked dynamically and built with --enable-plugins, "
    "as Debian 12's package qemu-user is (7.2); Debian 13's is static and has no plugins"
)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox that is there.

    Attributes:
        qemu: the emulator; libraries: folder of libraries that it needs beside the machine's own, or None.
        system: an aarch64 root folder.
        python: the interpreter's path below it.
        sites: folders of aarch64 packages, for PYTHONPATH.
        counter: the compiled plugin.
    """

    qemu: Path
    libraries: Path | None
    system: Path
    python: str
    sites: tuple[Path, ...]
    counter: Path


def folder() -> Path:
    """Where the sandbox stands: below $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgebert" / "pixel"


def missing(runtime: str | None = None) -> str | None:
    """The command that makes the sandbox, or the part that a runtime needs; None when it is there."""
    absent = [name for name in _needed(runtime) if not _current(folder() / name, name)]
    return SETUP if absent else None


def open(runtime: str | None = None) -> Sandbox:
    """The sandbox with a runtime's parts; raises MissingDependency where it is not there."""
    if command := missing(runtime):
        raise MissingDependency(f"a simulated Pixel needs its sandbox in {folder()}: {command}")
    at = folder()
    told = {name: json.loads((at / name / STAMP).read_text()) for name in ("qemu", "system")}
    own = sorted(at.joinpath("qemu", "usr", "lib").glob("*-linux-*"))
    return Sandbox(
        qemu=Path(told["qemu"]["facts"].get("path") or at / "qemu" / "usr" / "bin" / "qemu-aarch64"),
        libraries=own[0] if own else None,
        system=at / "system",
        python=told["system"]["facts"]["python"],
        sites=tuple(at / name for name in ("runtimes", "executorch") if (at / name / STAMP).is_file()),
        counter=at / "counter" / "counter.so",
    )


def setup(
    tell: Tell = lambda line: None,
    executorch: bool = True,
    sysroot: Path | None = None,
) -> Sandbox:
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
            f"a simulated Pixel needs Linux, where QEMU runs programs of another processor; {SETUP}"
        )
    at = folder()
    at.mkdir(parents=True, exist_ok=True)
    with _locked(at):
        for name, (make, _) in PARTS.items():
            if name == "executorch" and not executorch:
                continue
            if name == "system" and sysroot is not None:
                _build(at, name, lambda part, _: _borrow(part, sysroot), tell, again=True)
            elif _current(at / name, name) and _whole(at / name):
                tell(f"{name}: there, and whole")
            else:
                _build(at, name, make, tell)
    sandbox = open("executorch" if executorch else None)
    _try_out(sandbox)
    tell(f"the sandbox works, in {at}")
    return sandbox


def _needed(runtime: str | None) -> list[str]:
    return [name for name in PARTS if name != "executorch" or runtime == "executorch"]


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
        stamp = {"wanted": _wanted(name), "facts": facts, "files": sums}
        (part / STAMP).write_text(json.dumps(stamp, indent=1))
        if place.exists():
            place.rename(Path(made, "old"))
        part.rename(place)
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
        if path.is_file() and not path.is_symlink() and path.name != STAMP and path.suffix != ".pyc"
    )  # fmt: skip


def _wanted(name: str) -> str:
    """What a part is to be made of, as a digest; another one means that the part is out of date."""
    return hashlib.sha256(repr(PARTS[name][1]()).encode()).hexdigest()


def _current(place: Path, name: str) -> bool:
    """Whether a part is there and of what is wanted now."""
    try:
        stamp = json.loads((place / STAMP).read_text())
    except (OSError, ValueError):
        return False
    borrowed = stamp.get("facts", {}).get("path")
    return stamp.get("wanted") == _wanted(name) and (borrowed is None or Path(borrowed).exists())


def _whole(place: Path) -> bool:
    """Whether the files of a part are what they were when it was made."""
    sums = json.loads((place / STAMP).read_text())["files"]
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
    tried = subprocess.run(call, capture_output=True, text=True, errors="replace", env=environment(libraries))
    return "load plugin" in tried.stderr and "unknown option" not in tried.stderr


def environment(libraries: Path | None) -> dict[str, str]:
    """The environment that the emulator runs in; what the program in it sees is given to it by `-E`."""
    kept = {"PATH": os.environ.get("PATH", "")}
    return kept | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})


def _make_system(part: Path, scratch: Path) -> dict[str, str]:
    """Unpack Debian's Python for arm64 and everything below it."""
    for deb in packages.fetch_debs(scratch, DEBS, "arm64"):
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
        if entry.name != STAMP:
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


def _python() -> str:
    """Version of the sandbox's Python, `3.11`: the system part stands before the wheels are fetched."""
    try:
        stamp = json.loads((folder() / "system" / STAMP).read_text())
    except (OSError, ValueError):
        return ""
    return str(stamp["facts"]["python"]).rpartition("python")[2]


def _make_runtimes(part: Path, scratch: Path) -> dict[str, str]:
    return _unpack(packages.fetch_wheels(scratch, WHEELS, _python()), part, lambda name: True)


def _make_executorch(part: Path, scratch: Path) -> dict[str, str]:
    wheels = packages.fetch_wheels(scratch, EXECUTORCH, _python(), needs=False)
    return _unpack(wheels, part, lambda name: name.startswith(EXECUTORCH_FILES) or name.endswith("/METADATA"))


def _unpack(wheels: list[Path], part: Path, wanted: Callable[[str], bool]) -> dict[str, str]:
    """Unpack wheels, less what no model needs; gives their versions."""
    for wheel in wheels:
        packages.unpack_wheel(wheel, part, lambda name: wanted(name) and not any(word in name for word in NOT_LOADED))
    return dict(wheel.name.split("-")[:2] for wheel in wheels)


def _make_counter(part: Path, scratch: Path) -> dict[str, str]:
    """Compile the plugin."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise MissingDependency("the counter is compiled on this machine, which has no C compiler: apt-get install gcc")
    call = [compiler, "-O2", "-shared", "-fPIC", "-o", str(part / "counter.so"), str(SOURCE)]
    done = subprocess.run(call, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise MissingDependency(f"{compiler} does not compile {SOURCE}: {done.stderr.strip()[:300]}")
    return {}


def _try_out(sandbox: Sandbox) -> None:
    """Run Python on an emulated core and count a region of it."""
    from edgebert.runtimes.pixel import counter

    said = counter.try_out(sandbox)
    if said:
        raise MissingDependency(
            f"{sandbox.qemu} does not run the counter: {said}. Is it another version? {QEMU_NEEDED}."
        )


SOURCE = Path(__file__).with_name("counter.c")

# Each part: what makes it, and what it is made of.
PARTS: dict[str, tuple[Callable[[Path, Path], dict[str, str]], Callable[[], object]]] = {
    "qemu": (_make_qemu, lambda: "qemu-user"),
    "system": (_make_system, lambda: DEBS),
    "runtimes": (_make_runtimes, lambda: (WHEELS, NOT_LOADED, _python())),
    "executorch": (_make_executorch, lambda: (EXECUTORCH, EXECUTORCH_FILES, NOT_LOADED, _python())),
    "counter": (_make_counter, lambda: SOURCE.read_bytes()),
}
