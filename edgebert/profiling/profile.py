"""Profile model files on devices, whole or layer by layer, with their operators."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgebert.errors import InputError
from edgebert.profiling import extrapolate, fastest, operators, told
from edgebert.profiling.operators import Operators
from edgebert.profiling.rows import Row, check_numbers, collect, ranked
from edgebert.profiling.rows import row as row_of
from edgebert.profiling.subject import Progress, Subject, inputs_of, npz
from edgebert.profiling.subject import devices as open_devices
from edgebert.profiling.subject import subject as look_at
from edgebert.results import Table
from edgebert.runtimes.devices import correction
from edgebert.runtimes.devices.correction import Calibration
from edgebert.runtimes.devices.device import PHONE, Job
from edgebert.runtimes.devices.pixel.phones import PHONES


@dataclass(frozen=True, slots=True)
class Profile(Table):
    """What `profile` found.

    Attributes:
        rows: one a file, device and length, by length and then latency.
        operators: of each file, where they were asked for.
        calibrations: that were made and kept, where they were asked for.
    """

    rows: list[Row]
    operators: list[Operators]
    calibrations: list[Calibration]

    def __repr__(self) -> str:
        times = [row.median_ms for row in self.rows if row.median_ms is not None]
        devices = ", ".join(dict.fromkeys(row.found.device for row in self.rows))
        told = f", {min(times):.3g} to {max(times):.3g} ms" if times else ""
        return f"Profile({len(self.rows)} rows on {devices or 'no device'}{told})"

    def flat(self) -> list[dict[str, Any]]:
        """Each row's numbers side by side."""
        return [row.flat() for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "rows": [row.to_dict() for row in self.rows],
            "operators": [one.to_dict() for one in self.operators],
            "calibrations": [asdict(one) for one in self.calibrations],
        }


def profile(
    files: str | Path | Sequence[str | Path],
    devices: str | Sequence[str] | None = None,
    lengths: Sequence[int] = (),
    threads: int = 1,
    runs: int = 20,
    per_op: bool = False,
    extrapolate_layers: bool = False,
    target: str = "tflite",
    recipe: str | None = None,
    calibrate: bool = False,
    shared: Sequence[str | Path] = (),
    inputs: str | Path | None = None,
    phone: str | None = None,
    progress: Progress = lambda step: None,
) -> Profile:
    """Run model files on devices, and tell what they take.

    Args:
        files: one or several bundles and .tflite, .onnx or .pte files, whoever made them; with `extrapolate_layers`
            bundles, presets and checkpoints.
        devices: one or several names such as `host`, `pixel-4`, `adb`; see `edgebert.runtimes.devices.device_names`.
            None is `host`.
        lengths: tokens; empty takes each of a bundle's lengths, and the shape that another file has (128 where free).
        threads: of the runtime.
        runs: that count, where a device measures.
        per_op: tell operators too, as the runtime's own profiler on this host does.
        extrapolate_layers: count one and two layers of a model on simulated devices and extend the line to all.
        target: what a preset or checkpoint is exported for, with `extrapolate_layers`.
        recipe: the same; None is `w8a8-dynamic`.
        calibrate: simulate each phone that was measured as well, keep the ratio of the two times, and show both.
        shared: files of rows that were measured elsewhere, to stand beside (see `edgebert.profiling.told`).
        inputs: an `.npz` of inputs, by name or in order, in place of made-up ones.
        phone: a simulated one; in place of files, devices and a recipe each model is counted on it in fp32, fp16 and
            8 bits, layers extrapolated.
        progress: is told each step.

    Raises:
        InputError: a file, its inputs or a device is not usable.
        MissingDependency: a device, or a runtime on it, must be set up first.
        Unsupported: a bundle is one that only Apple's devices run.
    """
    files = [files] if isinstance(files, str | Path) else files
    check_numbers(lengths, threads, runs)
    others = [row for path in shared for row in told.load(path)]
    if others and not (files or calibrate or per_op or extrapolate_layers):
        return Profile(ranked(others), [], [])
    if phone is not None:
        asked = {
            "--device": devices is not None, "--recipe": recipe is not None, "--inputs": inputs is not None,
            "--calibrate": calibrate, "--per-op": per_op, "--extrapolate-layers": extrapolate_layers,
        }  # fmt: skip
        if odd := [name for name, there in asked.items() if there]:
            raise InputError(f"--for counts layers in each recipe on a simulated phone: leave {' and '.join(odd)} out.")
        counted = [row for one in files for row in fastest.count(one, target, lengths, phone, threads, progress)]
        return Profile(ranked([*counted, *others]), [], [])
    opened = open_devices([devices] if isinstance(devices, str) else devices or ["host"])
    if not files:
        raise InputError("no file to profile: give a bundle's folder, or a .tflite, .onnx or .pte file.")
    if calibrate and (extrapolate_layers or PHONE not in {device.how for device in opened}):
        raise InputError("--calibrate compares a whole file on a phone with the simulation: give --device adb.")
    if extrapolate_layers:
        if inputs is not None:
            raise InputError("--inputs are those of a whole file, and --extrapolate-layers makes its own.")
        if per_op:
            raise InputError("--per-op runs a whole file, and --extrapolate-layers none: ask for one of them.")
        wholes = [extrapolate.whole(file, lengths, target, recipe or "w8a8-dynamic") for file in files]
        counted = [row for one in wholes for row in extrapolate.count(one, opened, threads, progress)]
        return Profile(ranked([*counted, *others]), [], [])
    given = None if inputs is None else npz(Path(inputs))
    subjects = [replace(look_at(file, lengths), inputs=given) for file in files]
    rows = collect(subjects, opened, threads, runs, progress)
    kept: list[Calibration] = []
    for one in subjects if calibrate else ():
        more, made = _calibrated(one, [row for row in rows if row.file == one.name], progress)
        rows, kept = [*rows, *more], [*kept, *made]
    listed: list[Operators] = []
    for one in subjects if per_op else ():
        progress(f"{one.name}: operators on this host")
        listed += operators.by_operator(one, threads, runs)
    return Profile(ranked([*rows, *others]), listed, kept)


def _calibrated(one: Subject, rows: Sequence[Row], progress: Progress) -> tuple[list[Row], list[Calibration]]:
    """Simulate the phones that a file was measured on, at the longest length of each, and keep the ratios."""
    more, kept = [], []
    for row in {row.found.device: row for row in rows if row.found.how == PHONE}.values():
        model = row.found.machine.get("model")
        name = correction.phone_of(model)
        if name is None or one.kind is None:
            raise InputError(f"{one.name} on a {model}: only {', '.join(PHONES)} are simulated, with a runtime here.")
        (device,) = open_devices([name])
        progress(f"{one.name} on {name}, to compare")
        with tempfile.TemporaryDirectory(prefix="edgebert-") as made:
            given = inputs_of(one, row.length, Path(made))
            simulated = device.measure(Job(one.model, given, row.length, row.found.threads))
        kept.append(correction.calibrate(simulated, row.found, one.kind))
        correction.keep(kept[-1])
        more.append(row_of(one, simulated))
    return more, kept
