"""TFLite: the file, read back from disk by its own runtime, says what torch says and holds what it claims."""

import contextlib
import copy
import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import shared
from tiers import quick
from tiny import batch, sqnr, visible
from tiny import expected_at as expected
from torch.nn import functional as F

from edgebert import lowering
from edgebert.artifact import Artifact
from edgebert.errors import ConversionFailed, InputError, Unsupported
from edgebert.exporters.tflite import export as exporter
from edgebert.exporters.tflite.weights import WEIGHTED
from edgebert.models import MODELS, Model
from edgebert.models.signature import INPUTS
from edgebert.quantization.recipes import RECIPES, Recipe
from edgebert.runtimes.session import Spec
from edgebert.runtimes.tflite import session as runtime
from edgebert.runtimes.tflite.layout import SEAL

pytestmark = pytest.mark.skipif(exporter.missing() is not None, reason=f"needs {exporter.missing()}")

LENGTHS = (8, 16)
# Together they hold every head, a pooled and an unpooled base model's parts, a tied decoder and a causal mask.
CASES = [
    ("squeezebert", "base"),
    ("squeezebert", "question-answering"),
    ("convbert", "multiple-choice"),
    ("convbert", "sequence-classification"),
    ("rembert", "causal-lm"),
    ("rembert", "token-classification"),
    ("bert", "masked-lm"),
]
# No matrices: a table that is cut to the longest length, and biases of shape (width, 1).
FEWER = ("encoder.embeddings.position.weight", *(f"encoder.layers.{i}.attention.span_key.bias" for i in range(2)))
QUANTIZED = [CASES[1], CASES[3], CASES[4], CASES[6]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str, str], tuple[Model, Artifact]]:
    """Export a case once for all tests that ask for it."""

    def get(family: str, task: str, recipe: str) -> tuple[Model, Artifact]:
        model = visible(family, task)

        def make(folder: Path) -> Artifact:
            return exporter.export(model, RECIPES[recipe], LENGTHS, folder / "model.tflite")

        return model, shared(tmp_path_factory, f"tflite-{family}-{task}-{recipe}", make)

    return get


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize(("family", "task"), CASES)
def test_fp32_says_what_torch_says(exported, family: str, task: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    model, artifact = exported(family, task, "fp32")
    session = runtime.open(artifact.path)
    assert artifact.lengths == LENGTHS
    assert not artifact.dynamic
    worst = 0.0
    for tokens, length in ((16, 16), (11, 16), (8, 8), (3, 8), (1, 8)):
        inputs = batch(tokens)
        want, got = expected(model, inputs, length), session.run(inputs)
        assert got.keys() == want.keys()
        for name, value in want.items():
            assert got[name].dtype == np.float32
            assert got[name].shape == value.shape
            worst = max(worst, float(np.abs(got[name] - value).max()))
    # A table tied to the decoder too, and the second length's weights, stand in the file once.
    assert session.facts().weight_bytes["float32"] <= 4 * sum(p.numel() for p in model.parameters())
    session.close()
    said = "".join(capfd.readouterr())
    print(f"max abs {worst:.1e}")
    assert worst < 1e-4  # 8e-7 to 4e-6 seen
    assert "LiteRT" not in said, "the converter talked to the terminal"
    assert "XNNPACK" not in said


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task"), quick(QUANTIZED, (QUANTIZED[3],)))
def test_w8a8_is_int8_and_close(exported, family: str, task: str) -> None:
    model, artifact = exported(family, task, "w8a8-dynamic")
    session = runtime.open(artifact.path)
    noise = []
    for tokens, length in ((16, 16), (7, 8)):
        inputs = batch(tokens)
        want, got = expected(model, inputs, length), session.run(inputs)
        noise += [sqnr(want[name], got[name]) for name in want]
    print(f"SQNR {min(noise):.1f} dB")
    assert min(noise) > 20  # 33 to 40 seen

    stored = constants(artifact.path)
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() > 1 and name not in FEWER)
    matrices += model.encoder.embeddings.position.weight[: LENGTHS[-1]].numel()
    assert sum(stored["INT8"].values()) == matrices, "every matrix is int8, once"
    assert max(stored["FLOAT32"].values()) <= 4 * 2 * LENGTHS[-1] ** 2, "floats are vectors, and a causal mask a length"
    facts = session.facts()
    summed = sum(stored.bytes for stored in artifact.weights.values() if stored.dtype == "int8")
    assert facts.weight_bytes["int8"] == summed > matrices, "scales are counted"
    kinds = {op for op in facts.ops if op in WEIGHTED}
    depthwise = {"DEPTHWISE_CONV_2D"} if family == "convbert" else set()
    # Linear layers are convolutions, whose results may be in half precision, and which older runtimes compute right.
    assert kinds - {"BATCH_MATMUL"} == {"CONV_2D"} | depthwise
    session.close()


