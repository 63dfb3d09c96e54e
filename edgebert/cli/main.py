"""The command line: one verb, one function. Nothing heavy is imported before a verb is known."""

import argparse
import errno
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import shtab

from edgebert import __version__
from edgebert.catalog import TASKS, check_pair, known
from edgebert.cli import render
from edgebert.errors import EdgebertError, InputError, ParityFailed
from edgebert.files import INTERRUPTS, read_json

if TYPE_CHECKING:
    from edgebert.bundle.opened import Bundle

COSTLIEST = 10  # modules that --sensitivity lists

# What `--help` of a verb shows.
EXAMPLES = {
    "list": ("edgebert list --json",),
    "export": (
        "edgebert export -o assistant",
        "edgebert export my-checkpoint --target onnx --recipe fp32 --lengths 32,128",
        "edgebert export my-checkpoint --recipe w8a8-static --calibration texts.txt",
        "edgebert export squeezebert-base --random-init --target executorch",
    ),
    "validate": ("edgebert validate assistant", "edgebert validate assistant --device pixel-4"),
    "predict": (
        'edgebert predict assistant "wake me up at half past six"',
        'edgebert predict reader "where is it?" --pair "The house stands on a hill."',
        "edgebert predict assistant --file texts.txt",
    ),
    "inspect": ("edgebert inspect assistant", "edgebert inspect model.tflite"),
    "diff": ("edgebert diff assistant assistant-of-last-week",),
    "app": ("edgebert app assistant -o assistant.apk", "edgebert app assistant --project MyApp"),
    "profile": (
        "edgebert profile assistant",
        "edgebert profile assistant other.tflite --device host --device pixel-4 --lengths 32,128",
        "edgebert profile assistant --csv > times.csv",
    ),
    "sweep": (
        "edgebert sweep my-checkpoint --device pixel-4 --device pixel-6 --eval dev.tsv -o sweep",
        "edgebert sweep --target tflite --device pixel-6 --budget latency_ms=20@pixel-6 --budget size_mb=10",
        "edgebert sweep --plan plan.toml --scheduler tcp://10.0.0.1:8786",
    ),
    "report": ("edgebert report sweep",),
    "device": ("edgebert device list", "edgebert device setup pixel"),
    "doctor": ("edgebert doctor",),
    "cache": ("edgebert cache", "edgebert cache clear"),
}


