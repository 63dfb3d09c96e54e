"""What model files take on devices: one row a file, device and length, sorted, with ratios to the fastest.

A bundle runs on its golden inputs, at each of its lengths. Any other .tflite, .onnx or .pte file runs on inputs made up
for its own signature.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgebert import durations
from edgebert.errors import InputError
from edgebert.profiling.subject import Progress, Subject, inputs_of
from edgebert.results import megabytes
from edgebert.runtimes.devices import correction
from edgebert.runtimes.devices.device import SIMULATED, Device, Job, Measurement
from edgebert.runtimes.session import Spec

USUAL = 128  # tokens of a file's own shape, for how long it is expected to take
PATIENCE = 20  # seconds for the first run of a file that no bundle vouches for


@dataclass(frozen=True, slots=True)
class Row:
    """One file on one device at one length.

    Attributes:
        file: as it was given.
        target: its runtime; recipe: of a bundle, else None.
        length: tokens that went in; None where no input is one of ids.
        file_bytes: size of the file.
        delegated: see `Subject`.
        found: what the device told, with what kind of numbers they are.
        ratio: median latency over that of the fastest row at the same length; None where either has no time.
        layers: that numbers of a file with fewer layers were extended to; None where the whole file ran.
        sqnr_db: see `Subject`.
    """

    file: str
    target: str
    recipe: str | None
    length: int | None
    file_bytes: int
    delegated: float | None
    found: Measurement
    ratio: float | None = None
    layers: int | None = None
    sqnr_db: float | None = None

    @property
    def median_ms(self) -> float | None:
        """The steady latency, measured or modelled; None where the device tells no time."""
        if self.found.latency is not None:
            return self.found.latency.median_ms
        return self.found.estimate.ms if self.found.estimate else None

    @property
    def band_ms(self) -> tuple[float, float]:
        """Low and high end of the latency: 10th to 90th percentile of runs, or the model's error; 0 without a time."""
        latency, estimate = self.found.latency, self.found.estimate
        if estimate is not None:
            scale = (self.median_ms or 0.0) / (estimate.ms or 1.0)  # where a phone's own measurement calibrates it
            return estimate.low_ms * scale, estimate.high_ms * scale
        return (latency.p90_ms - latency.spread * latency.median_ms, latency.p90_ms) if latency else (0.0, 0.0)

    @property
    def instructions(self) -> int | None:
        """What one inference runs, None where the device does not count."""
        counted: int | None = self.found.machine.get("instructions")
        return self.found.estimate.instructions if self.found.estimate else counted

    def flat(self) -> dict[str, Any]:
        """The row's numbers side by side, with their units; None for those that the device does not tell."""
        steady, peak = self.found.latency, self.found.peak_bytes
        timed = self.median_ms is not None
        return {
            "file": self.file,
            "recipe": self.recipe,
            "device": self.found.device,
            "how": self.found.how,
            "tokens": self.length,
            "threads": self.found.threads,
            "median_ms": self.median_ms,
            "low_ms": self.band_ms[0] if timed else None,
            "high_ms": self.band_ms[1] if timed else None,
            "p90_ms": steady.p90_ms if steady else None,
            "runs": steady.runs if steady else None,
            "ratio": self.ratio,
            "load_ms": self.found.load_ms,
            "first_ms": self.found.first_ms,
            "memory_mb": None if peak is None else megabytes(peak),
            "size_mb": megabytes(self.file_bytes),
            "delegated": self.delegated,
            "sqnr_db": self.sqnr_db,
            "instructions": self.instructions,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values; what the device told stands among them by its own names."""
        own = {key: value for key, value in asdict(self).items() if key != "found"}
        return own | asdict(self.found)


def check_numbers(lengths: Sequence[int], threads: int, runs: int) -> None:
    """Refuse what no device can do."""
    for what, value in (("--lengths", min(lengths, default=1)), ("--threads", threads), ("--runs", runs)):
        if value < 1:
            raise InputError(f"{what} {value}; at least 1 is needed.")


def collect(
    subjects: Sequence[Subject],
    opened: Sequence[Device],
    threads: int = 1,
    runs: int = 20,
    progress: Progress = lambda step: None,
) -> list[Row]:
    """Run every file on every device at each of its lengths.

    Raises:
        InputError: a file cannot be run as asked, or its runtime crashed on it.
        MissingDependency: a device lacks the file's runtime.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
        for device in opened:
            for one in subjects:
                for length in one.lengths:
                    progress(_step(one, device, length))
                    # Nobody vouches for the graph of a file alone, which may never end.
                    patience = PATIENCE if one.manifest is None else None
                    inputs = inputs_of(one, length, Path(made))
                    job = Job(one.model, inputs, length, threads, runs, rows=one.rows, patience=patience)
                    rows.append(row(one, device.measure(job)))
    return ranked(rows)


def _step(one: Subject, device: Device, length: int | None) -> str:
    """What is being measured, and about how long that takes."""
    simulated = device.how == SIMULATED
    seconds = durations.simulation(one.file_bytes, length or USUAL) if simulated else 0.0
    return f"{one.name} on {device.name}{f', {length} tokens' if length else ''}{durations.told(seconds)}"


def row(one: Subject, found: Measurement) -> Row:
    """A row of what a device found, without its ratio as yet; a simulated phone's times as one was calibrated."""
    found = correction.apply(found, one.kind)
    found = replace(found, notes=(*found.notes, *one.notes))
    tokens = _tokens(found.inputs)
    return Row(
        one.name, one.target, one.recipe, tokens, one.file_bytes, one.delegated, found, sqnr_db=one.sqnr_db
    )  # fmt: skip


def _tokens(inputs: Sequence[Spec]) -> int | None:
    """Length of the first input of ids, (1, T)."""
    shapes = (spec.shape for spec in inputs if spec.dtype.startswith(("int", "uint")) and len(spec.shape) == 2)
    return next((shape[1] for shape in shapes), None)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Rows by length and then latency, those without a time last, with their ratios."""
    fastest: dict[int | None, float] = {}
    for one in rows:
        if one.median_ms is not None:
            fastest[one.length] = min(one.median_ms, fastest.get(one.length, one.median_ms))
    told = [
        replace(one, ratio=one.median_ms / fastest[one.length] if one.median_ms and fastest[one.length] else None)
        for one in rows
    ]
    return sorted(told, key=lambda one: (one.length or 0, one.median_ms is None, one.median_ms or 0.0))


def apart(rows: Sequence[Row]) -> list[Row]:
    """Rows as they are shown: where numbers of threads differ, each device is named with its own."""
    if len({one.found.threads for one in rows}) < 2:
        return list(rows)

    def named(found: Measurement) -> Measurement:
        return replace(found, device=f"{found.device}, {found.threads} thread{'s' * (found.threads > 1)}")

    return [replace(one, found=named(one.found)) for one in rows]
