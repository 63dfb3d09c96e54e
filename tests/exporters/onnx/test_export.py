"""ONNX: files written by the exporter, read back from disk and run by ONNX Runtime, against torch."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_files import LONGEST, SIZES, batch, visible, weights
from shared import shared
from tiers import quick
from tiny import expected, sqnr

from edgebert import lowering
from edgebert.errors import ConversionFailed, InputError, Unsupported
from edgebert.models import Model
from edgebert.models.signature import INPUTS
from edgebert.quantization.recipes import RECIPES, Recipe

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from edgebert.exporters.onnx import export as exporter  # noqa: E402
from edgebert.runtimes.onnx import session as runtime  # noqa: E402

# Every head at least once, and for each family whatever only it has.
CASES = [
    ("bert", "masked-lm"),
    ("bert", "base"),
    ("squeezebert", "question-answering"),
    ("squeezebert", "sequence-classification"),
    ("convbert", "token-classification"),
    ("convbert", "multiple-choice"),
    ("rembert", "causal-lm"),
    ("rembert", "multiple-choice"),
]
QUICK = [CASES[3]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Export a case once for all tests; gives the model and the file."""

    def get(family: str, task: str, recipe: str = "w8a8-dynamic") -> tuple[Model, Path]:
        model = visible(family, task)

        def make(folder: Path) -> Path:
            return exporter.export(model, RECIPES[recipe], (8, LONGEST), folder / "model.onnx").path

        return model, shared(tmp_path_factory, f"onnx-{family}-{task}-{recipe}", make)

    return get


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task"), quick(CASES, QUICK))
@pytest.mark.parametrize("recipe", quick(["fp32", "w8a8-dynamic"], ["w8a8-dynamic"]))
def test_answers_are_torchs(exported, family, task, recipe):
    model, path = exported(family, task, recipe)
    session = runtime.open(path)
    wanted, got = [], []
    for rows, tokens in SIZES:
        inputs = batch(rows, tokens)
        reference, answers = expected(model, inputs), session.run(inputs)
        assert list(answers) == list(reference)
        for name, value in reference.items():
            assert answers[name].dtype == np.float32
            assert answers[name].shape == value.shape
            wanted.append(value.ravel())
            got.append(answers[name].ravel())
    wanted, got = np.concatenate(wanted), np.concatenate(got)
    if recipe == "fp32":
        assert np.abs(wanted - got).max() < 1e-4  # seen: 5e-6
    else:
        assert sqnr(wanted, got) > 25  # seen: 31 to 42; a bit less of weight would cost 6


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task"), quick(CASES, QUICK))
def test_every_matrix_is_int8(exported, family, task):
    model, path = exported(family, task)
    floats = {name: w for name, w in weights(path).items() if w.dtype == np.float32 and w.ndim > 1}
    for name, weight in floats.items():
        scale = name.endswith(".scale")
        depthwise = weight.shape[-1] == 9
        types = weight.shape == (2, weight.shape[-1])
        assert scale or depthwise or types or weight.size <= 32, (name, weight.shape)
    # Each parameter of more than one dimension is there once in 8 bits: words and groups too, and a tied table once.
    expected = sum(p.numel() for n, p in model.named_parameters() if p.dim() > 1 and p.shape[-1] not in (1, 9))
    expected += sum(p.numel() for n, p in model.named_parameters() if p.dim() == 3 and p.shape[-1] == 1)  # 1x1
    width = model.encoder.embeddings.word.weight.shape[1]
    expected -= (2 + model.config.max_position_embeddings - LONGEST) * width  # token types; positions beyond
    assert sum(w.size for w in weights(path).values() if w.dtype == np.int8) == expected


@pytest.mark.parity
def test_a_tied_table_is_stored_once(exported):
    for recipe in ("fp32", "w8a8-dynamic"):
        model, path = exported("bert", "masked-lm", recipe)
        shapes = [w.shape for w in weights(path).values()]
        assert model.tied
        assert shapes.count((120, 32)) == 1
        assert (32, 120) not in shapes


@pytest.mark.parity
def test_interface_and_facts(exported):
    _, path = exported("squeezebert", "question-answering")
    facts = runtime.open(path).facts()
    assert [(s.name, s.dtype, s.shape) for s in facts.inputs] == [(name, "int64", (-1, -1)) for name in INPUTS]
    assert [(s.name, s.dtype, s.shape) for s in facts.outputs] == [
        ("start_logits", "float32", (-1, -1)),
        ("end_logits", "float32", (-1, -1)),
    ]
    assert facts.lengths == ()
    assert facts.delegation is None
    assert facts.nodes == sum(facts.ops.values())
    assert "Conv" not in facts.ops
    # In each of two layers queries, keys and values in four groups, whose inputs are quantized once for all three; two
    # projections in four groups and one whole. And a head.
    assert facts.ops["MatMulIntegerToFloat"] == 2 * 3 * 4
    assert facts.ops["DynamicQuantizeMatMul"] == 2 * (2 * 4 + 1) + 1
    assert facts.file_bytes == path.stat().st_size > sum(facts.weight_bytes.values())


