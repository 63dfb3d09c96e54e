"""One cell, in a process of its own: converters keep global state, and one that crashes takes nobody with it."""

import json
import os
import platform
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgebert import api
from edgebert.bundle.opened import Bundle
from edgebert.bundle.write import reading_of
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import EdgebertError, ParityFailed, Unsupported
from edgebert.files import replaced
from edgebert.gate import golden
from edgebert.preflight import usual_lengths
from edgebert.profiling.profile import profile
from edgebert.results import megabytes
from edgebert.runtimes.devices import open_device
from edgebert.runtimes.devices.device import RUNTIME_OF, SIMULATED
from edgebert.sweep import evaluate, turns
from edgebert.sweep.contents import Content, place
from edgebert.sweep.plan import TORCH, Cell
from edgebert.sweep.records import DONE, FAILED, REFUSED, Record

HOST = "host"
REFUSALS = (2, 3, 4)  # exit codes of what cannot be asked for; others tell what went wrong


def main() -> None:
    """Read a cell from standard input, do it, and write what came of it where that says.

    Standard input stays open as long as whoever asks is there: when it ends, so does this process.
    """
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_asker, daemon=True).start()
    record = done(of_json(asked["cell"]))
    with replaced(Path(asked["answer"])) as beside:
        beside.write_text(json.dumps(asdict(record)), encoding="utf-8")


def _end_with_asker() -> None:
    while sys.stdin.readline():
        pass
    os._exit(1)


def of_json(told: dict[str, Any]) -> Cell:
    """A cell from its plain values."""
    figures = told["figures"]
    lists = {name: tuple(told[name]) for name in ("lengths", "device")}
    given = {"content": Content(**told["content"]), "figures": Content(**figures) if figures else None}
    return Cell(**told | lists | given)


def done(cell: Cell) -> Record:
    """Do all that a cell asks; what is refused or fails is told in the record."""
    began = time.time()
    record = Record(
        cell.key, cell.model, cell.target, cell.recipe, machine=platform.node(), versions=dict(cell.versions)
    )
    try:
        (_of_torch if cell.target == TORCH else _of_a_file)(cell, record)
        record.status = DONE
    except EdgebertError as error:
        record.status = REFUSED if error.exit_code in REFUSALS else FAILED
        record.reason, record.exit_code = str(error), error.exit_code
        if isinstance(error, ParityFailed):
            record.gate = error.report.to_dict()
    record.seconds = round(time.time() - began, 3)
    return record


def _source(cell: Cell, record: Record) -> Checkpoint:
    """The model itself, wherever it stands here."""
    where = place(cell.content)
    source = api.load(cell.model if where is None else where, cell.task, cell.random_init)
    record.family, record.task = source.model.family.name, source.model.task
    return source


def _of_torch(cell: Cell, record: Record) -> None:
    """The model's own figure."""
    with turns.among_others():
        source = _source(cell, record)
        record.size_mb = megabytes(4 * sum(parameter.numel() for parameter in source.model.parameters()))
        record.figures = _figures(cell, _asked_of(source, max(cell.lengths or usual_lengths(source.model))))


def _asked_of(source: Checkpoint, longest: int) -> evaluate.Asked:
    """Who is asked for a figure: a torch model."""
    config, model = source.model.config, source.model
    if source.tokenizer is None:
        raise Unsupported(f"{source.source} has no tokenizer, and --eval asks texts.")
    return evaluate.Asked(
        model.task, config.labels, reading_of(source), source.tokenizer, config.pooling.prompt,
        getattr(config, "type_vocab_size", 1), longest, partial(golden.answer, model),
    )  # fmt: skip


def _figures(cell: Cell, asked: evaluate.Asked) -> dict[str, float]:
    return evaluate.figures(asked, _examples(cell))


def _examples(cell: Cell) -> list[evaluate.Example]:
    """The texts with labels."""
    assert cell.figures is not None
    where = place(cell.figures)
    assert where is not None
    return evaluate.read(where)


def _of_a_file(cell: Cell, record: Record) -> None:
    """A file: made and held to torch, asked for its figure, and timed."""
    with tempfile.TemporaryDirectory(prefix="edgebert-sweep-") as folder:
        out = Path(folder, "bundle")
        with turns.among_others():
            source = _source(cell, record)
            if cell.figures:
                examples = _examples(cell)
                evaluate.check(source.model.task, source.model.config.labels, reading_of(source), examples)
            _export(cell, source, out, record)
            if cell.figures:
                with api.open(out) as opened:
                    record.figures = _figures(cell, _asked_of_file(source, opened))
        if record.target in RUNTIME_OF.values():
            for name in cell.device:
                with _turn(name):
                    _time(cell, name, out, record)


def _asked_of_file(source: Checkpoint, opened: Bundle) -> evaluate.Asked:
    """Who is asked for a figure: a file, which reads texts as its model does."""
    return replace(_asked_of(source, opened.manifest.lengths[-1]), run=opened.run)


def _export(cell: Cell, source: Checkpoint, out: Path, record: Record) -> None:
    began = time.perf_counter()
    made = api.export(source, target=cell.target, recipe=cell.recipe, lengths=cell.lengths or None, out=out)
    told = made.manifest
    record.export_s = round(time.perf_counter() - began, 3)
    record.recipe, record.lengths = told.recipe, list(told.lengths)
    record.size_mb = megabytes(told.model_bytes)
    record.memory_mb = megabytes(told.peak_memory_bytes) if told.peak_memory_bytes else None
    record.gate = told.parity
    flat = made.flat()[0]
    record.sqnr_db = flat["sqnr_db"]
    delegation = told.graph.get("delegation")
    record.delegated = delegation["share"] if delegation else None


def _turn(device: str) -> AbstractContextManager[None]:
    """What a device's numbers need: nothing, for simulated ones; the machine or the phone for those that are timed."""
    if open_device(device).how == SIMULATED:
        return turns.among_others()
    return turns.alone() if device == HOST else turns.with_phone(device)


def _time(cell: Cell, device: str, bundle: Path, record: Record) -> None:
    """Rows of a device, one a length; what it cannot run is told beside the others."""
    try:
        found = profile(bundle, device, threads=cell.threads, runs=cell.runs)
    except EdgebertError as error:
        record.notes.append(f"{device}: {error}")
        return
    for row in found.flat():
        kept = ("device", "how", "tokens", "threads", "median_ms", "low_ms", "high_ms", "instructions")
        record.rows.append({name: row[name] for name in kept})


if __name__ == "__main__":
    main()
