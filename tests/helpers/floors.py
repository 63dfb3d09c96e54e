"""Older runtimes, each in an environment of its own: what there is, how it is made, and how a file is run in it.

`make floors` makes them from the wheels that there are for Python 3.11: 8 GB, most of it TensorFlow, for its Lite has
wheels of its own for 2.14 alone. tests/runtimes/test_floors.py asks them.
"""

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paths import ROOT

FOLDER = ROOT / "build" / "floors"
SCRIPT = Path(__file__).with_name("older_runtime.py")
REFUSED = 3  # the script's exit code when the runtime raised an error


@dataclass(frozen=True, slots=True)
class Runtime:
    """A release of a runtime: its name as in FLOORS with its whole version, its target, what pip installs."""

    name: str
    target: str
    packages: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its environment stands."""
        return FOLDER / self.name.lower().replace(" ", "-")


# Ascending for each target. What was built for NumPy 1 does not say so itself everywhere.
RUNTIMES = (
    Runtime("TensorFlow Lite 2.12.0", "tflite", ("tensorflow-cpu==2.12.0",)),
    Runtime("TensorFlow Lite 2.13.1", "tflite", ("tensorflow-cpu==2.13.1",)),
    Runtime("TensorFlow Lite 2.14.0", "tflite", ("tflite-runtime==2.14.0", "numpy<2")),
    Runtime("TensorFlow Lite 2.15.1", "tflite", ("tensorflow-cpu==2.15.1",)),
    Runtime("TensorFlow Lite 2.16.2", "tflite", ("tensorflow-cpu==2.16.2",)),
    Runtime("LiteRT 1.0.1", "tflite", ("ai-edge-litert==1.0.1", "numpy<2")),
    Runtime("LiteRT 1.4.0", "tflite", ("ai-edge-litert==1.4.0",)),
    Runtime("LiteRT 2.0.3", "tflite", ("ai-edge-litert==2.0.3",)),
    Runtime("LiteRT 2.1.0", "tflite", ("ai-edge-litert==2.1.0",)),
    Runtime("LiteRT 2.1.5", "tflite", ("ai-edge-litert==2.1.5",)),
    Runtime("LiteRT 2.1.6", "tflite", ("ai-edge-litert==2.1.6",)),
    Runtime("ONNX Runtime 1.16.3", "onnx", ("onnxruntime==1.16.3", "numpy<2")),
    Runtime("ONNX Runtime 1.17.3", "onnx", ("onnxruntime==1.17.3", "numpy<2")),
    Runtime("ONNX Runtime 1.20.1", "onnx", ("onnxruntime==1.20.1",)),
    Runtime("ONNX Runtime 1.22.1", "onnx", ("onnxruntime==1.22.1",)),
    Runtime("ONNX Runtime 1.23.2", "onnx", ("onnxruntime==1.23.2",)),
)


def build(runtime: Runtime) -> None:
    """Make a runtime's environment, if it is not there."""
    done = runtime.folder / "done"
    if not done.exists():
        print(runtime.folder.relative_to(ROOT), flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", runtime.folder], check=True)
        subprocess.run([runtime.folder / "bin/pip", "install", "--quiet", *runtime.packages], check=True)
        done.touch()


def ask(runtime: Runtime, file: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | str:
    """What a runtime answers, or what it says when it refuses the file.

    Args:
        runtime: one whose environment is there.
        file: a model file of its target.
        inputs: int32 (B, L), with L one of the file's lengths.

    Raises:
        AssertionError: its process ended in another way: by a signal, or before it came to the file.
    """
    given = io.BytesIO()
    np.savez(given, **inputs)  # type: ignore[arg-type]
    done = subprocess.run(
        [runtime.folder / "bin/python", SCRIPT, runtime.target, file],
        input=given.getvalue(), capture_output=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    said = done.stderr.decode(errors="replace").strip()
    assert done.returncode in (0, REFUSED), f"{runtime.name} ended with {done.returncode} on {file.name}: {said[-500:]}"
    return said if done.returncode else dict(np.load(io.BytesIO(done.stdout)))


if __name__ == "__main__":
    for one in RUNTIMES:
        build(one)
