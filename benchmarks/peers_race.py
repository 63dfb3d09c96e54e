"""Time model files of one runtime in turn, A B A B, in this process and on one core: `python peers_race.py job.json`.

What disturbs a busy machine then falls on all of them alike. The runtimes are driven by the guest script that devices
run, loaded by its path: edgebert itself would import torch, which ExecuTorch's bindings do without.
"""

import functools
import importlib.util
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any


def load(path: str) -> Any:
    """The guest script as a module."""
    spec = importlib.util.spec_from_file_location("guest", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.bare_torch = functools.cache(module.bare_torch)  # torch's libraries can be started once in a process
    return module


def race(guest: Any, jobs: list[dict[str, Any]], rounds: int) -> list[dict[str, float]]:
    """Load every file, run each once, and then all in turn; gives the median of each in milliseconds.

    What loading takes is not told: what a runtime does once in a process would fall on the first file alone.
    """
    runners = []
    for job in jobs:
        model = guest.RUNTIMES[job["runtime"]](job)
        model.load()
        specs = model.inputs()
        row = guest.choose(specs, guest.read_cases(specs, job), job)
        model.run(row)
        runners.append((model, row))
    times: list[list[int]] = [[] for _ in runners]
    for turn in range(rounds):
        order = list(enumerate(runners))
        for i, (model, row) in order if turn % 2 else reversed(order):  # none is always the first after another
            times[i].append(guest.timed(model.run, row)[1])
    return [{"median_ms": statistics.median(own) / 1e6} for own in times]


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    Path(given["result"]).write_text(json.dumps(race(load(given["guest"]), given["jobs"], given["rounds"])))
