"""Bundles: written whole or not at all, read with suspicion."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import bundles
import numpy as np
import pytest
from reference import reference

import edgebert
from edgebert import bundle
from edgebert.bundle import opened as opening
from edgebert.bundle.manifest import SEAL, sealed
from edgebert.errors import EdgebertError, InputError, MissingDependency, ParityFailed, Unsupported
from edgebert.exporters import EXPORTERS
from edgebert.files import new_folder

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a tiny BERT classifier, by way of ExecuTorch, whose file is the soonest written."""
    folder = tmp_path_factory.mktemp("bundle")
    reference("bert", "sequence-classification").save_pretrained(folder / "checkpoint")
    edgebert.export(folder / "checkpoint", target="executorch", recipe="fp32", lengths=(8, 16), out=folder / "out")
    return folder / "out"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of that bundle, to be damaged."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_manifest_tells_the_whole_story(made: Path) -> None:
    manifest = bundle.read(made)
    assert sorted(path.name for path in made.iterdir()) == [
        "README.md",
        "golden.npz",
        "labels.txt",
        "manifest.json",
        "model.pte",
    ]
    assert (manifest.family, manifest.task, manifest.target) == ("bert", "sequence-classification", "executorch")
    assert manifest.lengths == [8, 16]
    assert [entry["name"] for entry in manifest.inputs] == ["input_ids", "attention_mask", "token_type_ids"]
    assert {entry["dtype"] for entry in manifest.inputs} == {"int32"}
    assert manifest.labels == [f"kind_{i}" for i in range(5)]
    assert manifest.parity is not None
    assert manifest.parity["passed"]
    assert {"torch", "executorch"} <= set(manifest.tools)
    assert len(manifest.weights_sha256) == 64
    assert manifest.headroom is None  # nothing of fp32 is in half precision
    assert manifest.peak_memory_bytes is not None
    assert manifest.peak_memory_bytes > 100e6
    assert sum(module["parameters"] for module in manifest.modules) == manifest.parameters
    assert sum(manifest.parts.values()) == sum(module["bytes_after"] for module in manifest.modules)
    assert set(manifest.parts) == {"embeddings", "attention", "feed-forward", "head"}


def test_answers_as_torch_does(made: Path) -> None:
    ids = np.arange(12, dtype=np.int32).reshape(1, 12)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    with edgebert.open(made) as opened:
        logits = opened.run(inputs)["logits"]
    import torch

    theirs = reference("bert", "sequence-classification")
    with torch.no_grad():
        expected = theirs(**{key: torch.from_numpy(value).long() for key, value in inputs.items()}).logits.numpy()
    assert np.abs(logits - expected).max() < 1e-5


BAD_INPUTS = [
    ({"input_ids": np.full((1, 4), 120, np.int32)}, "the vocabulary has ids 0 to 119"),
    ({"input_ids": np.full((1, 4), -1, np.int32)}, "input_ids from -1 to -1"),
    ({"input_ids": np.full((1, 4), 3, np.int16)}, "int32 or int64 is needed"),
    ({"attention_mask": np.full((1, 4), 1 << 40, np.int64)}, "attention_mask has 1099511627776, which no int32 holds"),
    ({"attention_mask": np.full((1, 4), -1 << 63, np.int64)}, "attention_mask has -9223372036854775808, which no"),
    ({"input_ids": np.full((1, 5), 3, np.int32)}, "one shape"),
    ({"input_ids": np.full((1, 0), 3, np.int32)}, "one shape"),
]


