"""A Dask cluster of processes on loopback, by Dask's own programs."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import distributed

HELPERS = Path(__file__).parent


@contextlib.contextmanager
def started(*command: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """One of Dask's own programs."""
    environment = os.environ | {"PYTHONPATH": str(HELPERS)} | variables
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def address_of(scheduler: subprocess.Popen[str]) -> str:
    assert scheduler.stderr is not None
    for line in scheduler.stderr:
        if found := re.search(r"Scheduler at:\s+(tcp://\S+)", line):
            threading.Thread(target=scheduler.stderr.read, daemon=True).start()
            return found[1]
    raise AssertionError("the scheduler told no address")


WHERE = ("--host", "127.0.0.1", "--no-dashboard")


def worker(address: str, **variables: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    """A worker of the scheduler there, with more environment variables."""
    own = ("--nthreads", "1", "--no-nanny")
    return started("distributed.cli.dask_worker", address, *WHERE, *own, **variables)


@contextlib.contextmanager
def cluster(workers: int, **variables: str) -> Iterator[tuple[str, list[subprocess.Popen[str]]]]:
    """A scheduler and workers."""
    with contextlib.ExitStack() as held:
        scheduler = held.enter_context(started("distributed.cli.dask_scheduler", *WHERE, "--port", "0"))
        address = address_of(scheduler)
        processes = [held.enter_context(worker(address, **variables)) for _ in range(workers)]
        if workers:
            with distributed.Client(address) as client:
                client.wait_for_workers(workers)
        yield address, processes
