"""The command line as a user meets it: real processes, their output, exit codes and what they leave behind."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import bundles
import pytest
import tiny
from safetensors.torch import load_file, save_file
from tiers import quick

import edgebert
from edgebert.bundle.manifest import SEAL, sealed
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.cli import doctor
from edgebert.cli.main import EXAMPLES, _parser, main
from edgebert.files import INTERRUPTS, new_folder
from edgebert.models import MODELS
from edgebert.quantization.recipes import TARGET_RECIPES

INTERRUPTED = [(signal.SIGTERM, "onnx")]
MOUNTS = os.name == "posix" and os.geteuid() == 0 and shutil.which("mount") is not None


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgebert", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """The error: the one line of standard error that is no step, with no traceback beside it."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("[")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("edgebert: ")
    return lines[0]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from edgebert.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'numpy', 'rich', 'tokenizers') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    for verb in ("list", "export", "validate", "predict", "inspect", "diff", "doctor"):
        assert f"    {verb} " in out


def test_list_as_json_is_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["models"]) == set(MODELS)
    assert "causal-lm" in told["models"]["rembert"]["tasks"]
    assert set(told["targets"]["tflite"]) <= set(told["recipes"])
    assert told["floors"]["tflite"]["w4a8-dynamic"] == "LiteRT 2.1"
    assert main(["list"]) == 0
    assert "squeezebert-base" in capsys.readouterr().out


def test_doctor_names_what_installs_a_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    torch = next(row for row in told["packages"] if row["package"] == "torch")
    assert torch["installed"].startswith("2.13.")
    assert torch["fits"]
    works = {row["what"]: row["works"] for row in told["verdicts"]}
    assert set(TARGET_RECIPES) | {"simulated Pixels", "phones at a cable", "edgebert app"} <= set(works)
    assert works["tflite"]
    assert set(told) == {"verdicts", "packages", "cache"}


