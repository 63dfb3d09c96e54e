"""This machine as a device: the guest script in a process of its own, with this interpreter."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from edgebert.runtimes.apart import memory
from edgebert.runtimes.devices.device import HOST, Job, Measurement, measured, read_result
from edgebert.runtimes.devices.guest import guest


class Host:
    """This machine; its times say little of a phone's."""

    name, how = "host", HOST

    def missing(self) -> str | None:
        """Nothing: what a file's runtime needs is told when it is run."""
        return None

    def measure(self, job: Job) -> Measurement:
        """Run a job on as many of this machine's cores as it has threads."""
        with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
            result, path = Path(made, "result.json"), Path(made, "job.json")
            limit = memory(job.model) if job.patience and sys.platform == "linux" else None
            asked = job.guest(result, affinity=_cores(job.threads), patience=job.patience, memory=limit)
            path.write_text(json.dumps(asked))
            told = subprocess.run(
                # Isolated from the folder that the command was given in, whose files could pass for packages.
                [sys.executable, "-P", guest.__file__, str(path)],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
            )
            return measured(self.name, self.how, job, read_result(result, job.model, told))


def _cores(threads: int) -> list[int] | None:
    """As many cores as threads, of those that this process may use; None where that cannot be had."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[-threads:] if threads <= len(allowed) else None


def names() -> tuple[str, ...]:
    """Its one name."""
    return ("host",)


def open(name: str) -> Host:
    """The device."""
    return Host()
