"""What the command line shows a person: steps on standard error, tables on standard output."""

import json
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from edgebert.api import Exported
    from edgebert.bundle.diff import Difference
    from edgebert.bundle.manifest import Manifest
    from edgebert.profiling.fastest import Choice
    from edgebert.profiling.operators import Operators
    from edgebert.profiling.rows import Row
    from edgebert.report import ErrorStats, Report
    from edgebert.runtimes.devices.device import Estimate
    from edgebert.runtimes.session import Facts, Spec

WIDE = 150
NARROW = 24  # characters that a column is not folded below
NUMBER = re.compile(r"-?[\d,]+(\.\d+)?(e[+-]?\d+)?( ?(%|ms|s|M|G|kB|MB|GB|dB|to [\d.]+))?|equal|[\d.]+ of \d+")
BUSY = 0.3  # of the median, from the 10th to the 90th percentile of runs: the host does something else beside
AMPLE = 3.0  # dB above what is asked, from which on it is good
# A file's ending to what runs it.
CALLED = {".tflite": "LiteRT", ".onnx": "ONNX Runtime", ".pte": "ExecuTorch", ".mlpackage": "Core ML"}
SAID = 200  # characters of what a file says of itself that are shown
TENSORS = 8  # how many of a file's largest tensors are listed


class Steps:
    """Says on standard error which step runs and how long it took.

    Args:
        total: how many steps there will be.
        quiet: say nothing.
        stop: told before each step; true ends the work as an interrupt does.
    """

    def __init__(self, total: int, quiet: bool, stop: Callable[[], bool]) -> None:
        self.total, self.quiet, self.stop, self.done = total, quiet, stop, 0
        self.began = time.perf_counter()
        self.status: Any = None

    def __call__(self, step: str) -> None:
        """End the step that runs and begin another."""
        self._end()
        if self.stop():
            raise KeyboardInterrupt
        self.done += 1
        self.text = f"[{self.done}/{self.total}] {step}" if self.total else f"[{self.done}] {step}"
        self.began = time.perf_counter()
        if self.quiet:
            return
        if sys.stderr.isatty():
            from rich.console import Console

            # A descriptor of its own: converters that talk have theirs turned away while they work.
            terminal = open(os.dup(sys.stderr.fileno()), "w", encoding="utf-8")
            self.status = Console(file=terminal, force_terminal=True).status(self.text)
            self.status.start()
        else:
            print(self.text, file=sys.stderr, flush=True)

    def _end(self, ok: bool = True) -> None:
        if self.status is not None:
            self.status.stop()
            self.status = None
        if self.done and not self.quiet:
            seconds = time.perf_counter() - self.began
            print(f"{self.text}: {'done' if ok else 'stopped'} after {seconds:.1f} s", file=sys.stderr, flush=True)

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._end(ok=kind is None)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], wide: bool = False) -> None:
    """Print a table, numbers to the right; where the terminal is too narrow for its columns, row below row.

    Args:
        head: titles.
        rows: cells.
        wide: with many columns: a file or pipe, which has no width of its own, gets lines of 150 characters. Columns in
            which no row has anything are left out.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = list(zip(head, *rows, strict=True))
    if wide:
        columns = [column for column in columns if set(column[1:]) != {"-"}]
    width = WIDE if wide and not sys.stdout.isatty() and "COLUMNS" not in os.environ else None
    console = Console(width=width)
    if sum(min(max(map(len, column)), NARROW) + 3 for column in columns) > console.width:
        _below_one_another(console, columns)
        return
    made = Table()
    for title, *cells in columns:
        made.add_column(title, overflow="fold", justify="right" if all(map(_is_number, cells)) else "left")
    for row in zip(*(column[1:] for column in columns), strict=True):
        made.add_row(*(Text(cell) for cell in row))  # Text, for [tflite] in a cell is no markup
    console.print(made)


def _below_one_another(console: "Console", columns: Sequence[Sequence[str]]) -> None:
    """Each row as lines of its own, a title and a cell in each."""
    from rich.text import Text

    widest = max(len(column[0]) for column in columns)
    for place in range(1, len(columns[0])):
        for column in columns:
            console.print(Text(f"{column[0]:<{widest}}  {column[place]}"))
        console.print()


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, with a unit or without, or stands in for one."""
    return cell == "-" or NUMBER.fullmatch(cell) is not None


