"""The verbs of the command line as functions; the package offers `edgebert.load`, `edgebert.export` and so on."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgebert import bundle, checkpoint, golden, parity
from edgebert.artifact import Artifact
from edgebert.bundle import Manifest
from edgebert.checkpoint import Checkpoint
from edgebert.errors import InputError, MissingDependency, ParityFailed, Unsupported
from edgebert.exporters import EXPORTERS
from edgebert.files import new_folder
from edgebert.models import MODELS
from edgebert.parity import Report
from edgebert.predict import Bundle, open_bundle
from edgebert.recipes import RECIPES, TARGET_RECIPES, Recipe
from edgebert.runtimes import RUNTIMES, SUFFIXES
from edgebert.runtimes.session import Facts

LENGTHS = (32, 64, 128)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What `export` made.

    Attributes:
        folder: the bundle.
        manifest: what it says of itself.
        report: the gate's report; None where it was told not to look.
    """

    folder: Path
    manifest: Manifest
    report: Report | None


def load(
    model: str | Path = "default", task: str | None = None, random_init: bool = False, seed: int = 0
) -> Checkpoint:
    """Load a checkpoint folder, a hub name, or `default`; see `edgebert.checkpoint.load`."""
    return checkpoint.load(model, _known("task", task, _tasks()) if task else None, random_init, seed)


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
    progress: Progress = lambda step: None,
) -> Exported:
    """Export a model to a bundle that a phone runs, and prove that it says what the torch model says.

    Args:
        model: a checkpoint folder, a hub name, `default`, a preset (with `random_init`), or what `load` returned.
        task: the head; None takes the one that the checkpoint was saved with.
        target: the runtime's format, a key of `edgebert.recipes.TARGET_RECIPES`.
        recipe: what happens to the numbers, a key of `edgebert.recipes.RECIPES`.
        lengths: sequence lengths to prepare; None takes 32, 64 and 128, as far as the model's positions reach.
        out: the bundle's folder; None names it after model, target and recipe, in the current folder.
        force: replace a bundle that is there already.
        random_init: take the config alone and draw the weights.
        validate: hold the file to torch's answers, and leave no bundle when it fails.
        progress: is told each step as it begins.

    Raises:
        InputError: something given is not usable.
        Unsupported: the target does not take the recipe, or the family not the task.
        MissingDependency: the target's packages are not installed.
        ConversionFailed: the converter gave up.
        ParityFailed: the file does not say what torch says; `report` on the error has the figures.
    """
    how = check_pair(target, recipe)
    if command := EXPORTERS[target].missing() or RUNTIMES[target].missing():
        raise MissingDependency(f"target {target} is not installed: run {command}")
    progress("load the model")
    source = model if isinstance(model, Checkpoint) else load(model, task, random_init)
    EXPORTERS[target].check(source.model, how)
    fitting = _lengths(lengths, source.model.config.max_position_embeddings)
    final = Path(out) if out is not None else Path(f"{Path(source.source).name}-{target}-{recipe}")
    with new_folder(final, force, bundle.MANIFEST) as folder:
        progress("ask torch for reference answers")
        answers = golden.make(source.model, source.tokenizer, fitting)
        progress(f"convert to {target} {recipe}")
        artifact = EXPORTERS[target].export(source.model, how, fitting, folder / f"model{SUFFIXES[target]}")
        progress("write the bundle")
        manifest = _fill(folder, source, artifact, answers, target, how)
        report = None
        if validate:
            progress(f"compare with torch in the {target} runtime")
            report = _gate(folder)
            if not report.passed:
                failed = [f"{check.name} ({check.detail})" for check in report.checks if not check.passed]
                raise ParityFailed(f"{target} {recipe} does not say what torch says: {'; '.join(failed)}.", report)
            manifest = replace(manifest, parity=report.to_json())
        manifest.write(folder)
    return Exported(final, manifest, report)


def validate(folder: str | Path) -> Report:
    """Hold a bundle's file to the answers torch gave when it was exported, in the target's own runtime.

    Returns:
        The report; look at `passed`.

    Raises:
        InputError: the folder is no bundle, or not the one that was exported.
    """
    return _gate(Path(folder))


