"""Damaged files of every target: each ends in a clear error, never in a crash, a hang or an answer.

One that another tool edited is told of as that, and not run either.

Files are opened in a process of their own with a time limit, so that a crash in native code is seen as what it is.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wrong
from reference import reference

import edgebert
from edgebert import api
from edgebert import bundle as bundles
from edgebert.api import Exported
from edgebert.cli.main import main
from edgebert.errors import InputError
from edgebert.quantization.recipes import TARGET_RECIPES
from edgebert.runtimes import RUNTIMES, SUFFIXES, apart
from edgebert.runtimes.session import EDITED, WHOLE

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
target, file = sys.argv[1:3]
row = np.ones((1, 8), np.int32)
inputs = {"input_ids": row, "attention_mask": row, "token_type_ids": row * 0}
for folder in sys.stdin.read().split():
    try:
        session = RUNTIMES[target].open(Path(folder) / file, 1)
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


def model_files(made: Exported) -> tuple[str, ...]:
    return made.manifest.model_files


def damaged(made: Exported, folder: Path, name: str, content: bytes) -> Path:
    """A copy of the model file, or folder, in which one file holds something else."""
    folder.mkdir()
    for other in model_files(made):
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_bytes(content if other == name else (made.folder / other).read_bytes())
    return folder


def outcomes(made: Exported, folders: list[Path]) -> dict[str, str]:
    """What came of opening and running each."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, made.manifest.target, made.manifest.model_file],
        input="\n".join(map(str, folders)), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-2000:])
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


def test_a_whole_file_answers(made: Exported, tmp_path: Path) -> None:
    name = model_files(made)[0]
    whole = damaged(made, tmp_path / "whole", name, (made.folder / name).read_bytes())
    assert outcomes(made, [whole]) == {str(whole): "answered"}


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
    found = outcomes(made, folders)
    assert set(found) == set(map(str, folders))
    answered = [folder for folder, what in found.items() if not what.startswith("refused: ")]
    assert not answered
    assert all(len(what.splitlines()) == 1 for what in found.values())


def test_a_wrong_checksum_in_the_bundle_is_noticed(made: Exported, tmp_path: Path) -> None:
    for name in made.manifest.files:
        copy = Path(shutil.copytree(made.folder, tmp_path / name.replace("/", "-")))
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(bytes(content))
        with pytest.raises(InputError, match="is not the file that was exported"):
            edgebert.open(copy)


def model_of(made: Exported) -> Path:
    return made.folder / made.manifest.model_file


def edited(made: Exported, folder: Path) -> Path:
    """A copy of the bundle to whose model file another tool has added a word about its reviewer."""
    copy = Path(shutil.copytree(made.folder, folder))
    name = made.manifest.model_file
    wrong.change(made.manifest.target, model_of(made), copy / name, wrong.ANNOTATED[made.manifest.target])
    return copy


def test_an_edited_file_is_told_of_with_its_facts_and_not_run(
    made: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, target = api.inspect(model_of(made)).facts, made.manifest.target
    bundle = edited(made, tmp_path / "bundle")
    bare = bundle / made.manifest.model_file
    assert whole.seal == WHOLE
    for path, manifest in ((bare, None), (bundle, bundles.read(made.folder))):
        told, facts = api.inspect(path)
        assert told == manifest
        assert facts.seal == EDITED
        assert (facts.ops, facts.weights, facts.delegation) == (whole.ops, whole.weights, whole.delegation)
        assert set(facts.metadata) - set(whole.metadata) == {"reviewer"}
        assert main(["inspect", str(path)]) == 0
        shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "seal edited since edgebert made it" in shown
        assert "next: edgebert validate" not in shown
        assert main(["inspect", str(path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["facts"]["seal"] == EDITED
    with pytest.raises(InputError, match="was edited or damaged since edgebert made it") as error:
        RUNTIMES[target].open(bare)
    assert "\n" not in str(error.value)
    for call in (["validate", str(bundle)], ["predict", str(bundle), "a text"]):
        assert main(call) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
        assert len(lines) == 1
        assert "is not the file that was exported" in lines[0]
    if target != "coreml":
        (row,) = api.profile([bare], lengths=[8], runs=1).rows
        assert any("was edited since edgebert made it" in note for note in row.found.notes)


def test_a_whole_file_of_another_bundle_is_an_edit_and_other_files_must_be_whole(
    made: Exported, tmp_path: Path
) -> None:
    if made.manifest.target != "onnx":
        pytest.skip("the same for all targets")
    from edgebert.exporters import EXPORTERS
    from edgebert.quantization.recipes import RECIPES

    copy = Path(shutil.copytree(made.folder, tmp_path / "copy"))
    other = edgebert.load(made.manifest.source).model.random_init(3)
    EXPORTERS["onnx"].export(other, RECIPES["fp32"], (8,), copy / made.manifest.model_file)
    assert api.inspect(copy / made.manifest.model_file).facts.seal == WHOLE
    assert api.inspect(copy).facts.seal == EDITED
    (copy / "golden.npz").write_bytes(b"another")
    with pytest.raises(InputError, match=r"golden\.npz is not the file that was exported"):
        api.inspect(copy)


def test_a_whole_file_is_opened_in_this_process(
    made: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(apart, "ask", lambda *given: asked.append(given))
    RUNTIMES[made.manifest.target].open(model_of(made)).close()
    api.inspect(model_of(made))
    api.inspect(made.folder)
    assert not asked


@pytest.mark.slow
@pytest.mark.parametrize("what", ["flipped", "scrambled"])
def test_whatever_became_of_a_file_is_told_or_refused(made: Exported, tmp_path: Path, what: str) -> None:
    """As damage, which the seal tells, and as the file of another tool, which has none."""
    target, rng = made.manifest.target, np.random.default_rng(1)
    plain = wrong.change(target, model_of(made), tmp_path / f"plain{SUFFIXES[target]}", wrong.UNSEALED[target])
    assert api.inspect(plain).facts.seal is None
    names, files = model_files(made), []
    for i in range(100):
        if what == "scrambled":
            files.append(wrong.scramble(target, plain, tmp_path / f"{i}{SUFFIXES[target]}", i))
            continue
        name = names[rng.integers(len(names))]
        content = bytearray((made.folder / name).read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        files.append(damaged(made, tmp_path / str(i), name, bytes(content)) / made.manifest.model_file)
    code = """
import json, sys
from edgebert import api
from edgebert import bundle as bundles
from edgebert.errors import EdgebertError
for path in sys.stdin.read().split():
    try:
        print(json.dumps([path, api.inspect(path).facts.seal]), flush=True)
    except EdgebertError as error:
        print(json.dumps([path, f"refused: {error}"]), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input="\n".join(map(str, files)), capture_output=True, text=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    found = dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))
    assert (done.returncode, set(found)) == (0, set(map(str, files))), done.stderr[-2000:]
    assert all(said == (EDITED if what == "flipped" else None) or "refused: " in str(said) for said in found.values())
