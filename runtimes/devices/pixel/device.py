"""Simulated Pixels as devices: the runtimes' own aarch64 builds on an emulated core, counted block by block.

The emulator's clock says nothing of a phone's: what is simulated here is which instructions run. A cycle model makes
times of them, see `edgebert.runtimes.devices.pixel.cycles`.
"""

import dataclasses
from typing import TYPE_CHECKING

from edgebert.errors import EdgebertError
from edgebert.runtimes.devices.device import SIMULATED, Estimate, Job, Latency, Measurement, measured
from edgebert.runtimes.devices.pixel import phones, sandbox

if TYPE_CHECKING:
    from edgebert.runtimes.devices.pixel.counter import Counts

UNTIMED = "times of an emulated core are the emulator's, and are left out"
MODELLED = (
    "the time is that of a cycle model on counted instructions, at the core's highest clock; nine of ten published "
    "times of {whose} lay within {low:.0%} and {high:+.0%} of it, and one chip in two phones differed by 1.85 times"
)
TOGETHER = (
    "{threads} threads: blocks counted on one core, shared out over the biggest cores by their speed, but for the time "
    "that weights take which threads read together"
)
UNKNOWN_MEMORY = "how fast this phone's memory streams weights is not known, and bounds nothing here"

TABLE = 8192  # an axis of so many rows or more is a vocabulary's, of which an inference reads a few rows


class Pixel:
    """A phone of `phones.PHONES`, played by its biggest core."""

    how = SIMULATED

    def __init__(self, phone: phones.Phone) -> None:
        self.phone = phone
        self.name = phone.name

    def missing(self) -> str | None:
        """The command that makes the sandbox, None when it is there."""
        return sandbox.missing()

    def count(self, job: Job) -> "Counts":
        """Count what one steady inference runs; see `counter.count`."""
        from edgebert.runtimes.devices.pixel import counter  # which imports this package for its guest script

        return counter.count(job, self.phone)

    def measure(self, job: Job) -> Measurement:
        """Run a job on one thread, and model its time on as many as it asks for; outputs are the phone's kernels'."""
        from edgebert.runtimes.devices.pixel import cycles

        cycles.workers(self.phone, job.threads)  # refuses more than the phone has, before minutes of work
        counts = self.count(dataclasses.replace(job, threads=1))
        found = cycles.estimate(counts, self.phone, job.threads, streamed(job), job.whole)
        told = dataclasses.replace(untimed(self.name, job, counts), estimate=found, latency=_exact(found))
        low, high = found.low_ms / found.ms - 1, found.high_ms / found.ms - 1
        notes = [UNTIMED, MODELLED.format(whose=cycles.whose_rows(found.core), low=low, high=high)]
        if job.threads > 1:
            notes.append(TOGETHER.format(threads=job.threads))
        if cycles.bandwidth(self.phone) is None:
            notes.append(UNKNOWN_MEMORY)
        return dataclasses.replace(told, notes=tuple(notes), machine=told.machine | {"cycles": round(found.cycles)})


def _exact(found: Estimate) -> Latency:
    """The modelled time as that of the one run that was counted; how far it may be off is the estimate's to tell."""
    return Latency(found.ms, found.ms, found.ms, found.ms, 0.0, 1)


def streamed(job: Job) -> int:
    """Bytes of weights that one inference reads: those of the file, less tables of which it looks up a few rows."""
    from edgebert.runtimes import RUNTIMES

    size = job.model.stat().st_size
    try:
        weights = RUNTIMES[job.runtime].facts(job.model).weights
    except (EdgebertError, ImportError):  # this host has no such runtime, or knows less of the file than the phone's
        return size
    return sum(weight.bytes for weight in weights if max(weight.shape, default=0) < TABLE) or size


def untimed(name: str, job: Job, counts: "Counts") -> Measurement:
    """What an emulated run tells without a cycle model."""
    found = measured(name, SIMULATED, job, counts.guest)
    return dataclasses.replace(
        found,
        load_ms=None,
        first_ms=None,
        latency=None,
        peak_bytes=None,
        machine=found.machine | {"cpu": counts.cpu, "instructions": counts.instructions},
        notes=(UNTIMED,),
    )


def names() -> tuple[str, ...]:
    """The phones, oldest first."""
    return tuple(phones.PHONES)


def open(name: str) -> Pixel:
    """The device of a phone's name, which must be one of `names()`."""
    return Pixel(phones.PHONES[name])
