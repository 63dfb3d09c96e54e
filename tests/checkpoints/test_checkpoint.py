"""Checkpoint folders in and out, against transformers and against the real TensorFlow files."""

import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from paths import DATA
from reference import batch, cells, outputs, reference
from safetensors.torch import load_file, save_file

from edgebert.checkpoints import checkpoint
from edgebert.errors import InputError, MissingDependency, Unsupported
from edgebert.models import MODELS

TF = DATA / "tf_checkpoints"


def hf_folder(tmp_path: Path, name: str = "bert", task: str = "sequence-classification", **changes: object) -> Path:
    """A checkpoint folder as transformers itself writes it."""
    folder = tmp_path / f"{name}-{task}"
    reference(name, task, **changes).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("name", "task"), cells())
def test_in_out_and_back_into_transformers(tmp_path: Path, name: str, task: str) -> None:
    theirs = reference(name, task)
    theirs.save_pretrained(tmp_path / "in")
    loaded = checkpoint.load(tmp_path / "in")
    assert loaded.model.task == task
    loaded.save(tmp_path / "out")

    again, info = type(theirs).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    inputs = batch(theirs.config.vocab_size)
    if task == "multiple-choice":
        inputs = {key: value[None] for key, value in inputs.items()}
    expected, answered = outputs(theirs, inputs), outputs(again.eval(), inputs)
    # The last bit of a product depends on where its matrix lies in memory.
    assert all((answered[key] - expected[key]).abs().max() < 1e-6 for key in expected)
    assert again.config.id2label == theirs.config.id2label
    # What training alone reads comes through as well.
    dropout = "dropout" if hasattr(theirs.config, "dropout") else "hidden_dropout_prob"
    assert getattr(again.config, dropout) == getattr(theirs.config, dropout)


