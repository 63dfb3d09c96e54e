"""The gate on another device: golden inputs go through the guest script there, with the kernels that it runs."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgebert import bundle
from edgebert.bundle import proof
from edgebert.bundle.manifest import Manifest
from edgebert.catalog import check_pair
from edgebert.errors import InputError
from edgebert.gate import golden, half, packing, parity
from edgebert.models.signature import INPUTS, Arrays, has_token_axis
from edgebert.profiling.subject import Progress, devices, subject
from edgebert.report import Report
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices.device import HOST, Device, Job


def validate(folder: Path, name: str, progress: Progress = lambda step: None) -> Report:
    """Hold a bundle's file to torch's answers on a device.

    Args:
        folder: the bundle.
        name: of the device, such as `pixel-4`.
        progress: is told each step.

    Raises:
        InputError: the folder is no bundle, there is no such device, or the file crashed there.
        MissingDependency: the device must be set up first.
        Unsupported: the bundle is one that only Apple's devices run.
    """
    manifest = subject(folder).manifest
    if manifest is None:
        raise InputError(f"{folder} is no bundle: a file alone has no answers of torch to be held to.")
    check_pair(manifest.target, manifest.recipe)
    (device,) = devices([name])
    answers = golden.load(folder / bundle.GOLDEN)
    asked = parity.questions(answers)
    told = _answer(folder, manifest, device, asked, progress)
    known = {_key(inputs): answer for inputs, answer in zip(asked, told, strict=True)}

    def run(inputs: Mapping[str, np.ndarray]) -> Arrays:
        ids = inputs["input_ids"]
        if ids.min() < 0 or ids.max() >= manifest.vocab_size:
            raise InputError(f"input_ids from {ids.min()} to {ids.max()} are not in the vocabulary.")
        return known[_key(inputs)]

    held, pair = proof.due(manifest), (manifest.target, manifest.recipe)
    if device.how == HOST or manifest.headroom is None:
        tolerance = min(parity.TOLERANCES[pair], held, key=lambda one: one.min_sqnr_db)
    else:
        tolerance = half.due(*pair, held)
    report = parity.gate(answers, run, tolerance, manifest.padding_invariant, manifest.vocab_size)
    shape = RUNTIMES[manifest.target].facts(folder / manifest.model_file).packed
    if shape is None:
        return report

    def run_packed(rows: Arrays) -> np.ndarray:
        count = len(rows[INPUTS[0]])
        progress(f"{count} rows of several texts on {device.name}")
        (told,) = _measure(folder, manifest, device, rows, shape[0]).values()
        return told.reshape(count, shape[1], -1)

    skipped = manifest.config["pooling"]["skipped"]
    several = packing.check(answers, shape, skipped, run_packed, tolerance)
    return replace(report, checks=(*report.checks, several))


def _key(inputs: Mapping[str, np.ndarray]) -> tuple[bytes, ...]:
    return tuple(np.ascontiguousarray(inputs[name]).tobytes() for name in INPUTS)


def _answer(
    folder: Path, manifest: Manifest, device: Device, asked: Sequence[Arrays], progress: Progress
) -> list[Arrays]:
    """What a device says to each of the inputs, cut to their length: one run of the guest for each of the file's."""
    lengths = [_length(inputs, manifest) for inputs in asked]
    told: dict[int, Arrays] = {}
    for length in dict.fromkeys(lengths):
        cases = [place for place, own in enumerate(lengths) if own == length]
        rows = sum(len(asked[place][INPUTS[0]]) for place in cases)
        progress(f"{rows} rows on {device.name}, at most {length} tokens")
        flat = {f"{place}/in/{name}": asked[place][name] for place in cases for name in INPUTS}
        outputs = _measure(folder, manifest, device, flat, length)
        told |= {place: _named(outputs, f"{place}/out/", asked[place], manifest) for place in cases}
    return [told[place] for place in range(len(asked))]


def _measure(folder: Path, manifest: Manifest, device: Device, given: Arrays, length: int) -> Arrays:
    """What the guest on a device says to arrays, by its names."""
    with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
        inputs, out = Path(made, "in.npz"), Path(made, "out.npz")
        np.savez(inputs, **given)  # type: ignore[arg-type]
        options = getattr(RUNTIMES[manifest.target], "HOST_OPTIONS", {}) if device.how == HOST else {}
        device.measure(Job(folder / manifest.model_file, inputs, length, 1, 1, 1, out, options))
        with np.load(out, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}


def _length(inputs: Arrays, manifest: Manifest) -> int:
    """The length of the file that inputs run at: its longest where any will do."""
    tokens = inputs[INPUTS[0]].shape[1]
    return manifest.lengths[-1] if manifest.dynamic else next(n for n in manifest.lengths if n >= tokens)


def _named(outputs: Arrays, prefix: str, inputs: Arrays, manifest: Manifest) -> Arrays:
    """The outputs of a case by the task's names, in the file's order where it has no names, less the padding."""
    own = {key.removeprefix(prefix): value for key, value in outputs.items() if key.startswith(prefix)}
    names = [entry["name"] for entry in manifest.outputs]
    if set(own) != set(names):
        own = dict(zip(names, own.values(), strict=True))
    tokens = inputs[INPUTS[0]].shape[1]
    return {
        name: (value[:, :tokens] if has_token_axis(name, value.ndim) else value).astype(np.float32)
        for name, value in own.items()
    }
