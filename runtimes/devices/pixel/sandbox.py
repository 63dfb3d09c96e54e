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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgebert.errors import MissingDependency
from edgebert.files import cache

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
    """Where the sandbox stands."""
    return cache("pixel")


def missing(runtime: str | None = None) -> str | None:
    """The command that makes the sandbox, or the part that a runtime needs; None when it is there."""
    absent = [name for name in _needed(runtime) if not current(folder() / name, name)]
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
        sites=tuple(at / name for name in SITES if (at / name / STAMP).is_file()),
        counter=at / "counter" / "counter.so",
    )


def _needed(runtime: str | None) -> list[str]:
    return [name for name in PARTS if name not in ALONE or runtime == name]


def sites(runtime: str | None = None) -> tuple[Path, ...]:
    """The folders of aarch64 packages that a runtime needs; they need not be there."""
    return tuple(folder() / name for name in _needed(runtime) if name in SITES)


def wanted(name: str) -> str:
    """What a part is to be made of, as a digest; another one means that the part is out of date."""
    return hashlib.sha256(repr(PARTS[name]()).encode()).hexdigest()


def current(place: Path, name: str) -> bool:
    """Whether a part is there and of what is wanted now."""
    try:
        stamp = json.loads((place / STAMP).read_text())
    except (OSError, ValueError):
        return False
    borrowed = stamp.get("facts", {}).get("path")
    return stamp.get("wanted") == wanted(name) and (borrowed is None or Path(borrowed).exists())


def environment(libraries: Path | None) -> dict[str, str]:
    """The environment that the emulator runs in; what the program in it sees is given to it by `-E`."""
    kept = {"PATH": os.environ.get("PATH", "")}
    return kept | ({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})


def python() -> str:
    """Version of the sandbox's Python, `3.11`: the system part stands before the wheels are fetched."""
    try:
        stamp = json.loads((folder() / "system" / STAMP).read_text())
    except (OSError, ValueError):
        return ""
    return str(stamp["facts"]["python"]).rpartition("python")[2]


SOURCE = Path(__file__).with_name("counter.c")

# Parts that hold packages, and those of them that one runtime alone needs, which are called after it.
SITES = ("runtimes", "executorch")
ALONE = ("executorch",)

# Each part, and what it is to be made of; `setup.py` makes them, in this order.
PARTS: dict[str, Callable[[], object]] = {
    "qemu": lambda: "qemu-user",
    "system": lambda: DEBS,
    "runtimes": lambda: (WHEELS, NOT_LOADED, python()),
    "executorch": lambda: (EXECUTORCH, EXECUTORCH_FILES, NOT_LOADED, python()),
    "counter": lambda: SOURCE.read_bytes(),
}
