"""What a sweep's engine costs by itself: a thousand cells with a stand-in for export, gate and devices.

    python benchmarks/sweep_engine.py [--cells 1000] [--workers 2]

A stand-in gives back at once a record as large as that of a real cell, with a gate's report and 30 rows. Prints the
milliseconds a cell, the memory of this process as it goes, and what that comes to for 100,000 cells on 100 machines of
16 workers, where a real cell takes a minute.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil

from edgebert.sweep import engine, plan, records
from edgebert.sweep.contents import Content
from edgebert.sweep.engine import Begun
from edgebert.sweep.plan import Plan
from edgebert.sweep.records import DONE, Record

MANY, SLOTS, SECONDS = 100_000, 1600, 60.0


def stand_in(told: dict[str, Any], memory: int | None) -> dict[str, Any]:
    """A record as large as a real one, at once."""
    row = {
        "device": "pixel-4", "how": "simulated", "tokens": 128, "threads": 1, "median_ms": 12.3, "low_ms": 10.0,
        "high_ms": 15.0, "instructions": 123_456_789,
    }  # fmt: skip
    gate = {"checks": [{"name": f"check {i}", "passed": True, "detail": "x" * 80} for i in range(20)]}
    record = Record(told["key"], told["model"], told["target"], told["recipe"], DONE, gate=gate, rows=[row] * 30)
    return asdict(record)


def main() -> int:
    """Run it, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    (one,) = plan.cells(Plan(target=("tflite",), recipe=("fp32",)), {"default": Content("default")}, None)
    cells = [replace(one, runs=i + 1) for i in range(arguments.cells)]
    done, process, first = 0, psutil.Process(), 0.0
    with tempfile.TemporaryDirectory() as folder:

        def tell(event: Begun | Record) -> None:
            nonlocal done, first
            if isinstance(event, Record):
                records.append(Path(folder), event)
                first = first or time.perf_counter()
                done += 1
                if done % (arguments.cells // 5) == 0:
                    print(f"{done} cells, {process.memory_info().rss / 1e6:.0f} MB", flush=True)

        engine.run(cells, tell, workers=arguments.workers, work=stand_in)
        each = (time.perf_counter() - first) / max(done - 1, 1)
        assert len(records.load(Path(folder))) == arguments.cells
    print(f"{1000 * each:.1f} ms a cell")
    share = each / (SECONDS / SLOTS)
    print(f"{MANY:,} cells of {SECONDS:.0f} s on {SLOTS} workers: {MANY * SECONDS / SLOTS / 3600:.1f} h of work, and")
    print(f"{MANY * each / 3600:.1f} h of one engine beside it, {100 * share:.0f}% of the time that it has a cell")
    return 0


if __name__ == "__main__":
    sys.exit(main())
