"""The verbs of the command line as functions; the package offers `edgebert.load`, `edgebert.export` and so on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgebert import bundle, durations
from edgebert.app.make import apk as make_app
from edgebert.app.project import project as make_project
from edgebert.artifact import Artifact
from edgebert.bundle import card, hub, zipped
from edgebert.bundle import proof as bundle_proof
from edgebert.bundle.diff import Difference, compare
from edgebert.bundle.manifest import Manifest, describe_files
from edgebert.bundle.opened import Bundle, look_into, open_bundle
from edgebert.bundle.write import reading_of, write_bundle
from edgebert.catalog import FAMILIES, TASKS, check_pair, known
from edgebert.checkpoints import checkpoint
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.checkpoints.trim import trim
from edgebert.errors import BudgetMissed, InputError, MissingDependency, ParityFailed, Unsupported
from edgebert.exporters import BESIDE, EXPORTERS
from edgebert.exporters.common import About, with_outputs
from edgebert.exporters.provenance import origins
from edgebert.exporters.tflite import mediapipe
from edgebert.files import check_folder, new_folder, peak_memory
from edgebert.gate import faithful, golden, half, packing, parity, rounded, sensitivity, sentences
from edgebert.gate.faithful import Made
from edgebert.gate.golden import Golden
from edgebert.gate.half import Half
from edgebert.gate.parity import Run
from edgebert.gate.sensitivity import Cost
from edgebert.models.heads import ACTIVATED
from edgebert.models.signature import Arrays
from edgebert.preflight import Asked, preflight, usual_lengths
from edgebert.profiling import fastest
from edgebert.profiling.fastest import Choice
from edgebert.profiling.gate import validate as validate_on_device
from edgebert.profiling.profile import Profile, profile
from edgebert.quantization.observers import Samples
from edgebert.quantization.recipes import TARGET_RECIPES, Recipe
from edgebert.quantization.samples import load_samples
from edgebert.report import Report, Tolerance
from edgebert.results import Table, megabytes
from edgebert.runtimes import RUNTIMES, SUFFIXES
from edgebert.runtimes.session import Facts, Packing

__all__ = [
    "Exported", "Inspected", "Models", "Profile", "diff", "export", "inspect", "list_models", "load", "make_app",
    "make_project", "open", "profile", "rank_layers", "validate",
]  # fmt: skip

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Exported(Table):
    """What `export` made.

    Attributes:
        folder: the bundle.
        manifest: what it says of itself.
        report: the gate's report; None where it was told not to look.
        zip: the bundle as one file, where it was asked for.
        choices: recipes on the phone that it was made for, the fastest first; empty where a recipe was given.
    """

    folder: Path
    manifest: Manifest
    report: Report | None
    zip: Path | None = None
    choices: tuple[Choice, ...] = ()

    def __repr__(self) -> str:
        told = f", {_worst(self.report):.1f} dB" if self.report else ", not compared with torch"
        return f"Exported({str(self.folder)!r}, {_in_a_line(self.manifest)}{told})"

    def flat(self) -> list[dict[str, Any]]:
        """One row: what was made, how large it is, and its worst output's distance from torch."""
        made = self.manifest
        return [
            {
                "folder": str(self.folder),
                "family": made.family,
                "task": made.task,
                "target": made.target,
                "recipe": made.recipe,
                "lengths": ", ".join(map(str, made.lengths)),
                "size_mb": megabytes(made.model_bytes),
                "sqnr_db": _worst(self.report) if self.report else None,
            }
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        told: dict[str, Any] = {} if self.zip is None else {"zip": str(self.zip)}
        if self.choices:
            told["choices"] = [asdict(choice) for choice in self.choices]
        return {"folder": str(self.folder), "manifest": asdict(self.manifest)} | told


@dataclass(frozen=True, slots=True)
class Inspected(Table):
    """What `inspect` saw; `manifest, facts = inspect(path)` takes it apart.

    Attributes:
        manifest: of a bundle; None for a file alone.
        facts: what the runtime says of the model file.
    """

    manifest: Manifest | None
    facts: Facts

    def __iter__(self) -> Iterator[Any]:
        return iter((self.manifest, self.facts))

    def __repr__(self) -> str:
        told = f"{_in_a_line(self.manifest)}, " if self.manifest else ""
        return f"Inspected({told}{self.facts.file_bytes / 1e6:.1f} MB, {self.facts.nodes} nodes, {self.facts.runtime})"

    def flat(self) -> list[dict[str, Any]]:
        """A row for each module of a bundle, or each weight of a file alone."""
        if self.manifest is not None:
            return [
                {
                    "module": module["name"],
                    "type": module["type"],
                    "part": module["part"],
                    "parameters": module["parameters"],
                    "dtype": module["dtype"],
                    "size_mb": megabytes(module["bytes_after"]),
                    "torch_size_mb": megabytes(module["bytes_before"]),
                }
                for module in self.manifest.modules
            ]
        return [
            {"weight": one.name, "dtype": one.dtype, "shape": str(list(one.shape)), "size_mb": megabytes(one.bytes)}
            for one in self.facts.weights
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"manifest": asdict(self.manifest) if self.manifest else None, "facts": asdict(self.facts)}


@dataclass(frozen=True, slots=True)
class Models(Table):
    """The architectures that there are: name to paper, tasks and presets."""

    models: Mapping[str, Mapping[str, Any]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __repr__(self) -> str:
        return f"Models({', '.join(self.models)})"

    def flat(self) -> list[dict[str, Any]]:
        """A row for each."""
        return [
            {"model": name, "paper": said["paper"]} | {key: ", ".join(said[key]) for key in ("tasks", "presets")}
            for name, said in self.models.items()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(self.models)


def list_models() -> Models:
    """The architectures that can be exported, each with its tasks, and its presets for `random_init`."""
    return Models({name: asdict(family) for name, family in FAMILIES.items()})


def _worst(report: Report) -> float:
    """The lowest signal to error of a report's outputs, dB."""
    return min(stats.sqnr_db for stats in report.outputs.values())


def _in_a_line(manifest: Manifest) -> str:
    """What a bundle is."""
    size = f"{manifest.model_bytes / 1e6:.1f} MB"
    return f"{manifest.family} for {manifest.task}, {manifest.target} {manifest.recipe}, {size}"


def load(
    model: str | Path = "default",
    task: str | None = None,
    random_init: bool = False,
    seed: int = 0,
    random_head: bool = False,
    prompt: str | None = None,
    ignore_config: Sequence[str] = (),
) -> Checkpoint:
    """Load a checkpoint folder, a hub name, or `default`; see `edgebert.checkpoints.checkpoint.load`."""
    task = known("task", task, TASKS) if task else None
    return checkpoint.load(model, task, random_init, seed, random_head, prompt, ignore_config)


def open(folder: str | Path, threads: int = 1) -> Bundle:
    """Open a bundle in its target's own runtime, for `run` on ids and `predict` on text.

    Raises:
        InputError: the folder is no bundle, or not the one that was exported.
        MissingDependency: the runtime is not installed.
    """
    return open_bundle(folder, threads)


def export(
    model: str | Path | Checkpoint = "default",
    task: str | None = None,
    target: str = "tflite",
    recipe: str = "w8a8-dynamic",
    lengths: Sequence[int] | None = None,
    out: str | Path | None = None,
    force: bool = False,
    random_init: bool = False,
    validate: bool = True,
    calibration_file: str | Path | None = None,
    keep_float: Sequence[str] = (),
    min_delegated: float | None = None,
    trim_vocab: str | Path | None = None,
    random_head: bool = False,
    prompt: str | None = None,
    ignore_config: Sequence[str] = (),
    zip: bool = False,
    metadata: str | None = None,
    phone: str | None = None,
    progress: Progress = lambda step: None,
) -> Exported:
    """Export a model to a bundle that a phone runs, and prove that it says what the torch model says.

    Args:
        model: a checkpoint folder, a hub name, `default`, a preset (with `random_init`), or what `load` returned.
        task: the head; None takes the one that the checkpoint was saved with.
        target: the runtime's format, a key of `edgebert.quantization.recipes.TARGET_RECIPES`.
        recipe: what happens to the numbers, a key of `edgebert.quantization.recipes.RECIPES`.
        lengths: sequence lengths to prepare; None takes 32, 64 and 128, as far as the model's positions reach.
        out: the bundle's folder; None names it after model, target and recipe, in the current folder.
        force: replace a bundle that is there already.
        random_init: take the config alone and draw the weights.
        validate: hold the file to torch's answers, and leave no bundle when it fails.
        calibration_file: texts to choose static scales and 4-bit weights on; None takes those kept with this package.
        keep_float: patterns of modules that stay float, such as `head.*` (see `edgebert.quantization.recipes.kept`).
        min_delegated: share of the arithmetic, 0 to 1, that an accelerated backend must take over.
        trim_vocab: a text corpus; only the pieces of the vocabulary that it needs are kept (see `checkpoints/trim.py`).
        random_head: draw the head's weights where the checkpoint has none for the task.
        prompt: the name of a prompt that a sentence encoder was trained with, to stand before each text.
        ignore_config: keys of `config.json` to leave out, which are not known here and do not change the model.
        zip: write the bundle as one file too, beside its folder.
        metadata: `mediapipe` for a .tflite file that MediaPipe's TextClassifier or TextEmbedder runs as it is.
        phone: a simulated one, such as `pixel-3`: in place of `recipe` the one of fp32, fp16 and 8 bits that is fastest
            there, at the longest length, and passes the gate.
        progress: is told each step as it begins.

    Raises:
        InputError: something given is not usable, another process exports to `out`, or something that may not be
            replaced appeared there meanwhile: the bundle then stands beside it, as the message says.
        Unsupported: the target does not take the recipe, or the family not the task.
        MissingDependency: the target's packages are not installed.
        ConversionFailed: the converter gave up, or the file's weights are not what the recipe implies.
        ParityFailed: the file does not say what torch says; `report` on the error has the figures.
        BudgetMissed: less is delegated than was asked for.
    """
    target = known("target", target, TARGET_RECIPES)
    how = check_pair(target, recipe)
    recipe = how.name
    task = known("task", task, TASKS) if task else None
    if command := EXPORTERS[target].missing() or RUNTIMES[target].missing():
        raise MissingDependency(f"target {target} is not installed: run {command}")
    asked = Asked(
        target, how, task, random_init, lengths, tuple(keep_float), calibration_file, min_delegated, trim_vocab,
        random_head, prompt, tuple(ignore_config), metadata,
    )  # fmt: skip
    fitting, step = preflight(model, asked)
    if phone is not None:  # before a model is counted
        fastest.simulated(phone)
        if out is not None:
            check_folder(Path(out), force, bundle.MANIFEST)
        step = "load the model"  # in which recipe is to be seen
    progress(step)
    source = (
        model
        if isinstance(model, Checkpoint)
        else load(model, task, random_init, random_head=random_head, prompt=prompt, ignore_config=ignore_config)
    )
    if phone is not None:
        return _for_phone(
            phone, source, target, lengths, progress, out=out, force=force, validate=validate,
            calibration_file=calibration_file, keep_float=keep_float, min_delegated=min_delegated,
            trim_vocab=trim_vocab, zip=zip, metadata=metadata,
        )  # fmt: skip
    if trim_vocab is not None:
        progress("trim the vocabulary")
        source = trim(source, Path(trim_vocab))
        EXPORTERS[target].check(source.model, how)
    activation, about = _for_clients(source, metadata)
    source = replace(source, model=with_outputs(target, source.model, activation))
    texts = Path(calibration_file) if calibration_file else None
    tried = (target, recipe) in half.WHERE
    samples = load_samples(source.tokenizer, source.model.config, fitting[-1], texts) if how.calibrated or tried else []
    takes = durations.export(source.model, target, how, fitting)
    lower = partial(EXPORTERS[target].lower, source.model, how, fitting[-1], tuple(keep_float))
    final = Path(out) if out is not None else Path(f"{Path(source.source).name}-{target}-{recipe}")
    if zip:
        zipped.check_place(final, force)
    with new_folder(final, force, bundle.MANIFEST) as folder:
        progress(f"ask torch for reference answers{durations.told(takes.answers)}")
        beside = BESIDE[target](source.model, fitting) if target in BESIDE else ()
        answers = golden.make(source.model, source.tokenizer, (*beside, *fitting))
        in_half = half.choose(lower, target, how, samples, answers)
        progress(f"convert to {target} {recipe}{durations.told(takes.convert)}")
        artifact = EXPORTERS[target].export(
            source.model,
            how,
            fitting,
            _place(folder / hub.model_file(target, recipe)),
            tuple(keep_float),
            samples if how.calibrated else [],
            in_half.factors,
            about,
        )
        progress("write the bundle")
        manifest = write_bundle(
            folder, source, artifact, answers, target, how, tuple(keep_float), texts, in_half, about.notes
        )
        _check_delegated(manifest, min_delegated)
        report = None
        if validate:
            progress(f"compare with torch in the {target} runtime{durations.told(takes.gate)}")
            report = _proven(folder, source, artifact, answers, how, samples, in_half, target)
            manifest = replace(manifest, parity=report.to_dict())
        card.write(folder, final.name, manifest, source.card, source.license, _example(folder, manifest))
        manifest = replace(manifest, files=describe_files(folder), peak_memory_bytes=peak_memory())
        manifest.write(folder)
    return Exported(final, manifest, report, zipped.write(final) if zip else None)


def _for_phone(
    phone: str, source: Checkpoint, target: str, lengths: Sequence[int] | None, progress: Progress, **asked: Any
) -> Exported:
    """Export in the recipe that is the fastest on a phone of those that pass the gate; `asked` as `export` takes it.

    Raises:
        ParityFailed: no recipe passes.
    """
    longest = max(lengths or usual_lengths(source.model))
    choices = tuple(fastest.rank(fastest.count(source, target, (longest,), phone, 1, progress)))
    for place, choice in enumerate(choices):
        progress(fastest.told(choices[place:]))
        try:
            made = export(source, target=target, recipe=choice.recipe, lengths=lengths, progress=progress, **asked)
        except ParityFailed:
            if choice is choices[-1]:
                raise
        else:
            return replace(made, choices=choices)
    raise AssertionError("a target has a recipe at least")


def _for_clients(source: Checkpoint, metadata: str | None) -> tuple[str, About]:
    """What a classifier's file applies to its logits, and what it tells beside its model.

    Raises:
        Unsupported: MediaPipe has no way to read this model's texts, or its answers.
    """
    if metadata is None:
        return "", About(source.license)
    words = mediapipe.vocabulary(source.tokenizer, source.model.family.padding_invariant)
    about = About(source.license, words, (mediapipe.NOTE,))
    if source.model.task == "sentence-embedding":
        return "", about
    applied = reading_of(source).activation
    if applied not in ACTIVATED:
        raise Unsupported(
            f"MediaPipe's classifier takes scores from 0 to 1, and this model's are read by {applied}: export without "
            f"--metadata {metadata}."
        )
    return applied, about


def _example(folder: Path, manifest: Manifest) -> dict[str, Any] | None:
    """What a bundle answers to an example for its task; None where it cannot be asked that."""
    with open_bundle(folder) as opened:
        try:
            return opened.predict(*card.asked_of(manifest.task, folder))
        except InputError:  # no tokenizer, no [MASK] in it, or no room for the example
            return None


def _place(path: Path) -> Path:
    """A place to write to, with the folder that it stands in."""
    path.parent.mkdir(exist_ok=True)
    return path


def _proven(
    folder: Path,
    source: Checkpoint,
    artifact: Artifact,
    answers: Golden,
    how: Recipe,
    samples: Samples,
    in_half: Half,
    target: str,
) -> Report:
    """Hold a written bundle to the model, in every way that the gate has.

    Raises:
        ParityFailed: it is not the model.
    """
    origin = origins(source.model, in_half.model)
    made = Made(artifact.path, source.model, in_half.model, origin, artifact.lengths, artifact.dynamic, target)
    proof, carrying, packed = faithful.check(made)
    due = rounded.tolerance(made, carrying, packed, answers, how, samples)
    with open_bundle(folder) as opened:
        run = _once(opened.run)
        report = _gate(opened, run, due)
        around = bundle_proof.check(opened, source, due)
        if in_half.trial is not None:
            around += (half.check(in_half, run, answers, half.due(target, how.name, due)),)
    report = replace(report, checks=(*proof, *around, *report.checks))
    if not report.passed:
        failed = [f"{check.name} ({check.detail})" for check in report.checks if not check.passed]
        raise ParityFailed(f"{target} {how.name} does not say what torch says: {'; '.join(failed)}.", report)
    return report


def validate(folder: str | Path, device: str | None = None, progress: Progress = lambda step: None) -> Report:
    """Hold a bundle's file to the answers torch gave when it was exported, in the target's own runtime.

    Args:
        folder: the bundle.
        device: where to run it, such as `pixel-4`, with that device's kernels; None runs it in this process.
        progress: is told each step.

    Returns:
        The report; look at `passed`.

    Raises:
        InputError: the folder is no bundle, or not the one that was exported, or there is no such device.
        MissingDependency: the runtime is not installed, or the device must be set up first.
    """
    if device is not None:
        return validate_on_device(Path(folder), device, progress)
    with open_bundle(folder) as opened:
        told = opened.manifest
        recipe = check_pair(told.target, told.recipe)
        count = sum(module["parameters"] for module in told.modules if module["part"] != "embeddings")
        seconds = durations.gate(count, told.target, recipe, told.lengths)
        progress(f"compare with torch's answers{durations.told(seconds)}")
        return _gate(opened, opened.run, bundle_proof.due(opened.manifest))


def rank_layers(folder: str | Path, progress: Progress = lambda step: None) -> list[Cost]:
    """Which modules of a quantized bundle's model cost its accuracy, the costliest first.

    The model is loaded again from where the bundle says it came from, and each module quantized alone, in torch.

    Raises:
        InputError: the folder is no bundle, its recipe is float, or its model is not there any more.
    """
    manifest = bundle.read(folder)
    recipe = check_pair(manifest.target, manifest.recipe)
    if not recipe.quantized:
        raise InputError(f"{folder} is {recipe.name}, in which no layer is quantized: nothing costs accuracy.")
    progress(f"load {manifest.source}")
    random = manifest.weights_sha256.startswith("random")
    source = load(manifest.source, manifest.task, random_init=random)
    if source.weights_sha256 != manifest.weights_sha256:
        raise InputError(
            f"{manifest.source} is not the model that {folder} was exported from (its weights' sha256 differs): "
            "export the bundle again."
        )
    if source.model.config.vocab_size != manifest.vocab_size:
        raise InputError(
            f"{folder} has a trimmed vocabulary and {manifest.source} the whole one: save the trimmed checkpoint "
            "(edgebert.checkpoints.trim) and export that."
        )
    given = [spec["name"] for spec in manifest.outputs]
    activation = next((activation for activation, output in ACTIVATED.items() if output in given), "")
    model = with_outputs(manifest.target, source.model, activation)
    batch = golden.load(Path(folder) / bundle.GOLDEN).batches[0]
    tolerance = parity.TOLERANCES[manifest.target, manifest.recipe]
    return sensitivity.rank(model, batch, recipe, tolerance, progress)


def inspect(path: str | Path) -> Inspected:
    """Read a bundle, or a model file that any tool made: its manifest if it has one, and the runtime's facts.

    A file that edgebert made and another tool edited is told of too, as what it is (`Facts.seal`).

    Raises:
        InputError: it is neither, or damaged, or its runtime refuses it.
        MissingDependency: the runtime is not installed.
    """
    path = Path(path)
    # Some model files are folders themselves, so the ending comes first.
    target = next((target for target, suffix in SUFFIXES.items() if path.suffix == suffix), None)
    if target is None and path.is_dir():
        return Inspected(*look_into(path))
    if target is None or not path.exists():
        kinds = ", ".join(SUFFIXES.values())
        raise InputError(f"{path}: no bundle and no model file; give a bundle's folder or a file ending in {kinds}.")
    if command := RUNTIMES[target].missing():
        raise MissingDependency(f"the {target} runtime is not installed: run {command}")
    return Inspected(None, RUNTIMES[target].facts(path))


def diff(a: str | Path, b: str | Path) -> Difference:
    """What differs between two bundles: what they say of themselves, files, sizes, and answers; both models are run.

    Raises:
        InputError: one of them is no bundle, or damaged.
        MissingDependency: a runtime is not installed.
    """
    return compare(Path(a), Path(b))


def _check_delegated(manifest: Manifest, wanted: float | None) -> None:
    """Hold a file to the share of arithmetic that was asked for."""
    if wanted is None:
        return
    told = manifest.graph["delegation"]
    if told is None:
        raise Unsupported(
            f"{manifest.target} has no delegates to count here, so --min-delegated cannot be held: leave it out."
        )
    if told["share"] < wanted:
        raise BudgetMissed(f"--min-delegated {wanted}: {told['text']}. Ask for less, or change what keeps it out.")


def _gate(opened: Bundle, run: Run, due: Tolerance) -> Report:
    """Run the gate on a bundle, through the very session that an app's answers come from."""
    answers = golden.load(opened.folder / bundle.GOLDEN)
    report = parity.gate(answers, run, due, opened.manifest.padding_invariant, opened.manifest.vocab_size)
    session, further = opened.session, []
    if isinstance(session, Packing) and session.packed:
        skipped = opened.manifest.config["pooling"]["skipped"]
        further.append(packing.check(answers, session.packed, skipped, session.run_packed, due))
    if opened.tokenizer is not None and bundle.SENTENCES in opened.manifest.files:
        further.append(sentences.check(sentences.load(opened.folder / bundle.SENTENCES), opened.tokenizer))
    return replace(report, checks=(*report.checks, *further))


def _once(run: Run) -> Run:
    """A file's answers, kept: two checks ask for the same."""
    told: dict[tuple[object, ...], Arrays] = {}

    def answer(inputs: Mapping[str, np.ndarray]) -> Arrays:
        asked = tuple((name, value.shape, value.tobytes()) for name, value in inputs.items())
        if asked not in told:
            told[asked] = run(inputs)
        return told[asked]

    return answer