def exported(made: "Exported") -> None:
    """Print what came of an export."""
    from edgebert.bundle.manifest import NO_APP

    if made.report is not None:
        report(made.report)
    modules(made.manifest)
    if told := made.manifest.graph["delegation"]:
        print(f"delegated: {told['text']}")
    model_bytes = made.manifest.model_bytes
    lengths = ", ".join(map(str, made.manifest.lengths))
    peak = made.manifest.peak_memory_bytes
    memory = f", {peak / 1e9:.1f} GB of memory used" if peak else ""
    print(f"wrote {made.folder} ({model_bytes / 1e6:.1f} MB of model, lengths {lengths}{memory})")
    if made.zip is not None:
        print(f"wrote {made.zip} ({made.zip.stat().st_size / 1e6:.1f} MB)")
    for note in made.manifest.notes:
        if note.startswith(NO_APP):
            print(note)


def choices(ranked: "Sequence[Choice]", taken: str | None = None) -> None:
    """Print which recipe is the fastest on a phone, and why another was taken, if one was."""
    from edgebert.profiling import fastest

    print(fastest.told(ranked))
    if taken is not None and taken != ranked[0].recipe:
        print(f"taken is {taken}: what is faster does not pass the gate")


def report(report: "Report") -> None:
    """Print what the gate saw."""
    _errors(report.outputs)
    worst, least = min(stats.sqnr_db for stats in report.outputs.values()), report.tolerance.min_sqnr_db
    if math.isfinite(worst):
        word = "good" if worst >= least + AMPLE else "fair" if worst >= least else "poor"
        print(
            f"SQNR is how many times the answer outweighs the error: {worst:.1f} dB is an error of "
            f"{10 ** (-worst / 20):.2%}, {word} for this recipe, which is held to {least:.1f} dB."
        )
    for check in report.checks:
        print(f"[{'ok' if check.passed else 'FAILED'}] {check.name}: {check.detail}")


def _errors(outputs: "dict[str, ErrorStats]") -> None:
    rows = []
    for name, stats in outputs.items():
        agreement = "-" if stats.label_agreement is None else f"{stats.label_agreement:.4f} of {stats.labels}"
        ratio = "equal" if math.isinf(stats.sqnr_db) else f"{stats.sqnr_db:.1f}"
        rows.append((name, f"{stats.max_abs:.2e}", f"{stats.mean_abs:.2e}", f"{stats.cosine:.6f}", ratio, agreement))
    table(("output", "max |d|", "mean |d|", "cosine", "SQNR dB", "equal labels"), rows)


def opening(path: Path, manifest: "Manifest | None", facts: "Facts") -> None:
    """Print what a bundle or file is, and how it is called."""
    from edgebert.bundle.card import ABOUT, asked_of

    if manifest is not None:
        size, of = f"{manifest.model_bytes / 1e6:.1f} MB", f"{manifest.recipe} for {manifest.target}"
        print(f"{path}: {manifest.family} for {manifest.task}, {of}, {size}. {ABOUT[manifest.task]}")
        first, *more = (json.dumps(text, ensure_ascii=False) for text in asked_of(manifest.task, path))
        asked = " ".join([first, *(f"--pair {text}" for text in more)])
        print(f"call it: edgebert predict {shlex.quote(str(path))} {asked}; from an app, see its README.md")
        return
    said = {key.removeprefix("edgebert."): text for key, text in facts.metadata.items()}
    maker = next(
        (said[key] for key in ("producer", "author", "description") if said.get(key)), "a tool it does not name"
    )
    known = (
        f"{said['family']} for {said['task']}, {said['recipe']}," if {"family", "task", "recipe"} <= set(said) else ""
    )
    print(f"{path}: {known or f'a {path.suffix} file'} made by {maker}")
    print(f"call it: {CALLED[path.suffix]} with {_shapes(facts.inputs)}; it gives {_shapes(facts.outputs)}")


