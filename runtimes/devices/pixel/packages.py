"""Packages for the sandbox, by name, with the machine's own apt and pip; nothing of the system is changed.

apt works in a folder of its own: its lists, its cache and its idea of what is installed stand there, while the sources
and how they are reached are the system's. It needs no rights of the administrator.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from edgebert.errors import MissingDependency

SYSROOT = "or pass --sysroot DIR, a folder with an aarch64 system that has usr/bin/python3"
# Linux wheels that a system of glibc 2.28 and later takes, newest first.
PLATFORMS = (*(f"manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)), "manylinux2014_aarch64")
TIME_LIMIT = 1800  # seconds for one call of apt or pip, on a slow line


def fetch_debs(folder: Path, names: tuple[str, ...], architecture: str | None = None) -> list[Path]:
    """Download Debian packages and what they need.

    Args:
        folder: a folder for apt's own files and what it downloads.
        names: packages.
        architecture: Debian's name of it; all that they need is then downloaded. None for this machine's own, where
            what is installed is not downloaded again.

    Raises:
        MissingDependency: there is no apt here, or it does not get the packages.
    """
    tools = [tool for tool in ("apt-get", "apt-config", "dpkg", "dpkg-deb") if not shutil.which(tool)]
    if tools:
        raise MissingDependency(
            f"the sandbox is made of Debian's packages, and {', '.join(tools)} is not on this machine: "
            f"run it on Debian or Ubuntu, {SYSROOT}."
        )
    environment = os.environ | {"APT_CONFIG": str(_configuration(folder, architecture)), "LC_ALL": "C"}
    log = folder / "log"
    _call(["apt-get", "-q", "update"], log, environment, "apt-get update")
    call = ["apt-get", "-q", "-y", "--no-install-recommends", "--download-only", "install", *names]
    _call(call, log, environment, f"apt-get download of {' '.join(names)} for {architecture or 'this machine'}")
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _configuration(folder: Path, architecture: str | None) -> Path:
    """Write apt's configuration: the system's ways of reaching its sources, everything else below `folder`."""
    for made in ("state/lists/partial", "cache/archives/partial", "parts"):
        (folder / made).mkdir(parents=True, exist_ok=True)
    # A copy: apt locks the folder in which it stands, which only the administrator may.
    status = folder / "status"
    installed = Path("/var/lib/dpkg/status")
    status.write_bytes(installed.read_bytes() if architecture is None and installed.is_file() else b"")
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    lines = [line for line in dump.splitlines() if line.startswith("Acquire::")]
    lines += [
        f'Dir::State "{folder}/state";',
        f'Dir::State::status "{status}";',
        f'Dir::Cache "{folder}/cache";',
        f'Dir::Etc::parts "{folder}/parts";',
        f'Dir::Etc::main "{folder}/none";',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        'Acquire::Languages "none";',
        'APT::Sandbox::User "root";',
    ]
    if architecture:
        lines += [f'APT::Architecture "{architecture}";', f'APT::Architectures {{ "{architecture}"; }};']
    path = folder / "apt.conf"
    path.write_text("\n".join(lines) + "\n")
    return path


def unpack_deb(deb: Path, target: Path) -> None:
    """Unpack a Debian package's files."""
    subprocess.run(["dpkg-deb", "-x", str(deb), str(target)], check=True, capture_output=True)


def fetch_wheels(folder: Path, requirements: tuple[str, ...], python: str, needs: bool = True) -> list[Path]:
    """Download wheels for Linux on aarch64.

    Args:
        folder: where they go.
        requirements: as pip takes them.
        python: version of the Python that is to import them, `3.11`.
        needs: with what they need.

    Raises:
        MissingDependency: there is no pip here, or it does not get the wheels.
    """
    if importlib.util.find_spec("pip") is None:
        raise MissingDependency(f"pip is not installed in {sys.prefix}: python -m ensurepip")
    folder.mkdir(parents=True, exist_ok=True)
    call = [sys.executable, "-m", "pip", "download", "--dest", str(folder), "--only-binary=:all:", "--no-input"]
    call += ["--implementation", "cp", "--python-version", python]
    call += [part for platform in PLATFORMS for part in ("--platform", platform)]
    call += [*requirements] if needs else ["--no-deps", *requirements]
    _call(call, folder / "log", dict(os.environ), f"pip download of {' '.join(requirements)} for aarch64")
    return sorted(folder.glob("*.whl"))


def unpack_wheel(wheel: Path, target: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Unpack the members of a wheel whose names are wanted."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if wanted(name):
                archive.extract(name, target)


def _call(call: list[str], log: Path, environment: dict[str, str], what: str) -> None:
    """Run a command with its chatter in a log file; failure names its last words and the log."""
    with log.open("ab") as file:
        try:
            code = subprocess.run(
                call, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment, timeout=TIME_LIMIT
            ).returncode
        except subprocess.TimeoutExpired:
            code = -1
    if code:
        kept = _keep(log)
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith(("E:", "ERROR:"))]
        said = lines[-1] if lines else f"it ended with {code}"
        raise MissingDependency(f"{what} failed: {said} (log: {kept}). Try again with a network, {SYSROOT}.")


def _keep(log: Path) -> Path:
    """Copy a log out of the folder that goes away with the failure."""
    handle, name = tempfile.mkstemp(prefix="edgebert-setup-", suffix=".log")
    with os.fdopen(handle, "wb") as file:
        file.write(log.read_bytes())
    return Path(name)
