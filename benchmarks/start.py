"""What it takes to open model files and to get the first answer, on this host, each file in fresh processes of its own.

    python benchmarks/start.py FILE [FILE ...] [--starts 9]

The files are started in turn, on one core, with their bytes in the system's page cache; the medians are told. `own MB`
is memory in no file that is taken on the way: weights that a runtime reads or packs into its own layout, and
activations. `mapped MB` are pages of the file itself, which the system can drop and read again, and which processes
share. A .tflite file is started three ways: by the interpreter, and by LiteRT's compiled model with XNNPACK's packed
weights kept in memory, and in a file of a folder that is removed at the end; the start that wrote it is not counted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgebert.runtimes.devices.device import Job
from edgebert.runtimes.devices.guest import guest

ONCE = Path(__file__).with_name("peers_start.py")
COLUMNS = {"load_ms": "load ms", "first_ms": "first ms", "start_ms": "both ms", "own_mb": "own MB",
           "mapped_mb": "mapped MB"}  # fmt: skip


def starts(models: Sequence[tuple[Path, str]], inputs: Path | None, turns: int) -> list[dict[str, float]]:
    """Start files in turn, each time in a process of its own.

    Args:
        models: files, each with LiteRT's weight cache: empty for none, a path, or `:memory:`.
        inputs: an `.npz` of one row; None for made-up inputs.
        turns: starts of each file.

    Returns:
        For each the medians of load_ms, first_ms, start_ms (both), own_mb and mapped_mb.

    Raises:
        RuntimeError: a process ended early; the message is its last line.
    """
    told: list[list[dict[str, float]]] = [[] for _ in models]
    for _ in range(turns):
        for found, (model, cache) in zip(told, models, strict=True):
            found.append(_once(model, inputs, cache))
    return [{key: statistics.median(one[key] for one in found) for key in found[0]} for found in told]


def _once(model: Path, inputs: Path | None, cache: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as made:
        path, result = Path(made, "job.json"), Path(made, "result.json")
        job = Job(model, inputs).guest(result) | {"cache": cache}
        path.write_text(json.dumps({"guest": guest.__file__, "job": job, "result": str(result)}))
        done = subprocess.run([sys.executable, str(ONCE), str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
        found: dict[str, float] = json.loads(result.read_text())
        return found


def main() -> int:
    """Start what is given, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help=".tflite, .onnx or .pte")
    parser.add_argument("--starts", type=int, default=9, help="of each file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        models: list[tuple[str, Path, str]] = []
        for i, path in enumerate(arguments.files):
            models.append((str(path), path, ""))
            if path.suffix == ".tflite":
                models += [(f"{path}, packed weights kept in memory", path, ":memory:"),
                           (f"{path}, packed weights kept in a file", path, f"{made}/{i}")]  # fmt: skip
        for _, path, cache in models:
            _once(path, None, cache)  # reads the file, and writes the cache
        found = starts([(path, cache) for _, path, cache in models], None, arguments.starts)
    print(f"| file | {' | '.join(COLUMNS.values())} |")
    print("| --- " * (len(COLUMNS) + 1) + "|")
    for (name, _, _), one in zip(models, found, strict=True):
        print(f"| {name} | {' | '.join(f'{one[key]:.0f}' for key in COLUMNS)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
