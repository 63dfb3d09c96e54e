"""Core ML: the package, read back from disk and evaluated op by op, says what torch says and holds what it claims."""

import copy
import json
import random
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_tflite import CASES, FEWER, QUANTIZED, batch, expected, sqnr, visible

from edgebert.artifact import Artifact
from edgebert.errors import ConversionFailed, EdgebertError, InputError, Unsupported
from edgebert.exporters import coreml as exporter
from edgebert.models import MODELS, Model
from edgebert.recipes import RECIPES, Recipe
from edgebert.runtimes import coreml as runtime
from edgebert.runtimes.session import INPUTS, Spec

pytestmark = pytest.mark.skipif(exporter.missing() is not None, reason=f"needs {exporter.missing()}")

LENGTHS = (8, 16)


def smooth(family: str, task: str, **changes: object) -> Model:
    """A tiny model whose every layer shows in outputs of about size 1, where fp16 has its usual four digits."""
    model = visible(family, task, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(0.5)
    return model


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Model, Artifact]]:
    """Export a case once for all tests that ask for it."""
    folder, made = tmp_path_factory.mktemp("coreml"), {}

    def get(family: str, task: str, recipe: str, lengths: tuple[int, ...] = LENGTHS) -> tuple[Model, Artifact]:
        key = f"{family}-{task}-{recipe}-{len(lengths)}"
        if key not in made:
            model, start = smooth(family, task), time.perf_counter()
            made[key] = model, exporter.export(model, RECIPES[recipe], lengths, folder / f"{key}.mlpackage")
            print(f"{key}: {time.perf_counter() - start:.1f} s")
        return made[key]

    return get


