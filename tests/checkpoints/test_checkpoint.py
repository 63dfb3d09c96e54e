"""Checkpoint folders in and out, against transformers and against the real TensorFlow files."""

import io
import json
import os
import pickle
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import transformers
from paths import DATA
from reference import batch, outputs, reference, shared
from safetensors.torch import load_file, save_file

from edgebert.checkpoints import checkpoint
from edgebert.errors import InputError, MissingDependency, Unsupported
from edgebert.files import peak_memory
from edgebert.gate import golden
from edgebert.models import MODELS
from edgebert.quantization.samples import load_samples

TF = DATA / "tf_checkpoints"


def hf_folder(tmp_path: Path, name: str = "bert", task: str = "sequence-classification", **changes: object) -> Path:
    """A checkpoint folder as transformers itself writes it."""
    folder = tmp_path / f"{name}-{task}"
    reference(name, task, **changes).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("name", "task"), shared())
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
    if getattr(theirs.config, "type_vocab_size", 2) == 1:  # RoBERTa's, where transformers looks every type up
        inputs["token_type_ids"][:] = 0
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


def torch_file(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, buffer, **options)
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
EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


def as_torch_file(folder: Path, change: Callable[[dict], object], **options: object) -> None:
    """The weights as a pytorch_model.bin, after a change."""
    tensors = load_file(weights(folder))
    change(tensors)
    replace_weights(folder, "pytorch_model.bin", torch_file(tensors, **options))


def with_tensor(make: Callable[[torch.Tensor], object], name: str = "classifier.weight") -> Callable[[Path], None]:
    """A torch file in which one weight is another kind of tensor, or no tensor."""
    return lambda folder: as_torch_file(folder, lambda tensors: tensors.update({name: make(tensors[name])}))


def pickled(*opcodes: bytes) -> bytes:
    """A torch file with a pickle of these opcodes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"".join(opcodes) + b".")
        archive.writestr("archive/version", b"3\n")
    return out.getvalue()


def packed(content: bytes) -> bytes:
    """A torch file whose parts are compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as other:
        for entry in archive.infolist():
            other.writestr(entry.filename, archive.read(entry))
    return out.getvalue()


BYTEARRAY = b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x02\x85R"  # of 8 GB
# A tuple of twice the same, forty times over, as a key: hashing it would take 2**40 steps.
BRANCHING = b"}" + b"K\x01\x85q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"K\x01s"


