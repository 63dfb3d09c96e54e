"""Profile model files on devices, whole or layer by layer, with their operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgebert import extrapolate, operators
from edgebert.errors import InputError
from edgebert.operators import Operators
from edgebert.profile import Progress, Row, check_numbers, collect, ranked
from edgebert.profile import devices as open_devices
from edgebert.profile import subject as look_at


@dataclass(frozen=True, slots=True)
class Profile:
    """What `profile` found.

    Attributes:
        rows: one a file, device and length, by length and then latency.
        operators: of each file, where they were asked for.
    """

    rows: list[Row]
    operators: list[Operators]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"rows": [row.to_json() for row in self.rows], "operators": [one.to_json() for one in self.operators]}


def profile(
    files: Sequence[str | Path],
    devices: Sequence[str] = ("host",),
    lengths: Sequence[int] = (),
    threads: int = 1,
    runs: int = 20,
    per_op: bool = False,
    extrapolate_layers: bool = False,
    target: str = "tflite",
    recipe: str = "w8a8-dynamic",
    progress: Progress = lambda step: None,
) -> Profile:
    """Run model files on devices, and tell what they take.

    Args:
        files: bundles and .tflite, .onnx or .pte files, whoever made them; with `extrapolate_layers` bundles, presets
            and checkpoints.
        devices: names such as `host`, `pixel-4`, `adb`; see `edgebert.runtimes.devices.device_names`.
        lengths: tokens; empty takes each of a bundle's lengths, and the shape that another file has (128 where free).
        threads: of the runtime.
        runs: that count, where a device measures.
        per_op: tell operators too, as the runtime's own profiler on this host does.
        extrapolate_layers: count one and two layers of a model on simulated devices and extend the line to all.
        target: what a preset or checkpoint is exported for, with `extrapolate_layers`.
        recipe: the same.
        progress: is told each step.

    Raises:
        InputError: a file or device is not usable.
        MissingDependency: a device, or a runtime on it, must be set up first.
        Unsupported: a bundle is one that only Apple's devices run.
    """
    check_numbers(lengths, threads, runs)
    opened = open_devices(devices)
    if not files:
        raise InputError("no file to profile: give a bundle's folder, or a .tflite, .onnx or .pte file.")
    if extrapolate_layers:
        if per_op:
            raise InputError("--per-op runs a whole file, and --extrapolate-layers none: ask for one of them.")
        wholes = [extrapolate.whole(file, lengths, target, recipe) for file in files]
        counted = [row for one in wholes for row in extrapolate.count(one, opened, threads, progress)]
        return Profile(ranked(counted), [])
    subjects = [look_at(file, lengths) for file in files]
    rows = collect(subjects, opened, threads, runs, progress)
    told: list[Operators] = []
    for one in subjects if per_op else ():
        progress(f"{one.name}: operators on this host")
        told += operators.by_operator(one, threads, runs)
    return Profile(rows, told)
