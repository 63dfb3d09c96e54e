"""Dask's workers do a sweep's cells: real schedulers and workers as processes, which die and are cut off."""

import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import standin

from edgebert.errors import InputError
from edgebert.sweep import engine, plan
from edgebert.sweep.contents import Content
from edgebert.sweep.engine import Begun, Idle
from edgebert.sweep.plan import Cell, Plan
from edgebert.sweep.records import DONE, LOST, REFUSED, Record

pytest.importorskip("distributed")
from dask_cluster import cluster, worker


def cells(count: int, **change: object) -> list[Cell]:
    (one,) = plan.cells(Plan(target=("tflite",), recipe=("fp32",)), {"default": Content("default")}, None)
    return [replace(one, runs=i + 1, **change) for i in range(count)]  # type: ignore[arg-type]


def told_by(those: Sequence[Cell], **how: object) -> list[Begun | Idle | Record]:
    found: list[Begun | Idle | Record] = []
    engine.run(those, found.append, **how)  # type: ignore[arg-type]
    return found


def records(told: Sequence[Begun | Idle | Record]) -> list[Record]:
    return [event for event in told if isinstance(event, Record)]


def test_each_cell_is_told_once_as_it_begins_and_once_as_it_is_done() -> None:
    asked = cells(7)
    told = told_by([*asked, *asked], workers=2, work=standin.at_once)
    assert sorted(one.key for one in records(told)) == sorted(cell.key for cell in asked)
    assert all(one.status == DONE for one in records(told))
    assert sorted(event.key for event in told if isinstance(event, Begun)) == sorted(cell.key for cell in asked)


@pytest.mark.slow
def test_a_cell_that_workers_die_of_is_a_row_and_the_others_are_done() -> None:
    asked = [*cells(3), *cells(1, recipe="w8")]
    found = {one.key: one for one in records(told_by(asked, workers=2, work=standin.deadly))}
    assert [found[cell.key].status for cell in asked] == [DONE, DONE, DONE, LOST]
    assert "4 workers died of it" in found[asked[-1].key].reason


def test_what_a_target_does_not_take_needs_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_client", None)
    (told,) = records(told_by(cells(1, recipe="w4")))
    assert (told.status, told.exit_code) == (REFUSED, 4)
    assert "tflite does not take w4" in told.reason


class Cable:
    """Between a client and a scheduler; `cut` ends the connections that there are, and new ones are let through."""

    def __init__(self, address: str) -> None:
        host, port = re.fullmatch(r"tcp://([\d.]+):(\d+)", address).groups()  # type: ignore[union-attr]
        self.far, self.ends = (host, int(port)), list[socket.socket]()
        self.near = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.near.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, other = self.near.accept()[0], socket.create_connection(self.far)
                self.ends += [one, other]
                for pair in ((one, other), (other, one)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 16):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.ends.clear()


def plain(told: Sequence[Record]) -> list[tuple[str, str, str, str]]:
    return sorted((one.key, one.target, one.recipe, one.status) for one in told)


def test_a_killed_worker_and_a_cut_connection_change_no_result() -> None:
    asked, found, begun = cells(24), list[Record](), set[str]()
    with cluster(3) as (address, workers):
        cable = Cable(address)

        def tell(event: Begun | Idle | Record) -> None:
            if isinstance(event, Begun):
                begun.add(event.key)
            if isinstance(event, Record):
                found.append(event)
                if len(found) == 6:
                    workers[0].send_signal(signal.SIGKILL)
                if len(found) == 10:
                    cable.cut()

        engine.run(asked, tell, scheduler=cable.address, work=standin.nap)
        calm = records(told_by(asked, scheduler=address, work=standin.nap))
    assert begun == {cell.key for cell in asked}  # heard after the cut too
    assert plain(found) == plain(calm)
    assert len(calm) == len(asked)
    assert len({one.machine for one in found}) == 3  # each worked


def test_a_cluster_without_workers_is_told_and_whoever_comes_works() -> None:
    asked, found = cells(2), list[Begun | Idle | Record]()
    with contextlib.ExitStack() as held:
        address, _ = held.enter_context(cluster(0))

        def tell(event: Begun | Idle | Record) -> None:
            found.append(event)
            if isinstance(event, Idle):
                held.enter_context(worker(event.scheduler))

        engine.run(asked, tell, scheduler=address, work=standin.at_once)
    assert found[0] == Idle(address)
    assert found.count(found[0]) == 1
    assert sorted(one.key for one in records(found)) == sorted(cell.key for cell in asked)


def test_no_scheduler_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE", 1.0)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        told_by(cells(1), scheduler="tcp://127.0.0.1:9", work=standin.at_once)


def test_a_worker_of_another_version_refuses() -> None:
    (other,) = cells(1, versions={"edgebert": "0.0.1", "torch": "1"})
    told = Record(**engine.in_a_process(engine.asdict(other) | {"key": other.key}, None))
    assert told.status == LOST
    assert "a worker has other versions than this sweep: edgebert" in told.reason


def test_a_cell_that_takes_too_much_memory_is_ended() -> None:
    (one,) = cells(1)
    began = time.monotonic()
    told = Record(**engine.in_a_process(engine.asdict(one) | {"key": one.key}, 50_000_000))
    assert told.status == LOST
    assert "more than the 0.1 GB of a worker: give fewer --workers" in told.reason
    assert time.monotonic() - began < 60


def test_a_model_travels_by_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
    from edgebert.sweep import contents

    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "1_Pooling/config.json", "model.safetensors", "pytorch_model.bin", "picture.png"):
        (folder / name).write_text(name, encoding="utf-8")
    one = contents.of_model(str(folder), False, frozenset())
    contents.unpack(one.sha256, contents.pack(one))
    arrived = contents.place(replace(one, path="/not/here"))
    assert arrived is not None
    files = sorted(path.relative_to(arrived).as_posix() for path in arrived.rglob("*") if path.is_file())
    # One form of the weights, and what is read beside them.
    assert files == ["1_Pooling/config.json", "config.json", "model.safetensors"]
    (folder / "config.json").write_text("other", encoding="utf-8")
    assert contents.of_model(str(folder), False, frozenset()).sha256 != one.sha256
    with pytest.raises(InputError, match="is not on this machine, and did not travel here"):
        contents.place(Content("unknown", "/not/here"))