@pytest.mark.parity
def test_one_projection_makes_queries_keys_and_values(exported) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model, artifact = exported("bert", "masked-lm", "w8a8-dynamic")
    file = schema.ModelT.InitFromPackedBuf(artifact.path.read_bytes(), 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    codes = [names[code.builtinCode] for code in file.operatorCodes]
    for length, graph in zip(reversed(LENGTHS), file.subgraphs, strict=True):
        found = Counter(codes[operator.opcodeIndex] for operator in graph.operators)
        layers = model.config.num_hidden_layers
        assert found["CONV_2D"] == 4 * layers + 2, "the projection, its output, and a feed-forward; the head's two"
        assert found["TRANSPOSE"] == 2 * layers, "heads apart, and together; keys are turned while they are packed"
        turned = [bool(op.builtinOptions.adjY) for op in graph.operators if codes[op.opcodeIndex] == "BATCH_MATMUL"]
        assert turned == [True, False] * layers
        shorter = length < LENGTHS[-1]  # takes the first of the longest one's positions
        assert found["SLICE"] == 3 * layers + shorter
    shares = {artifact.weights[f"encoder.layers.0.attention.{name}.weight"].bytes for name in ("query", "key", "value")}
    assert shares == {32 * 32 + 4 * 32}, "a third of the one's each"


def constants(path: Path) -> dict[str, Counter]:
    """Type to buffer number to bytes, of every constant that a weighted operator or an addition reads."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    types = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    found: dict[str, Counter] = {"INT8": Counter(), "FLOAT32": Counter()}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and types[tensor.type] in found:
                found[types[tensor.type]][tensor.buffer] = len(data)
                if types[tensor.type] == "INT8":
                    scales, name = len(tensor.quantization.scale), tensor.name.decode()
                    looked_up = any(other.name == f"{name}/scales".encode() for other in graph.tensors)
                    assert scales in tensor.shape or (looked_up and scales == 1), "a scale a channel or row"
    return found


@pytest.mark.parity
def test_facts_tell_what_stands_in_the_file(exported) -> None:
    session = runtime.open(exported("squeezebert", "question-answering", "fp32")[1].path)
    facts = session.facts()
    assert facts.runtime.startswith("ai-edge-litert 2.")
    assert facts.inputs == tuple(Spec(name, "int32", (1, 16)) for name in INPUTS)
    assert {spec.name for spec in facts.outputs} == {"start_logits", "end_logits"}
    assert {(spec.dtype, spec.shape) for spec in facts.outputs} == {("float32", (1, 16))}
    assert facts.lengths == LENGTHS
    assert facts.nodes == sum(facts.ops.values())
    # Left to the interpreter: two lookups, the reshapes of their ids, and the cast of the mask.
    assert facts.delegation is not None
    assert facts.delegation.taken == facts.nodes - 5
    assert facts.delegation.rest == {"RESHAPE": 2, "EMBEDDING_LOOKUP": 2, "CAST": 1}
    # Four transposes a layer, of the heads; the model as written has seventeen.
    assert facts.ops["TRANSPOSE"] == 8
    session.close()


@pytest.mark.slow
@pytest.mark.parity
def test_a_second_length_shares_the_weights(tmp_path: Path) -> None:
    wide = visible("squeezebert", "question-answering", vocab_size=20_000)
    one = exporter.export(wide, RECIPES["w8a8-dynamic"], (16,), tmp_path / "one.tflite")
    two = exporter.export(wide, RECIPES["w8a8-dynamic"], LENGTHS, tmp_path / "two.tflite")
    weights = runtime.open(one.path).facts().weight_bytes
    # Constants of a length are its shapes; a table of scales for 20,000 rows would be 240,000 bytes more.
    assert runtime.open(two.path).facts().weight_bytes["int8"] == weights["int8"]
    assert two.path.stat().st_size - one.path.stat().st_size < 60_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.tflite", "two.tflite"]


@pytest.mark.parity
def test_bad_files_and_inputs_are_refused_in_one_line(exported, tmp_path: Path) -> None:
    _, artifact = exported("bert", "masked-lm", "w8a8-dynamic")
    content = artifact.path.read_bytes()
    bad = tmp_path / "bad.tflite"
    for cut in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        bad.write_bytes(content[:cut])
        with pytest.raises(InputError, match=r"not a \.tflite file|damaged") as error:
            runtime.open(bad)
        assert "\n" not in str(error.value)
    generator = random.Random(0)
    sealed = content.index(SEAL.mark)
    anywhere = (generator.randrange(len(content)) for _ in range(60))
    for place in (*anywhere, *range(sealed, sealed + len(SEAL.blank))):
        flipped = bytearray(content)
        flipped[place] ^= 1 << generator.randrange(8)
        bad.write_bytes(flipped)
        with pytest.raises(InputError, match=r"damaged|not a \.tflite file"):
            runtime.open(bad)

    session = runtime.open(artifact.path)
    with pytest.raises(InputError, match=r"LiteRT refused the input: .*out of bounds"):
        session.run({**batch(8), "input_ids": np.full((4, 8), 120, np.int32)})
    with pytest.raises(InputError, match="17 tokens"):
        session.run(batch(17))
    assert session.run(batch(8))["logits"].shape == (4, 8, 120), "a refused input leaves the session usable"


@pytest.mark.parity
@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="needs Linux, which tells what a process maps")
def test_the_file_is_mapped_and_not_copied(exported) -> None:
    path = exported("bert", "masked-lm", "w8a8-dynamic")[1].path.resolve()
    session = runtime.open(path)
    session.run(batch(8))
    assert f"{path}\n" in Path("/proc/self/maps").read_text()
    session.close()


def test_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match="cannot be read"):
        runtime.open(path)
    path.write_bytes(b"\x08\x07\x12\x07pytorch")
    with pytest.raises(InputError, match=r"not a \.tflite file"):
        runtime.open(path)
    path.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(100))
    with pytest.raises(InputError, match="damaged"):
        runtime.open(path)


@pytest.mark.parity
def test_a_foreign_file_is_told_of_but_not_run(tmp_path: Path) -> None:
    import litert_torch

    path = tmp_path / "foreign.tflite"
    with contextlib.redirect_stdout(io.StringIO()):
        litert_torch.convert(torch.nn.Linear(4, 3).eval(), (torch.zeros(2, 4),)).export(str(path))
    session = runtime.open(path)
    facts = session.facts()
    assert facts.lengths == ()
    assert facts.inputs[0].shape == (2, 4)
    assert facts.weight_bytes == {"float32": 4 * (12 + 3)}
    assert facts.delegation is not None
    assert (facts.nodes, facts.delegation.taken, facts.delegation.macs) == (1, 1, 2 * 4 * 3)
    with pytest.raises(InputError, match=r"takes args_0 float32 .* only a file with input_ids"):
        session.run(batch(2))


@pytest.mark.parametrize("family", list(MODELS))
def test_lowering_is_exact_and_leaves_the_original(family: str) -> None:
    model = visible(family, "masked-lm" if family == "bert" else "token-classification")
    before = copy.deepcopy(model)
    inputs = [torch.from_numpy(value) for value in batch(11).values()]
    for form in (lowering.GroupedPointwise, lowering.SlicedLinears, lowering.TokenBlocks):
        lowered = lowering.tokens_before_channels(model, form)
        lowered = lowering.split_grouped_linears(lowering.separate_convolutions(lowered), form)
        lowered = lowering.trim_positions(lowering.fold_norm_biases(lowered), 16)
        if form is lowering.TokenBlocks:
            lowered = lowering.norms_in_half(lowering.linears_in_blocks(lowered), {})
            assert not any(type(module) is torch.nn.Linear for module in lowered.encoder.modules())
            lowered = lowering.fuse_qkv(lowering.scale_keys(lowered), form)
        with torch.no_grad():
            for name, value in lowered(*inputs).items():
                assert (value - before(*inputs)[name]).abs().max() < 5e-6
        changed = {"squeezebert": "SqueezeBertEncoder", "convbert": "GroupedLinear"}.get(family)
        assert changed is None or changed in {type(module).__name__ for module in model.modules()}
        assert changed not in {type(module).__name__ for module in lowered.modules()}
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize("tokens", [1, 6, 8])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_linear_layer_over_blocks_of_tokens_is_the_same(tokens: int, groups: int) -> None:
    weight, bias = torch.randn(6, 8 // groups), torch.randn(6)
    x = torch.randn(2, tokens, 8)
    parts = zip(x.chunk(groups, -1), weight.chunk(groups), bias.chunk(groups), strict=True)
    want = torch.cat([part @ w.T + b for part, w, b in parts], -1)
    assert (lowering.TokenBlocks(weight, bias, groups)(x) - want).abs().max() < 1e-5


# MobileBERT's norms square nothing.
@pytest.mark.parametrize("family", [name for name in MODELS if name != "mobilebert"])
def test_norms_square_what_half_precision_holds(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = visible(family, "token-classification")
    with torch.no_grad():
        for table in (model.encoder.embeddings.word, getattr(model.encoder.embeddings, "position", None)):
            if table is not None:
                table.weight.mul_(0.05)
        for layer in model.encoder.layers:  # both of a layer's sums, as outliers make them
            (layer.out if family == "squeezebert" else layer.attention.out).weight.mul_(1000)
            layer.down.weight.mul_(1000)
    inputs = [torch.from_numpy(value) for value in batch(8).values()]
    seen: list[torch.Tensor] = []
    plain = F.layer_norm

    def watched(x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(x.var(-1, correction=0))
        return plain(x, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "layer_norm", watched)
    given = lowering.separate_convolutions(lowering.tokens_before_channels(model))
    given = lowering.split_grouped_linears(given)
    variances = {}
    # ModernBERT's stream grows from layer to layer: its factors must be found.
    texts = [{name: rows[:1] for name, rows in batch(8).items()}] if family == "modernbert" else []
    factors = lowering.find_factors(given, texts) if texts else {}
    for name, lowered in (("before", given), ("after", lowering.norms_in_half(given, factors))):
        seen.clear()
        with torch.no_grad():
            got = lowered(*inputs)["logits"]
            variances[name] = torch.cat([variance.flatten() for variance in seen])
            assert (got - model(*inputs)["logits"]).abs().max() < 1e-4
    assert variances["before"].max() > 65504 > variances["after"].max()
    assert variances["after"].min() > 2**-14


def test_check_refuses_before_any_work() -> None:
    with torch.device("meta"):
        rembert = Model(MODELS["rembert"], MODELS["rembert"].presets["rembert-base"], "sequence-classification")
    with pytest.raises(Unsupported, match=r"2\.3. GB.*ends at 2\.15 GB.*choose fp16 or w8 or w8a8-dynamic"):
        exporter.check(rembert, RECIPES["fp32"])
    exporter.check(rembert, RECIPES["w8a8-dynamic"])
    with pytest.raises(Unsupported, match="tflite does not take w2; it takes fp32, fp16, w8, w8a8-dynamic"):
        exporter.check(visible("bert", "base"), Recipe("w2", 2, 32, ""))


@pytest.mark.parity
def test_a_converter_failure_is_one_line_with_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = visible("bert", "base")
    # An operator with no lowering.
    model.encoder.layers[0].act = lambda x: torch.linalg.eigvals(x[..., :4, :4]).abs().sum() + x
    path = tmp_path / "m.tflite"
    path.write_bytes(b"before")
    with pytest.raises(ConversionFailed, match="bert for base in fp32: conversion failed with") as error:
        exporter.export(model, RECIPES["fp32"], (8,), path)
    message = str(error.value)
    (log,) = tmp_path.glob("*.log")
    assert "\n" not in message
    assert str(log) in message
    assert "Traceback" in log.read_text()
    assert path.read_bytes() == b"before"
    assert not list(tmp_path.glob("*.part"))
