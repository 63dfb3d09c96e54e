"""What model files take on devices: one row a file, device and length, sorted, with ratios to the fastest.

A bundle runs on its golden inputs, at each of its lengths. Any other .tflite, .onnx or .pte file runs on inputs made up
for its own signature.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgebert import bundle, golden
from edgebert.bundle import Manifest
from edgebert.errors import InputError, MissingDependency, Unsupported
from edgebert.preflight import known
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import calibration, device_names, open_device
from edgebert.runtimes.devices.device import RUNTIME_OF, Device, Job, Measurement
from edgebert.runtimes.session import INPUTS, Spec

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model file that is to be run.

    Attributes:
        name: as it was given.
        model: the file itself.
        target: its runtime.
        file_bytes: its size, external data included.
        recipe: of a bundle; None for another file.
        delegated: share of the arithmetic that a backend of this host's runtime takes over; None where it cannot tell.
        operators: operator to how often it stands in the graph; None where no runtime here reads the file.
        lengths: to run it at; None stands for the file's own.
        manifest: of a bundle; None for another file.
        kind: dtype of most of its weights, as calibrations are kept by; None where no runtime here reads the file.
    """

    name: str
    model: Path
    target: str
    file_bytes: int
    recipe: str | None = None
    delegated: float | None = None
    operators: dict[str, int] | None = None
    lengths: tuple[int | None, ...] = (None,)
    manifest: Manifest | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One file on one device at one length.

    Attributes:
        file: as it was given.
        target: its runtime; recipe: of a bundle, else None.
        length: tokens that went in; None where no input is one of ids.
        file_bytes: size of the file.
        delegated: see `Subject`.
        found: what the device told, with what kind of numbers they are.
        ratio: median latency over that of the fastest row at the same length; None where either has no time.
        layers: that numbers of a file with fewer layers were extended to; None where the whole file ran.
    """

    file: str
    target: str
    recipe: str | None
    length: int | None
    file_bytes: int
    delegated: float | None
    found: Measurement
    ratio: float | None = None
    layers: int | None = None

    @property
    def median_ms(self) -> float | None:
        """The steady latency, measured or modelled; None where the device tells no time."""
        if self.found.latency is not None:
            return self.found.latency.median_ms
        return self.found.estimate.ms if self.found.estimate else None

    @property
    def band_ms(self) -> tuple[float, float]:
        """Low and high end of the latency: 10th to 90th percentile of runs, or the model's error; 0 without a time."""
        latency, estimate = self.found.latency, self.found.estimate
        if estimate is not None:
            scale = (self.median_ms or 0.0) / (estimate.ms or 1.0)  # where a phone's own measurement calibrates it
            return estimate.low_ms * scale, estimate.high_ms * scale
        return (latency.p90_ms - latency.spread * latency.median_ms, latency.p90_ms) if latency else (0.0, 0.0)

    @property
    def instructions(self) -> int | None:
        """What one inference runs, None where the device does not count."""
        counted: int | None = self.found.machine.get("instructions")
        return self.found.estimate.instructions if self.found.estimate else counted

    def to_json(self) -> dict[str, Any]:
        """Plain values; what the device told stands among them by its own names."""
        own = {key: value for key, value in asdict(self).items() if key != "found"}
        return own | asdict(self.found)


def check_numbers(lengths: Sequence[int], threads: int, runs: int) -> None:
    """Refuse what no device can do."""
    for what, value in (("--seq-len", min(lengths, default=1)), ("--threads", threads), ("--runs", runs)):
        if value < 1:
            raise InputError(f"{what} {value}; at least 1 is needed.")


def devices(names: Sequence[str]) -> list[Device]:
    """Open devices by name, and see that they are ready.

    Raises:
        InputError: there is no such device; the message names the nearest.
        MissingDependency: a device must be set up first; the message says how.
    """
    opened = []
    for name in dict.fromkeys(names):
        if ":" not in name:
            known("device", name, device_names())
        device = open_device(name)
        if todo := device.missing():
            raise MissingDependency(f"device {name} is not ready: {readiness(todo)}")
        opened.append(device)
    return opened


def readiness(todo: str | None) -> str:
    """What to do about a device, in words: some tell a command, and some what is the matter."""
    if todo is None:
        return "ready"
    return f"run {todo}" if todo.startswith("edgebert ") else todo


