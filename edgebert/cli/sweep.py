"""The verbs `sweep` and `report` of the command line."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgebert.catalog import FAMILIES, known
from edgebert.cli import render
from edgebert.errors import BudgetMissed, InputError
from edgebert.files import interrupts, read_json, replaced
from edgebert.profiling import told
from edgebert.profiling.rows import Row
from edgebert.profiling.subject import devices as open_devices
from edgebert.runtimes.devices import device_names
from edgebert.sweep import budget, contents, engine, evaluate, page, plan, records
from edgebert.sweep.engine import Begun, Idle
from edgebert.sweep.plan import Cell, Plan
from edgebert.sweep.records import DONE, REFUSED, Record

KEPT = "plan.json"
LAST = 5  # results that are shown on a terminal


def sweep(arguments: argparse.Namespace, stop: Callable[[], bool]) -> int:
    """Do the cells that are not done, write the report, and pick the one that keeps to the budgets."""
    asked = _asked(arguments)
    limits = [budget.parse(text) for text in asked.budget]
    budget.check(limits, asked.device, asked.eval is not None)
    plan.check(asked)
    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}; at least 1 is needed.")
    if arguments.scheduler is None:
        open_devices(asked.device)
    for name in asked.device:  # elsewhere they may be ready
        known("device", name.partition(":")[0], device_names())
    presets = frozenset(name for family in FAMILIES.values() for name in family.presets)
    models = {name: contents.of_model(name, asked.random_init, presets) for name in dict.fromkeys(asked.model)}
    figures = contents.of_file(Path(asked.eval)) if asked.eval else None
    if figures:
        evaluate.read(Path(asked.eval or ""))
    cells = plan.cells(asked, models, figures)
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    there = records.load(folder)
    _keep(folder, asked, cells)
    due = [cell for cell in cells if cell.key not in there or there[cell.key].status == records.LOST]
    shown = Shown(len(cells), len(cells) - len(due), _slots(arguments), arguments.json)

    def tell(event: Begun | Idle | Record) -> None:
        if isinstance(event, Record):
            with interrupts(put_off=True):  # so that what is kept is also told
                records.append(folder, event)
                there[event.key] = event
        shown(event)
        if stop():
            raise KeyboardInterrupt

    try:
        with shown:
            engine.run(due, tell, arguments.workers, arguments.scheduler)
    except KeyboardInterrupt:
        kept = sum(cell.key in there for cell in cells)
        raise KeyboardInterrupt(
            f"{kept} of {len(cells)} cells are kept in {folder}: the same command goes on with the others"
        ) from None
    found = [there[cell.key] for cell in cells]
    page.write(folder, asked, found, 0)
    return _told(arguments, asked, found, limits)


def _slots(arguments: argparse.Namespace) -> int | None:
    """Cells at once, where that is known beforehand."""
    return None if arguments.scheduler else arguments.workers or os.cpu_count() or 1


def _asked(arguments: argparse.Namespace) -> Plan:
    """The plan of a file, and what the command line says in its place."""
    given = plan.read(Path(arguments.plan)) if arguments.plan else {}
    named = {"model": arguments.model, "eval": arguments.eval, "task": arguments.task}
    named |= {name: getattr(arguments, name) for name in ("target", "recipe", "lengths", "device", "budget")}
    named |= {name: getattr(arguments, name) for name in ("threads", "runs")}
    given |= {name: tuple(v) if isinstance(v, list) else v for name, v in named.items() if v not in (None, [])}
    return Plan(**given | ({"random_init": True} if arguments.random_init else {}))


def _keep(folder: Path, asked: Plan, cells: Sequence[Cell]) -> None:
    """Write down what was asked for, and which records are its cells'."""
    with replaced(folder / KEPT) as beside:
        told = asdict(asked) | {"cells": [cell.key for cell in cells]}
        beside.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _told(arguments: argparse.Namespace, asked: Plan, found: Sequence[Record], limits: Sequence[budget.Budget]) -> int:
    """Say what came of it, and whether a cell keeps to the budgets."""
    picked = budget.pick(found, limits) if limits else None
    held = picked is not None and picked.over(limits) <= 1
    if arguments.json:
        rows = list(records.flat(found))
        chosen = None if picked is None else {"record": asdict(picked.record), "keeps": held}
        print(json.dumps({"folder": str(arguments.out), "rows": rows, "picked": chosen}))
    else:
        _print(arguments.out, asked, found)
    if not limits:
        return 0
    if picked is None:
        raise BudgetMissed(f"no cell of {arguments.out} is done, so none keeps to {_listed(limits)}.")
    line = page.command(asked, picked.record)
    pairs = zip(limits, picked.found, strict=True)
    seen = ", ".join(f"{one.what} {'not known' if value is None else f'{value:.3g}'}" for one, value in pairs)
    if not held:
        raise BudgetMissed(f"no cell keeps to {_listed(limits)}; the nearest is {line} ({seen}).")
    if not arguments.json:
        print(f"keeps to {_listed(limits)}: {line} ({seen})")
    return 0


