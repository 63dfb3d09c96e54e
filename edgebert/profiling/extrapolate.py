"""Models too large to emulate whole: their layers are alike, so one and two of them tell what all of them take.

A file with one layer and one with two are exported and counted. What the second adds, each further layer adds too.
Where layers of several kinds come by turns it is one and two rounds of them, beside those that are no whole round.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from edgebert import bundle
from edgebert.catalog import check_pair
from edgebert.checkpoints import checkpoint
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import EdgebertError, InputError, MissingDependency
from edgebert.exporters import EXPORTERS
from edgebert.exporters.common import USUAL
from edgebert.models import MODELS, Model
from edgebert.profiling.rows import Row, ranked, row
from edgebert.profiling.subject import Progress, Subject, inputs_of
from edgebert.profiling.subject import subject as look_at
from edgebert.quantization.samples import load_samples
from edgebert.runtimes import SUFFIXES
from edgebert.runtimes.devices.device import RUNTIME_OF, SIMULATED, Device, Estimate, Job
from edgebert.runtimes.devices.pixel.device import streamed
from edgebert.tokenizers.tokenizer import Tokenizer

Number = TypeVar("Number", int, float)

LENGTH = 128  # of a preset, where none was asked for


@dataclass(frozen=True, slots=True)
class Whole:
    """A model that is not run whole.

    Attributes:
        name: as it was given.
        model: with its weights, or on torch's `meta` device where random ones are to stand for them.
        tokenizer: for the samples of static recipes.
        target: runtime to export for; recipe: what happens to the numbers.
        keep_float: patterns of modules that stay float.
        lengths: to count it at.
        subject: the bundle that it is, None for a preset or checkpoint.
    """

    name: str
    model: Model
    tokenizer: Tokenizer | None
    target: str
    recipe: str
    keep_float: tuple[str, ...]
    lengths: tuple[int, ...]
    subject: Subject | None

    @property
    def in_float(self) -> bool:
        """Whether it is a bundle whose file computes nothing in half precision."""
        manifest = self.subject.manifest if self.subject else None
        return manifest is not None and manifest.headroom is None

    @property
    def layers(self) -> int:
        """How many the model has."""
        return int(getattr(self.model.config, self.model.family.depth))

    def parameters(self, layers: int) -> int:
        """How many numbers the model has with so many layers."""
        with torch.device("meta"):
            config = replace(self.model.config, **{self.model.family.depth: layers})
            small = Model(self.model.family, config, self.model.task)
        return sum(parameter.numel() for parameter in small.parameters())

    @property
    def few(self) -> tuple[int, ...]:
        """How many of its layers are counted: one or two rounds, and what all of them leave beside whole rounds."""
        period = self.model.family.period(self.model.config)
        rest = self.layers % period
        return tuple(size for size in (rest + period, rest + 2 * period) if size <= self.layers)


def whole(source: str | Path | Checkpoint, lengths: Sequence[int], target: str, recipe: str) -> Whole:
    """What stands behind a bundle, preset or checkpoint.

    Args:
        source: a bundle's folder, a preset such as `bert-base`, or a checkpoint, loaded or not.
        lengths: to count it at; empty for a bundle's own, and 128 for any other.
        target: for a preset or checkpoint; a bundle has its own.
        recipe: the same.

    Raises:
        InputError: it is a file, whose layers cannot be changed, or nothing at all.
        Unsupported: the target does not take the recipe.
        MissingDependency: the target's packages are not installed.
    """
    if isinstance(source, Checkpoint):
        chosen = _chosen(source.model, lengths)
        found = Whole(str(source.source), source.model, source.tokenizer, target, recipe, (), chosen, None)
    elif (Path(source) / bundle.MANIFEST).is_file():
        found = _of_bundle(look_at(source, lengths))
    elif Path(source).suffix in RUNTIME_OF:
        raise InputError(f"{source}: --extrapolate-layers takes a bundle or a preset, not a file.")
    else:
        outline = checkpoint.outline(source)
        chosen = _chosen(outline, lengths)
        model, words = outline, None
        if Path(source).is_dir() or str(source) == "default":
            loaded = checkpoint.load(source)
            model, words = loaded.model, loaded.tokenizer
        found = Whole(str(source), model, words, target, recipe, (), chosen, None)
    check_pair(found.target, found.recipe)
    if found.target not in RUNTIME_OF.values():
        raise InputError(f"target {found.target} has no simulated device; {', '.join(RUNTIME_OF.values())} have.")
    if command := EXPORTERS[found.target].missing():
        raise MissingDependency(f"target {found.target} is not installed: run {command}")
    if any(part.isdigit() for pattern in found.keep_float for part in pattern.split(".")):
        raise InputError(f"{source} keeps some layers in float, so that its layers are not alike: profile it whole.")
    return found


def _chosen(model: Model, lengths: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(lengths))) or (min(LENGTH, model.family.longest(model.config)),)


def _of_bundle(found: Subject) -> Whole:
    manifest = found.manifest
    assert manifest is not None
    model = words = None
    if Path(manifest.source).is_dir() or manifest.source == "default":
        try:
            loaded = checkpoint.load(manifest.source, manifest.task)
            model, words = loaded.model, loaded.tokenizer
        except EdgebertError:
            pass  # the folder is another one by now: random weights stand for those
    config = MODELS[manifest.family].config(**manifest.config | {"labels": tuple(manifest.config["labels"])})
    if model is None or model.config != config:
        with torch.device("meta"):
            model = Model(MODELS[manifest.family], config, manifest.task)
    lengths = tuple(length for length in found.lengths if length is not None)
    return Whole(
        found.name, model, words, manifest.target, manifest.recipe, tuple(manifest.keep_float), lengths, found
    )  # fmt: skip


def cut(model: Model, layers: int) -> Model:
    """A copy with the first layers alone; random weights where the model is on the `meta` device."""
    small = Model(model.family, replace(model.config, **{model.family.depth: layers}), model.task)
    if next(model.parameters()).is_meta:
        return small.random_init(0)
    state = model.state_dict()
    small.load_state_dict({name: state[name] for name in small.state_dict()})
    return small


def count(
    source: Whole, devices: Sequence[Device], threads: int = 1, progress: Progress = lambda step: None
) -> list[Row]:
    """Count a model's first layers on simulated devices, and extend the line to all of them.

    Raises:
        InputError: a device is no simulated one.
        ConversionFailed: a file of few layers cannot be exported.
    """
    if other := [device.name for device in devices if device.how != SIMULATED]:
        raise InputError(f"--extrapolate-layers is for simulated devices; {other[0]} runs the whole file quicker.")
    few = source.few
    found: dict[tuple[str, int, int], Row] = {}
    with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
        files = {layers: _exported(source, layers, Path(made), progress) for layers in few}
        read = [streamed(Job(files[layers])) for layers in few]
        whole = _grown(read[0], read[-1], _stored(source))
        for layers, path in files.items():
            size = sum(part.stat().st_size for part in Path(made).glob(f"{path.name}*"))
            base = source.subject or replace(look_at(path), name=source.name, recipe=source.recipe)
            for device in devices:
                for length in source.lengths:
                    progress(f"{source.name}: {layers} of {source.layers} layers on {device.name}, {length} tokens")
                    given = inputs_of(base, length, Path(made)) if source.subject else None
                    told = device.measure(Job(path, given, length, threads, whole=whole))
                    found[device.name, length, layers] = row(replace(base, file_bytes=size), told)
    rows = [
        extend([found[device.name, length, layers] for layers in few], source)
        for device in devices
        for length in source.lengths
    ]
    return ranked(rows)


def _exported(source: Whole, layers: int, folder: Path, progress: Progress) -> Path:
    """A file of the first layers."""
    progress(f"export {source.name} with {layers} of {source.layers} layers")
    recipe = check_pair(source.target, source.recipe)
    small, longest = cut(source.model, layers), source.lengths[-1]
    samples = load_samples(source.tokenizer, small.config, longest) if recipe.calibrated else []
    path = folder / f"layers-{layers}{SUFFIXES[source.target]}"
    in_half = None if source.in_float else USUAL
    EXPORTERS[source.target].export(small, recipe, source.lengths, path, source.keep_float, samples, in_half)
    return path


def _more(source: Whole) -> int:
    """How many rounds of layers are not counted."""
    return (source.layers - source.few[-1]) // source.model.family.period(source.model.config)


def _stored(source: Whole) -> int:
    """How many of those have weights of their own: ALBERT's layers share theirs."""
    return _more(source) if source.parameters(source.few[-1]) < source.parameters(source.layers) else 0