@pytest.mark.parity
def test_a_row_does_not_depend_on_its_neighbours(exported):
    _, path = exported("convbert", "token-classification")
    session = runtime.open(path, threads=2)
    inputs = batch(4, 20)
    together = session.run(inputs)["logits"]
    for i in range(4):
        alone = session.run({name: value[i : i + 1] for name, value in inputs.items()})["logits"]
        np.testing.assert_array_equal(alone[0], together[i])


@pytest.mark.parity
def test_local_attention_costs_what_its_window_costs_at_every_length(tmp_path):
    model = visible("modernbert", "token-classification", max_position_embeddings=128)
    path = exporter.export(model, RECIPES["fp32"], (8, 128), tmp_path / "m.onnx").path
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info}
    seen = sorted(shapes[node.output[0]][-1] for node in graph.node if node.op_type == "Softmax")
    assert seen == [0, 48, 48]  # one global layer, whose tokens see all, and two local ones with blocks of 16
    session = runtime.open(path)
    for tokens in (1, 8, 17, 64, 65, 128):
        inputs = batch(4, tokens) | {"token_type_ids": np.zeros((4, tokens), np.int32)}
        kept = inputs["attention_mask"] == 1
        apart = session.run(inputs)["logits"] - expected(model, inputs)["logits"]
        assert np.abs(apart[kept]).max() < 1e-4


@pytest.mark.parity
def test_inputs_are_checked(exported):
    _, path = exported("bert", "masked-lm")
    session = runtime.open(path)
    with pytest.raises(InputError, match=f"{LONGEST + 1} tokens, but the file takes at most {LONGEST}"):
        session.run(batch(1, LONGEST + 1))
    with pytest.raises(InputError, match="int32 or int64 is needed"):
        session.run({name: value.astype(np.int16) for name, value in batch(1, 5).items()})
    with pytest.raises(InputError, match="input_ids from 120 to 120; the file takes 0 to 119"):
        session.run(batch(1, 5) | {"input_ids": np.full((1, 5), 120, np.int32)})
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run(batch(1, 5))


@pytest.mark.parity
def test_the_model_is_not_changed_and_nothing_is_left_behind(tmp_path, capfd):
    model = visible("squeezebert", "sequence-classification")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    quiet = logging.root.manager.disable
    artifact = exporter.export(model, RECIPES["w8a8-dynamic"], (1,), tmp_path / "m.onnx")
    assert (artifact.lengths, artifact.dynamic) == ((1,), True)
    assert set(artifact.tools) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == quiet
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    session = runtime.open(artifact.path)  # a file for one token, whose converter saw two
    assert sqnr(expected(model, batch(2, 1))["logits"], session.run(batch(2, 1))["logits"]) > 25
    with pytest.raises(InputError, match="at most 1"):
        session.run(batch(1, 2))


@pytest.mark.parity
def test_the_file_does_not_tell_of_this_machine(exported):
    for recipe in ("fp32", "w8a8-dynamic"):
        _, path = exported("squeezebert", "sequence-classification", recipe)
        data = path.read_bytes()
        for secret in (str(Path(torch.__file__).parents[1]), str(Path.cwd()), os.path.expanduser("~"), ".py", "File "):
            assert secret.encode() not in data
        proto = onnx.load(str(path))
        assert not any(node.doc_string or node.metadata_props for node in proto.graph.node)
        own = ("family", "labels", "lengths", "max_tokens", "recipe", "sha256", "task", "vocabulary")  # no licence came
        assert {entry.key for entry in proto.metadata_props} == {f"edgebert.{key}" for key in own}


@pytest.mark.parity
def test_damaged_files_are_refused(exported, tmp_path):
    _, path = exported("bert", "masked-lm")
    good, bad = path.read_bytes(), tmp_path / "bad.onnx"
    rng = np.random.default_rng(0)
    flips = [(int(rng.integers(len(good))), 1 << int(rng.integers(8))) for _ in range(200)]
    flips += [(len(good) - 1 - i, 4) for i in range(120)]  # the metadata, seal included
    for place, bit in flips:
        data = bytearray(good)
        data[place] ^= bit
        bad.write_bytes(data)
        with pytest.raises(InputError) as caught:
            runtime.open(bad)
        assert "\n" not in str(caught.value)
    for size in (0, 1, 100, len(good) // 2, len(good) - 1, len(good) - 60):
        bad.write_bytes(good[:size])
        with pytest.raises(InputError):
            runtime.open(bad)


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"PK\x03\x04" + b"x" * 500, b"{}", bytes(range(256)) * 50])
def test_other_formats_are_refused(tmp_path, content):
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not an ONNX"):
        runtime.open(path)
    with pytest.raises(InputError, match="not a file"):
        runtime.open(tmp_path)