def compare(model: Model, session: Any, tokens: int, length: int) -> tuple[float, float]:
    """The largest error, relative to outputs where they are above 1, and the lowest SQNR in dB."""
    inputs = batch(tokens)
    want, got = expected(model, inputs, length), session.run(inputs)
    assert got.keys() == want.keys()
    assert all(got[name].dtype == np.float32 and got[name].shape == want[name].shape for name in want)
    worst = max(float(np.abs(got[name] - want[name]).max() / max(1.0, np.abs(want[name]).max())) for name in want)
    return worst, min(sqnr(want[name], got[name]) for name in want)


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task"), CASES)
def test_fp32_says_what_torch_says(exported, family: str, task: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    model, artifact = exported(family, task, "fp32")
    session = runtime.open(artifact.path)
    assert artifact.lengths == LENGTHS
    worst = max(compare(model, session, t, n)[0] for t, n in ((16, 16), (11, 16), (8, 8), (3, 8), (1, 8)))
    # A table tied to the decoder too stands in the file once.
    assert session.facts().weight_bytes["float32"] <= 4 * sum(p.numel() for p in model.parameters())
    session.close()
    said = "".join(capfd.readouterr())
    print(f"max abs {worst:.1e}")
    assert worst < 1e-4  # 3e-7 to 3e-6 seen
    assert "onver" not in said.replace("convbert", ""), "the converter talked to the terminal"


@pytest.mark.parity
@pytest.mark.parametrize(("family", "task"), CASES)
def test_fp16_is_within_2e3_of_torch(exported, family: str, task: str) -> None:
    model, artifact = exported(family, task, "fp16")
    session = runtime.open(artifact.path)
    figures = [compare(model, session, t, n) for t, n in ((16, 16), (11, 16), (7, 8))]
    print(f"max {max(f[0] for f in figures):.1e} of the output, {min(f[1] for f in figures):.1f} dB")
    assert max(f[0] for f in figures) < 2e-3
    assert set(session.facts().weight_bytes) == {"float16"}


@pytest.mark.parity
@pytest.mark.parametrize(("recipe", "dtype", "least"), [("w8", "int8", 30), ("w4", "uint4", 10)])
@pytest.mark.parametrize(("family", "task"), QUANTIZED)
def test_weights_are_integers_and_close(exported, family: str, task: str, recipe: str, dtype: str, least: int) -> None:
    model, artifact = exported(family, task, recipe)
    session = runtime.open(artifact.path)
    noise = min(compare(model, session, t, n)[1] for t, n in ((16, 16), (7, 8)))
    print(f"SQNR {noise:.1f} dB")
    assert noise > least  # w8 38 to 48 seen, w4 14 to 24
    matrices = sum(p.numel() for name, p in model.named_parameters() if p.dim() > 1 and name not in FEWER)
    matrices += model.encoder.embeddings.position.weight[: LENGTHS[-1]].numel()
    assert session.facts().weight_bytes[dtype] == matrices * RECIPES[recipe].weight_bits // 8, "every matrix, once"
    unpacked = {op.outputs[0][0] for op in session._package.program.operations if op.kind.startswith("constexpr_")}
    for op in session._package.program.operations:
        if op.kind in exporter.WEIGHTED and op.outputs[0][1].dtype == "fp16":
            assert op.inputs[exporter.WEIGHTED[op.kind]][0] in unpacked


@pytest.mark.parity
@pytest.mark.parametrize("recipe", ["fp16", "w8", "w4"])
def test_one_length_runs_from_ios_17(exported, recipe: str) -> None:
    model, artifact = exported("rembert", "causal-lm", recipe, (16,))
    session = runtime.open(artifact.path)
    assert session._package.model.specificationVersion == 8
    assert session._package.program.opset == "CoreML7"
    assert session.facts().lengths == (16,)
    noise = compare(model, session, 11, 16)[1]
    print(f"SQNR {noise:.1f} dB")
    assert noise > {"fp16": 50, "w8": 30, "w4": 10}[recipe]


@pytest.mark.parity
def test_facts_and_metadata_tell_what_stands_in_the_file(exported) -> None:
    model, artifact = exported("rembert", "token-classification", "fp16")
    session = runtime.open(artifact.path)
    facts = session.facts()
    assert facts.runtime.startswith("coremltools 9")
    assert facts.inputs == tuple(Spec(name, "int32", (1, 16)) for name in INPUTS)
    assert facts.outputs == (Spec("logits", "float32", (1, 16, 2)),)
    assert facts.lengths == LENGTHS
    assert facts.nodes == sum(facts.ops.values())
    assert facts.file_bytes == sum(file.stat().st_size for file in artifact.path.rglob("*") if file.is_file())
    description = session._package.model.description
    assert json.loads(description.metadata.userDefined["edgebert.labels"]) == list(model.config.labels)
    assert all(feature.shortDescription for feature in (*description.input, *description.output))
    # Every linear layer is a convolution over (B, C, 1, T); no layer turns its tensors around.
    assert facts.ops["conv"] == 6 * 2 + 2
    assert "linear" not in facts.ops
    shapes = [op.outputs[0][1].shape for op in session._package.program.operations if op.kind == "conv"]
    assert {(shape[0], shape[2]) for shape in shapes} == {(1, 1)}
    assert facts.ops["transpose"] == 4  # in and out of the projection, and of the layers


@pytest.mark.parity
def test_a_second_length_shares_the_weights(exported) -> None:
    one, two = (runtime.open(exported("rembert", "causal-lm", "fp16", n)[1].path).facts() for n in ((16,), LENGTHS))
    # The position rows and the causal mask of one length are constants; with two they are cut and made when run.
    assert abs(two.weight_bytes["float16"] - one.weight_bytes["float16"]) <= 2 * 16 * 16
    assert abs(two.file_bytes - one.file_bytes) < 20_000


def edited(path: Path, folder: Path, change: Callable[[Any, bytearray], None], sealed: bool = False) -> Path:
    """A copy of a package with its model and weights changed; without a seal it passes as another tool's."""
    target = folder / "edited.mlpackage"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(path, target)
    package = runtime.Package(target)
    weights = target / "Data/com.apple.CoreML/weights/weight.bin"
    content = bytearray(weights.read_bytes())
    change(package.model, content)
    if not sealed:
        package.model.description.metadata.userDefined.clear()
    package.model_file.write_bytes(package.model.SerializeToString())
    weights.write_bytes(content)
    return target


def operations(model: Any, kind: str) -> list[Any]:
    function = model.mlProgram.functions["main"]
    return [op for op in function.block_specializations[function.opset].operations if op.type == kind]


def constant(model: Any, op: Any, name: str) -> Any:
    """The value behind an op's input."""
    (found,) = (c for c in operations(model, "const") if c.outputs[0].name == op.inputs[name].arguments[0].name)
    return found.attributes["val"]


def wrong_weight(model: Any, weights: bytearray) -> None:
    place = constant(model, operations(model, "conv")[0], "weight").blobFileValue.offset
    _, _, size, start = struct.unpack_from("<IIQQ", weights, place)
    weights[start + 1 : start + min(size, 256) : 2] = bytes(b ^ 0x80 for b in weights[start + 1 : start + 256 : 2])


def wrong_op(model: Any, weights: bytearray) -> None:
    operations(model, "add")[-1].type = "sub"


def wrong_activation(model: Any, weights: bytearray) -> None:
    constant(model, operations(model, "gelu")[0], "mode").immediateValue.tensor.strings.values[0] = "SIGMOID"


def unknown_op(model: Any, weights: bytearray) -> None:
    operations(model, "softmax")[0].type = "log_softmax"


def unknown_input(model: Any, weights: bytearray) -> None:
    gelu = operations(model, "gelu")[0]
    gelu.inputs["alpha"].CopyFrom(gelu.inputs["mode"])


def wrong_axis(model: Any, weights: bytearray) -> None:
    constant(model, operations(model, "softmax")[0], "axis").immediateValue.tensor.ints.values[0] = -2


def wrong_turn(model: Any, weights: bytearray) -> None:
    perm = constant(model, operations(model, "transpose")[0], "perm").immediateValue.tensor.ints.values
    perm[2], perm[3] = perm[3], perm[2]


def wrong_side(model: Any, weights: bytearray) -> None:
    side = constant(model, operations(model, "matmul")[0], "transpose_x").immediateValue.tensor.bools.values
    side[0] = not side[0]


@pytest.mark.parity
@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (wrong_weight, None),
        (wrong_op, None),
        (wrong_axis, None),
        (wrong_side, None),  # at 8 tokens for heads 8 wide nothing but the answer tells
        (wrong_turn, "where the program declares"),
        (wrong_activation, r"op gelu .*mode 'SIGMOID' is not known"),
        (unknown_op, "op log_softmax .* is not known to the evaluator"),
        (unknown_input, "op gelu .*does not know its input alpha"),
    ],
)
def test_a_wrong_weight_op_or_layout_is_caught(exported, tmp_path: Path, change: Any, refusal: str | None) -> None:
    model, artifact = exported("squeezebert", "question-answering", "fp16")
    control = edited(artifact.path, tmp_path, lambda model, weights: None)
    assert compare(model, runtime.open(control), 8, 8)[0] < 2e-3
    path = edited(artifact.path, tmp_path, change)
    if refusal is None:
        worst, noise = compare(model, runtime.open(path), 8, 8)
        print(f"max {worst:.1e} of the output, {noise:.1f} dB")
        assert worst > 1e-2, "five times what fp16 is allowed"
    else:
        with pytest.raises(EdgebertError, match=refusal) as error:
            compare(model, runtime.open(path), 8, 8)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="not those that were exported"):
        runtime.open(edited(artifact.path, tmp_path, change, sealed=True))