def test_doctor_tells_a_package_of_the_wrong_version(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = doctor._version
    versions = {"onnx": "1.2.3", "coremltools": None}
    monkeypatch.setattr(doctor, "_version", lambda name: versions[name] if name in versions else found(name))
    assert main(["doctor", "--json"]) == 0
    told = {row["what"]: row for row in json.loads(capsys.readouterr().out)["verdicts"]}
    assert (told["onnx"]["works"], told["onnx"]["to_do"]) == (False, 'pip install "edgebert[onnx]"')
    assert "coremltools is missing" in told["coreml"]["found"]
    assert main(["doctor"]) == 0
    assert "onnx 1.2.3 is installed and ==1.23.* is wanted" in capsys.readouterr().out


def test_a_cache_is_told_and_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == "nothing is kept\n"
    (tmp_path / "edgebert/pixel/system").mkdir(parents=True)
    (tmp_path / "edgebert/pixel/system/a").write_bytes(b"\0" * 2_000_000)
    (tmp_path / "edgebert/calibration.json").write_text("{}")
    assert main(["cache", "--json"]) == 0
    kept = {one["what"]: one["bytes"] for one in json.loads(capsys.readouterr().out)["kept"]}
    assert kept == {"the simulated Pixels' system": 2_000_000, "ratios of phones to their simulations": 2}
    assert main(["cache", "clear"]) == 0
    told = capsys.readouterr().out
    assert "(2.0 MB); it comes back by: edgebert device setup pixel" in told
    assert "calibration.json, which was measured" in told
    assert [path.name for path in (tmp_path / "edgebert").iterdir()] == ["calibration.json"]


BAD = [
    (["export", "absent-folder"], 2, "absent-folder: no such folder. Give a checkpoint folder"),
    (["export", "squeezebert-base"], 2, "pass --random-init"),
    (["export", "--target", "tflte"], 2, "did you mean tflite?"),
    (["export", "--recipe", "fp23"], 2, "did you mean fp32?"),
    (["export", "--task", "sequence"], 2, "task 'sequence' is not known"),
    (["export", "bert-base", "--random-init", "--task", "causal-lm"], 4, "bert has no task 'causal-lm'"),
    (["validate", "absent"], 2, "absent is no bundle"),
    (["predict", "absent", "hello"], 2, "absent is no bundle"),
    (["inspect", "absent.tflite"], 2, "no bundle and no model file"),
    (["inspect", __file__], 2, "a file ending in .pte, .tflite, .mlpackage, .onnx"),
]


@pytest.mark.parametrize(
    ("arguments", "code", "text"), BAD, ids=[" ".join(a[:4]) for a, *_ in BAD[:-1]] + ["inspect py"]
)
def test_bad_usage_is_one_line_and_its_exit_code(
    arguments: list[str],
    code: int,
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1
    assert text in lines[0]
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["exit_code"] == code


def test_alone_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: edgebert" in capsys.readouterr().out


def test_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"edgebert {edgebert.__version__}\n"


def test_every_verb_has_examples_that_its_parser_takes(capsys: pytest.CaptureFixture[str]) -> None:
    for name, lines in EXAMPLES.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        told = capsys.readouterr().out
        for line in lines:
            assert line in told
            _parser().parse_args(shlex.split(line.partition(" > ")[0])[1:])


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_verbs_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--completion", shell])
    told = capsys.readouterr().out
    for word in ("export", "validate", "--keep-float", "--device"):
        assert word in told


def test_what_is_said_before_anything_heavy_is_imported() -> None:
    """A listing, a slip in a name, help: without torch, which takes seconds."""
    for words in ("list", "exprot", "export --target tflte", "export --recipe fp23", "export --task nre", "--help", ""):
        code = f"import sys; from edgebert.cli.main import main; sys.argv[1:] = {words.split()}\n"
        code += "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules and 'numpy' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


UNUSABLE = [
    (["export", "--quantise"], "unrecognized arguments: --quantise; see edgebert --help"),
    (["export", "--lengths", "a"], "argument --lengths: 'a' is not a list of numbers such as 32,64,128; see edgebert"),
    (["exprot"], "verb 'exprot' is not known; did you mean export?"),
    (["validate"], "the following arguments are required: folder; see edgebert validate --help"),
    (["device", "lits"], "invalid choice: 'lits'"),
]


@pytest.mark.parametrize(("arguments", "text"), UNUSABLE)
def test_bad_usage_is_one_line_and_one_document(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 2
    told = capsys.readouterr()
    assert text in told.err
    assert told.err.count("\n") == 1
    assert text in json.loads(told.out)["error"]


def test_a_bundle_and_a_checkpoint_are_told_from_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Checkpoint(tiny.visible("bert", "base"), None, "x", {}, "", ()).save(tmp_path / "my model")
    assert main(["predict", "my model", "hello"]) == 2
    assert "it is a checkpoint, of which edgebert export 'my model' makes one" in capsys.readouterr().err
    (tmp_path / "made").mkdir()
    bundles.write(tmp_path / "made")
    assert main(["export", str(tmp_path / "made")]) == 2
    assert "is a bundle already, and a checkpoint is exported: ask it with edgebert predict" in capsys.readouterr().err


def test_missing_extra_is_exit_3_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgebert.exporters import EXPORTERS

    monkeypatch.setattr(EXPORTERS["tflite"], "missing", lambda: 'pip install "edgebert[tflite]"')
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--target", "tflite"]) == 3
    assert 'run pip install "edgebert[tflite]"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parity
def test_the_whole_way_by_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Making it and asking it are processes as a user starts them; what follows costs their imports no second time."""
    made = run("export", "--target", "executorch", "--recipe", "fp32", "--lengths", "32", "--out", "out", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "[ok] a damaged model is caught" in made.stdout
    assert made.stdout.splitlines()[-2:] == ['here: edgebert predict out "..."', "next: edgebert profile out"]
    steps = [line for line in made.stderr.splitlines() if line.startswith("[5/5]")]
    assert len(steps) == 2, "the last step's beginning and end"
    assert re.fullmatch(r"\[5/5\] compare .*: done after [\d.]+ s", steps[1])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

    answer = run("predict", "out", "wake me up at half past six tomorrow", "--json", cwd=tmp_path)
    assert json.loads(answer.stdout)["label"] == "alarm"

    monkeypatch.chdir(tmp_path)
    assert main(["validate", "out", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    assert main(["inspect", "out", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["manifest"]["task"] == "sequence-classification"
    assert facts["facts"]["outputs"][0]["shape"][-1] == 150
    assert main(["inspect", "out/model.pte", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["manifest"] is None
    assert alone["facts"] == facts["facts"]
    assert main(["inspect", "out"]) == 0
    shown = capsys.readouterr().out
    for told in ("embeddings", "feed-forward", "memory to export", "largest"):
        assert told in shown
    what, how = shown.splitlines()[:2]
    assert what.startswith("out: squeezebert for sequence-classification, ")
    assert how.startswith('call it: edgebert predict out "')
    assert main(["inspect", "out/model.pte"]) == 0
    what, how = capsys.readouterr().out.splitlines()[:2]
    assert what.startswith("out/model.pte: squeezebert for sequence-classification, ")
    assert how.startswith("call it: ExecuTorch with input_ids int32 [1, ")

    assert main(["export", "--target", "executorch", "--recipe", "fp32", "--out", "out"]) == 2
    assert "pass --force" in capsys.readouterr().err


@pytest.mark.parity
def test_validate_of_a_damaged_bundle_is_exit_6(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file stays as it is and the manifest vouches for it; only what torch said is another model's."""
    import hashlib

    import numpy as np

    monkeypatch.chdir(tmp_path)
    assert main(["export", "--target", "executorch", "--lengths", "32", "--out", "out"]) == 0
    golden = tmp_path / "out" / "golden.npz"
    with np.load(golden) as file:
        arrays = {key: -value if key == "tokens_32/out/logits" else value for key, value in file.items()}
    np.savez_compressed(golden, **arrays)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    digest = hashlib.sha256(golden.read_bytes()).hexdigest()
    manifest["files"]["golden.npz"] = {"bytes": golden.stat().st_size, "sha256": digest}
    del manifest[SEAL]
    (tmp_path / "out" / "manifest.json").write_bytes(sealed(manifest))
    capsys.readouterr()
    assert main(["validate", "out"]) == 6
    told = capsys.readouterr()
    (line,) = (line for line in told.err.splitlines() if not line.startswith("["))
    assert "does not say what torch says: equals torch" in line
    assert "[FAILED] equals torch" in told.out


@pytest.mark.parity
@pytest.mark.parametrize(
    ("number", "target"), quick(product((signal.SIGINT, signal.SIGTERM), ("onnx", "tflite")), INTERRUPTED)
)
def test_interrupted_in_the_middle_leaves_nothing(tmp_path: Path, number: signal.Signals, target: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgebert", "export", "--target", target, "--out", "out"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[3/5] convert"):
            break
    time.sleep(2)
    assert any(tmp_path.iterdir())  # something half-made is there to be cleared away
    process.send_signal(number)
    rest = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "edgebert: interrupted; nothing half-made was left behind"
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_is_exit_130_whatever_became_of_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgebert import api

    def broken(path: str) -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise RuntimeError("native code makes this of it") from None

    monkeypatch.setattr(api, "inspect", broken)
    # Under nohup these tests start with hang-ups ignored, which is another test's matter.
    kept = {one: signal.signal(one, signal.default_int_handler) for one in INTERRUPTS}
    try:
        assert main(["inspect", "out"]) == 130
    finally:
        for one, handler in kept.items():
            signal.signal(one, handler)
    assert capsys.readouterr().err == "edgebert: interrupted; nothing half-made was left behind\n"


def test_nohup_keeps_a_process_from_hanging_up(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from edgebert.cli.main import main; "
    code += "main(['list']); signal.raise_signal(signal.SIGHUP); print('still there')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "still there", done.stderr


@pytest.mark.parity
@pytest.mark.slow
def test_what_a_killed_export_left_is_cleared_away_and_a_living_one_is_not_disturbed(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "edgebert", "export", "--target", "onnx", "--lengths", "8", "--out", "out"]
    process = subprocess.Popen(call, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[3/5] convert"):
            break
    second = run(*call[3:], cwd=tmp_path)
    assert second.returncode == 2
    assert "another edgebert is writing" in one_line(second)
    process.kill()
    process.communicate(timeout=120)
    assert [path.name for path in tmp_path.iterdir()] == [".out.part"]
    assert run(*call[3:], cwd=tmp_path).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parity
@pytest.mark.parametrize("name", ["golden.npz", "tokenizer.json", "manifest.json"])
def test_a_full_disk_is_one_line_whichever_file_it_meets(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgebert import api

    @contextlib.contextmanager
    def full(*given: Any) -> Iterator[Path]:
        with new_folder(*given) as folder:
            (folder / name).symlink_to("/dev/full")  # a device whose disk is full
            yield folder

    monkeypatch.setattr(api, "new_folder", full)
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--target", "executorch", "--recipe", "fp32", "--lengths", "4", "--out", "out"]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> object:
    """A file system of its own with half a megabyte of room."""
    if not MOUNTS:
        pytest.skip("mounting a full disk needs root and mount")
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr!r}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parity
@pytest.mark.parametrize("target", quick(["executorch", "onnx", "tflite"], ["executorch"]))
def test_no_space_left_is_one_line_and_no_bundle(small_disk: Path, target: str) -> None:
    result = run("export", "--target", target, "--lengths", "32", "--out", str(small_disk / "out"))
    assert result.returncode == 2, result.stderr
    assert "No space left on device" in one_line(result)
    assert list(small_disk.iterdir()) == []


def test_read_only_folder_is_one_line(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    result = run("export", "--out", str(small_disk / "out"))
    assert result.returncode == 2
    assert "Read-only file system" in one_line(result)
    assert list(small_disk.iterdir()) == []


def hostile_config(**changes: object) -> Callable[[Path], None]:
    """A checkpoint folder whose config asks for what no model is."""

    def write(folder: Path) -> None:
        raw = {"model_type": "bert", "architectures": ["BertModel"]} | changes
        (folder / "config.json").write_text(json.dumps(raw))

    return write


def nan_weights(folder: Path) -> None:
    Checkpoint(tiny.visible("bert", "base"), None, "x", {}, "", ()).save(folder, force=True)
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][3, 4] = float("nan")
    save_file(weights, folder / "model.safetensors")


def garbage_weights(folder: Path) -> None:
    hostile_config()(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")


def aborting_tokenizer(folder: Path) -> None:
    """One that ends the process of the library that reads it."""
    hostile_config()(folder)
    table = {"type": "Precompiled", "precompiled_charsmap": "//////////8="}
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["[UNK]", 0.0]]}
    raw = {"version": "1.0", "added_tokens": [], "normalizer": table, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(raw))


def large_manifest(folder: Path) -> None:
    with (folder / "manifest.json").open("wb") as file:
        file.truncate(6 << 30)


EXPORT = ("export", "{folder}", "--out", "{folder}-out")
HOSTILE = {
    "a pipe": (lambda folder: os.mkfifo(folder / "config.json"), EXPORT, "is a pipe, socket or device"),
    "an endless device": (lambda f: (f / "config.json").symlink_to("/dev/zero"), EXPORT, "is a pipe, socket or device"),
    "a million layers": (
        hostile_config(num_hidden_layers=10**6),
        (*EXPORT, "--random-init"),
        "num_hidden_layers=1000000 in a BertConfig; at most 256 is taken.",
    ),
    "a list as family": (hostile_config(model_type=[]), EXPORT, "model_type=[] is another architecture"),
    "weights that are no numbers": (
        nan_weights,
        EXPORT,
        "embeddings.word_embeddings.weight holds NaN or infinity: no answer comes of it",
    ),
    "empty weights": (garbage_weights, EXPORT, "pytorch_model.bin is no file that torch.save wrote"),
    "a tokenizer that aborts": (aborting_tokenizer, (*EXPORT, "--random-init"), "normalization table says"),
    "a manifest of 6 GB": (large_manifest, ("validate", "{folder}"), "has 6,442,450,944 bytes or more"),
    "a file without leave": (
        lambda folder: (folder / "config.json").symlink_to("/proc/self/mem"),
        EXPORT,
        "config.json cannot be read: Input/output error.",
    ),
}


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are POSIX's")
@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=[] if i < 3 else pytest.mark.slow) for i, how in enumerate(HOSTILE)]
)
def test_hostile_input_is_one_line_and_exit_2(tmp_path: Path, how: str) -> None:
    make, arguments, text = HOSTILE[how]
    folder = tmp_path / "given"
    folder.mkdir()
    make(folder)
    started = time.monotonic()
    result = run(*(argument.format(folder=folder) for argument in arguments))
    assert result.returncode == 2, result.stderr
    assert text in one_line(result)
    assert "Traceback" not in result.stderr + result.stdout
    assert time.monotonic() - started < 60  # the imports of a busy machine, and no waiting
    assert [path.name for path in tmp_path.iterdir()] == ["given"]
