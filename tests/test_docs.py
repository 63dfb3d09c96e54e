"""What the pages in docs/ and the notebook tell people to copy does what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import clients
import pytest
from answering import labelled, save
from paths import ROOT

pytestmark = pytest.mark.slow

TEXT = "is it going to rain tomorrow"


def blocks(page: str) -> list[tuple[str, str]]:
    """The code of a page that a person copies, with its language."""
    found = re.findall(r"```(sh|python|js)\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return [(kind, block) for kind, block in found if "make " not in block]


def copied(kind: str, block: str, folder: Path) -> str:
    """What a block prints, run as it stands; modules are installed already, so that no network is asked."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if kind == "js":
        (folder / "copied.mjs").write_text(block, encoding="utf-8")
    block = re.sub(r"^npm install .*$", "", block, flags=re.MULTILINE)
    command = {
        "sh": ["bash", "-euo", "pipefail", "-c", block],
        "python": [sys.executable, "-c", block],
        "js": ["node", "copied.mjs"],
    }[kind]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block}\n{done.stderr[-2000:]}"
    return done.stdout


def test_a_person_gets_from_readme_to_an_answer_to_transformers_js_and_a_profile(tmp_path: Path) -> None:
    if problem := clients.missing():
        pytest.skip(problem)
    save(tmp_path / "my-checkpoint", "sequence-classification", **labelled("wet", "dry", "cold"))
    (tmp_path / "node_modules").symlink_to(clients.JAVASCRIPT / "node_modules")
    told = {page: [copied(*block, tmp_path) for block in blocks(page)] for page in PAGES}
    assert "label: translate" in told["README.md"][0]
    (label,) = re.findall(r"label: (\w+)", told["docs/checkpoint.md"][0])
    command = ["edgebert", "predict", "--json", "my-bundle", TEXT]
    score = json.loads(copied("sh", " ".join(command[:-1]) + f' "{TEXT}"', tmp_path))["score"]
    (theirs,) = json.loads(told["docs/web.md"][1])
    assert theirs == {"label": label, "score": pytest.approx(score, abs=1e-4)}
    assert "measured" in told["docs/profiling.md"][0]


# In the order in which a person comes by them.
PAGES = ("README.md", "docs/checkpoint.md", "docs/web.md", "docs/profiling.md")


@pytest.mark.parametrize("page", ["docs/index.md", "docs/android.md", "docs/ios.md"])
def test_what_other_pages_show_runs(page: str, tmp_path: Path) -> None:
    assert [copied(*block, tmp_path) for block in blocks(page)]


def test_the_notebook_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="make docs installs what runs notebooks")
    nbclient = pytest.importorskip("nbclient", reason="make docs installs what runs notebooks")
    notebook = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    place = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("['weather', 'alarm']" in output.get("data", {}).get("text/plain", "") for output in shown)
    assert any("text/html" in output.get("data", {}) for output in shown)
    assert not any(output.get("name") == "stderr" for output in shown)
