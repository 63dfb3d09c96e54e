"""What one model file takes on a device, how far its answers are from torch's, and two or more timed in turn.

A count is kept beside the file as `<file>.<device>.json` and taken from there while the file and its inputs are the
same; delete those files after a change to the cycle model.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from export_speed import LENGTH

from edgebert.files import sha256
from edgebert.models.signature import Arrays
from edgebert.runtimes.devices.device import Device, Job
from edgebert.runtimes.devices.guest import guest

RACE = Path(__file__).with_name("peers_race.py")


def parts(model: Path) -> list[Path]:
    """A model file and the data that stands beside it."""
    return [
        path for path in (model, *map(model.with_name, (f"{model.name}.data", f"{model.name}_data"))) if path.is_file()
    ]


def size(model: Path) -> int:
    """Bytes that an app would carry."""
    return sum(path.stat().st_size for path in parts(model))


def count(model: Path, device: Device, inputs: Path, expected: Path) -> dict[str, Any]:
    """Count one inference on a simulated phone, and hold its answers there to torch's.

    Args:
        model: a .tflite, .onnx or .pte file.
        device: a simulated phone.
        inputs: an `.npz` of one row.
        expected: one of torch's answers to it.

    Raises:
        EdgebertError: the file does not run there.
    """
    kept = model.with_name(f"{model.name}.{device.name}.json")
    digest = sha256(*parts(model), inputs)
    if kept.is_file() and (known := json.loads(kept.read_text()))["sha256"] == digest:
        return dict(known)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as made:
        out = Path(made, "out.npz")
        found = device.measure(Job(model, inputs, LENGTH, outputs=out)).estimate
        with np.load(out) as file, np.load(expected) as wanted:
            said = parity(dict(wanted), dict(file))
    assert found is not None  # every simulated phone models a time
    told = {
        "sha256": digest, "instructions": found.instructions, "cycles": round(found.cycles), "ms": found.ms,
        "bound": found.bound, "kinds": found.kinds, "shares": found.shares, **said,
        "seconds": round(time.perf_counter() - began),
    }  # fmt: skip
    kept.write_text(json.dumps(told, indent=1) + "\n")
    return told


def parity(expected: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The largest difference and the lowest signal to error over the outputs, each known by its shape.

    Peers name outputs as they like, and some leave one out: `compared` tells which of torch's were there.
    """
    by_shape = {value.shape: value for value in outputs.values()}
    found: Arrays = {name: by_shape[value.shape] for name, value in expected.items() if value.shape in by_shape}
    if not found:
        return {"compared": [], "max_abs": None, "sqnr_db": None}
    errors = {name: expected[name].astype(np.float64) - value.astype(np.float64) for name, value in found.items()}
    return {
        "compared": list(found),
        "max_abs": float(max(np.abs(error).max() for error in errors.values())),
        "sqnr_db": min(_decibel(expected[name], error) for name, error in errors.items()),
    }


def _decibel(signal: np.ndarray, error: np.ndarray) -> float:
    noise = float((error**2).sum())
    return 10 * math.log10(float((signal.astype(np.float64) ** 2).sum()) / noise) if noise else math.inf


def race(models: Sequence[Path], inputs: Path, rounds: int) -> list[dict[str, float]]:
    """Time files of one runtime on one core of this host, one inference of each in turn, in a process of its own.

    Returns:
        For each file median_ms, of the inferences in turn.

    Raises:
        RuntimeError: the process ended early; the message is its last line.
    """
    with tempfile.TemporaryDirectory() as made:
        jobs = [Job(model, inputs).guest(Path(made, "unused")) for model in models]
        path, result = Path(made, "job.json"), Path(made, "result.json")
        path.write_text(json.dumps({"guest": guest.__file__, "jobs": jobs, "rounds": rounds, "result": str(result)}))
        done = subprocess.run([sys.executable, "-P", str(RACE), str(path)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1])
        found: list[dict[str, float]] = json.loads(result.read_text())
        return found