@pytest.mark.parametrize(("change", "text"), BAD_INPUTS)
def test_wrong_inputs_are_refused(made: Path, change: dict[str, np.ndarray], text: str) -> None:
    good = {name: np.ones((1, 4), np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")}
    with edgebert.open(made) as opened, pytest.raises(InputError, match=text):
        opened.run(good | change)
    long = {name: np.ones((1, 17), np.int32) for name in good}
    with edgebert.open(made) as opened, pytest.raises(InputError, match="at most 16"):
        opened.run(long)


def edit(folder: Path, **changes: object) -> None:
    """Change the manifest behind the bundle's back."""
    path = folder / "manifest.json"
    raw = json.loads(path.read_text()) | changes
    path.write_bytes(sealed({k: v for k, v in raw.items() if v != "remove" and k != SEAL}))


DAMAGES = [
    ({"format": "zip"}, "format='zip'"),
    ({"version": 1}, "version 1; this edgebert reads 5"),
    ({"labels": "remove"}, r"it must contain \['labels'\] properties"),
    ({"surprise": 1}, r"it must not contain \{'surprise'\} properties"),
    ({"lengths": []}, "lengths must contain at least 1 items"),
    ({"lengths": [16, 8]}, "ascending numbers of tokens"),
    ({"lengths": [8, True]}, r"lengths\[1\] must be integer"),
    ({"vocab_size": "120"}, "vocab_size must be integer"),
    ({"parity": 3}, "parity must be object or null"),
    ({"target": "toaster"}, "target 'toaster' is not known"),
    ({"files": {}}, "does not list model.pte"),
    ({"files": {"../checkpoint/config.json": {"bytes": 1, "sha256": ""}}}, "is not a file's entry"),
    ({"files": {"./model.pte": {"bytes": 1, "sha256": ""}}}, "is not a file's entry"),
    ({"files": {"model.pte": {"bytes": "1"}}}, r"files.model.pte must contain \['sha256'\] properties"),
    ({"files": {"gone.bin": {"bytes": 1, "sha256": ""}}}, "has no gone.bin"),
    ({"model_file": "other.pte"}, "does not list other.pte"),
]


@pytest.mark.parametrize(("changes", "text"), DAMAGES)
def test_edited_manifest_is_refused(copy: Path, changes: dict[str, object], text: str) -> None:
    if isinstance(changes.get("files"), dict) and changes["files"]:
        changes = {"files": bundle.read(copy).files | changes["files"]}
    edit(copy, **changes)
    with pytest.raises(InputError, match=text):
        edgebert.open(copy)


def test_changed_files_are_noticed(copy: Path) -> None:
    for name in ("model.pte", "golden.npz"):
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(InputError, match=f"{name} is not the file that was exported"):
            edgebert.open(copy)
        (copy / name).write_bytes(whole)
    edgebert.open(copy).close()


def test_manifest_cut_anywhere_is_refused(copy: Path) -> None:
    whole = (copy / "manifest.json").read_text().rstrip()
    for cut in range(0, len(whole), 97):
        (copy / "manifest.json").write_text(whole[:cut])
        with pytest.raises(InputError):
            edgebert.open(copy)


def test_a_manifest_with_any_bit_flipped_or_another_models_is_refused(copy: Path, made: Path, tmp_path: Path) -> None:
    path, rng = copy / "manifest.json", np.random.default_rng(0)
    whole = path.read_bytes()
    for place in rng.integers(0, len(whole), 200):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.integers(8)]) + whole[place + 1 :])
        with pytest.raises(InputError):
            bundle.read(copy)
    reference("bert", "token-classification").save_pretrained(tmp_path / "checkpoint")
    edgebert.export(tmp_path / "checkpoint", target="executorch", recipe="fp32", lengths=(8,), out=tmp_path / "other")
    path.write_bytes((tmp_path / "other" / "manifest.json").read_bytes())
    with pytest.raises(InputError, match="is not the file that was exported"):
        edgebert.open(copy)
    path.write_bytes(whole)
    edgebert.open(copy).close()


