"""Core ML: the package, read back from disk and evaluated, says what torch says and holds what it claims."""

import copy
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiers import quick

from edgebert import lowering
from edgebert.artifact import Artifact
from edgebert.errors import ConversionFailed, InputError, Unsupported
from edgebert.exporters.coreml import export as exporter
from edgebert.gate import golden, parity
from edgebert.models import MODELS, Model
from edgebert.models.signature import INPUTS, has_token_axis
from edgebert.quantization.recipes import RECIPES, Recipe
from edgebert.runtimes.coreml import package
from edgebert.runtimes.coreml import session as runtime
from edgebert.runtimes.session import Spec

pytestmark = pytest.mark.skipif(exporter.missing() is not None, reason=f"needs {exporter.missing()}")

LENGTHS = (8, 16)
# Together every family, every head, a tied table, a causal mask, one length and several, and every recipe.
CASES = [
    ("squeezebert", "question-answering", "fp32", LENGTHS),
    ("squeezebert", "sequence-classification", "w8a8-static", LENGTHS),
    ("convbert", "multiple-choice", "fp32", (16,)),
    ("convbert", "token-classification", "w4", LENGTHS),
    ("rembert", "causal-lm", "fp16", LENGTHS),
    ("rembert", "base", "w8", (16,)),
    ("bert", "masked-lm", "w8", LENGTHS),
    ("bert", "sequence-classification", "w8a8-static", (16,)),
]
QUICK = [CASES[i] for i in (0, 3, 4, 5, 7)]  # each recipe and family
SPEC = f"Data/{package.AUTHOR}/model.mlmodel"
WEIGHTS = f"Data/{package.AUTHOR}/weights/weight.bin"


