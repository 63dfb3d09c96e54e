"""Other people's clients of bundles, each in an environment of its own: how it is made, and asked.

`make clients` makes them, 3 GB; tests/bundle/test_clients.py and tests/exporters/tflite/test_mediapipe.py ask them.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from paths import ROOT

FOLDER = ROOT / "build" / "clients"
SCRIPTS = Path(__file__).with_name("clients")
PYTHON, JAVASCRIPT, MEDIAPIPE = FOLDER / "python", FOLDER / "javascript", FOLDER / "mediapipe"
ENVIRONMENTS = {
    PYTHON: (
        "optimum-onnx[onnxruntime]==0.1.0",
        "sentence-transformers==5.7.0",
        "fastembed==0.9.1",
        "skl2onnx==1.20.0",
    ),
    MEDIAPIPE: ("mediapipe==1.2.3",),
}
MODULES = ("@huggingface/transformers@4.3.2", "onnxruntime-node@1.30.0")  # the first brings onnxruntime-web
WANTED = "\n".join((*(package for packages in ENVIRONMENTS.values() for package in packages), *MODULES))
# What onnxruntime-node would fetch beside itself is for graphics cards.
QUIET = {"ONNXRUNTIME_NODE_INSTALL": "skip", "ONNXRUNTIME_NODE_INSTALL_CUDA": "skip"}


def missing() -> str | None:
    """Why no client can be asked; None where all can."""
    made = FOLDER / "made.txt"
    there = made.exists() and made.read_text(encoding="utf-8") == WANTED
    return None if there else "there are no clients, or older ones: run make clients, which needs node and npm"


def build() -> None:
    """Make the environments, if they are not there."""
    if missing() is None:
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for place, packages in ENVIRONMENTS.items():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        subprocess.run([place / "bin/pip", "install", "--quiet", *packages], check=True)
    JAVASCRIPT.mkdir(exist_ok=True)
    (JAVASCRIPT / "package.json").write_text('{"private": true, "type": "module"}\n', encoding="utf-8")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", *MODULES]
    subprocess.run(install, cwd=JAVASCRIPT, env=os.environ | QUIET, check=True)
    (FOLDER / "made.txt").write_text(WANTED, encoding="utf-8")


def ask(client: str, task: str, bundle: Path, asked: Any) -> Any:
    """What a client answers to each of `asked`; its own words where it ends with an error.

    Args:
        client: `transformers.js`, `onnxruntime-node`, `onnxruntime-web`, or one of those in clients/in_python.py.
        task: as the client calls it; of ONNX Runtime's the path of the file in the bundle.
        bundle: what it opens.
        asked: as the client's script takes it.
    """
    if client == "transformers.js":
        command = _node("transformers_js.mjs", bundle, task)
    elif client.startswith("onnxruntime-"):
        command = _node("onnxruntime.mjs", client, bundle / task)
    else:
        python = MEDIAPIPE if client == "mediapipe" else PYTHON
        command = [python / "bin/python", SCRIPTS / "in_python.py", client, task, bundle]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _node(script: str, *given: str | Path) -> list[str | Path]:
    """Modules are looked for beside a script."""
    copy = JAVASCRIPT / script
    copy.write_bytes((SCRIPTS / script).read_bytes())
    return ["node", copy, *given]


if __name__ == "__main__":
    build()
