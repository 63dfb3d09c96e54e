"""Files that several tests, and several workers, read: the first to ask makes one, the others wait for it."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import edgebert


def shared(tmp_path_factory: pytest.TempPathFactory, key: str, make: Callable[[Path], Any]) -> Any:
    """What `make` gives for a folder of its own, made once in a run of tests; it must be picklable.

    Args:
        tmp_path_factory: pytest's; with xdist its folders of all workers stand in one.
        key: what is made, as a file's name.
        make: makes it, below the folder that it is given.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    root.mkdir(exist_ok=True)
    done = root / f"{key}.pickle"
    with FileLock(root / f"{key}.lock"):
        if not done.exists():
            folder = root / key
            folder.mkdir()
            done.write_bytes(pickle.dumps(make(folder)))
    return pickle.loads(done.read_bytes())


def default_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `edgebert export` makes where nothing else is said; not to be changed."""
    folder: Path = shared(tmp_path_factory, "default", lambda place: edgebert.export(out=place / "default").folder)
    return folder