@pytest.mark.parity
def test_large_models_keep_their_weights_beside_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "ONE_FILE", 10_000)
    model = visible("bert", "token-classification")
    path = exporter.export(model, RECIPES["fp32"], (16,), tmp_path / "m.onnx").path
    data = tmp_path / "m.onnx_data"
    assert sorted(tmp_path.iterdir()) == [path, data]
    session = runtime.open(path)
    inputs = batch(2, 9)
    np.testing.assert_allclose(session.run(inputs)["logits"], expected(model, inputs)["logits"], atol=1e-4)
    assert session.facts().file_bytes == path.stat().st_size + data.stat().st_size
    whole = data.read_bytes()
    data.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="cut short"):
        runtime.open(path)
    data.unlink()
    with pytest.raises(InputError, match="beside it"):
        runtime.open(path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w").write_bytes(whole)
    data.symlink_to(tmp_path / "elsewhere" / "w")
    assert runtime.open(path)  # a link that stays inside the folder is the user's own
    (tmp_path / "sub").mkdir()
    moved = path.rename(tmp_path / "sub" / "m.onnx")
    data.rename(tmp_path / "sub" / "m.onnx_data")
    with pytest.raises(InputError, match="outside its folder"):
        runtime.open(moved)


@pytest.mark.parity
def test_the_exact_mode_for_older_x86_takes_these_files(exported, monkeypatch):
    model, path = exported("bert", "masked-lm")
    monkeypatch.setattr(runtime, "_saturates", lambda: True)
    inputs = batch(1, 20)
    assert sqnr(expected(model, inputs)["logits"], runtime.open(path).run(inputs)["logits"]) > 25


def foreign(path: Path, dtype: int, location: str | None = None) -> Path:
    """A model by other hands: y = x + w."""
    helper = onnx.helper
    weight = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    if location:
        weight.ClearField("float_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    shape = ["batch", 2]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, shape)],
        [weight],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def test_a_model_from_elsewhere_gives_facts_alone(tmp_path):
    session = runtime.open(foreign(tmp_path / "f.onnx", onnx.TensorProto.FLOAT))
    facts = session.facts()
    assert (facts.ops, facts.weight_bytes, facts.lengths) == ({"Add": 1}, {"float32": 8}, (2,))
    with pytest.raises(InputError, match="takes x float32"):
        session.run(batch(1, 2))
    with pytest.raises(InputError, match="does not open in ONNX Runtime"):
        runtime.open(foreign(tmp_path / "f.onnx", onnx.TensorProto.INT32))
    for location in ("../w", "/etc/passwd"):
        with pytest.raises(InputError, match="outside its folder"):
            runtime.open(foreign(tmp_path / "f.onnx", onnx.TensorProto.FLOAT, location))


def test_refusals_come_before_any_work(tmp_path):
    model = visible("bert", "base")
    with pytest.raises(Unsupported, match="onnx does not take w3; it takes fp32, fp16, w4, w8a8-dynamic, w8a8-static"):
        exporter.check(model, Recipe("w3", 3, 32, ""))
    with pytest.raises(InputError, match="cannot be written"):
        exporter.export(model, RECIPES["fp32"], (8,), tmp_path / "none" / "m.onnx")
    assert exporter.missing() is None
    assert runtime.missing() is None


def test_a_converters_failure_is_one_line_and_a_log(tmp_path, monkeypatch, capfd):
    def fail(*args: object) -> None:
        print("chatter")
        raise ValueError("no such operator\nand a long story")

    monkeypatch.setattr(exporter, "_convert", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ConversionFailed, match=r"bert for base in fp32: .* ValueError: no such operator") as caught:
        exporter.export(visible("bert", "base"), RECIPES["fp32"], (8,), tmp_path / "m.onnx")
    (log,) = tmp_path.iterdir()
    assert str(log) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "chatter" in log.read_text()
    assert "and a long story" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_importing_them_imports_nothing_heavy():
    code = (
        "import sys, edgebert.exporters.onnx.export, edgebert.runtimes.onnx.session; "
        "print([m for m in ('onnx', 'onnxruntime', 'onnxscript', 'onnx_ir') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_trimmed_positions_are_exact():
    model = visible("convbert", "base")
    trimmed = lowering.trim_positions(model, 9)
    inputs = batch(2, 9)
    assert trimmed.encoder.embeddings.position.weight.shape == (9, 16)
    assert model.encoder.embeddings.position.weight.shape == (64, 16)
    for name, value in expected(model, inputs).items():
        np.testing.assert_array_equal(expected(trimmed, inputs)[name], value)
