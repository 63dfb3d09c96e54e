"""What is profiled, and where: model files looked at before native code is given them, and devices that are ready."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgebert import bundle
from edgebert.bundle.manifest import Manifest
from edgebert.catalog import known
from edgebert.errors import InputError, MissingDependency, Unsupported
from edgebert.gate import golden
from edgebert.models.signature import INPUTS
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import device_names, open_device
from edgebert.runtimes.devices.device import RUNTIME_OF, Device, Job
from edgebert.runtimes.session import EDITED, SEALS, Facts

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
        notes: what a reader of its rows must know.
        sqnr_db: how far the least exact output of a bundle is from torch, as its export found; None of another file,
            and where it was not looked at, or is equal.
        rows: inputs that are looked up in tables, see `Facts.rows`; empty where no runtime here reads the file.
        inputs: an `.npz` of inputs to run it on; None for a bundle's own, or made-up ones.
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
    notes: tuple[str, ...] = ()
    sqnr_db: float | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    inputs: Path | None = None


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
    facts: Facts = RUNTIMES[target].facts(path)
    share = facts.delegation.share if facts.delegation else None
    kind = next(iter(facts.weight_bytes), None)
    notes = (f"{path} was {SEALS[EDITED]}",) if facts.seal == EDITED else ()
    return Subject(
        str(path), path, target, facts.file_bytes, None, share, facts.ops, asked, kind=kind, notes=notes,
        rows=facts.rows,
    )  # fmt: skip


def _of_bundle(path: Path, lengths: Sequence[int]) -> Subject:
    manifest = bundle.read(path)
    if manifest.target not in RUNTIME_OF.values():
        raise Unsupported(
            f"{path} is a {manifest.target} bundle, which this machine's devices do not run; "
            f"{', '.join(RUNTIME_OF.values())} ones are run."
        )
    longest = manifest.lengths[-1]
    if over := [length for length in lengths if length > longest]:
        raise InputError(f"--lengths {over[0]}; {path} takes at most {longest} tokens: export it with more.")
    told = manifest.graph["delegation"]
    return Subject(
        str(path), path / manifest.model_file, manifest.target, manifest.model_bytes, manifest.recipe,
        told["share"] if told else None,
        manifest.graph["ops"], tuple(lengths) or tuple(manifest.lengths), manifest,
        next(iter(manifest.graph["weight_bytes"]), None), sqnr_db=manifest.sqnr_db,
    )  # fmt: skip


def npz(path: Path) -> Path:
    """The file of inputs, once it proves to be one.

    Raises:
        InputError: it is absent, no `.npz`, or has no arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            names = file.files if isinstance(file, np.lib.npyio.NpzFile) else ()
            shapes = {name: file[name].shape for name in names}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(
            f"{path} cannot be read as inputs ({str(error)[:120]}); an .npz of arrays is needed."
        ) from None
    if not shapes:
        raise InputError(f"{path} is no .npz, or has no arrays in it: save some with numpy.savez(PATH, NAME=ARRAY).")
    return path


def inputs_of(one: Subject, length: int | None, folder: Path) -> Path | None:
    """The inputs that were given, or a bundle's golden ones, cut to a length that is none of its own; None for others.

    Args:
        one: the file.
        length: to run it at.
        folder: to write cut inputs into.
    """
    if one.inputs is not None:
        return one.inputs
    if one.manifest is None or length is None:
        return None
    whole = Path(one.name) / bundle.GOLDEN  # of a bundle, by whose folder it goes
    if length in one.manifest.lengths:
        return whole
    batches = golden.load(whole).batches
    batch = next(batch for batch in batches if batch.inputs[INPUTS[0]].shape[1] >= length)
    path = folder / f"{length}.npz"
    np.savez(path, **{name: batch.inputs[name][:1, :length] for name in INPUTS})  # type: ignore[arg-type]
    return path