def inspect(path: str | Path) -> tuple[Manifest | None, Facts]:
    """Read a bundle, or a model file that any tool made: its manifest if it has one, and the runtime's facts."""
    path = Path(path)
    if path.is_dir():
        with open_bundle(path) as opened:
            return opened.manifest, opened.session.facts()
    target = next((target for target, suffix in SUFFIXES.items() if path.suffix == suffix), None)
    if target is None or not path.is_file():
        kinds = ", ".join(SUFFIXES.values())
        raise InputError(f"{path}: no bundle and no model file; give a bundle's folder or a file ending in {kinds}.")
    if command := RUNTIMES[target].missing():
        raise MissingDependency(f"the {target} runtime is not installed: run {command}")
    session = RUNTIMES[target].open(path, 1)
    try:
        return None, session.facts()
    finally:
        session.close()


def check_pair(target: str, recipe: str) -> Recipe:
    """The recipe of that name, if the target takes it."""
    _known("target", target, TARGET_RECIPES)
    _known("recipe", recipe, RECIPES)
    if recipe not in TARGET_RECIPES[target]:
        raise Unsupported(f"{target} does not take {recipe}; it takes {', '.join(TARGET_RECIPES[target])}.")
    return RECIPES[recipe]


def _known(what: str, name: str, names: Iterable[str]) -> str:
    """The name itself, or InputError with the nearest one that exists."""
    known = list(names)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(f"{what} {name!r} is not known; {hint}there are {', '.join(known)}.")
    return name


def _tasks() -> dict[str, None]:
    return dict.fromkeys(task for family in MODELS.values() for task in family.heads)


def _lengths(lengths: Sequence[int] | None, positions: int) -> tuple[int, ...]:
    """The lengths asked for, checked against the model's positions; or the usual ones that fit."""
    if lengths is None:
        return tuple(n for n in LENGTHS if n <= positions) or (positions,)
    wrong = [n for n in lengths if not 1 <= n <= positions]
    if wrong or not lengths:
        raise InputError(f"lengths {list(lengths)}; each must be from 1 to the model's {positions} positions.")
    return tuple(sorted(set(lengths)))


def _fill(
    folder: Path, source: Checkpoint, artifact: Artifact, answers: golden.Golden, target: str, recipe: Recipe
) -> Manifest:
    """Write everything beside the model file; the manifest still without a report."""
    answers.save(folder / bundle.GOLDEN)
    if source.tokenizer is not None:
        source.tokenizer.backend.save(str(folder / bundle.TOKENIZER))
    session = RUNTIMES[target].open(artifact.path, 1)
    facts = session.facts()
    session.close()
    model = source.model
    manifest = Manifest(
        format=bundle.FORMAT,
        version=bundle.VERSION,
        family=model.family.name,
        source=source.source,
        weights_sha256=source.weights_sha256,
        config=asdict(model.config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        task=model.task,
        target=target,
        recipe=recipe.name,
        lengths=list(artifact.lengths),
        dynamic=artifact.dynamic,
        vocab_size=model.config.vocab_size,
        pad_id=source.tokenizer.pad_id if source.tokenizer else 0,
        padding_invariant=model.family.padding_invariant,
        labels=list(model.config.labels) if "classification" in model.task else [],
        model_file=artifact.path.name,
        inputs=[asdict(spec) for spec in facts.inputs],
        outputs=[asdict(spec) for spec in facts.outputs],
        files=bundle.describe_files(folder),
        graph={
            "nodes": facts.nodes,
            "delegated": facts.delegated,
            "ops": facts.ops,
            "weight_bytes": facts.weight_bytes,
        },
        parity=None,
        tools=artifact.tools | {"runtime": facts.runtime},
        notes=list(source.notes),
    )
    manifest.write(folder)
    return manifest


def _gate(folder: Path) -> Report:
    """Run the gate on a bundle, through the very session that an app's answers come from."""
    with open_bundle(folder) as opened:
        manifest = opened.manifest
        check_pair(manifest.target, manifest.recipe)
        answers = golden.load(folder / bundle.GOLDEN)
        return parity.gate(
            answers, opened.run, manifest.target, manifest.recipe, manifest.padding_invariant, manifest.vocab_size
        )