def h5_file(make: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights(folder).unlink()
        with h5py.File(folder / "tf_model.h5", "w") as file:
            make(file)

    return damage


def nested_groups(file: h5py.File) -> None:
    group: h5py.Group | h5py.File = file
    for _ in range(5000):  # HDF5's own walk crashes there
        group = group.create_group("g")
    group["kernel:0"] = np.zeros((2, 2), np.float32)


def in_another_file(file: h5py.File) -> None:
    Path(file.filename).with_name("secret").write_bytes(bytes(16))
    file.create_dataset(
        "a/kernel:0", (2, 2), np.float32, external=[(str(Path(file.filename).with_name("secret")), 0, 16)]
    )


def ring(file: h5py.File) -> None:
    file["a"] = file["/"]
    file["b"] = file["/"]


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
    "a list as architecture": (lambda f: edit_config(f, model_type=[]), r"model_type=\[\] is another architecture"),
    "an object as architecture": (lambda f: edit_config(f, model_type={"a": 1}), "is another architecture"),
    "a text of classes": (
        lambda f: edit_config(f, architectures="BertModel"),
        "architectures='BertModel'; a list of class names is needed",
    ),
    "a number as class": (lambda f: edit_config(f, architectures=[3]), r"architectures=\[3\]; a list of class names"),
    "lists of classes": (lambda f: edit_config(f, architectures=[["BertModel"]]), "a list of class names is needed"),
    "a million layers": (lambda f: edit_config(f, num_hidden_layers=10**6), "num_hidden_layers=1000000 .* at most 256"),
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
    "empty torch file": (lambda f: replace_weights(f, "pytorch_model.bin", b""), "no file that torch.save wrote"),
    "garbage torch file": (
        lambda f: replace_weights(f, "pytorch_model.bin", b"\x80\x02\xff}q" * 99),
        "no file that torch.save wrote",
    ),
    "garbage in a torch archive": (
        lambda f: replace_weights(f, "pytorch_model.bin", b"PK\x03\x04" + b"\xff" * 99),
        "pytorch_model.bin is damaged",
    ),
    "garbage pickle in a torch archive": (
        lambda f: replace_weights(f, "pytorch_model.bin", pickled(b"K\x01h\x63\x86R}s")),
        "pytorch_model.bin is damaged",
    ),
    "torch archive that is compressed": (
        lambda f: replace_weights(f, "pytorch_model.bin", packed(torch_file({"x": torch.zeros(1 << 20)}))),
        "more than tensors in it",
    ),
    "pickle that asks for 8 GB": (
        lambda f: replace_weights(f, "pytorch_model.bin", pickled(BYTEARRAY)),
        "more than tensors in it",
    ),
    "pickle that takes for ever to hash": (
        lambda f: replace_weights(f, "pytorch_model.bin", pickled(BRANCHING)),
        "more than tensors in it",
    ),
    "numbers as names": (
        lambda f: as_torch_file(f, lambda tensors: tensors.update({3: torch.zeros(1)})),
        "no map from names to tensors: 3 is a Tensor",
    ),
    "dictionary in the dictionary": (
        lambda f: as_torch_file(f, lambda tensors: tensors.update({"model": {"x": torch.zeros(1)}})),
        "no map from names to tensors: 'model' is a dict",
    ),
    "list of tensors": (
        lambda f: replace_weights(f, "pytorch_model.bin", torch_file([torch.zeros(2)])),
        "holds a list; a map from names to tensors is needed",
    ),
    "complex": (with_tensor(lambda t: t.to(torch.complex64)), "classifier.weight is of complex64"),
    "integers": (with_tensor(lambda t: t.to(torch.int8)), "classifier.weight is of int8"),
    "integers in safetensors": (
        lambda f: edit_weights(f, classifier__weight=torch.zeros(5, 32, dtype=torch.int32)),
        "classifier.weight is of int32",
    ),
    "bools": (with_tensor(torch.Tensor.bool), "classifier.weight is of bool"),
    "8-bit floats": (
        lambda f: edit_weights(f, classifier__weight=torch.zeros(5, 32).to(torch.float8_e4m3fn)),
        "classifier.weight is of float8_e4m3fn",
    ),
    "quantized": (
        with_tensor(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
        "classifier.weight is quantized",
    ),
    "sparse": (with_tensor(torch.Tensor.to_sparse), "classifier.weight is sparse or nested"),
    "compressed rows": (with_tensor(torch.Tensor.to_sparse_csr), "classifier.weight is sparse or nested"),
    "nested": (
        with_tensor(lambda t: torch.nested.nested_tensor([t, t])),
        "classifier.weight is sparse or nested",
    ),
    "meta": (with_tensor(lambda t: t.to("meta")), "classifier.weight is on meta, without values"),
    "spread out": (
        with_tensor(lambda t: torch.zeros(1).half().expand(1 << 17, 1 << 17)),
        "classifier.weight is larger than its data",
    ),
    "one weight twice": (
        lambda f: edit_weights(f, embeddings__word_embeddings__weight=torch.zeros(120, 32)),
        f"{EMBEDDINGS} and embeddings.word_embeddings.weight are names of one weight and have two values",
    ),
    "old and new name of a norm": (
        lambda f: edit_weights(f, bert__embeddings__LayerNorm__gamma=torch.zeros(32)),
        "LayerNorm.gamma and bert.embeddings.LayerNorm.weight are names of one weight",
    ),
    "braces in a name": (
        lambda f: edit_weights(f, **{"bert.encoder.layer.{}.output.dense.bias": torch.zeros(32)}),
        r"left over 1: bert.encoder.layer.\{\}.output.dense.bias",
    ),
    "more layers than the config": (
        lambda f: edit_config(f, num_hidden_layers=1),
        "left over 16: bert.encoder.layer.1.",
    ),
    "not a number": (
        lambda f: edit_weights(f, classifier__bias=torch.tensor([1.0, 2, 3, float("nan"), 4])),
        "classifier.bias holds NaN or infinity",
    ),
    "infinite in half precision": (
        lambda f: edit_weights(f, **{EMBEDDINGS: torch.full((120, 32), -torch.inf, dtype=torch.float16)}),
        f"{EMBEDDINGS} holds NaN or infinity",
    ),
    "double beyond float32": (
        lambda f: edit_weights(f, classifier__bias=torch.full((5,), 1e300, dtype=torch.float64)),
        "classifier.bias holds NaN or infinity",
    ),
    "far larger than its model": (
        lambda f: os.truncate(weights(f), 5 << 30),
        "has 5,368,709,120 bytes or more; at most 1,07",
    ),
    "shard with a tensor of another": (
        lambda f: (
            weights(f).rename(f / "b.safetensors"),
            shutil.copy(f / "b.safetensors", f / "a.safetensors"),
            (f / INDEX).write_text('{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'),
        ),
        "stands in b.safetensors and in a file before it",
    ),
    "shard that is a device": (
        lambda f: (
            weights(f).rename(f.parent / "away"),
            (f / "a.bin").symlink_to("/dev/zero"),
            (f / INDEX).write_text('{"weight_map": {"x": "a.bin"}}'),
        ),
        "names a.bin, which is not in the folder",
    ),
    "garbage h5": (lambda f: replace_weights(f, "tf_model.h5", b"\xff" * 5000), "tf_model.h5 is damaged"),
    "h5 with objects": (
        h5_file(lambda file: file.create_dataset("a/kernel:0", data=[[file.ref] * 2] * 2, dtype=h5py.ref_dtype)),
        "a/kernel:0 is of object, and weights are floats",
    ),
    "h5 with texts": (
        h5_file(lambda file: file.create_dataset("a/bias:0", data=["x"], dtype=h5py.string_dtype())),
        "a/bias:0 is of object, and weights are floats",
    ),
    "h5 in another file": (h5_file(in_another_file), "a/kernel:0 does not stand in the file as it is"),
    "h5 with a link to another file": (
        h5_file(lambda file: file.update({"a": h5py.ExternalLink("secret.h5", "/kernel:0")})),
        "do not fit a bert for sequence-classification: missing",
    ),
    "h5 of 4 GB in 2 KB": (
        h5_file(lambda file: file.create_dataset("a/kernel:0", (1 << 15, 1 << 15), np.float32)),
        "a/kernel:0 does not stand in the file as it is",
    ),
    "packed h5": (
        h5_file(lambda file: file.create_dataset("a/kernel:0", data=np.zeros((999, 999)), compression="gzip")),
        "a/kernel:0 does not stand in the file as it is",
    ),
    "h5 with 5,000 groups in groups": (
        h5_file(nested_groups),
        "do not fit a bert for sequence-classification: missing",
    ),
    "h5 with groups in a ring": (h5_file(ring), "more than 6,000 groups and variables"),
    "h5 with one weight twice": (
        h5_file(lambda file: file.update({"a/tf_x/b/bias:0": np.zeros(2), "b/tf_y/b/bias:0": np.ones(2)})),
        "two variables are b.bias with two values",
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


ABSURD = [
    ({"num_hidden_layers": 10**6}, "num_hidden_layers=1000000"),
    ({"hidden_size": 10**18}, "hidden_size=1000000000000000000"),
    ({"id2label": None, "num_labels": 10**8}, "num_labels=100000000"),
    ({"hidden_size": 2**19, "num_attention_heads": 2}, "hidden_size=524288, .* parameters; at most 4,000,000,000"),
]


@pytest.mark.parametrize(("changes", "text"), ABSURD)
def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path: Path, changes: dict[str, object], text: str) -> None:
    folder = hf_folder(tmp_path)
    edit_config(folder, **changes)
    before, started = peak_memory(), time.monotonic()
    for look in (checkpoint.load, checkpoint.outline, lambda f: checkpoint.load(f, random_init=True)):
        with pytest.raises(InputError, match=text):
            look(folder)
    assert time.monotonic() - started < 10
    assert (peak_memory() or 0) - (before or 0) < 100 << 20


def test_bfloat16_is_computed_in_float32_and_integers_beside_the_weights_are_left_out(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    whole = load_file(weights(folder))
    edit_weights(folder, **{name: tensor.bfloat16() for name, tensor in whole.items()})
    edit_weights(folder, **{"bert.embeddings.position_ids": torch.arange(64)[None]})
    loaded = checkpoint.load(folder)
    assert torch.equal(loaded.model.head.classifier.weight, whole["classifier.weight"].bfloat16().float())
    assert any("position_ids" in note for note in loaded.notes)


def test_torch_files_of_both_formats_are_read(tmp_path: Path) -> None:
    for format_of_today in (True, False):
        folder = hf_folder(tmp_path / str(format_of_today))
        whole = load_file(weights(folder))
        as_torch_file(folder, lambda tensors: None, _use_new_zipfile_serialization=format_of_today)
        assert torch.equal(checkpoint.load(folder).model.head.classifier.weight, whole["classifier.weight"])


def test_a_tokenizer_larger_than_the_table_loads_and_its_own_ids_are_refused(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(5, 140))]
    (folder / "vocab.txt").write_text("\n".join(words))
    for random in (False, True):
        loaded = checkpoint.load(folder, random_init=random)
        assert loaded.tokenizer is not None
        assert (loaded.tokenizer.vocab_size, loaded.model.config.vocab_size) == (140, 120)
        golden.make(loaded.model, loaded.tokenizer, (8,))
        (tmp_path / "texts").write_text("word7 word119\n")
        assert len(load_samples(loaded.tokenizer, loaded.model.config, 16, tmp_path / "texts")) == 1
        (tmp_path / "texts").write_text("word7 word120\n")
        with pytest.raises(InputError, match="input_ids from 2 to 120, but the vocabulary has ids 0 to 119") as caught:
            load_samples(loaded.tokenizer, loaded.model.config, 16, tmp_path / "texts")
        assert "\n" not in str(caught.value)
        (row,) = {len(row["input_ids"]) for row in load_samples(loaded.tokenizer, loaded.model.config, 4)}
        assert row == 1
    (folder / "vocab.txt").write_text("\n".join([*words[4:], *words[:4]]))
    late = checkpoint.load(folder)
    with pytest.raises(InputError, match="but the vocabulary has ids 0 to 119"):
        golden.make(late.model, late.tokenizer, (8,))


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