def manifest(manifest: "Manifest") -> None:
    """Print what a bundle says of itself, and what its weights became."""
    state = "not checked" if manifest.parity is None else "passed" if manifest.parity["passed"] else "FAILED"
    labels = manifest.labels
    peak = manifest.peak_memory_bytes
    rows = [
        ("model", f"{manifest.family} from {manifest.source}, {manifest.parameters / 1e6:.1f} M parameters"),
        ("task", manifest.task),
        ("target", f"{manifest.target} {manifest.recipe}"),
        ("runs from", manifest.floor),
        ("lengths", ", ".join(map(str, manifest.lengths)) + (", and any below" if manifest.dynamic else "")),
        ("labels", f"{len(labels)}: {', '.join(labels[:6])}{' ...' * (len(labels) > 6)}"),
        ("parity", state),
        ("weights", manifest.weights_sha256),
        ("tools", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())),
        ("memory to export", "not known" if peak is None else f"{peak / 1e9:.2f} GB at most"),
        *([("calibrated on", manifest.calibration)] if manifest.calibration else []),
        *([("kept in float", ", ".join(manifest.keep_float))] if manifest.keep_float else []),
        *(("note", note) for note in manifest.notes),
    ]
    table(("bundle", ""), rows)
    modules(manifest)


def modules(manifest: "Manifest") -> None:
    """Print for each part of the model how many bytes its weights took before and take now, and as what."""
    rows = []
    for part in manifest.parts:
        inside = [module for module in manifest.modules if module["part"] == part]
        before = sum(module["bytes_before"] for module in inside)
        dtypes = dict.fromkeys(dtype for module in inside for dtype in module["dtype"].split("+"))
        after = manifest.parts[part]
        share = f"{after / before:.0%}" if before else "-"
        rows.append((part, str(len(inside)), " ".join(dtypes), f"{before / 1e6:.2f}", f"{after / 1e6:.2f}", share))
    table(("part", "modules", "stored as", "MB in torch", "MB in the file", "left"), rows)


def facts(facts: "Facts") -> None:
    """Print what a runtime knows about a file."""
    from edgebert.quantization.sizes import by_part
    from edgebert.runtimes.session import SEALS

    ops = sorted(facts.ops.items(), key=lambda item: -item[1])
    largest = sorted(facts.weights, key=lambda weight: -weight.bytes)[:TENSORS]
    rows = [
        ("runtime", facts.runtime),
        ("size", f"{facts.file_bytes / 1e6:.2f} MB"),
        ("seal", SEALS[facts.seal]),
        ("inputs", _shapes(facts.inputs)),
        ("outputs", _shapes(facts.outputs)),
        *((("rows of texts", "{} tokens, of up to {} texts".format(*facts.packed)),) if facts.packed else ()),
        ("nodes", str(facts.nodes)),
        (
            "delegated",
            "the runtime has no delegates here, or does not tell"
            if facts.delegation is None
            else str(facts.delegation),
        ),
        ("operators", ", ".join(f"{name} {count}" for name, count in ops)),
        ("weights", _megabytes(facts.weight_bytes)),
        ("by name", _megabytes(by_part((weight.name, weight.bytes) for weight in facts.weights))),
        ("largest", "; ".join(f"{w.name} {w.dtype} {list(w.shape)} {w.bytes / 1e6:.2f} MB" for w in largest)),
        *((f"says {key}", text[:SAID] + " ..." * (len(text) > SAID)) for key, text in facts.metadata.items()),
    ]
    table(("file", ""), rows)


def difference(found: "Difference") -> None:
    """Print what differs between two bundles."""
    if found.fields:
        table(("manifest", "A", "B"), [(key, _brief(pair[0]), _brief(pair[1])) for key, pair in found.fields.items()])
    if found.files:
        table(
            ("file", "bytes in A", "bytes in B"),
            [(name, *("-" if size is None else f"{size:,}" for size in pair)) for name, pair in found.files.items()],
        )
    if found.parts:
        table(
            ("weights of", "MB in A", "MB in B"),
            [(name, f"{a / 1e6:.2f}", f"{b / 1e6:.2f}") for name, (a, b) in found.parts.items()],
        )
    if found.answers is None:
        print(f"answers were not compared: {found.why}")
    else:
        print("B's answers against A's, on A's golden inputs:")
        _errors(found.answers)


