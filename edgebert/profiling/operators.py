"""Where the time of a file goes, by operator, as its own runtime's profiler tells on this host."""

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgebert.profiling.subject import Subject, inputs_of
from edgebert.runtimes.devices.device import HOST, Job, read_result
from edgebert.runtimes.devices.guest import trace

# Why a runtime tells no times of operators; those that are not here do.
NO_PROFILER = {
    "tflite": "LiteRT's Python wheel has no profiler of operators (its benchmark_model has, with "
    "--enable_op_profiling=true), so only their numbers are told",
    "executorch": "ExecuTorch's Python wheel is built without its event tracer (EXECUTORCH_ENABLE_EVENT_TRACER), so it "
    "writes no ETDump, and only the numbers of operators are told",
}

COUNTED = "counted in the file"


@dataclass(frozen=True, slots=True)
class Operator:
    """A kind of operator.

    Attributes:
        kind: its name.
        count: how often one inference runs it, or how often it stands in the graph where `ms` is None.
        ms: what all of them take in one inference.
        share: of the time of all operators.
    """

    kind: str
    count: int
    ms: float | None
    share: float | None


@dataclass(frozen=True, slots=True)
class Operators:
    """The operators of a file, those that take most first.

    Attributes:
        file: as it was given.
        length: that it ran at; None for the file's own.
        how: `measured-on-host`, by a profiler that takes time itself, or `counted in the file`.
        rows: kinds of operators.
        note: why there are no times; empty where there are.
    """

    file: str
    length: int | None
    how: str
    rows: tuple[Operator, ...]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def by_operator(one: Subject, threads: int = 1, runs: int = 20) -> list[Operators]:
    """The operators of a file at each of its lengths; once where its runtime tells no times.

    Raises:
        InputError: the file cannot be run as asked.
        MissingDependency: its runtime is not on this host.
    """
    if note := NO_PROFILER.get(one.target):
        counts = sorted((one.operators or {}).items(), key=lambda item: -item[1])
        rows = tuple(Operator(kind, count, None, None) for kind, count in counts)
        return [Operators(one.name, None, COUNTED, rows, note)]
    return [Operators(one.name, length, HOST, _traced(one, length, threads, runs), "") for length in one.lengths]


def _traced(one: Subject, length: int | None, threads: int, runs: int) -> tuple[Operator, ...]:
    """Run a file on this host with its runtime's profiler."""
    with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
        result, path = Path(made, "result.json"), Path(made, "job.json")
        job = Job(one.model, inputs_of(one, length, Path(made)), length, threads, runs, rows=one.rows)
        path.write_text(json.dumps(job.guest(result)))
        told = subprocess.run(
            [sys.executable, "-P", trace.__file__, str(path)],
            capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        written = read_result(result, one.model, told)["trace"]
        return summed(json.loads(Path(written).read_text(encoding="utf-8", errors="replace")), runs)


def summed(events: list[dict[str, Any]], runs: int) -> tuple[Operator, ...]:
    """What ONNX Runtime's profile says of the last runs, by kind of operator.

    Args:
        events: in Chrome's trace format; `dur` and `ts` are microseconds.
        runs: of those in the profile, those that count.
    """
    whole = sorted((event for event in events if event.get("name") == "model_run"), key=lambda event: event["ts"])
    since = whole[-runs]["ts"] if len(whole) >= runs else 0
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        kind = event.get("args", {}).get("op_name")
        if kind and event.get("cat") == "Node" and event["ts"] >= since and event["name"].endswith("_kernel_time"):
            times[kind].append(event["dur"] / 1e3)
    total = sum(map(sum, times.values()))
    counted = min(runs, len(whole)) or 1
    rows = [
        Operator(kind, round(len(took) / counted), sum(took) / counted, sum(took) / total if total else 0.0)
        for kind, took in times.items()
    ]
    return tuple(sorted(rows, key=lambda row: -(row.ms or 0.0)))
