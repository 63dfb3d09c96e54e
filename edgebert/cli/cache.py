"""The verb `cache`: what is kept between runs, and how large it is."""

import argparse
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from edgebert.cli import render
from edgebert.runtimes.devices import correction
from edgebert.runtimes.devices.pixel import sandbox
from edgebert.sweep import contents


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept: its place, its size, and how it comes back once it is gone; None where only a person can."""

    what: str
    path: str
    bytes: int
    comes_back: str | None


def kept() -> list[Kept]:
    """Everything that is there."""
    there = [
        Kept("the simulated Pixels' system", str(sandbox.folder()), _size(sandbox.folder()), sandbox.SETUP),
        Kept("models and texts of sweeps", str(contents.kept()), _size(contents.kept()), "edgebert sweep"),
        Kept("ratios of phones to their simulations", str(correction.file()), _size(correction.file()), None),
    ]
    return [one for one in there if one.bytes]


def _size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())


def cache(arguments: argparse.Namespace) -> int:
    """Show what is kept, or remove what comes back by a command."""
    there = kept()
    clears = arguments.action == "clear"
    gone = [one for one in there if clears and one.comes_back]
    for one in gone:
        shutil.rmtree(one.path)
    if arguments.json:
        named = {"removed": [asdict(one) for one in gone]} if clears else {}
        print(json.dumps({"kept": [asdict(one) for one in there if one not in gone]} | named))
        return 0
    for one in gone:
        print(f"removed {one.path} ({one.bytes / 1e6:.1f} MB); it comes back by: {one.comes_back}")
    left = [one for one in there if one not in gone]
    if left and not clears:
        rows = [
            (one.what, one.path, f"{one.bytes / 1e6:.1f}", one.comes_back or "measuring again, so clear keeps it")
            for one in left
        ]
        render.table(("kept", "where", "MB", "comes back by"), rows)
    elif clears and left:
        print("kept: " + ", ".join(f"{one.path}, which was measured" for one in left))
    elif not there:
        print("nothing is kept")
    return 0
