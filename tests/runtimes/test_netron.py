"""Netron, by its own parser, reads a file of each target, and finds in it what edgebert says of it."""

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from tiny import samples, visible

from edgebert.exporters import EXPORTERS
from edgebert.exporters.common import About
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES
from edgebert.runtimes import RUNTIMES

LENGTHS = (16,)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="Netron's parser needs node"),
]


def read(file: Path) -> dict[str, Any]:
    """What Netron shows of a file."""
    spec = find_spec("netron")
    assert spec is not None
    assert spec.origin is not None
    script = ROOT / "tests" / "helpers" / "netron.mjs"
    done = subprocess.run(
        ["node", script, Path(spec.origin).parent, file], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize(("target", "recipe"), [(t, r) for t, takes in TARGET_RECIPES.items() for r in takes])
def test_netron_reads_it(target: str, recipe: str, tmp_path: Path) -> None:
    ending = {"executorch": "pte", "coreml": "mlpackage"}.get(target, target)
    path = tmp_path / f"model.{ending}"
    model = visible("squeezebert", "sequence-classification")
    EXPORTERS[target].export(model, RECIPES[recipe], LENGTHS, path, (), samples(), about=About("mit"))
    shown = path / "Data" / "com.apple.CoreML" / "model.mlmodel" if target == "coreml" else path
    told = read(shown)
    assert told["problems"] == []
    assert {"executorch": "ExecuTorch", "tflite": "TensorFlow Lite", "coreml": "Core ML", "onnx": "ONNX"}[
        target
    ] in told["format"]
    graph = told["graphs"][0]
    facts = RUNTIMES[target].facts(path)
    if target != "executorch":  # whose tensors have no names, and whose delegates hold nodes of their own
        assert [name.removeprefix(f"tokens_{LENGTHS[0]}_") for name in graph["inputs"]] == [
            spec.name for spec in facts.inputs
        ]
        assert "mit" in told["metadata"].values()
    assert len(graph["nodes"]) >= facts.nodes > 0
