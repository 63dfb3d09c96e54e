"""Native code asked about a file in a process of its own: it may crash on one that nobody vouches for, or never end.

What a runtime's C++ is asked stands in a script of that runtime, `native.py`, which needs nothing of edgebert.
"""

import glob
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgebert.errors import InputError

SECONDS = 20
# Of memory that a runtime may take beyond a few times the file: it packs weights anew, and has arenas for activations.
ROOM, TIMES = 2**30, 4
# Runs a script with a limit to its memory, where the system has one.
WITHIN = """
import contextlib, runpy, sys
_, memory, *sys.argv = sys.argv
with contextlib.suppress(ImportError, OSError, ValueError):
    import resource
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def memory(path: Path) -> int:
    """Bytes that a process may take for a file that nobody vouches for, with the data that stands beside it."""
    return ROOM + TIMES * sum(part.stat().st_size for part in path.parent.glob(f"{glob.escape(path.name)}*"))


def ask(script: str, runtime: str, path: Path, *arguments: str) -> Any:
    """Run a script on a file.

    Args:
        script: a Python file that prints JSON in its last line, and raises what the runtime raises.
        runtime: its name, for messages.
        path: the model file.
        arguments: further ones of the script.

    Returns:
        The JSON's value.

    Raises:
        InputError: the runtime refuses the file, crashed on it, or was not done in 20 seconds.
    """
    # Isolated from the folder that the command was given in, whose files could pass for packages.
    call = [sys.executable, "-P", "-c", WITHIN, str(memory(path)), script, str(path), *arguments]
    try:
        told = subprocess.run(
            call, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: {runtime} was not done opening it after {SECONDS} s, so it is left alone.") from None
    if told.returncode == 1:
        raise InputError(f"{path} does not open in {runtime}: {_reason(told.stderr)}")
    try:
        if told.returncode == 0:
            return json.loads(told.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        pass
    how = signal.Signals(-told.returncode).name if told.returncode < 0 else f"exit {told.returncode}"
    raise InputError(f"{path}: {runtime} crashes on it ({how}): its graph is not one that can be run.")


def _reason(said: str) -> str:
    """The first line of the error below a traceback, without its kind and the codes that lead it."""
    below = said.rpartition("Traceback (most recent call last):\n")[2].splitlines()
    line = next((line for line in below if line and not line.startswith(" ")), "")
    return (line.partition(": ")[2] or line).rpartition(" : ")[2][:300]
