"""Who measures on a machine has it alone, whatever workers of whatever sweep share it."""

import fcntl
import getpass
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO


def _opened(name: str) -> TextIO:
    """A file of this user's whose lock stands for something; the system lets go of it when its process ends."""
    return Path(tempfile.gettempdir(), f"edgebert-{getpass.getuser()}-{name}.lock").open("a", encoding="utf-8")


@contextmanager
def among_others() -> Iterator[None]:
    """Work beside others, once nobody measures or waits to."""
    with _opened("room") as room:
        with _opened("door") as door:
            fcntl.flock(door, fcntl.LOCK_SH)
            fcntl.flock(room, fcntl.LOCK_SH)
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Measure here: nobody new comes through the door, and those who are in the room end their work first."""
    with ExitStack() as held:
        for name in ("door", "room"):
            fcntl.flock(held.enter_context(_opened(name)), fcntl.LOCK_EX)
        yield


@contextmanager
def with_phone(name: str) -> Iterator[None]:
    """Measure on a phone, one at a time; others go on working on this machine."""
    with _opened(name.replace(":", "-").replace("/", "-")) as phone:
        fcntl.flock(phone, fcntl.LOCK_EX)
        yield
