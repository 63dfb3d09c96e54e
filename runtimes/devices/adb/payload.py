"""What a phone needs to run the guest script: Python, its libraries and one runtime, chosen from the sandbox.

Android has another C library, so a loader and libraries of its own go along, and nothing of the phone's is used but
its kernel. On the phone there are `ld-linux-aarch64.so.1` and `lib` with libraries, `usr` with Python, and `site` with
packages.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgebert.errors import MissingDependency
from edgebert.files import sha256
from edgebert.runtimes.devices.pixel import sandbox

LOADER = "ld-linux-aarch64.so.1"
PLACES = ("lib", "lib/aarch64-linux-gnu", "usr/lib", "usr/lib/aarch64-linux-gnu", "lib64", "usr/lib64")
# What Python, numpy and the runtimes are linked to, by the names that the loader looks for.
LIBRARIES = re.compile(
    r"lib(c|m|dl|rt|pthread|util|resolv|gcc_s|stdc\+\+|z|bz2|lzma|expat|ffi|crypto|uuid)\.so(\.\d+){1,2}"
)
UNUSED_PYTHON = ("test", "pydoc_data", "idlelib", "lib2to3", "ensurepip", "dist-packages", "turtledemo", "tkinter")
PACKAGES = {
    "tflite": ("ai_edge_litert",),
    "onnx": ("onnxruntime",),
    "executorch": ("torch", "executorch"),
}  # numpy goes with each
# Numpy's tools for compilers; of ONNX Runtime all but its session: the bindings have the library in them.
UNUSED = re.compile(
    r"numpy/(f2py|distutils|_core/include|testing/tests)/|/tests/|\.pyi$|\.a$|/LICENSE|^onnxruntime/(transformers|"
    r"tools|quantization|datasets)/|^onnxruntime/capi/libonnxruntime\.so|^onnxruntime/Third|^ai_edge_litert/tools/"
)


def missing(runtime: str | None = None) -> str | None:
    """The command that makes what is sent to a phone; None when it is there. The emulator itself is not needed."""
    parts = (sandbox.folder() / "system", *sandbox.sites(runtime))
    there = all((part / sandbox.STAMP).is_file() for part in parts)
    return None if there else sandbox.SETUP


def files(runtime: str) -> dict[str, Path]:
    """The files that a runtime needs, path on the phone below the sandbox's folder to path here.

    Raises:
        MissingDependency: the sandbox was not made, or lacks something.
    """
    if command := missing(runtime):
        raise MissingDependency(f"what runs on a phone comes from the sandbox in {sandbox.folder()}: {command}")
    at = sandbox.folder()
    system = at / "system"
    python = str(json.loads((system / sandbox.STAMP).read_text())["facts"]["python"])
    version = python.rpartition("/")[2]
    found = {python: system / python}
    for name, path in _walk(system / "usr" / "lib" / version):
        if name.partition("/")[0] not in UNUSED_PYTHON and not name.startswith("config-"):
            found[f"usr/lib/{version}/{name}"] = path
    for place in PLACES:
        for path in (system / place).glob("*.so*"):
            if path.name == LOADER:
                found[LOADER] = path
            elif LIBRARIES.fullmatch(path.name):
                found[f"lib/{path.name}"] = path
    if LOADER not in found or "lib/libc.so.6" not in found:
        raise MissingDependency(f"{system} has no {LOADER} with its libc.so.6, which a phone needs.")
    return found | _packages(runtime)


def _packages(runtime: str) -> dict[str, Path]:
    """The files of a runtime's packages and of numpy, with what tells their versions."""
    wanted = ("numpy", *PACKAGES[runtime])
    kept = re.compile(rf"({'|'.join(wanted)})(/|\.libs/|-[\d.]+(\+\w+)?\.dist-info/METADATA)")
    return {
        f"site/{name}": path
        for site in sandbox.sites(runtime)
        for name, path in _walk(site)
        if kept.match(name) and not UNUSED.search(name)
    }


def _walk(top: Path) -> Iterator[tuple[str, Path]]:
    """The files below a folder, but what Python compiles by itself."""
    for folder, names, found in os.walk(top):
        names[:] = sorted(name for name in names if name != "__pycache__")
        for name in sorted(found):
            path = Path(folder, name)
            if path.is_file():
                yield str(path.relative_to(top)), path


def sums(found: Mapping[str, Path]) -> dict[str, str]:
    """The SHA-256 of each file."""
    return {name: sha256(path) for name, path in found.items()}


def name_of(runtime: str, digests: Mapping[str, str]) -> str:
    """The folder's name on the phone, by what is in it."""
    whole = hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode())
    return f"edgebert-{runtime}-{whole.hexdigest()[:16]}"


def size_of(found: Mapping[str, Path]) -> int:
    """Bytes on a disk of 4 KiB blocks."""
    return sum((path.stat().st_size + 4095) // 4096 * 4096 for path in found.values())


def pack(found: Mapping[str, Path], archive: Path) -> None:
    """Write the files as an archive that any tar unpacks: links followed, all of them executable."""
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT, dereference=True) as file:
        for name in sorted(found):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = found[name].stat().st_size, 0o755
            with found[name].open("rb") as data:
                file.addfile(entry, data)


def lay_out(found: Mapping[str, Path], folder: Path) -> None:
    """Write the files below a folder, to be copied one by one where a phone has no tar."""
    for name, path in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