def visible(family: str, task: str, scale: float = 0.2) -> Model:
    """A tiny model with random weights large enough for every layer to show in the output."""
    config = MODELS[family].config.tiny()
    if task == "causal-lm":
        object.__setattr__(config, "is_decoder", True)
    if "classification" in task:
        object.__setattr__(config, "labels", ("aye", "nay", "größer"))
    model = Model(MODELS[family], config, task).random_init(0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(scale * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model


def batch(tokens: int, rows: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of random ids: whole, padded, all but the first token padded, and of two types."""
    ids = np.random.default_rng(seed).integers(0, 120, (rows, tokens)).astype(np.int32)
    mask, types = np.ones_like(ids), np.zeros_like(ids)
    mask[1:2, tokens // 2 + 1 :], mask[2:3, 1:] = 0, 0
    types[3:, tokens // 2 :] = 1
    return dict(zip(INPUTS, (ids, mask, types), strict=True))


SAMPLES = [{key: value[:1] for key, value in batch(2 + n % 15, 4, seed=n).items()} for n in range(24)]


def expected(model: Model, inputs: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """What torch says of the rows padded to `length`, cut back, as a session does."""
    tokens = inputs["input_ids"].shape[1]
    padded = [torch.from_numpy(np.pad(inputs[name], ((0, 0), (0, length - tokens)))) for name in INPUTS]
    with torch.no_grad():
        out = {name: value.numpy() for name, value in model(*padded).items()}
    return {name: value[:, :tokens] if has_token_axis(name, value.ndim) else value for name, value in out.items()}


def sqnr(reference: np.ndarray, value: np.ndarray) -> float:
    """Signal to error, dB."""
    return float(10 * np.log10(np.sum(reference**2) / np.sum((reference - value) ** 2)))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


Exported = Callable[..., tuple[Model, Artifact]]


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Export a case once for all tests that ask for it."""
    folder, made = tmp_path_factory.mktemp("coreml"), {}

    def get(family: str, task: str, recipe: str, lengths: tuple[int, ...]) -> tuple[Model, Artifact]:
        key = f"{family}-{task}-{recipe}-{len(lengths)}"
        if key not in made:
            model = visible(family, task)
            path = folder / f"{key}.mlpackage"
            made[key] = model, exporter.export(model, RECIPES[recipe], lengths, path, samples=SAMPLES)
        return made[key]

    return get


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task", "recipe", "lengths"), quick(CASES, QUICK))
def test_says_what_torch_says(
    exported: Exported, family: str, task: str, recipe: str, lengths: tuple[int, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    model, artifact = exported(family, task, recipe, lengths)
    session = runtime.open(artifact.path)
    worst = np.inf
    for tokens in (16, 11, 8, 3, 1):
        inputs, length = batch(tokens), next(n for n in lengths if n >= tokens)
        want, got = expected(model, inputs, length), session.run(inputs)
        assert got.keys() == want.keys()
        for name, value in want.items():
            assert got[name].dtype == np.float32
            assert got[name].shape == value.shape
            worst = min(worst, sqnr(value, got[name]))
    assert capfd.readouterr() == ("", "")
    assert worst >= parity.TOLERANCES["coreml", recipe].min_sqnr_db
    with pytest.raises(InputError, match="at most 16"):
        session.run(batch(17))
    for wrong in (-1, 120):
        with pytest.raises(InputError, match="table of 120 rows"):
            session.run(batch(8) | {"input_ids": np.full((4, 8), wrong, np.int32)})
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.run(batch(8))


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task", "recipe", "lengths"), quick(CASES, QUICK))
def test_holds_what_it_claims(
    exported: Exported, family: str, task: str, recipe: str, lengths: tuple[int, ...]
) -> None:
    model, artifact = exported(family, task, recipe, lengths)
    facts = runtime.open(artifact.path).facts()
    assert artifact.lengths == facts.lengths == lengths
    assert facts.inputs == tuple(Spec(name, "int32", (1, 16)) for name in INPUTS)
    assert {spec.dtype for spec in facts.outputs} == {"float32"}
    assert len({weight.name for weight in facts.weights}) == len(facts.weights)
    # What the export says of each parameter is what stands in the file, to the byte; a causal mask's places are none.
    named = dict(model.named_parameters())
    assert artifact.weights.keys() <= named.keys()
    assert all(name in artifact.weights for name, parameter in named.items() if parameter.dim() > 1)
    said = sum(stored.bytes for stored in artifact.weights.values())
    assert facts.weight_bytes.keys() == {stored.dtype for stored in artifact.weights.values()}
    assert 0 <= sum(facts.weight_bytes.values()) - said <= 64
    kinds = {artifact.weights[name].dtype for name, p in named.items() if p.dim() > 1 and "span_key.bias" not in name}
    wanted = {"fp32": {"float32"}, "fp16": {"float16"}, "w4": {"int4", "int8"}}
    assert kinds == wanted.get(recipe, {"int8"})
    layers = facts.ops["conv"] + facts.ops.get("linear", 0)
    assert facts.ops.get("dequantize", 0) == facts.ops.get("quantize", 0)
    assert bool(facts.ops.get("quantize")) == (recipe == "w8a8-static")
    assert facts.ops.get("quantize", 0) <= layers  # query, key and value share one
    assert facts.metadata["edgebert.family"] == family
    assert facts.metadata["edgebert.task"] == task
    assert facts.metadata["edgebert.recipe"] == recipe
    assert json.loads(facts.metadata["edgebert.lengths"]) == list(lengths)
    assert json.loads(facts.metadata["edgebert.labels"]) == (
        ["aye", "nay", "größer"] if "classification" in task else []
    )
    assert set(json.loads(facts.metadata["edgebert.units"])) == {s.name for s in (*facts.inputs, *facts.outputs)}
    spec = package.read(artifact.path).spec
    assert spec.specificationVersion == (9 if len(lengths) > 1 or recipe == "w4" else 8)  # iOS 18, iOS 17
    assert all(feature.shortDescription for feature in (*spec.description.input, *spec.description.output))


@pytest.mark.parity
@pytest.mark.parametrize("family", quick(MODELS, ["convbert"]))
def test_fp16_is_within_two_thousandths_of_torch(family: str, tmp_path: Path) -> None:
    model = visible(family, "sequence-classification", scale=0.1)
    artifact = exporter.export(model, RECIPES["fp16"], (16,), tmp_path / "m.mlpackage")
    inputs = batch(16, rows=12)
    want, got = expected(model, inputs, 16)["logits"], runtime.open(artifact.path).run(inputs)["logits"]
    assert np.abs(want - got).max() <= 2e-3
    # Far above the error that is allowed: 0.2 until ELECTRA came, whose tiny model reaches 0.167.
    assert np.abs(want).max() > 0.1


def gated(model: Model, path: Path, recipe: str) -> parity.Report:
    """The gate's report on a package."""
    session = runtime.open(path)
    answers = golden.make(model, None, LENGTHS)
    return parity.gate(answers, session.run, parity.TOLERANCES["coreml", recipe], model.family.padding_invariant, 120)


@pytest.mark.parity
@pytest.mark.parametrize("recipe", ["w8", "w4", "w8a8-static"])
def test_keep_float_leaves_weights_and_arithmetic(tmp_path: Path, recipe: str) -> None:
    model = visible("squeezebert", "masked-lm")  # its decoder is the word table
    patterns = ("encoder.layers.0", "encoder.embeddings.word", "*.1.attention.query")
    artifact = exporter.export(model, RECIPES[recipe], (16,), tmp_path / "m.mlpackage", patterns, SAMPLES)
    kept = {name for name, stored in artifact.weights.items() if stored.dtype == "float16" and name.endswith("weight")}
    parts = ("attention.query", "attention.key", "attention.value", "out", "up", "down", "attention_norm", "norm")
    assert kept >= {f"encoder.layers.0.{part}.weight" for part in parts}
    assert {"encoder.embeddings.word.weight", "encoder.layers.1.attention.query.weight"} <= kept
    assert artifact.weights["encoder.layers.1.attention.key.weight"].dtype == ("int4" if recipe == "w4" else "int8")
    ops = runtime.open(artifact.path).facts().ops
    if recipe == "w8a8-static":
        assert ops["quantize"] == 5  # of layer 1: key and value's, out's, up's and down's; and the head's dense layer
    assert gated(model, artifact.path, recipe).outputs["logits"].sqnr_db > 14


@pytest.mark.parity
def test_samples_make_better_4_bits_and_one_model_one_package(tmp_path: Path) -> None:
    model, found = visible("squeezebert", "base"), {}
    before = copy.deepcopy(model.state_dict())
    for name, samples in (("with", SAMPLES), ("again", SAMPLES), ("without", ())):
        path = tmp_path / f"{name}.mlpackage"
        exporter.export(model, RECIPES["w4"], (16,), path, samples=samples)
        inputs = batch(16, rows=12, seed=99)
        found[name] = sqnr(
            expected(model, inputs, 16)["pooler_output"], runtime.open(path).run(inputs)["pooler_output"]
        )
    assert found["with"] > found["without"] > 10
    for file in (SPEC, WEIGHTS, "Manifest.json"):
        assert (tmp_path / "with.mlpackage" / file).read_bytes() == (tmp_path / "again.mlpackage" / file).read_bytes()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def edited(source: Path, target: Path, change: Callable[[Any, bytearray], None]) -> Path:
    """A copy with its program and weights changed, and sealed again: a converter's mistake, not a broken file."""
    shutil.copytree(source, target)
    spec = package.read(source).spec
    weights = bytearray((target / WEIGHTS).read_bytes())
    change(spec, weights)
    spec.description.metadata.userDefined[package.SEAL] = package.BLANK.decode()
    (target / SPEC).write_bytes(spec.SerializeToString())
    (target / WEIGHTS).write_bytes(weights)
    package.seal(target)
    return target


def operations(spec: Any, kind: str) -> list[Any]:
    function = spec.mlProgram.functions["main"]
    return [op for op in function.block_specializations[function.opset].operations if op.type == kind]


def matrix(spec: Any, weights: bytearray, name: str) -> np.ndarray:
    """A float16 constant of a weight file, to write to."""
    (op,) = [op for op in operations(spec, "const") if op.outputs[0].name == name]
    entry = op.attributes["val"].blobFileValue.offset
    _, _, size, start, _ = package.ENTRY.unpack_from(weights, entry)
    shape = [d.constant.size for d in op.outputs[0].type.tensorType.dimensions]
    return np.frombuffer(memoryview(weights)[start : start + size], np.float16).reshape(shape)


def negate(spec: Any, weights: bytearray) -> None:
    values = matrix(spec, weights, "encoder_layers_1_down_weight")
    values[:] = -values


def turn(spec: Any, weights: bytearray) -> None:
    values = matrix(spec, weights, "encoder_layers_0_out_weight")
    values[:] = values.transpose(1, 0, 2, 3).copy()


def exchange(spec: Any, weights: bytearray) -> None:
    gelu = operations(spec, "gelu")[0]
    gelu.type = "relu"
    del gelu.inputs["mode"]


def unturned(spec: Any, weights: bytearray) -> None:
    # Keys and queries exchanged in one product: scores transposed.
    product = operations(spec, "matmul")[0]
    x = product.inputs["x"].arguments[0].name
    product.inputs["x"].arguments[0].name = product.inputs["y"].arguments[0].name
    product.inputs["y"].arguments[0].name = x


@pytest.mark.parity
@pytest.mark.parametrize("wrong", [negate, turn, exchange, unturned])
def test_the_gate_catches_a_wrong_weight_operator_or_layout(exported: Exported, tmp_path: Path, wrong: Any) -> None:
    model, artifact = exported("squeezebert", "base", "fp16", LENGTHS)
    assert gated(model, artifact.path, "fp16").passed
    report = gated(model, edited(artifact.path, tmp_path / "m.mlpackage", wrong), "fp16")
    assert "equals torch" in {check.name for check in report.checks if not check.passed}


@pytest.mark.parity
def test_a_layout_that_does_not_fit_is_refused(exported: Exported, tmp_path: Path) -> None:
    def change(spec: Any, weights: bytearray) -> None:
        product = operations(spec, "matmul")[0]
        product.inputs["transpose_y"].CopyFrom(product.inputs["transpose_x"])

    path = edited(exported("squeezebert", "base", "fp16", LENGTHS)[1].path, tmp_path / "m.mlpackage", change)
    with pytest.raises(InputError, match="matmul"):
        runtime.open(path).run(batch(16))


@pytest.mark.parity
def test_no_damage_answers(exported: Exported, tmp_path: Path) -> None:
    _, artifact = exported("bert", "masked-lm", "w8", LENGTHS)
    chance, path = random.Random(0), tmp_path / "m.mlpackage"
    for n in range(240):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(artifact.path, path)
        file = path / (SPEC, WEIGHTS, "Manifest.json")[n % 3]
        data = bytearray(file.read_bytes())
        place = chance.randrange(len(data))
        if n % 4 == 3:
            data = data[:place]
        else:
            data[place] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        with pytest.raises(InputError):
            runtime.open(path).run(batch(8))
    for file in (SPEC, WEIGHTS, "Manifest.json"):
        shutil.rmtree(path)
        shutil.copytree(artifact.path, path)
        (path / file).unlink()
        with pytest.raises(InputError):
            runtime.open(path)


@pytest.mark.parity
def test_damage_without_a_seal_neither_crashes_nor_takes_memory(exported: Exported, tmp_path: Path) -> None:
    """Another tool's package has no seal: its damage may change the answer, and nothing else."""
    plain, path = tmp_path / "plain.mlpackage", tmp_path / "m.mlpackage"
    shutil.copytree(exported("bert", "masked-lm", "w8", LENGTHS)[1].path, plain)
    spec = package.read(plain).spec
    spec.description.ClearField("metadata")
    (plain / SPEC).write_bytes(spec.SerializeToString())
    assert runtime.open(plain).run(batch(8))["logits"].shape == (4, 8, 120)
    chance, refused = random.Random(1), 0
    data = (plain / SPEC).read_bytes()
    shutil.copytree(plain, path)
    for _ in range(150):
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        (path / SPEC).write_bytes(changed)
        try:
            runtime.open(path).run({key: value[:1] for key, value in batch(8).items()})
        except InputError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("family", list(MODELS))
def test_lowering_is_exact_and_keeps_names(family: str) -> None:
    for task in MODELS[family].heads:
        model = visible(family, task)
        before = copy.deepcopy(model)
        lowered = lowering.channels_before_tokens(model, 16)
        assert dict(lowered.named_parameters()).keys() == dict(model.named_parameters()).keys()
        inputs = [torch.from_numpy(value[1:2]) for value in batch(11).values()]
        with torch.no_grad():
            for name, value in lowered(*inputs).items():
                assert (value - before(*inputs)[name]).abs().max() < 5e-6
        assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_refuses_before_any_work(tmp_path: Path) -> None:
    model, path = visible("bert", "base"), tmp_path / "m.mlpackage"
    with pytest.raises(Unsupported, match="coreml does not take w2; it takes fp32, fp16"):
        exporter.check(model, Recipe("w2", 2, 32, ""))
    with pytest.raises(InputError, match="--calibration"):
        exporter.export(model, RECIPES["w8a8-static"], (8,), path)
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds no Manifest\.json"):
        exporter.export(model, RECIPES["fp32"], (8,), path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parity
def test_a_converter_failure_is_one_line_with_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = visible("bert", "base")
    model.encoder.layers[0].act = lambda x: torch.linalg.eigvals(x[..., :4]).abs().sum() + x  # has no converter
    with pytest.raises(ConversionFailed, match="conversion failed") as error:
        exporter.export(model, RECIPES["fp32"], (8,), tmp_path / "m.mlpackage")
    (log,) = tmp_path.glob("*.log")
    assert "\n" not in str(error.value)
    assert str(log) in str(error.value)
    assert "Traceback" in log.read_text()
    assert not list(tmp_path.glob("*.mlpackage*"))