def _listed(limits: Sequence[budget.Budget]) -> str:
    return " and ".join(map(str, limits))


def _print(out: str, asked: Plan, found: Sequence[Record]) -> None:
    """The cells, each in a line, and where the report is."""
    whole, several = budget.figures_of_torch(found), len(asked.model) > 1
    rows = []
    for one in found:
        times = [budget.latency(one, device) for device in asked.device]
        told = page.quality(one, whole.get(one.model)) if one.status == DONE else one.status
        size = "" if one.size_mb is None else f"{one.size_mb:.2f}"
        own = (one.model,) * several + (one.target, one.recipe, size, told)
        rows.append((*own, *("" if ms is None else f"{ms:.2f}" for ms in times)))
    heads = ("model",) * several + ("target", "recipe", "MB", "quality")
    render.table((*heads, *(f"{name} ms" for name in asked.device)), rows)
    for one in found:
        if one.status != DONE:
            print(f"{one.model} {one.target} {one.recipe}: {one.reason}")
    print(f"the report: {Path(out, page.PAGE)}")


def report(arguments: argparse.Namespace) -> int:
    """Make a sweep's report again, of what is done as yet."""
    folder = Path(arguments.folder)
    if not (folder / KEPT).is_file():
        raise InputError(f"{folder} is no folder of a sweep: it has no {KEPT}.")
    kept = read_json(folder / KEPT)
    keys = kept.pop("cells", None)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError(f"{folder / KEPT} lists no cells: start the sweep again.")
    asked = Plan(**plan.values(folder / KEPT, {name: value for name, value in kept.items() if value is not None}))
    there = records.load(folder)
    found = [there[key] for key in keys if key in there]
    profiles: list[Row] = [row for path in arguments.shared for row in told.load(path)]
    page.write(folder, asked, found, len(keys) - len(found), profiles)
    if arguments.json:
        print(json.dumps({"report": str(folder / page.PAGE), "cells": len(keys), "done": len(found)}))
    else:
        print(f"the report: {folder / page.PAGE} ({len(found)} of {len(keys)} cells)")
    return 0


@dataclass
class Shown:
    """How far a sweep is, on standard error: a table that changes on a terminal, and regular lines elsewhere.

    Attributes:
        total: cells of the plan.
        kept: those that an earlier run did.
        slots: cells at once, where that is known.
        quiet: say nothing.
    """

    total: int
    kept: int
    slots: int | None
    quiet: bool
    done: list[Record] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    live: Any = None

    def __enter__(self) -> "Shown":
        if not self.quiet and self.kept:
            print(f"{self.kept} of {self.total} cells are there already", file=sys.stderr)
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(console=Console(stderr=True), refresh_per_second=4, get_renderable=self._drawn)
            self.live.start()
        return self

    def __exit__(self, *rest: object) -> None:
        if self.live is not None:
            self.live.stop()

    def __call__(self, event: Begun | Idle | Record) -> None:
        """Take note of what happened, and say it where there is no terminal."""
        if isinstance(event, Idle):
            if not self.quiet:
                told = f"no worker is there as yet: run dask worker {event.scheduler} on the machines that are to work"
                print(told, file=sys.stderr)
            return
        if isinstance(event, Begun):
            self.running[event.key] = time.monotonic()
            return
        self.running.pop(event.key, None)
        self.done.append(event)
        if not self.quiet and self.live is None:
            print(f"[{self.kept + len(self.done)}/{self.total}] {_line(event)}; {self._ahead()}", file=sys.stderr)

    def _ahead(self) -> str:
        """What runs, what failed, and about how long the rest takes."""
        failed = sum(one.status not in (DONE, REFUSED) for one in self.done)
        left = self.total - self.kept - len(self.done)
        each = (time.monotonic() - self.began) / max(len(self.done), 1)
        told = f"{len(self.running)} running, {failed} failed"
        return told + (f", about {_long(left * each)} left" if left else "")

    def _drawn(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        whole = self.kept + len(self.done)
        return Group(
            Text(f"{whole} of {self.total} cells, {self._ahead()}"),
            ProgressBar(total=self.total, completed=whole, width=60),
            *(
                Text(_line(one), style="" if one.status == DONE else "yellow", no_wrap=True)
                for one in self.done[-LAST:]
            ),
        )


def _long(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _line(one: Record) -> str:
    """A cell's result in a line."""
    name = f"{Path(one.model).name} {one.target} {one.recipe}"
    if one.status != DONE:
        return f"{name}: {one.status}, {one.reason[:120]}"
    parts = [f"{one.size_mb:.2f} MB"] if one.size_mb else []
    parts += [f"{one.sqnr_db:.1f} dB"] if one.sqnr_db is not None else []
    parts += [f"{key} {100 * value:.1f}%" for key, value in list(one.figures.items())[:1]]
    for device in dict.fromkeys(row["device"] for row in one.rows):
        ms = budget.latency(one, device)
        parts += [f"{device} {ms:.2f} ms"] if ms is not None else []
    return f"{name}: {', '.join(parts)} ({one.seconds:.0f} s)"
