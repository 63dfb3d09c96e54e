"""The layers of the house are held by import-linter, on an installed copy: in the tree it sees no mapped folders."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

# Where a wrong arrow is planted, what it is, and the contract that names it.
WRONG = [
    ("exporters/onnx/rewriter.py", "from edgebert.cli import main", "edgebert.exporters.onnx.rewriter -> edgebert.cli"),
    (
        "edgebert/models/layers.py",
        "from edgebert.runtimes import session",
        "edgebert.models.layers -> edgebert.runtimes",
    ),
    ("runtimes/session.py", "from edgebert.gate import golden", "edgebert.runtimes.session -> edgebert.gate.golden"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package as it is installed."""
    shutil.copytree(ROOT / "edgebert", tmp_path / "edgebert", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    for room in ("exporters", "runtimes"):
        shutil.copytree(ROOT / room, tmp_path / "edgebert" / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )


def test_the_layers_hold(copy: Path) -> None:
    told = lint(copy)
    assert told.returncode == 0, told.stdout
    assert "Contracts: 2 kept, 0 broken." in told.stdout


@pytest.mark.parametrize(("file", "line", "arrow"), WRONG)
def test_a_wrong_arrow_is_named(copy: Path, file: str, line: str, arrow: str) -> None:
    path = copy / file if file.startswith("edgebert/") else copy / "edgebert" / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    told = lint(copy)
    assert told.returncode == 1
    assert arrow in told.stdout


def test_a_circle_among_siblings_is_named(copy: Path) -> None:
    path = copy / "edgebert/lowering/rewrite.py"
    path.write_text(f"{path.read_text()}\nfrom edgebert.lowering import residual\n")
    told = lint(copy)
    assert told.returncode == 1
    assert "No circles BROKEN" in told.stdout