@pytest.mark.parametrize("folder", sorted(path.name for path in TF.iterdir()))
def test_tensorflow_checkpoint_answers_as_tensorflow_did(folder: str) -> None:
    loaded = checkpoint.load(TF / folder)
    expected = np.load(TF / folder / "expected.npz")
    inputs = {key: torch.from_numpy(expected[key]) for key in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        answered = loaded.model(**inputs)
    assert set(answered) == set(expected) - set(inputs)
    for key, value in answered.items():
        # transformers' own torch models loaded from these files agree with TensorFlow to 2e-6.
        assert np.abs(value.numpy() - expected[key]).max() < 1e-5


def test_sharded_safetensors_and_torch_files_read_alike(tmp_path: Path) -> None:
    model = reference("bert", "masked-lm")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    (tmp_path / "bin").mkdir()
    shutil.copy(tmp_path / "one" / "config.json", tmp_path / "bin")
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    states = [checkpoint.load(tmp_path / kind).model.state_dict() for kind in ("one", "shards", "bin")]
    for state in states[1:]:
        assert all(torch.equal(state[key], states[0][key]) for key in states[0])


def test_half_precision_weights_are_computed_in_float32(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    save_file({k: v.half() for k, v in load_file(folder / "model.safetensors").items()}, folder / "model.safetensors")
    assert {p.dtype for p in checkpoint.load(folder).model.parameters()} == {torch.float32}


def test_names_of_the_first_bert_release_are_read(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    old = {
        k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in load_file(folder / "model.safetensors").items()
    }
    state = checkpoint.load(folder).model.state_dict()
    save_file(old, folder / "model.safetensors")
    assert all(torch.equal(v, state[k]) for k, v in checkpoint.load(folder).model.state_dict().items())


def test_language_model_loads_as_base_and_says_what_it_left_out(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, "convbert", "masked-lm")
    loaded = checkpoint.load(folder, task="base")
    assert "generator_predictions.dense.weight" in loaded.notes[0]
    theirs = transformers.ConvBertModel.from_pretrained(folder).eval()
    inputs = batch(120)
    with torch.no_grad():
        answered = loaded.model(**inputs)
    assert torch.allclose(answered["last_hidden_state"], outputs(theirs, inputs)["last_hidden_state"], atol=1e-5)


def test_tied_embeddings_are_stated_and_shared(tmp_path: Path) -> None:
    loaded = checkpoint.load(hf_folder(tmp_path, "bert", "masked-lm"))
    assert "tied: the output embedding is the word embedding" in loaded.notes
    assert loaded.model.head.decoder.weight is loaded.model.encoder.embeddings.word.weight


def test_embeddings_that_differ_are_loaded_apart(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path, "bert", "masked-lm")
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"] * 2
    save_file(tensors, folder / "model.safetensors")
    loaded = checkpoint.load(folder)
    assert any("loaded apart" in note for note in loaded.notes)
    assert torch.equal(loaded.model.head.decoder.weight, loaded.model.encoder.embeddings.word.weight * 2)


def test_random_init_takes_presets_and_folders(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    loaded = checkpoint.load(folder, random_init=True, seed=3)
    assert loaded.random
    assert loaded.notes == ("random weights, seed 3",)
    assert loaded.model.config.labels[4] == "kind_4"
    preset = checkpoint.load("squeezebert-base", task="sequence-classification", random_init=True)
    assert preset.model.config == MODELS["squeezebert"].config()


class Boom:
    """A pickle that would make a file when opened."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def edit_config(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))


def edit_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(weights(folder)) | {key.replace("__", "."): value for key, value in changes.items()}
    save_file({key: value for key, value in tensors.items() if value is not None}, weights(folder))


def replace_weights(folder: Path, name: str, content: bytes) -> None:
    weights(folder).unlink()
    (folder / name).write_bytes(content)


def torch_file(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def index_outside(folder: Path) -> None:
    tensors = load_file(weights(folder))
    weights(folder).rename(folder.parent / "outside.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


INDEX = "model.safetensors.index.json"
H5 = TF / "convbert-base" / "tf_model.h5"

DAMAGES = {
    "truncated": (lambda f: weights(f).write_bytes(weights(f).read_bytes()[:-1000]), "model.safetensors is damaged"),
    "garbage": (lambda f: weights(f).write_bytes(b"\xff" * 5000), "model.safetensors is damaged"),
    "empty": (lambda f: weights(f).write_bytes(b""), "model.safetensors is damaged"),
    "no weights": (lambda f: weights(f).unlink(), "has no weights: one of model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "config not json": (lambda f: (f / "config.json").write_text('{"model_type": '), "config.json is not JSON"),
    "config is a list": (lambda f: (f / "config.json").write_text("[]"), "holds a list"),
    "other architecture": (
        lambda f: edit_config(f, model_type="gpt2"),
        "model_type='gpt2' is another architecture; edgebert has squeezebert",
    ),
    "config of another family": (
        lambda f: edit_config(f, model_type="convbert", architectures=["ConvBertModel"]),
        "do not fit a convbert for base: missing",
    ),
    "unknown key": (lambda f: edit_config(f, sliding_window=8), "unknown key sliding_window"),
    "missing": (lambda f: edit_weights(f, classifier__weight=None), "missing 1: classifier.weight"),
    "left over": (lambda f: edit_weights(f, bert__adapter__weight=torch.zeros(2)), "left over 1: bert.adapter.weight"),
    "wrong shape": (
        lambda f: edit_weights(f, classifier__weight=torch.zeros(5, 31)),
        r"classifier.weight is \(5, 31\), not \(5, 32\)",
    ),
    "pickle with code": (
        lambda f: replace_weights(f, "pytorch_model.bin", pickle.dumps({"x": Boom(f / "owned")})),
        "no file that torch.save wrote, and is not opened",
    ),
    "torch file with code": (
        lambda f: replace_weights(f, "pytorch_model.bin", torch_file({"x": Boom(f / "owned")})),
        "more than tensors in it and is not opened",
    ),
    "torch file without tensors": (
        lambda f: replace_weights(f, "pytorch_model.bin", torch_file({"x": 1})),
        "holds no map from names to tensors",
    ),
    "truncated torch file": (
        lambda f: replace_weights(f, "pytorch_model.bin", half(torch_file({"x": torch.zeros(999)}))),
        "pytorch_model.bin is damaged",
    ),
    "truncated h5": (
        lambda f: replace_weights(f, "tf_model.h5", half(H5.read_bytes())),
        "tf_model.h5 is damaged",
    ),
    "index leads outside": (index_outside, "outside.safetensors, which is not in the folder"),
    "index without map": (lambda f: replace_weights(f, INDEX, b"{}"), "has no weight_map"),
    "shard is absent": (
        lambda f: replace_weights(f, INDEX, b'{"weight_map": {"x": "model-1.safetensors"}}'),
        "model-1.safetensors, which is not in the folder",
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_folder_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    folder = hf_folder(tmp_path)
    damage, text = DAMAGES[how]
    damage(folder)
    with pytest.raises(InputError, match=text) as caught:
        checkpoint.load(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "owned").exists()


def test_a_class_without_counterpart_asks_for_the_task(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    edit_config(folder, architectures=["BertForNextSentencePrediction"])
    with pytest.raises(Unsupported, match="BertForNextSentencePrediction has no counterpart here; pass --task"):
        checkpoint.load(folder)


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_weights_cut_anywhere_are_refused(tmp_path: Path, cut: int) -> None:
    folder = hf_folder(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) * cut // 100])
    with pytest.raises(InputError, match="is damaged"):
        checkpoint.load(folder)


def test_names_that_lead_nowhere_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder\. Give a checkpoint folder, a hub name"):
        checkpoint.load(tmp_path / "absent")
    with pytest.raises(InputError, match="is a preset, a config without weights: pass --random-init"):
        checkpoint.load("squeezebert-base")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; a checkpoint folder"):
        checkpoint.load(tmp_path / "file")
    with pytest.raises(Unsupported, match="bert has no task 'causal-lm'; it has base"):
        checkpoint.load("bert-base", task="causal-lm", random_init=True)


def test_hub_name_offline_says_so_in_one_line() -> None:
    with pytest.raises(InputError, match="the hub cannot be reached") as caught:
        checkpoint.load("nobody/no-such-model")
    assert "\n" not in str(caught.value)


def test_h5_without_h5py_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependency, match=r'pip install "edgebert\[tf\]"'):
        checkpoint.load(TF / "convbert-base")


def test_save_replaces_only_what_it_may(tmp_path: Path) -> None:
    loaded = checkpoint.load(hf_folder(tmp_path))
    loaded.save(tmp_path / "out")
    with pytest.raises(InputError, match="pass --force"):
        loaded.save(tmp_path / "out")
    loaded.save(tmp_path / "out", force=True)
    (tmp_path / "holidays").mkdir()
    (tmp_path / "holidays" / "photo.jpg").write_text("")
    with pytest.raises(InputError, match="is left alone"):
        loaded.save(tmp_path / "holidays", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bert-sequence-classification", "holidays", "out"]
