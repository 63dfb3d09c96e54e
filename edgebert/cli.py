"""The command line: one verb, one function. Nothing heavy is imported before a verb is known."""

import argparse
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgebert.errors import EdgebertError, ParityFailed

if TYPE_CHECKING:
    from edgebert.bundle import Manifest
    from edgebert.parity import Report
    from edgebert.runtimes.session import Facts, Spec

EXPORT_STEPS = 5


def main(argv: list[str] | None = None) -> int:
    """Run a command line and return its exit code (see `edgebert --help`)."""
    arguments = _parser().parse_args(argv)
    _interrupts.clear()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), _interrupt)
    try:
        code: int = arguments.verb(arguments)
    except EdgebertError as error:
        return _fail(str(error), error.exit_code, arguments.json)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was left behind", 130, arguments.json)
    except BrokenPipeError:
        # Whoever read our output is gone; keep Python from saying so at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(
            f"{where}{error.strerror or error}: give a place with room that you may write to", 2, arguments.json
        )
    return code


_interrupts: list[int] = []


def _interrupt(number: int, frame: object) -> None:
    """End on a polite kill as on Ctrl-C, so that half-made folders are cleared away."""
    # Kept as well as raised: converters import modules that swallow every exception, and then the next step ends it.
    _interrupts.append(number)
    raise KeyboardInterrupt