def profile(rows: "Sequence[Row]") -> None:
    """Print what files take on devices: latencies, the rest, and where a simulated phone's time goes."""
    from edgebert.runtimes.devices.device import HOST

    first, second, third = [], [], []
    for row in rows:
        found, steady = row.found, row.found.latency
        where, how = (row.file, found.device, str(row.length or "-")), found.how.replace("-", " ")
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        near = "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
        band = "-" if row.median_ms is None else " to ".join(map(_ms, row.band_ms))
        measured = found.estimate is None and steady is not None
        times = (_ms(steady.p90_ms), _ms(steady.min_ms)) if measured and steady else ("-", "-")
        spread = (f"{steady.spread:.0%}", str(steady.runs)) if measured and steady else ("-", "-")
        first.append((*where, ratio, _ms(row.median_ms), band, near, _size(row.file_bytes), how))
        counted = "-" if row.instructions is None else f"{row.instructions / 1e6:.1f} M"
        memory = "-" if found.peak_bytes is None else _size(found.peak_bytes)
        share = "-" if row.delegated is None else f"{row.delegated:.1%}"
        second.append((*where, *times, *spread, _ms(found.load_ms), _ms(found.first_ms), memory, share, counted))
        if found.estimate is not None:
            third.append((*where, *_bounds(found.estimate), how))
    head: tuple[str, ...] = ("ratio", "median ms", "within", "SQNR dB", "file size", "numbers are")
    table(("file", "on", "tokens", *head), first, wide=True)
    head = ("p90", "min", "spread", "runs", "load ms", "first ms", "memory", "delegated", "instructions")
    table(("file", "on", "tokens", *head), second, wide=True)
    if third:
        head = ("bound by", "arithmetic", "moving data", "else", "hottest code", "numbers are")
        table(("file", "on", "tokens", *head), third, wide=True)
    for line in dict.fromkeys(line for row in rows for line in _circumstances(row)):
        print(line)
    for row in rows:
        steady = row.found.latency
        if row.found.how == HOST and steady is not None and steady.spread > BUSY:
            print(
                f"warning: {row.found.device} was busy: runs of {row.file} at {row.length or 'its own'} tokens differ "
                f"by {steady.spread:.0%}; end what else runs, and profile again"
            )


def _bounds(estimate: "Estimate") -> tuple[str, ...]:
    """What holds a simulated core, shares of its time by the kind of work, and the code that takes most."""
    shares = [f"{share:.0%}" for share in estimate.shares.values()]
    top = next(iter(_code(estimate)), ("-", 0.0))
    return (estimate.bound, *shares, f"{top[1]:.0%} {top[0]}")


def _code(estimate: "Estimate") -> list[tuple[str, float]]:
    """Functions, or places in a library without names, that take most, with their shares of the time."""
    code: dict[str, float] = {}
    for hot in estimate.hot:
        name = hot.symbol or f"{(hot.library or 'no file').partition('.')[0]}+{hot.offset:#x}"
        code[name] = code.get(name, 0.0) + hot.share
    return sorted(code.items(), key=lambda item: -item[1])


def hottest(row: "Row") -> None:
    """Print the code that takes most of a simulated phone's time, and its instructions by kind."""
    estimate = row.found.estimate
    if estimate is None:
        return
    print(f"code of {row.file} on {row.found.device}{f' at {row.length} tokens' if row.length else ''}, simulated:")
    table(("share of time", "function, or place in a library without names"), [
        (f"{share:.1%}", name) for name, share in _code(estimate)
    ], wide=True)  # fmt: skip
    kinds = sorted(estimate.kinds.items(), key=lambda item: -item[1])
    print("instructions: " + ", ".join(f"{kind} {count / 1e6:.2f} M" for kind, count in kinds))


def _circumstances(row: "Row") -> list[str]:
    """The versions and the machine behind a row, and what a reader must know."""
    found = row.found
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    shown = ("model", "android", "soc", "cpu", "machine", "system", "cores", "affinity")
    machine = ", ".join(f"{name} {found.machine[name]}" for name in shown if found.machine.get(name) is not None)
    threads = f"{found.threads} thread{'s' * (found.threads > 1)}"
    return [f"{found.device}: {versions}; {threads}; {machine}", *(f"{found.device}: {note}" for note in found.notes)]


def operators(told: "Operators") -> None:
    """Print the operators of a file."""
    print(f"operators of {told.file}{f' at {told.length} tokens' if told.length else ''}, {told.how}:")
    if told.note:
        print(told.note)
    rows = [
        (row.kind, str(row.count), _ms(row.ms), "-" if row.share is None else f"{row.share:.1%}") for row in told.rows
    ]
    table(("operator", "count", "ms", "share of time"), rows)


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def _ms(value: float | None) -> str:
    """Milliseconds to three digits or so."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _megabytes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())


def _shapes(specs: "Sequence[Spec]") -> str:
    return "; ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