@pytest.mark.parity
def test_damaged_packages_are_refused_in_one_line(exported, tmp_path: Path) -> None:
    _, artifact = exported("squeezebert", "question-answering", "fp16")

    def refused(path: Path, match: str) -> None:
        with pytest.raises(EdgebertError, match=match) as error:
            runtime.open(path).run(batch(8))
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(str(path))

    def unsealed(change: Callable[[Any, bytearray], None], match: str) -> None:
        refused(edited(artifact.path, tmp_path, change), match)

    def first(model: Any) -> Any:
        return constant(model, operations(model, "conv")[0], "weight")

    unsealed(lambda m, w: setattr(first(m).blobFileValue, "offset", 1 << 40), "not within the")
    unsealed(lambda m, w: setattr(first(m).blobFileValue, "offset", 128), "no whole weight stands at 128")
    unsealed(lambda m, w: setattr(first(m).blobFileValue, "fileName", "@model_path/../../../x"), "outside of the")
    unsealed(lambda m, w: setattr(first(m).blobFileValue, "fileName", "/etc/passwd"), "outside of the package")
    unsealed(lambda m, w: setattr(first(m).type.tensorType, "dataType", 11), "the program reads fp32")
    unsealed(lambda m, w: setattr(first(m).type.tensorType.dimensions[0].constant, "size", 31), "the program reads")
    unsealed(lambda m, w: w.__delitem__(slice(len(w) // 2, None)), "damaged")
    unsealed(lambda m, w: w.clear(), "damaged")
    unsealed(lambda m, w: m.neuralNetwork.SetInParent(), "only an mlProgram")
    unsealed(lambda m, w: setattr(m.mlProgram.functions["main"], "opset", "CoreML99"), "has no code for it")

    bad = edited(artifact.path, tmp_path, lambda m, w: None, sealed=True)
    assert runtime.open(bad).run(batch(8)).keys() == {"start_logits", "end_logits"}
    file = bad / "Data/com.apple.CoreML/model.mlmodel"
    content, weights = file.read_bytes(), (bad / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()
    for cut in (0, 1, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:cut])
        refused(bad, "damaged|only an mlProgram|has the functions")
    good, generator = runtime.open(artifact.path).run(batch(8)), random.Random(0)
    for _ in range(60):  # a flipped bit is refused, or stands where nothing reads it
        for target, original in ((file, content), (bad / "Data/com.apple.CoreML/weights/weight.bin", weights)):
            flipped = bytearray(original)
            flipped[generator.randrange(len(original))] ^= 1 << generator.randrange(8)
            target.write_bytes(flipped)
            try:
                got = runtime.open(bad).run(batch(8))
                assert all(np.array_equal(got[name], good[name]) for name in good)
            except EdgebertError:
                pass
            target.write_bytes(original)
    manifest = json.loads((bad / "Manifest.json").read_text())
    for place in ("../../../../etc/passwd", "/etc/passwd"):
        manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = place
        (bad / "Manifest.json").write_text(json.dumps(manifest))
        refused(bad, "outside of the package")
    for text in ("", "[]", "{}", "[" * 100_000):
        (bad / "Manifest.json").write_text(text)
        refused(bad, "names no model")
    refused(tmp_path / "none.mlpackage", "cannot be read")


@pytest.mark.parity
def test_bad_inputs_are_refused(exported) -> None:
    session = runtime.open(exported("squeezebert", "question-answering", "fp16")[1].path)
    for wrong in (-1, 120):
        with pytest.raises(InputError, match=r"this file's vocabulary has 120"):
            session.run({**batch(8), "input_ids": np.full((4, 8), wrong, np.int32)})
    with pytest.raises(InputError, match="the table has 2 rows"):
        session.run({**batch(8), "token_type_ids": np.full((4, 8), 2, np.int32)})
    with pytest.raises(InputError, match="17 tokens"):
        session.run(batch(17))
    assert session.run(batch(8))["start_logits"].shape == (4, 8), "a refused input leaves the session usable"


@pytest.mark.parity
def test_a_foreign_package_is_told_of_but_not_run(tmp_path: Path) -> None:
    import coremltools as ct

    program = torch.export.export(torch.nn.Linear(4, 3).eval(), (torch.zeros(2, 4),)).run_decompositions({})
    ct.convert(program, skip_model_load=True).save(str(tmp_path / "foreign.mlpackage"))
    session = runtime.open(tmp_path / "foreign.mlpackage")
    facts = session.facts()
    assert facts.lengths == ()
    assert facts.inputs[0].shape == (2, 4)
    assert facts.ops["linear"] == 1
    with pytest.raises(InputError, match=r"takes .*\(2, 4\); only a file with input_ids"):
        session.run(batch(2))


@pytest.mark.parametrize("family", list(MODELS))
def test_lowering_is_exact_and_leaves_the_original(family: str) -> None:
    model = visible(family, "masked-lm" if family == "bert" else "token-classification")
    with torch.no_grad():  # a scale of 0 and a negative one, by which the rewritten norm divides
        for layer in model.encoder.layers:
            layer.norm.weight[:2] = torch.tensor([0.0, -0.5])
    before = copy.deepcopy(model)
    inputs = [torch.from_numpy(value) for value in batch(11).values()]
    lowered = exporter.lower(model, 16)
    with torch.no_grad():
        for name, value in lowered(*inputs).items():
            assert (value - before(*inputs)[name]).abs().max() < 5e-6
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    kinds = {type(module).__name__ for module in lowered.encoder.layers.modules()}
    assert "Conv2d" in kinds
    assert not kinds & {"Linear", "LayerNorm", "GroupedLinear", "Conv1d"}


def test_check_refuses_before_any_work() -> None:
    with pytest.raises(Unsupported, match="coreml does not take w2; it takes fp32, fp16, w8, w4"):
        exporter.check(visible("bert", "base"), Recipe("w2", 2, 32, ""))


@pytest.mark.parametrize("lengths", [(), (0,), (8, 65)])
def test_lengths_outside_the_positions_are_refused(lengths: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="64 positions"):
        exporter.export(visible("bert", "base"), RECIPES["fp32"], lengths, tmp_path / "m.mlpackage")


def test_a_place_that_is_no_package_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m.mlpackage").mkdir()
    (tmp_path / "m.mlpackage" / "letter.txt").write_text("dear")
    for name, match in (("m.mlpackage", "is left alone"), ("m.tflite", r"does not end in \.mlpackage")):
        with pytest.raises(InputError, match=match):
            exporter.export(visible("bert", "base"), RECIPES["fp32"], (8,), tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["m.mlpackage", "letter.txt"]


@pytest.mark.parity
def test_a_converter_failure_is_one_line_with_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = visible("bert", "base")
    # An operator that has no converter.
    model.encoder.layers[0].act = lambda x: torch.linalg.eigvals(x[..., :4, :4]).abs().sum() + x
    path = tmp_path / "m.mlpackage"
    path.mkdir()
    (path / "Manifest.json").write_text("before")
    with pytest.raises(ConversionFailed, match="conversion by coremltools failed") as error:
        exporter.export(model, RECIPES["fp32"], (8,), path)
    message = str(error.value)
    (log,) = tmp_path.glob("*.log")
    assert "\n" not in message
    assert str(log) in message
    assert "Traceback" in log.read_text()
    assert (path / "Manifest.json").read_text() == "before"
    assert not list(tmp_path.glob(".*.part"))