class Parser(argparse.ArgumentParser):
    """One whose errors are one line, told as any other."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError, with where help is."""
        raise InputError(f"{message.rstrip('.')}; see {self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run a command line and return its exit code (see `edgebert --help`)."""
    given = sys.argv[1:] if argv is None else argv
    parser = _parser()
    if not given:
        parser.print_help()
        return 0
    try:
        if not given[0].startswith("-"):
            known("verb", given[0], EXAMPLES)
        arguments = parser.parse_args(given)
    except InputError as error:
        return _fail(str(error), error.exit_code, "--json" in given)
    _interrupts.clear()
    for number in INTERRUPTS:
        # A hang-up that is ignored from the start is so by nohup.
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        code: int = arguments.verb(arguments)
    except (Exception, KeyboardInterrupt) as error:
        # Native code and converters make errors of their own of an interrupt.
        if _interrupts or isinstance(error, KeyboardInterrupt):
            left = str(error) if isinstance(error, KeyboardInterrupt) else ""
            return _fail(f"interrupted; {left or 'nothing half-made was left behind'}", 130, arguments.json)
        return _failed(error, arguments.json)
    return code


def _failed(error: Exception, as_json: bool) -> int:
    """The exit code of an error that a user can do something about, told in one line; any other is raised again."""
    if isinstance(error, EdgebertError):
        return _fail(str(error), error.exit_code, as_json)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output is gone; keep Python from saying so at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        advice = ": give a place with room that you may write to" if full else ""
        return _fail(f"{where}{error.strerror or error}{advice}", 2, as_json)
    raise error


_interrupts: list[int] = []


def _interrupt(number: int, frame: object) -> None:
    """End on a polite kill as on Ctrl-C, so that half-made folders are cleared away."""
    # Kept as well as raised: converters import modules that swallow every exception, and then the next step ends it.
    _interrupts.append(number)
    raise KeyboardInterrupt


def _interrupted() -> bool:
    return bool(_interrupts)


def _fail(message: str, code: int, as_json: bool) -> int:
    print(f"edgebert: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message, "exit_code": code}))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="edgebert",
        description="Put an efficient BERT-family encoder on a phone: exported, quantized, and proven equal to torch.",
        epilog="exit codes: 0 done, 2 bad usage or input, 3 a dependency is missing, 4 unsupported combination, "
        "5 conversion failed, 6 parity failed, 7 a budget was missed, 130 interrupted",
    )
    parser.add_argument("--version", action="version", version=f"edgebert {__version__}")
    shtab.add_argument_to(parser, "--completion", help="print what completes commands in a shell")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], about: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name, help=about, description=about[0].upper() + about[1:] + ".",
            epilog="examples:\n" + "".join(f"  {example}\n" for example in EXAMPLES[name]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
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
    sub.add_argument(
        "--random-head", action="store_true", help="draw the head where the checkpoint has none for --task"
    )
    sub.add_argument("--prompt", metavar="NAME", help="a sentence encoder's prompt, to stand before each text")
    sub.add_argument(
        "--ignore-config", action="append", default=[], metavar="KEY",
        help="leave out a key of config.json that is not known and does not change the model (give it several times)",
    )  # fmt: skip
    sub.add_argument("--target", default="tflite", help="runtime to export for (default: %(default)s)")
    sub.add_argument("--recipe", help="what happens to the numbers (default: w8a8-dynamic)")
    sub.add_argument(
        "--for", dest="phone", metavar="PHONE",
        help="take the recipe that is the fastest on a simulated phone, such as pixel-3, of fp32, fp16 and 8 bits",
    )  # fmt: skip
    sub.add_argument(
        "--lengths", type=_numbers, help="sequence lengths, such as 32,64,128 (the default where they fit)"
    )
    sub.add_argument("-o", "--out", help="folder of the bundle (default: MODEL-TARGET-RECIPE here)")
    sub.add_argument(
        "--metadata", metavar="mediapipe",
        help="let MediaPipe's TextClassifier or TextEmbedder run the .tflite file as it is (one length)",
    )  # fmt: skip
    sub.add_argument("--zip", action="store_true", help="write the bundle as one file too, to be opened on a phone")
    sub.add_argument("--force", action="store_true", help="replace a bundle that is there already")
    sub.add_argument("--random-init", action="store_true", help="take the config alone, with random weights")
    sub.add_argument(
        "--validate", action=argparse.BooleanOptionalAction, default=True,
        help="hold the file to torch's answers, and leave no bundle when it fails",
    )  # fmt: skip
    sub.add_argument(
        "--calibration", metavar="FILE",
        help="texts, one a line, that static scales and 4-bit weights are chosen on (default: texts of edgebert's own)",
    )  # fmt: skip
    sub.add_argument(
        "--keep-float", action="append", default=[], metavar="PATTERN",
        help="leave these modules in float, such as 'head.*' or '*.layers.0.down' (give it several times)",
    )  # fmt: skip
    sub.add_argument(
        "--min-delegated", type=float, metavar="SHARE",
        help="fail unless the backend takes this share of the arithmetic over, such as 0.95",
    )  # fmt: skip
    sub.add_argument(
        "--trim-vocab", metavar="CORPUS",
        help="keep only the pieces that the texts of this file need, one a line: same answers on them, less to carry",
    )  # fmt: skip
    sub = verb("validate", validate, "hold a bundle to the answers that torch gave when it was exported")
    sub.add_argument("folder", help="the bundle")
    sub.add_argument("--device", metavar="D", help="run it there: pixel-4, adb or host (default: in this process)")
    sub.add_argument(
        "--sensitivity", action="store_true",
        help="also quantize each module alone, in torch, and list those that cost the accuracy",
    )  # fmt: skip
    sub = verb("predict", predict, "answer a text with a bundle")
    sub.add_argument("folder", help="the bundle")
    sub.add_argument("text", nargs="?", help="a sentence, a question, a prompt, or a text with [MASK]")
    sub.add_argument(
        "--pair", action="append", default=[], metavar="TEXT",
        help="second text: a question's context, or a choice (give it several times)",
    )  # fmt: skip
    sub.add_argument(
        "--file", metavar="FILE",
        help="texts, one a line, or .jsonl with text, question, pair, context, choices; - is standard input: one line "
        "of JSON an answer",
    )  # fmt: skip
    sub.add_argument(
        "--no-answer", action="store_true",
        help="question-answering: the answer may be none, as for a model trained on SQuAD 2",
    )  # fmt: skip
    sub.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="causal-lm: go on from the text for up to N tokens, greedily"
    )
    sub.add_argument("--threads", type=int, default=1, help="threads of the runtime (default: %(default)s)")
    sub = verb("inspect", inspect, "show what is in a bundle or a model file, also one that edgebert did not make")
    sub.add_argument("path", help="a bundle's folder, or a .pte, .tflite, .mlpackage or .onnx file")
    sub = verb("diff", diff, "show what differs between two bundles, in files, sizes and answers")
    sub.add_argument("a", help="a bundle")
    sub.add_argument("b", help="another bundle")
    _add_app(verb("app", app, "put a bundle into the Android app, as an APK to install or as a project of one's own"))
    _add_profile(verb("profile", profile, "time model files on this machine, simulated Pixels and real phones"))
    _add_sweep(verb("sweep", sweep, "export, prove and time many files, and report which is best for which phone"))
    sub = verb("report", report, "make the report of a sweep again, of what is done as yet")
    sub.add_argument("folder", help="the sweep's")
    sub.add_argument(
        "--from", action="append", default=[], dest="shared", metavar="FILE",
        help="show rows of edgebert profile --json, or that the app on a phone shared, beside (give it several times)",
    )  # fmt: skip
    sub = verb("device", device, "list devices, or set one up")
    sub.add_argument("action", choices=("list", "setup"), help="what to do")
    sub.add_argument("name", nargs="?", help="the device to set up: pixel")
    sub.add_argument("--sysroot", metavar="DIR", help="an aarch64 system to take instead of Debian's packages")
    verb("doctor", doctor, "show what works here, what is missing for each target, and how to get it")
    sub = verb("cache", cache, "show what is kept between runs and how large it is, or clear it")
    sub.add_argument("action", nargs="?", choices=("show", "clear"), default="show", help="(default: %(default)s)")
    return parser