def subject(path: str | Path, lengths: Sequence[int] = ()) -> Subject:
    """Look at a bundle or model file, by the runtime's checked reader, before native code is given it.

    Args:
        path: a bundle's folder, or a .tflite, .onnx or .pte file.
        lengths: to run it at; empty for a bundle's own lengths, or a file's own shape.

    Raises:
        InputError: it is neither, it is damaged, or does not reach a length.
        Unsupported: it is a bundle that only Apple's devices run.
    """
    path = Path(path)
    if path.is_dir() and path.suffix != ".mlpackage":
        return _of_bundle(path, lengths)
    if path.suffix == ".mlpackage":
        raise Unsupported(f"{path}: Core ML models run on Apple's devices; {', '.join(RUNTIME_OF)} files run here.")
    target = Job(path).runtime
    asked = tuple(lengths) or (None,)
    if RUNTIMES[target].missing():  # the device may have the runtime all the same
        return Subject(str(path), path, target, path.stat().st_size, lengths=asked)
    with closing(RUNTIMES[target].open(path, 1)) as session:
        facts = session.facts()
    share = facts.delegation.share if facts.delegation else None
    kind = next(iter(facts.weight_bytes), None)
    return Subject(str(path), path, target, facts.file_bytes, None, share, facts.ops, asked, kind=kind)


def _of_bundle(path: Path, lengths: Sequence[int]) -> Subject:
    manifest = bundle.read(path)
    if manifest.target not in RUNTIME_OF.values():
        raise Unsupported(
            f"{path} is a {manifest.target} bundle, which this machine's devices do not run; "
            f"{', '.join(RUNTIME_OF.values())} ones are run."
        )
    longest = manifest.lengths[-1]
    if over := [length for length in lengths if length > longest]:
        raise InputError(f"--seq-len {over[0]}; {path} takes at most {longest} tokens: export it with more.")
    size = sum(said["bytes"] for name, said in manifest.files.items() if name.startswith("model"))
    told = manifest.graph["delegation"]
    return Subject(
        str(path), path / manifest.model_file, manifest.target, size, manifest.recipe, told["share"] if told else None,
        manifest.graph["ops"], tuple(lengths) or tuple(manifest.lengths), manifest,
        next(iter(manifest.graph["weight_bytes"]), None),
    )  # fmt: skip


def collect(
    subjects: Sequence[Subject],
    opened: Sequence[Device],
    threads: int = 1,
    runs: int = 20,
    progress: Progress = lambda step: None,
) -> list[Row]:
    """Run every file on every device at each of its lengths.

    Raises:
        InputError: a file cannot be run as asked, or its runtime crashed on it.
        MissingDependency: a device lacks the file's runtime.
    """
    rows = []
    with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
        for device in opened:
            for one in subjects:
                for length in one.lengths:
                    progress(f"{one.name} on {device.name}{f', {length} tokens' if length else ''}")
                    job = Job(one.model, inputs_of(one, length, Path(made)), length, threads, runs)
                    rows.append(row(one, device.measure(job)))
    return ranked(rows)


def row(one: Subject, found: Measurement) -> Row:
    """A row of what a device found, without its ratio as yet; a simulated phone's times as one was calibrated."""
    found = calibration.apply(found, one.kind)
    return Row(one.name, one.target, one.recipe, _tokens(found.inputs), one.file_bytes, one.delegated, found)


def inputs_of(one: Subject, length: int | None, folder: Path) -> Path | None:
    """The golden inputs of a bundle, cut to a length that is none of its own; None for another file.

    Args:
        one: the file.
        length: to run it at.
        folder: to write cut inputs into.
    """
    if one.manifest is None or length is None:
        return None
    whole = one.model.parent / bundle.GOLDEN
    if length in one.manifest.lengths:
        return whole
    batches = golden.load(whole).batches
    batch = next(batch for batch in batches if batch.inputs[INPUTS[0]].shape[1] >= length)
    path = folder / f"{length}.npz"
    np.savez(path, **{name: batch.inputs[name][:1, :length] for name in INPUTS})  # type: ignore[arg-type]
    return path


def _tokens(inputs: Sequence[Spec]) -> int | None:
    """Length of the first input of ids, (1, T)."""
    shapes = (spec.shape for spec in inputs if spec.dtype.startswith(("int", "uint")) and len(spec.shape) == 2)
    return next((shape[1] for shape in shapes), None)


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Rows by length and then latency, those without a time last, with their ratios."""
    fastest: dict[int | None, float] = {}
    for one in rows:
        if one.median_ms is not None:
            fastest[one.length] = min(one.median_ms, fastest.get(one.length, one.median_ms))
    told = [
        replace(one, ratio=one.median_ms / fastest[one.length] if one.median_ms and fastest[one.length] else None)
        for one in rows
    ]
    return sorted(told, key=lambda one: (one.length or 0, one.median_ms is None, one.median_ms or 0.0))
