"""What came of each cell: a line of JSON, written as it comes, and found again by whoever goes on."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edgebert.errors import InputError

DONE, REFUSED, FAILED, LOST = "done", "refused", "failed", "lost"
FILE = "results.jsonl"


@dataclass(slots=True)
class Record:
    """What came of one cell.

    Attributes:
        key: of the cell, see `plan.Cell`.
        model: as it was given; target and recipe: likewise.
        status: DONE; REFUSED, for it cannot be asked; FAILED, as its gate does; LOST, where it came to no end, and the
            next run tries again.
        reason: why it is not done, in a line.
        exit_code: that `edgebert export` would have ended with.
        family: of the model.
        task: the same.
        lengths: of the file.
        size_mb: of the file, or of the model's float32 parameters.
        sqnr_db: of its least exact output, against torch.
        delegated: share of the arithmetic that a backend takes over.
        export_s: seconds that its export took.
        memory_mb: that it took at most.
        gate: the gate's report.
        figures: on texts with labels, the one that counts first; empty without.
        rows: of devices and lengths, see `profiling.rows.Row.flat`.
        notes: what a device could not run.
        machine: that did it.
        versions: of edgebert and the converters.
        seconds: that all of it took.
    """

    key: str
    model: str
    target: str
    recipe: str
    status: str = FAILED
    reason: str = ""
    exit_code: int = 0
    family: str = ""
    task: str = ""
    lengths: list[int] = field(default_factory=list)
    size_mb: float | None = None
    sqnr_db: float | None = None
    delegated: float | None = None
    export_s: float | None = None
    memory_mb: float | None = None
    gate: dict[str, Any] | None = None
    figures: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def figure(self) -> tuple[str, float] | None:
        """The figure that counts, with its name."""
        return next(iter(self.figures.items()), None)


NAMES = frozenset(one.name for one in fields(Record))


def load(folder: Path) -> dict[str, Record]:
    """What is there already, by key; the last line of a key counts.

    Raises:
        InputError: a line is damaged. A last one that was cut short when a sweep was killed is dropped.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    found: dict[str, Record] = {}
    for number, line in enumerate(whole.splitlines(), 1):
        record = _record(line)
        if record is None:
            raise InputError(
                f"{path}, line {number} is damaged: {line[:60]!r}. Take it out to have its cell done again."
            )
        found[record.key] = record
    return found


def _record(line: bytes) -> Record | None:
    try:
        told = json.loads(line)
        return Record(**told) if isinstance(told, dict) and told.keys() <= NAMES else None
    except (ValueError, TypeError, RecursionError):
        return None


def append(folder: Path, record: Record) -> None:
    """Write a record behind the others, so that it is there whatever comes next."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(record)) + "\n")
        file.flush()
        os.fsync(file.fileno())


# The columns of what `flat` gives; names end with their units.
COLUMNS = (
    "model", "target", "recipe", "device", "how", "tokens", "threads", "median_ms", "low_ms", "high_ms", "figure",
    "value", "torch_value", "loss_percent", "sqnr_db", "size_mb", "status", "reason", "delegated", "export_s",
    "memory_mb", "instructions", "machine", "family", "task",
)  # fmt: skip


def flat(records: Sequence[Record]) -> Iterator[dict[str, Any]]:
    """Each record's numbers side by side, once for each device and length, by COLUMNS."""
    whole = {(one.model, one.task): one.figure for one in records if one.target == "torch"}
    for one in records:
        name, found = one.figure or (None, None)
        there = whole.get((one.model, one.task))
        loss = None if there is None or found is None else 100 * (there[1] - found)
        told = {"figure": name, "value": found, "torch_value": there and there[1], "loss_percent": loss}
        for row in one.rows or [{}]:
            yield {column: (told | row).get(column, getattr(one, column, None)) for column in COLUMNS}