def _add_app(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("folder", help="the bundle, for tflite, or for onnx where the app has its library")
    sub.add_argument("-o", "--out", metavar="APK", help="the app, to be written and signed")
    sub.add_argument("--project", metavar="DIR", help="write a project for Android Studio in place of an app")
    sub.add_argument("--name", help="under the app's picture (default: the bundle's folder's name)")
    sub.add_argument(
        "--id", metavar="APPLICATION.ID",
        help="of which a phone has one app at a time (default: one that only this bundle has)",
    )  # fmt: skip
    sub.add_argument(
        "--key", metavar="FILE",
        help="PKCS#12 file to sign with, its password in EDGEBERT_KEY_PASSWORD (default: a debug key, made once)",
    )  # fmt: skip
    sub.add_argument("--install", action="store_true", help="install it on the phone that is attached, with adb")
    sub.add_argument("--force", action="store_true", help="replace an app or project that is there already")


def _add_sweep(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("model", nargs="*", help="checkpoint folders, hub names, presets with --random-init, or default")
    sub.add_argument("--plan", metavar="FILE", help="these options as keys of a TOML file; those given here count")
    sub.add_argument(
        "--target", action="extend", type=_words, metavar="T", help="runtimes to export for (default: all of them)"
    )
    sub.add_argument("--recipe", action="extend", type=_words, metavar="R", help="recipes (default: all of them)")
    sub.add_argument(
        "--lengths", type=_numbers, help="sequence lengths, such as 32,64,128 (the default where they fit)"
    )
    sub.add_argument(
        "--device",
        action="extend",
        type=_words,
        metavar="D",
        help="such as pixel-4 (several for several; default: host)",
    )
    sub.add_argument(
        "--eval", metavar="FILE", help="texts with labels (text, pair where there is one, label): .tsv, .jsonl"
    )
    sub.add_argument("--task", help="the head; otherwise the one that a checkpoint was saved with")
    sub.add_argument("--random-init", action="store_true", help="take configs alone, with random weights")
    sub.add_argument("--threads", type=int, help="threads of the runtimes (default: 1)")
    sub.add_argument("--runs", type=int, help="runs that count, where a device measures (default: 20)")
    sub.add_argument(
        "--budget", action="append", metavar="LIMIT",
        help="pick the fastest cell within latency_ms=20@pixel-6, size_mb=10, loss=0.5%% (several), or exit with 7",
    )  # fmt: skip
    sub.add_argument("--workers", type=int, metavar="N", help="cells at once on this machine (default: one a core)")
    sub.add_argument("--scheduler", metavar="URL", help="a Dask cluster that is there, such as tcp://10.0.0.1:8786")
    sub.add_argument("-o", "--out", default="sweep", help="folder of results and report (default: %(default)s)")


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _add_profile(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "files", nargs="*", metavar="FILE", help="bundles, and .tflite, .onnx or .pte files, whoever made them"
    )
    sub.add_argument(
        "--device", action="append", metavar="D", help="such as pixel-4 (several times for several; default: host)"
    )
    sub.add_argument(
        "--lengths", "--seq-len", action="extend", type=_numbers, default=[], metavar="L",
        help="tokens, such as 32,128 (default: a bundle's lengths, a file's own shape, 128 where that is free)",
    )  # fmt: skip
    sub.add_argument(
        "--inputs", metavar="FILE", help="an .npz of inputs, by name or in order, in place of made-up ones"
    )
    sub.add_argument("--threads", type=int, default=1, help="threads of the runtime (default: %(default)s)")
    sub.add_argument("--runs", type=int, default=20, help="runs that count (default: %(default)s)")
    sub.add_argument(
        "--per-op", action="store_true", help="tell operators on this host and a simulated phone's code too"
    )
    sub.add_argument(
        "--extrapolate-layers", action="store_true",
        help="simulated devices: export and count one and two layers of a bundle or preset, and extend the line to all",
    )  # fmt: skip
    sub.add_argument(
        "--calibrate", action="store_true",
        help="with --device adb: also simulate that phone, and keep the ratio of its times for simulations to come",
    )  # fmt: skip
    sub.add_argument(
        "--for", dest="phone", metavar="PHONE",
        help="say which of fp32, fp16 and 8 bits is the fastest on a simulated phone, layers extrapolated",
    )  # fmt: skip
    sub.add_argument("--target", default="tflite", help="of a preset with --extrapolate-layers (default: %(default)s)")
    sub.add_argument("--recipe", help="of a preset as well (default: w8a8-dynamic)")
    sub.add_argument(
        "--from", action="append", default=[], dest="shared", metavar="FILE",
        help="show rows that the app on a phone shared, or that --json printed, beside (give it several times)",
    )  # fmt: skip
    sub.add_argument("--plot", metavar="FILE", help="draw latency against length and size into this .png, .svg or .pdf")
    sub.add_argument("--csv", action="store_true", help="print each row's numbers as CSV, for a spreadsheet")
    sub.add_argument("--list-devices", action="store_true", help="show the devices there are, and do nothing else")


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 32,64,128") from None


def list_(arguments: argparse.Namespace) -> int:
    """Show models, tasks, targets and recipes."""
    from dataclasses import asdict

    from edgebert.catalog import FAMILIES
    from edgebert.cli import support
    from edgebert.quantization.recipes import FLOORS, RECIPES, TARGET_RECIPES

    if arguments.json:
        models = {name: asdict(family) for name, family in FAMILIES.items()}
        recipes = {name: recipe.about for name, recipe in RECIPES.items()}
        floors = {name: {recipe: FLOORS[name, recipe] for recipe in takes} for name, takes in TARGET_RECIPES.items()}
        told = {"models": models, "targets": TARGET_RECIPES, "recipes": recipes, "reasons": support.reasons()}
        print(json.dumps(told | {"floors": floors}))
        return 0
    for head, *rows in (support.tasks(), support.targets(), support.floors()):
        render.table(head, rows)
    for reason in support.reasons():
        print(f"no {reason}")
    for name, recipe in RECIPES.items():
        print(f"{name}: {recipe.about}")
    presets = ", ".join(preset for family in FAMILIES.values() for preset in family.presets)
    print(f"presets for --random-init: {presets}")
    print("next: edgebert export --target tflite")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Export a model to a bundle."""
    if arguments.task:
        known("task", arguments.task, TASKS)
    if arguments.phone and arguments.recipe:
        raise InputError("--for picks the recipe: leave --recipe out, or --for.")
    recipe = arguments.recipe or "w8a8-dynamic"
    check_pair(arguments.target, recipe)

    from edgebert import api

    # How many recipes are tried for a phone is not known beforehand.
    count = 0 if arguments.phone else 4 + arguments.validate + (arguments.trim_vocab is not None)
    with render.Steps(count, arguments.json, _interrupted) as steps:
        made = api.export(
            model=arguments.model, task=arguments.task, target=arguments.target, recipe=recipe,
            lengths=arguments.lengths, out=arguments.out, force=arguments.force, random_init=arguments.random_init,
            validate=arguments.validate, calibration_file=arguments.calibration, keep_float=arguments.keep_float,
            min_delegated=arguments.min_delegated, trim_vocab=arguments.trim_vocab, random_head=arguments.random_head,
            prompt=arguments.prompt, ignore_config=arguments.ignore_config, zip=arguments.zip,
            metadata=arguments.metadata, phone=arguments.phone, progress=steps,
        )  # fmt: skip
    if arguments.json:
        print(json.dumps(made.to_dict()))
        return 0
    render.exported(made)
    if made.choices:
        render.choices(made.choices, made.manifest.recipe)
    folder = shlex.quote(str(made.folder))
    asked = f'predict {folder} "..."' if "tokenizer.json" in made.manifest.files else f"inspect {folder}"
    print(f"here: edgebert {asked}")
    print(f"next: {_onward(str(made.folder), made.manifest.target, made.manifest.notes)}")
    return 0


def _onward(folder: str, target: str, notes: list[str]) -> str:
    """The command that leads on from a bundle: to an app, or to its times."""
    return _to_an_app(folder, target, notes) or f"edgebert profile {shlex.quote(folder)}"


def _to_an_app(folder: str, target: str, notes: list[str]) -> str | None:
    """The command that makes an app of a bundle; None where the app does not run it."""
    from edgebert.app.template import carries
    from edgebert.bundle.manifest import NO_APP

    if not carries(target) or any(note.startswith(NO_APP) for note in notes):
        return None
    name = os.path.basename(os.path.realpath(folder))
    return f"edgebert app {shlex.quote(folder)} --out {shlex.quote(f'{name}.apk')}"


def validate(arguments: argparse.Namespace) -> int:
    """Hold a bundle to torch's answers."""
    from dataclasses import asdict

    from edgebert import api

    with render.Steps(0, arguments.json, _interrupted) as steps:
        report = api.validate(arguments.folder, arguments.device, steps)
        costs = api.rank_layers(arguments.folder, steps) if arguments.sensitivity else []
    if arguments.json:
        ranked = {"sensitivity": [asdict(cost) for cost in costs]} if arguments.sensitivity else {}
        where = {"device": arguments.device} if arguments.device else {}
        print(json.dumps(report.to_dict() | where | ranked))
    else:
        render.report(report)
    if costs and not arguments.json:
        print("quantized alone, in torch, the costliest first:")
        rows = [(c.module, f"{c.sqnr_db:.1f}", f"{c.float_bytes / 1e6:.2f}") for c in costs[:COSTLIEST]]
        render.table(("module", "SQNR dB", "MB more in float"), rows)
        print(f"to keep the costliest in float: edgebert export --keep-float {costs[0].module} ...")
    if not report.passed:
        failed = ", ".join(check.name for check in report.checks if not check.passed)
        raise ParityFailed(f"{arguments.folder} does not say what torch says: {failed}. Export it again.", report)
    if not arguments.json:
        told = read_json(Path(arguments.folder, "manifest.json"))
        print(f"next: {_onward(arguments.folder, told['target'], told['notes'])}")
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """Answer a text with a bundle."""
    from edgebert import api
    from edgebert.cli import batch

    if (arguments.text is None) == (arguments.file is None):
        raise InputError("one text, or --file with many, is needed.")
    with api.open(arguments.folder, arguments.threads) as opened:
        if arguments.file is not None:
            plain = not arguments.pair and not arguments.no_answer and arguments.max_new_tokens is None
            embeds = plain and opened.manifest.task == "sentence-embedding"
            failed = batch.answer_file(
                arguments.file, lambda *texts: _answered(opened, arguments, *texts), opened.embed if embeds else None
            )
            return 2 if failed else 0
        answer = _answered(opened, arguments, arguments.text)
        longest = opened.manifest.lengths[-1]
    if answer.get("truncated"):
        given = answer["token_count"]
        print(f"edgebert: the text has {given} tokens, of which the first {longest} were read", file=sys.stderr)
    if arguments.json:
        print(json.dumps(answer, ensure_ascii=False))
        return 0
    for name, value in answer.items():
        if name == "logits":  # for machines, as the rest of a long vector is
            continue
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = [
                tuple(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row.values()) for row in value
            ]
            render.table(tuple(value[0]), rows)
        elif not isinstance(value, list):
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
        else:
            print(f"{name}: {json.dumps(value, ensure_ascii=False)[:400]}")
    return 0


def _answered(opened: "Bundle", arguments: argparse.Namespace, text: str, *own: str) -> dict[str, Any]:
    """A bundle's answer to a text and its own further texts, or those that hold for each."""
    from dataclasses import asdict

    pairs = own or arguments.pair
    if arguments.max_new_tokens is not None:
        if pairs:
            raise InputError("--max-new-tokens goes on from one text: leave the second out.")
        return asdict(opened.generate(text, arguments.max_new_tokens))
    if not arguments.no_answer:
        return opened.predict(text, *pairs)
    if len(pairs) != 1:
        raise InputError("--no-answer is for a question and its context: pass one with --pair.")
    return opened.answer(text, pairs[0], may_be_none=True)


def inspect(arguments: argparse.Namespace) -> int:
    """Show what is in a bundle or a model file."""
    from edgebert import api
    from edgebert.runtimes.session import WHOLE

    found = api.inspect(arguments.path)
    manifest, facts = found
    if arguments.json:
        print(json.dumps(found.to_dict()))
        return 0
    render.opening(Path(arguments.path), manifest, facts)
    if manifest is not None:
        render.manifest(manifest)
    render.facts(facts)
    if manifest is not None and facts.seal == WHOLE:
        print(f"next: edgebert validate {shlex.quote(arguments.path)}")
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Show what differs between two bundles."""
    from edgebert import api

    found = api.diff(arguments.a, arguments.b)
    if arguments.json:
        print(json.dumps(found.to_dict()))
    else:
        render.difference(found)
    return 0


def app(arguments: argparse.Namespace) -> int:
    """Make an app of a bundle."""
    from edgebert.cli import app as verb

    return verb.app(arguments, _interrupted)


def profile(arguments: argparse.Namespace) -> int:
    """Time model files on devices."""
    from edgebert.cli import devices

    return devices.profile(arguments, _interrupted)


def sweep(arguments: argparse.Namespace) -> int:
    """Do many cells, and report."""
    from edgebert.cli import sweep as verb

    return verb.sweep(arguments, _interrupted)


def report(arguments: argparse.Namespace) -> int:
    """Make a sweep's report again."""
    from edgebert.cli import sweep as verb

    return verb.report(arguments)


def device(arguments: argparse.Namespace) -> int:
    """List devices, or set one up."""
    from edgebert.cli import devices

    return devices.device(arguments, _interrupted)


def doctor(arguments: argparse.Namespace) -> int:
    """Show what works here, and how to get what does not."""
    from edgebert.cli import cache as kept
    from edgebert.cli.doctor import packages, verdicts

    rows, there = packages(), kept.kept()
    told = verdicts(rows)
    if arguments.json:
        from dataclasses import asdict

        print(json.dumps({"verdicts": told, "packages": rows, "cache": [asdict(one) for one in there]}))
        return 0
    render.table(
        ("what", "works", "found", "to do"),
        [(row["what"], "yes" if row["works"] else "no", row["found"], row["to_do"] or "-") for row in told],
    )
    for one in there:
        print(f"kept: {one.what}, {one.bytes / 1e6:.1f} MB in {one.path}")
    for row in (row for row in rows if row["installed"] and not row["fits"]):
        print(f"{row['package']} {row['installed']} is installed and {row['wanted']} is wanted: {row['install']}")
    return 0


def cache(arguments: argparse.Namespace) -> int:
    """Show what is kept between runs, or clear it."""
    from edgebert.cli import cache as verb

    return verb.cache(arguments)