def extend(few: Sequence[Row], source: Whole) -> Row:
    """The row of all layers on the line through one and two of them."""
    first, last = few[0], few[-1]
    more = _more(source)
    a, b = first.found, last.found
    counted = [name for name in ("instructions", "cycles") if name in a.machine and name in b.machine]
    machine = b.machine | {name: _grown(a.machine[name], b.machine[name], more) for name in counted}
    estimate = _estimate(a.estimate, b.estimate, more) if a.estimate and b.estimate else None
    latency = None
    if a.latency and b.latency:
        times = {name: _grown(getattr(a.latency, name), getattr(b.latency, name), more) for name in TIMES}
        latency = replace(b.latency, **times)
    note = f"counted with {' and '.join(map(str, source.few))} layers, and extended to {source.layers}"
    found = replace(b, machine=machine, estimate=estimate, latency=latency, notes=(*b.notes, note))
    size = source.subject.file_bytes if source.subject else _grown(first.file_bytes, last.file_bytes, _stored(source))
    delegated = source.subject.delegated if source.subject else None
    return replace(last, found=found, file_bytes=size, delegated=delegated, layers=source.layers)


def _grown(one: Number, two: Number, more: int) -> Number:
    """What `two` has above `one`, added to it `more` times."""
    return two + more * (two - one)


def _estimate(one: Estimate, two: Estimate, more: int) -> Estimate:
    """The cycle model's numbers on the line; shares by the cycles that they are of. The hottest blocks stay."""
    grown: dict[str, Any] = {name: _grown(getattr(one, name), getattr(two, name), more) for name in MODELLED}
    for name in ("bounds", "shares"):
        mine, theirs = getattr(one, name), getattr(two, name)
        grown[name] = {
            key: _grown(mine.get(key, 0.0) * one.cycles, share * two.cycles, more) / grown["cycles"]
            for key, share in theirs.items()
        }
    grown["kinds"] = {key: _grown(one.kinds.get(key, 0), number, more) for key, number in two.kinds.items()}
    if one.memory_ms is not None and two.memory_ms is not None:
        grown["memory_ms"] = _grown(one.memory_ms, two.memory_ms, more)
    return replace(two, **grown)


TIMES = ("median_ms", "p90_ms", "min_ms", "max_ms")
MODELLED = ("instructions", "cycles", "ms", "low_ms", "high_ms")
