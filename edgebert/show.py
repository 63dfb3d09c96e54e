"""What the command line shows a person: steps on standard error, tables on standard output."""

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgebert.bundle import Manifest
    from edgebert.diff import Difference
    from edgebert.parity import ErrorStats, Report
    from edgebert.runtimes.session import Facts, Spec

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
        self.text = f"[{self.done}/{self.total}] {step}" if self.total else step
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
            seconds = time.perf_counter() - self.began
            print(f"{self.text}: {'done' if ok else 'stopped'} after {seconds:.1f} s", file=sys.stderr)

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._end(ok=kind is None)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table()
    for title in head:
        made.add_column(title, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))  # Text, for [tflite] in a cell is no markup
    Console().print(made)


def report(report: "Report") -> None:
    """Print what the gate saw."""
    _errors(report.outputs)
    for check in report.checks:
        print(f"[{'ok' if check.passed else 'FAILED'}] {check.name}: {check.detail}")


def _errors(outputs: "dict[str, ErrorStats]") -> None:
    rows = []
    for name, stats in outputs.items():
        agreement = "-" if stats.label_agreement is None else f"{stats.label_agreement:.4f} of {stats.labels}"
        ratio = "equal" if math.isinf(stats.sqnr_db) else f"{stats.sqnr_db:.1f}"
        rows.append((name, f"{stats.max_abs:.2e}", f"{stats.mean_abs:.2e}", f"{stats.cosine:.6f}", ratio, agreement))
    table(("output", "max |d|", "mean |d|", "cosine", "SQNR dB", "equal labels"), rows)


def manifest(manifest: "Manifest") -> None:
    """Print what a bundle says of itself, and what its weights became."""
    state = "not checked" if manifest.parity is None else "passed" if manifest.parity["passed"] else "FAILED"
    labels = manifest.labels
    peak = manifest.peak_memory_bytes
    rows = [
        ("model", f"{manifest.family} from {manifest.source}, {manifest.parameters / 1e6:.1f} M parameters"),
        ("task", manifest.task),
        ("target", f"{manifest.target} {manifest.recipe}"),
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
    from edgebert.sizes import by_part

    ops = sorted(facts.ops.items(), key=lambda item: -item[1])
    largest = sorted(facts.weights, key=lambda weight: -weight.bytes)[:TENSORS]
    rows = [
        ("runtime", facts.runtime),
        ("size", f"{facts.file_bytes / 1e6:.2f} MB"),
        ("inputs", _shapes(facts.inputs)),
        ("outputs", _shapes(facts.outputs)),
        ("nodes", str(facts.nodes)),
        ("delegated", "the runtime has no delegates here" if facts.delegation is None else str(facts.delegation)),
        ("operators", ", ".join(f"{name} {count}" for name, count in ops)),
        ("weights", _megabytes(facts.weight_bytes)),
        ("by name", _megabytes(by_part((weight.name, weight.bytes) for weight in facts.weights))),
        ("largest", "; ".join(f"{w.name} {w.dtype} {list(w.shape)} {w.bytes / 1e6:.2f} MB" for w in largest)),
        *((f"says {key}", text) for key, text in facts.metadata.items()),
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


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _megabytes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())


def _shapes(specs: "Sequence[Spec]") -> str:
    return "; ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)