def test_a_bundle_says_from_which_runtime_on_it_runs_and_an_older_one_is_refused(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bundle.read(made).floor == "ExecuTorch 1.1"
    for installed, text in (("0.7.0", "needs ExecuTorch 1.1 or later, and executorch 0.7.0"), ("1.1.0rc1", None)):
        monkeypatch.setattr(opening, "version", lambda package, installed=installed: installed)
        if text is None:
            edgebert.open(made).close()
        else:
            with pytest.raises(MissingDependency, match=f"{text} is installed: run pip install --upgrade executorch"):
                edgebert.open(made)


def test_no_bundle_no_answer(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no bundle: it has no manifest\.json. Make one with edgebert export"):
        edgebert.open(tmp_path)


def test_a_file_with_damaged_weights_fails_and_leaves_no_bundle(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The converter writes another model's weights; everything after it is as it always is."""
    honest = EXPORTERS["executorch"].export
    other = edgebert.load(made.parent / "checkpoint").model.random_init(5)
    monkeypatch.setattr(EXPORTERS["executorch"], "export", lambda model, *rest: honest(other, *rest))
    with pytest.raises(ParityFailed, match="every weight is the model's") as caught:
        edgebert.export(
            made.parent / "checkpoint", target="executorch", recipe="fp32", lengths=(8,), out=tmp_path / "out"
        )
    assert not caught.value.report.passed
    assert list(tmp_path.iterdir()) == []
    unseen = edgebert.export(
        made.parent / "checkpoint",
        target="executorch",
        recipe="fp32",
        lengths=(8,),
        out=tmp_path / "out",
        validate=False,
    )
    assert unseen.manifest.parity is None
    assert not edgebert.validate(tmp_path / "out").passed


REFUSALS = [
    ({"target": "tflit"}, InputError, "target 'tflit' is not known; did you mean tflite"),
    ({"recipe": "w8a8-dynamc"}, InputError, "recipe 'w8a8-dynamc' is not known; did you mean w8a8-dynamic"),
    ({"task": "token-clasification"}, InputError, "did you mean token-classification"),
    ({"task": "causal-lm"}, Unsupported, "bert has no task 'causal-lm'"),
    ({"lengths": (0,)}, InputError, "from 1 to the model's 64 positions"),
    ({"lengths": (8, 65)}, InputError, "from 1 to the model's 64 positions"),
    ({"lengths": ()}, InputError, "from 1 to the model's 64 positions"),
]


@pytest.mark.parametrize(("flags", "error", "text"), REFUSALS)
def test_what_cannot_be_exported_is_refused_before_any_work(
    made: Path, tmp_path: Path, flags: dict[str, object], error: type[EdgebertError], text: str
) -> None:
    with pytest.raises(error, match=text):
        edgebert.export(made.parent / "checkpoint", out=tmp_path / "out", **flags)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_in_float_is_told(made: Path, tmp_path: Path) -> None:
    checkpoint = made.parent / "checkpoint"
    kept = edgebert.export(
        checkpoint, target="executorch", lengths=(8,), out=tmp_path / "out", keep_float=("head.*", "*.layers.0.up")
    ).manifest
    dtypes = {module["name"]: module["dtype"] for module in kept.modules}
    assert kept.keep_float == ["head.*", "*.layers.0.up"]
    assert kept.headroom is not None  # 8 bits are half precision in between
    assert kept.headroom > 8
    assert dtypes["head.classifier"] == dtypes["encoder.layers.0.up"] == "float32"
    assert dtypes["encoder.layers.1.up"].startswith("int8")


REFUSED = [
    ({"keep_float": ("encoder.layer.0.up",)}, InputError, "names no module; there are encoder.layers.0.up"),
    ({"recipe": "fp32", "keep_float": ("head.*",)}, InputError, "fp32 is float already"),
    ({"calibration_file": "texts.txt"}, InputError, "w8a8-dynamic takes no calibration texts; w4, w8a8-static"),
    ({"recipe": "w8a8-static", "calibration_file": "gone.txt"}, InputError, r"gone\.txt: the model came without"),
    ({"min_delegated": 1.5}, InputError, "a share of the arithmetic from 0 to 1"),
    ({"min_delegated": 0.5}, Unsupported, "onnx has no delegates to count"),
    ({"recipe": "w8"}, Unsupported, "onnx does not take w8; it takes fp32, .* use w8a8-dynamic"),
]


@pytest.mark.parametrize(("options", "kind", "text"), REFUSED)
def test_options_that_do_not_fit_are_refused(
    made: Path, tmp_path: Path, options: dict[str, object], kind: type[EdgebertError], text: str
) -> None:
    with pytest.raises(kind, match=text):
        edgebert.export(made.parent / "checkpoint", target="onnx", lengths=(8,), out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_model_stays_what_it_is(made: Path, tmp_path: Path) -> None:
    loaded = edgebert.load(made.parent / "checkpoint")
    for options in ({"task": "base"}, {"random_init": True}):
        with pytest.raises(InputError, match=r"pass task and random_init to edgebert\.load"):
            edgebert.export(loaded, target="onnx", out=tmp_path / "out", **options)  # type: ignore[arg-type]


def test_a_bundle_in_the_way_is_kept_until_forced(made: Path, copy: Path) -> None:
    before = (copy / "manifest.json").read_bytes()
    again = {"target": "executorch", "recipe": "fp32", "lengths": (8,), "out": copy}
    with pytest.raises(InputError, match="pass --force"):
        edgebert.export(made.parent / "checkpoint", **again)  # type: ignore[arg-type]
    assert (copy / "manifest.json").read_bytes() == before
    edgebert.export(made.parent / "checkpoint", force=True, **again)  # type: ignore[arg-type]
    assert bundle.read(copy).lengths == [8]
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_a_folder_that_is_no_bundle_is_never_replaced(made: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("you")
    with pytest.raises(InputError, match="is left alone"):
        edgebert.export(made.parent / "checkpoint", out=tmp_path / "letters", force=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "you"


def test_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "a" / "b", False, "x") as staging:
            (staging / "x").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "a").iterdir()) == []
    with new_folder(tmp_path / "b", False, "x") as staging:
        (staging / "x").write_text("whole")
        assert not (tmp_path / "b").exists()
    assert (tmp_path / "b" / "x").read_text() == "whole"


def test_export_is_repeatable(made: Path, tmp_path: Path) -> None:
    """The same checkpoint gives the same file, but for what a converter stamps into it."""
    edgebert.export(
        made.parent / "checkpoint", target="executorch", recipe="fp32", lengths=(8, 16), out=tmp_path / "out"
    )
    one, two = bundle.read(made), bundle.read(tmp_path / "out")
    assert one.weights_sha256 == two.weights_sha256
    assert one.files["model.pte"]["sha256"] == two.files["model.pte"]["sha256"]
    assert one.parity == two.parity


@pytest.mark.parametrize(
    ("parity", "lowest"),
    [
        (None, None), ({"passed": True}, None), ({"passed": True, "outputs": 3}, None),
        ({"passed": True, "outputs": {"logits": "near"}}, None),
        ({"passed": True, "outputs": {"logits": {"sqnr_db": None}}}, None),
        ({"passed": True, "outputs": {"a": {"sqnr_db": 30.5}, "b": {"sqnr_db": 20}}}, 20.0),
    ],
)  # fmt: skip
def test_the_least_exact_output_is_told_whatever_a_report_holds(
    tmp_path: Path, parity: dict[str, object] | None, lowest: float | None
) -> None:
    assert replace(bundle.read(bundles.write(tmp_path)), parity=parity).sqnr_db == lowest
