"""README is true: its blocks are run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_readme_names_the_two_commands_and_they_exist() -> None:
    assert ("sh", "make export\nmake test\n") in BLOCKS
    told = subprocess.run(
        ["make", "-n", "-C", ROOT, "export", "test"], capture_output=True, text=True, check=True
    ).stdout
    assert "edgebert export --target tflite" in told
    assert "-m pytest" in told


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "block"), [block for block in BLOCKS if "make test" not in block[1]])
def test_block_runs(tmp_path: Path, kind: str, block: str) -> None:
    bin_folder = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euo", "pipefail", "-c", block] if kind == "sh" else [sys.executable, "-c", block]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if kind == "sh":
        assert "label: translate" in done.stdout
    else:
        assert done.stdout.splitlines()[-2:] == ["weather", "['alarm', 'balance']"]
