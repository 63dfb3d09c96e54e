"""Damaged files of every target: each ends in a clear error, never in a crash, a hang or an answer.

Files are opened in a process of their own with a time limit, so that a crash in native code is seen as what it is.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference import reference

import edgebert
from edgebert.api import Exported
from edgebert.quantization.recipes import TARGET_RECIPES
from edgebert.runtimes import SUFFIXES

pytestmark = pytest.mark.parity

FLIPS = 200
SECONDS = 240  # for all the damaged copies of one file

# Opens each file it is told of and runs what opens; prints what came of each.
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from edgebert.errors import EdgebertError
from edgebert.runtimes import RUNTIMES
target, suffix = sys.argv[1:3]
row = np.ones((1, 8), np.int32)
inputs = {"input_ids": row, "attention_mask": row, "token_type_ids": row * 0}
for folder in sys.stdin.read().split():
    try:
        session = RUNTIMES[target].open(Path(folder) / f"model{suffix}", 1)
        session.run(inputs)
        print(json.dumps([folder, "answered"]), flush=True)
    except EdgebertError as error:
        print(json.dumps([folder, f"refused: {error}"]), flush=True)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    reference("bert", "base").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=TARGET_RECIPES)
def made(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    out = tmp_path_factory.mktemp(request.param) / "out"
    return edgebert.export(checkpoint, target=request.param, recipe="fp32", lengths=(8,), out=out, validate=False)


def model_files(made: Exported) -> list[str]:
    return [name for name in made.manifest.files if name.startswith("model")]


def damaged(made: Exported, folder: Path, name: str, content: bytes) -> Path:
    """A copy of the model file, or folder, in which one file holds something else."""
    folder.mkdir()
    for other in model_files(made):
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(content if other == name else (made.folder / other).read_bytes())
    return folder


def outcomes(target: str, folders: list[Path]) -> dict[str, str]:
    """What came of opening and running each."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, target, SUFFIXES[target]],
        input="\n".join(map(str, folders)), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-2000:])
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def test_a_whole_file_answers(made: Exported, tmp_path: Path) -> None:
    name = model_files(made)[0]
    whole = damaged(made, tmp_path / "whole", name, (made.folder / name).read_bytes())
    assert outcomes(made.manifest.target, [whole]) == {str(whole): "answered"}


def test_no_flipped_bit_and_no_cut_gets_an_answer(made: Exported, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = model_files(made)
    sizes = np.array([(made.folder / name).stat().st_size for name in names])
    folders = []
    for i in range(FLIPS):
        # Half of the places anywhere in the bytes, half in each file alike: a small one steers all the others.
        name = names[rng.choice(len(names), p=sizes / sizes.sum())] if i % 2 else names[rng.integers(len(names))]
        content = bytearray((made.folder / name).read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        folders.append(damaged(made, tmp_path / f"flip{i}", name, bytes(content)))
    for name in names:
        whole = (made.folder / name).read_bytes()
        for i, end in enumerate((0, 7, len(whole) // 3, len(whole) - 1)):
            folders.append(damaged(made, tmp_path / f"cut-{name.replace('/', '-')}-{i}", name, whole[:end]))
        folders.append(damaged(made, tmp_path / f"long-{name.replace('/', '-')}", name, whole[:64] + b"\xff" * 64))
    found = outcomes(made.manifest.target, folders)
    assert set(found) == set(map(str, folders))
    answered = [folder for folder, what in found.items() if not what.startswith("refused: ")]
    assert not answered
    assert all(len(what.splitlines()) == 1 for what in found.values())


def test_a_wrong_checksum_in_the_bundle_is_noticed(made: Exported, tmp_path: Path) -> None:
    import shutil

    from edgebert.errors import InputError

    for name in made.manifest.files:
        copy = Path(shutil.copytree(made.folder, tmp_path / name.replace("/", "-")))
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(bytes(content))
        with pytest.raises(InputError, match="is not the file that was exported"):
            edgebert.open(copy)
