"""What every device offers: a model file is run on it by the guest script, and what came of it is measured or counted.

Three kinds of number come out, and each measurement says which it holds: `measured-on-host`, `simulated` and
`measured-on-phone`.
"""

import json
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edgebert.errors import InputError, MissingDependency
from edgebert.runtimes.session import Spec

HOST, SIMULATED, PHONE = "measured-on-host", "simulated", "measured-on-phone"

# The runtime of each kind of file that a device runs; a Core ML model needs Apple's own devices.
RUNTIME_OF = {".tflite": "tflite", ".onnx": "onnx", ".pte": "executorch"}


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run.

    Attributes:
        model: a .tflite, .onnx or .pte file, whoever made it.
        inputs: an `.npz` of inputs, or a bundle's golden.npz; None for made-up ones.
        length: for axes of free size, and to choose among lengths; None for the file's longest.
        threads: of the runtime's pool.
        runs: runs that count; warmup: runs before them, at least one, the first of which is told apart.
        outputs: an `.npz` to write with the answers to all inputs, or None.
        options: session options of ONNX Runtime.
        rows: input whose numbers are rows of a table to how many that has, see `Facts.rows`.
        whole: bytes of weights of the model that this file has a few layers of; None for a whole file.
        patience: seconds that this machine waits for a file to load and run for the first time, in memory that has its
            limits too; None for any time.
    """

    model: Path
    inputs: Path | None = None
    length: int | None = None
    threads: int = 1
    runs: int = 20
    warmup: int = 3
    outputs: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, int] = field(default_factory=dict)
    whole: int | None = None
    patience: int | None = None

    @property
    def runtime(self) -> str:
        """The runtime that the file's name asks for; InputError for another kind of file."""
        if not self.model.is_file():
            raise InputError(f"{self.model} is not a file; {', '.join(RUNTIME_OF)} files are run on devices.")
        if self.model.suffix not in RUNTIME_OF:
            raise InputError(f"{self.model} is none of {', '.join(RUNTIME_OF)}, the files that are run on devices.")
        return RUNTIME_OF[self.model.suffix]

    def guest(
        self, result: Path, *, mark: bool = False, affinity: list[int] | None = None, patience: int | None = None,
        memory: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The job as the guest script reads it, with absolute paths of this machine."""
        return {
            "model": str(self.model.resolve()),
            "runtime": self.runtime,
            "result": str(result),
            "inputs": str(self.inputs.resolve()) if self.inputs else None,
            "length": self.length,
            "warmup": self.warmup,
            "runs": self.runs,
            "threads": self.threads,
            "mark": mark,
            "affinity": affinity,
            "outputs": str(self.outputs.resolve()) if self.outputs else None,
            "options": dict(self.options),
            "rows": dict(self.rows),
            "patience": patience,
            "memory": memory,
        }


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of the runs that count, in milliseconds; spread is the 10th to the 90th percentile over the median."""

    median_ms: float
    p90_ms: float
    min_ms: float
    max_ms: float
    spread: float
    runs: int

    @classmethod
    def of(cls, nanoseconds: list[int]) -> "Latency":
        """The statistics of single runs."""
        times = sorted(n / 1e6 for n in nanoseconds)
        p10, median, p90 = (_quantile(times, share) for share in (0.1, 0.5, 0.9))
        return cls(median, p90, times[0], times[-1], (p90 - p10) / median if median else 0.0, len(times))


def _quantile(times: list[float], share: float) -> float:
    """A quantile of sorted values, between neighbours in proportion."""
    place = share * (len(times) - 1)
    low = int(place)
    high = min(low + 1, len(times) - 1)
    return times[low] + (times[high] - times[low]) * (place - low)


@dataclass(frozen=True, slots=True)
class Hot:
    """A block of code that takes much of the time.

    Attributes:
        library: file name, None for memory of no file; symbol: the function, where the library has names.
        offset: the block's address in the library.
        share: of all cycles, 0 to 1.
        instructions: that it ran in one inference.
    """

    library: str | None
    symbol: str | None
    offset: int
    share: float
    instructions: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the cycle model of a simulated phone gives for one inference.

    Attributes:
        instructions: counted, on one thread.
        cycles: of the biggest core's clock; ms: the same in milliseconds at its highest clock.
        low_ms, high_ms: between which the published times of the calibration lay, in proportion.
        core, ghz: the biggest core, which the cycles are of.
        bound: what held most of the time: vector, load, issue, or memory where the weights' streaming did.
        bounds: share of the cycles that each of vector, load and issue held.
        memory_ms: in which the weights are streamed; None where a cache holds them or the bandwidth is not known.
        kinds: instructions by kind, see `edgebert.runtimes.devices.pixel.decode`.
        shares: of the cycles: arithmetic (multiply-accumulates), data movement, everything else.
        hot: the blocks that take most, greatest first.
    """

    instructions: int
    cycles: float
    ms: float
    low_ms: float
    high_ms: float
    core: str
    ghz: float
    bound: str
    bounds: dict[str, float]
    memory_ms: float | None
    kinds: dict[str, int]
    shares: dict[str, float]
    hot: tuple[Hot, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a device found; where it cannot tell a thing, that is None.

    Attributes:
        device: its name.
        how: `measured-on-host`, `simulated` or `measured-on-phone`.
        runtime: tflite, onnx or executorch.
        threads: that the runtime had.
        entry: the signature or method that ran, where the file has such.
        inputs: what went in; outputs: what came out.
        load_ms: opening the file; first_ms: the first run, in which memory and weights are laid out.
        latency: of the steady runs.
        peak_bytes: the most memory that the process held at once, the runtime's libraries included.
        versions: of the runtime and what is below it.
        machine: what the device tells of itself.
        notes: what a reader must know of these numbers.
        estimate: of a simulated phone alone, the modelled time in place of `latency`.
    """

    device: str
    how: str
    runtime: str
    threads: int
    entry: str | None
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    load_ms: float | None
    first_ms: float | None
    latency: Latency | None
    peak_bytes: int | None
    versions: dict[str, str]
    machine: dict[str, Any]
    notes: tuple[str, ...] = ()
    estimate: Estimate | None = None


class Device(Protocol):
    """A place where model files run."""

    @property
    def name(self) -> str:
        """As it is named on the command line."""
        ...

    @property
    def how(self) -> str:
        """What kind of number it gives."""
        ...

    def missing(self) -> str | None:
        """What to do before it can be used; None where it is ready."""
        ...

    def measure(self, job: Job) -> Measurement:
        """Run a job.

        Raises:
            InputError: the file cannot be run as asked, or its runtime crashed on it.
            MissingDependency: the device, or the file's runtime on it, is not there.
        """
        ...


def read_result(path: Path, model: Path, told: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """What the guest script wrote.

    Args:
        path: the result file.
        model: the model file, to be named in errors.
        told: how the guest's process ended.

    Raises:
        InputError: the file cannot be run as asked, or the runtime crashed on it.
        MissingDependency: the runtime is not there.
    """
    try:
        result: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        if told.returncode < 0 and signal.Signals(-told.returncode).name == "SIGALRM":
            raise InputError(f"{model}: its first run was not done in time, so it is left alone.") from None
        last = (told.stderr.strip().splitlines() or [""])[-1][:200]
        raise InputError(f"{model}: the runtime crashed on it (exit {told.returncode}): {last}") from None
    if "error" in result:
        kind = MissingDependency if result["kind"] == "missing" else InputError
        raise kind(f"{model}: {result['error']}")
    return result


def measured(device: str, how: str, job: Job, result: dict[str, Any]) -> Measurement:
    """A measurement of what the guest script told, its times taken as they are."""
    return Measurement(
        device=device,
        how=how,
        runtime=job.runtime,
        threads=job.threads,
        entry=result["entry"],
        inputs=_specs(result["inputs"]),
        outputs=_specs(result["outputs"]),
        load_ms=result["load_ns"] / 1e6,
        first_ms=result["first_ns"] / 1e6,
        latency=Latency.of(result["steady_ns"]),
        peak_bytes=result["peak_bytes"],
        versions=result["versions"],
        machine=result["machine"],
    )


def _specs(told: list[Any]) -> tuple[Spec, ...]:
    return tuple(Spec(name, dtype, tuple(shape)) for name, dtype, shape in told)
