"""Dask's workers do the cells of a sweep, each in a process of its own; what comes back is kept as it comes.

A cell is one task, named by its key. Few are given out at a time, so that memory does not grow with their number. What
a lost worker had is done again by another, which Dask sees to; what a lost connection had is asked for again here.
"""

import contextlib
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from edgebert.catalog import check_recipe
from edgebert.errors import EdgebertError, InputError, MissingDependency
from edgebert.sweep import contents
from edgebert.sweep.plan import TORCH, Cell, versions
from edgebert.sweep.records import LOST, REFUSED, Record

TRIES = 4  # times that a cell is begun, whose workers die
PATIENCE = 60.0  # seconds to find a scheduler again
WATCHED = 0.2  # seconds between looks at a cell's memory
COUNTED = 5.0  # seconds between counts of the workers
KEPT = 100  # entries of Dask's own logs, which would grow with the cells
STARTED = "edgebert-sweep"  # the topic on which workers tell what they begin

Work = Callable[[dict[str, Any], int | None], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker began a cell."""

    key: str


@dataclass(frozen=True, slots=True)
class Idle:
    """No worker is there; told once, until one comes and goes again."""

    scheduler: str


Told = Callable[[Begun | Idle | Record], None]


def run(
    cells: Sequence[Cell],
    tell: Told,
    workers: int | None = None,
    scheduler: str | None = None,
    work: Work | None = None,
) -> None:
    """Do cells, and tell of each as it begins and once it is done.

    Args:
        cells: what to do; the same twice is done once.
        tell: is told in this thread, a record once for each cell.
        workers: of this machine, one a core where None; without `scheduler`.
        scheduler: address of a Dask cluster that is there, to take in place of workers of this machine.
        work: what a worker does for a cell's plain values and the memory that it may take; `in_a_process` where None.

    Raises:
        MissingDependency: Dask is not installed.
        InputError: there is no scheduler at that address, or it was lost for long.
    """
    if find_spec("distributed") is None:
        raise MissingDependency('a sweep needs Dask: run pip install "edgebert[sweep]"')
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # their tracebacks are no user's
    waiting: deque[Cell] = deque()
    for cell in {cell.key: cell for cell in cells}.values():
        try:
            if cell.target != TORCH:
                check_recipe(cell.target, cell.recipe)
            waiting.append(cell)
        except EdgebertError as error:
            record = _ended(cell, REFUSED, str(error))
            record.exit_code = error.exit_code
            tell(record)
    travelling = {one.sha256: one for cell in cells for one in (cell.content, cell.figures) if one and one.path}
    while waiting:
        with _client(workers, scheduler) as client:
            if scheduler is not None:
                _send(client, travelling.values())
            try:
                _give_out(client, waiting, tell, work or in_a_process)
            finally:
                if scheduler is not None and client.status == "running":
                    with contextlib.suppress(Exception):
                        for sha256 in travelling:
                            client.unregister_worker_plugin(_plugin(sha256))


@contextlib.contextmanager
def _client(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """A client of the cluster that is there, or of one made for this."""
    import dask
    import distributed

    dask.config.set({
        "distributed.comm.timeouts.connect": PATIENCE,
        "distributed.scheduler.allowed-failures": TRIES - 1,
        "distributed.admin.log-length": KEPT,
        "distributed.admin.low-level-log-length": KEPT,
    })
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise InputError(f"no Dask scheduler answers at {scheduler}: {error or 'it took too long'}") from None
        with contextlib.closing(client):
            yield client
        return
    count = workers or os.cpu_count() or 1
    with (
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _plugin(sha256: str) -> str:
    return f"edgebert-{sha256}"


def _send(client: Any, those: Any) -> None:
    """Let every worker have what its cells need, those that come later too; once each."""
    from distributed import WorkerPlugin

    class Travelled(WorkerPlugin):  # type: ignore[misc]
        """A model or texts, by what they are."""

        def __init__(self, sha256: str, packed: bytes) -> None:
            self.sha256, self.packed = sha256, packed

        def setup(self, worker: Any) -> None:
            """Keep it on the worker's machine."""
            contents.unpack(self.sha256, self.packed)
            self.packed = b""

    for one in those:
        client.register_plugin(Travelled(one.sha256, contents.pack(one)), name=_plugin(one.sha256))


def _listen(client: Any, begun: deque[str]) -> None:
    """Have the scheduler pass on keys of cells as workers begin them; it forgets that with the connection."""
    client.subscribe_topic(STARTED, lambda event: begun.append(str(event[1]["key"])))


def _give_out(client: Any, waiting: deque[Cell], tell: Told, work: Work) -> None:
    """Give out cells and take in what comes of them, until none waits or the client is lost."""
    out: dict[Any, Cell] = {}
    ended: SimpleQueue[Any] = SimpleQueue()
    begun: deque[str] = deque()
    slots, counted, lost, heard, idle = 1, -math.inf, math.inf, False, False
    while waiting or out:
        now = time.monotonic()
        if client.status != "running":
            heard = False
        elif not heard:
            _listen(client, begun)
            heard = True
        if client.status == "running" and now - counted > COUNTED:
            there, counted = sum(client.nthreads().values()), now
            if not there and not idle:
                tell(Idle(str(client.scheduler.address)))
            slots, idle = max(there, 1), not there
        # One for each slot: Dask counts a worker's death against all that it was to do.
        while waiting and len(out) < slots and client.status == "running":
            cell = waiting.popleft()
            told = asdict(cell) | {"key": cell.key}
            future = client.submit(_on_a_worker, work, told, key=f"cell-{cell.key}", pure=False)
            out[future] = cell
            future.add_done_callback(ended.put)
        those = _those_ended(ended, out)
        while begun:
            tell(Begun(begun.popleft()))
        answers = _answers(client, those)
        for future in those:
            cell = out.pop(future)
            if (record := _record(cell, future, answers)) is None:
                waiting.appendleft(cell)
            else:
                tell(record)
                future.release()
        lost = math.inf if client.status == "running" else min(lost, now)
        if client.status == "closed" or now - lost > PATIENCE:
            waiting.extendleft(out.values())
            return


def _those_ended(ended: "SimpleQueue[Any]", out: Mapping[Any, Cell]) -> list[Any]:
    """Cells that are no longer out: as they tell it, and where none does for a second, as they are seen."""
    found = []
    with contextlib.suppress(Empty):
        found.append(ended.get(timeout=1.0))
        while True:
            found.append(ended.get_nowait())
    return [one for one in dict.fromkeys(found) if one in out] or [one for one in out if one.status != "pending"]


def _answers(client: Any, those: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """What workers gave back for those that are finished; nothing where the connection is lost over it."""
    finished = [one for one in those if one.status == "finished"]
    try:
        return dict(zip(finished, client.gather(finished), strict=True))
    except (CancelledError, OSError, TimeoutError):
        return {}


def _record(cell: Cell, future: Any, answers: Mapping[Any, dict[str, Any]]) -> Record | None:
    """What came of a cell; None where it must be done again."""
    from distributed.scheduler import KilledWorker

    if future in answers:
        return Record(**answers[future])
    if future.status != "error":
        return None
    error = future.exception()
    if isinstance(error, KilledWorker):
        return _ended(cell, LOST, f"{TRIES} workers died of it, one after the other")
    return _ended(cell, LOST, f"{type(error).__name__}: {error}")


def _ended(cell: Cell, status: str, reason: str) -> Record:
    return Record(cell.key, cell.model, cell.target, cell.recipe, status, reason, versions=dict(cell.versions))


def _on_a_worker(work: Work, told: dict[str, Any]) -> dict[str, Any]:
    """A cell on a worker: told that it begins, and done."""
    from distributed import get_worker

    worker = get_worker()
    worker.log_event(STARTED, {"key": told["key"]})
    return work(told, worker.memory_manager.memory_limit)


def in_a_process(told: dict[str, Any], memory: int | None) -> dict[str, Any]:
    """Do a cell in a process of its own, which may take so much memory.

    Args:
        told: the cell's plain values, and its key.
        memory: bytes; None for no limit.

    Returns:
        The record's plain values.
    """
    asked = {name: value for name, value in told.items() if name != "key"}
    record = Record(told["key"], told["model"], told["target"], told["recipe"], LOST, versions=dict(told["versions"]))
    if (here := versions(told["target"])) != dict(told["versions"]):
        other = ", ".join(
            f"{name} {here[name] or 'missing'}" for name in here if here[name] != told["versions"].get(name)
        )
        record.reason = f"a worker has other versions than this sweep: {other}; install the same there"
        return asdict(record)
    with tempfile.TemporaryDirectory(prefix="edgebert-cell-") as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "log")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as written:
            process = subprocess.Popen(
                [sys.executable, "-m", "edgebert.sweep.cell"], stdin=subprocess.PIPE, stdout=written, stderr=written,
                env=environment, start_new_session=True,
            )  # fmt: skip
            try:
                assert process.stdin is not None
                process.stdin.write(json.dumps({"cell": asked, "answer": str(answer)}).encode() + b"\n")
                process.stdin.flush()
                peak, ended_here = _watch(process, memory)
            finally:
                _end(process)
        if answer.exists():
            return dict(json.loads(answer.read_text(encoding="utf-8")))
        record.reason = (
            f"it took {peak / 1e9:.1f} GB, more than the {(memory or 0) / 1e9:.1f} GB of a worker: give fewer --workers"
            if ended_here
            else f"its process ended by {_code(process.returncode)}: {_last_line(log)}"
        )
        return asdict(record)


def _watch(process: "subprocess.Popen[bytes]", memory: int | None) -> tuple[int, bool]:
    """Wait for a process; the most that it took, in bytes, and whether it was ended for that."""
    import psutil

    peak = 0
    while process.poll() is None:
        taken = 0
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(process.pid)
            for one in (own, *own.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    taken += one.memory_info().rss
        peak = max(peak, taken)
        if memory and taken > memory:
            return peak, True
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(WATCHED)
    return peak, False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process, with those that it started."""
    import psutil

    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                one.kill()
    process.kill()
    process.wait()


def _code(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