def _fail(message: str, code: int, as_json: bool) -> int:
    print(f"edgebert: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message, "exit_code": code}))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgebert",
        description="Put an efficient BERT-family encoder on a phone: exported, quantized, and proven equal to torch.",
        epilog="exit codes: 0 done, 2 bad usage or input, 3 a dependency is missing, 4 unsupported combination, "
        "5 conversion failed, 6 parity failed",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        sub.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
        sub.set_defaults(verb=run)
        return sub

    verb("list", list_, "show models, tasks, targets and recipes, and what goes with what")
    sub = verb("export", export, "export a model to a bundle that a phone runs, and prove it equal to torch")
    sub.add_argument(
        "model", nargs="?", default="default",
        help="checkpoint folder, hub name, preset with --random-init, or default: the embedded intent classifier",
    )  # fmt: skip
    sub.add_argument("--task", help="the head; otherwise the one that the checkpoint was saved with")
    sub.add_argument("--target", default="tflite", help="runtime to export for (default: %(default)s)")
    sub.add_argument("--recipe", default="w8a8-dynamic", help="what happens to the numbers (default: %(default)s)")
    sub.add_argument(
        "--lengths", type=_numbers, help="sequence lengths, such as 32,64,128 (the default where they fit)"
    )
    sub.add_argument("--out", help="folder of the bundle (default: MODEL-TARGET-RECIPE here)")
    sub.add_argument("--force", action="store_true", help="replace a bundle that is there already")
    sub.add_argument("--random-init", action="store_true", help="take the config alone, with random weights")
    sub.add_argument(
        "--validate", action=argparse.BooleanOptionalAction, default=True,
        help="hold the file to torch's answers, and leave no bundle when it fails",
    )  # fmt: skip
    sub = verb("validate", validate, "hold a bundle to the answers that torch gave when it was exported")
    sub.add_argument("folder", help="the bundle")
    sub = verb("predict", predict, "answer a text with a bundle")
    sub.add_argument("folder", help="the bundle")
    sub.add_argument("text", help="a sentence, a question, a prompt, or a text with [MASK]")
    sub.add_argument(
        "--pair", action="append", default=[], metavar="TEXT",
        help="second text: a question's context, or a choice (give it several times)",
    )  # fmt: skip
    sub.add_argument("--threads", type=int, default=1, help="threads of the runtime (default: %(default)s)")
    sub = verb("inspect", inspect, "show what is in a bundle or a model file, also one that edgebert did not make")
    sub.add_argument("path", help="a bundle's folder, a .tflite or an .onnx file")
    verb("doctor", doctor, "show what is installed, what each target needs, and how to get it")
    return parser


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 32,64,128") from None


def list_(arguments: argparse.Namespace) -> int:
    """Show models, tasks, targets and recipes."""
    from edgebert.models import MODELS
    from edgebert.recipes import RECIPES, TARGET_RECIPES

    if arguments.json:
        models = {
            name: {"paper": family.paper, "tasks": list(family.heads), "presets": list(family.presets)}
            for name, family in MODELS.items()
        }
        recipes = {name: recipe.about for name, recipe in RECIPES.items()}
        print(json.dumps({"models": models, "targets": TARGET_RECIPES, "recipes": recipes}))
        return 0
    tasks = dict.fromkeys(task for family in MODELS.values() for task in family.heads)
    _table(
        ("task", *MODELS),
        [(task, *("yes" if task in family.heads else "no" for family in MODELS.values())) for task in tasks],
    )
    _table(
        ("target", *RECIPES),
        [(name, *("yes" if recipe in takes else "no" for recipe in RECIPES)) for name, takes in TARGET_RECIPES.items()],
    )
    for name, recipe in RECIPES.items():
        print(f"{name}: {recipe.about}")
    print(f"presets for --random-init: {', '.join(preset for family in MODELS.values() for preset in family.presets)}")
    print("next: edgebert export --target tflite")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Export a model to a bundle."""
    from edgebert import api

    with _Steps(EXPORT_STEPS, quiet=arguments.json) as steps:
        made = api.export(
            model=arguments.model, task=arguments.task, target=arguments.target, recipe=arguments.recipe,
            lengths=arguments.lengths, out=arguments.out, force=arguments.force, random_init=arguments.random_init,
            validate=arguments.validate, progress=steps,
        )  # fmt: skip
    if arguments.json:
        from dataclasses import asdict

        print(json.dumps({"folder": str(made.folder), "manifest": asdict(made.manifest)}))
        return 0
    if made.report is not None:
        _print_report(made.report)
    model_bytes = sum(said["bytes"] for name, said in made.manifest.files.items() if name.startswith("model"))
    print(f"wrote {made.folder} ({model_bytes / 1e6:.1f} MB of model, lengths {_join(made.manifest.lengths)})")
    words = f'edgebert predict {made.folder} "..."' if "tokenizer.json" in made.manifest.files else None
    print(f"next: {words or f'edgebert inspect {made.folder}'}")
    return 0


def validate(arguments: argparse.Namespace) -> int:
    """Hold a bundle to torch's answers."""
    from edgebert import api

    with _Steps(1, quiet=arguments.json) as steps:
        steps("compare with torch's answers")
        report = api.validate(arguments.folder)
    if arguments.json:
        print(json.dumps(report.to_json()))
    else:
        _print_report(report)
    if not report.passed:
        failed = ", ".join(check.name for check in report.checks if not check.passed)
        raise ParityFailed(f"{arguments.folder} does not say what torch says: {failed}. Export it again.", report)
    if not arguments.json:
        print(f"next: edgebert inspect {arguments.folder}")
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Answer a text with a bundle."""
    from edgebert import api

    with api.open(arguments.folder, arguments.threads) as opened:
        answer = opened.predict(arguments.text, *arguments.pair)
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    for name, value in answer.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [
                tuple(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row.values()) for row in value
            ]
            _table(tuple(value[0]), rows)
        elif not isinstance(value, list):
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
        else:
            print(f"{name}: {json.dumps(value, ensure_ascii=False)[:400]}")
    return 0


def inspect(arguments: argparse.Namespace) -> int:
    """Show what is in a bundle or a model file."""
    from dataclasses import asdict

    from edgebert import api

    manifest, facts = api.inspect(arguments.path)
    if arguments.json:
        print(json.dumps({"manifest": asdict(manifest) if manifest else None, "facts": asdict(facts)}))
        return 0
    if manifest is not None:
        _print_manifest(manifest)
    _print_facts(facts)
    if manifest is not None:
        print(f"next: edgebert validate {arguments.path}")
    return 0


def doctor(arguments: argparse.Namespace) -> int:
    """Show what is installed and what each target needs."""
    from edgebert.doctor import examine

    rows = examine()
    if arguments.json:
        print(json.dumps(rows))
        return 0
    _table(
        ("for", "package", "wanted", "installed", "to install"),
        [(row["for"], row["package"], row["wanted"], row["installed"] or "-", row["install"]) for row in rows],
    )
    return 0


class _Steps:
    """Says on standard error which step runs and how long it took."""

    def __init__(self, total: int, quiet: bool) -> None:
        self.total, self.quiet, self.done = total, quiet, 0
        self.began = time.perf_counter()
        self.status: Any = None

    def __call__(self, step: str) -> None:
        self._end()
        if _interrupts:
            raise KeyboardInterrupt
        self.done += 1
        self.text = f"[{self.done}/{self.total}] {step}"
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

    def __enter__(self) -> "_Steps":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._end(ok=kind is None)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for title in head:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text, for [tflite] in a cell is no markup
    Console().print(table)


def _print_report(report: "Report") -> None:
    rows = []
    for name, stats in report.outputs.items():
        agreement = "-" if stats.label_agreement is None else f"{stats.label_agreement:.4f} of {stats.labels}"
        ratio = "equal" if math.isinf(stats.sqnr_db) else f"{stats.sqnr_db:.1f}"
        rows.append((name, f"{stats.max_abs:.2e}", f"{stats.mean_abs:.2e}", f"{stats.cosine:.6f}", ratio, agreement))
    _table(("output", "max |d|", "mean |d|", "cosine", "SQNR dB", "equal labels"), rows)
    for check in report.checks:
        print(f"[{'ok' if check.passed else 'FAILED'}] {check.name}: {check.detail}")


def _print_manifest(manifest: "Manifest") -> None:
    state = "not checked" if manifest.parity is None else "passed" if manifest.parity["passed"] else "FAILED"
    rows = [
        ("model", f"{manifest.family} from {manifest.source}, {manifest.parameters / 1e6:.1f} M parameters"),
        ("task", manifest.task),
        ("target", f"{manifest.target} {manifest.recipe}"),
        ("lengths", _join(manifest.lengths) + (", and any below" if manifest.dynamic else "")),
        ("labels", f"{len(manifest.labels)}: {', '.join(manifest.labels[:6])}{' ...' * (len(manifest.labels) > 6)}"),
        ("parity", state),
        ("weights", manifest.weights_sha256),
        ("tools", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())),
        *(("note", note) for note in manifest.notes),
    ]
    _table(("bundle", ""), rows)


def _print_facts(facts: "Facts") -> None:
    delegated = "" if facts.delegated is None else f", {facts.delegated} of them delegated"
    ops = sorted(facts.ops.items(), key=lambda item: -item[1])
    rows = [
        ("runtime", facts.runtime),
        ("size", f"{facts.file_bytes / 1e6:.2f} MB"),
        ("inputs", _shapes(facts.inputs)),
        ("outputs", _shapes(facts.outputs)),
        ("nodes", f"{facts.nodes}{delegated}"),
        ("operators", ", ".join(f"{name} {count}" for name, count in ops)),
        ("weights", ", ".join(f"{dtype} {size / 1e6:.2f} MB" for dtype, size in facts.weight_bytes.items())),
    ]
    _table(("file", ""), rows)


def _shapes(specs: "Sequence[Spec]") -> str:
    return "; ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)


def _join(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers)
