"""TFLite recipes beside fp32 and w8a8-dynamic: what the file holds, what it says, and how the graph came about."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import batch, sqnr, visible
from tiny import expected_at as expected

from edgebert.artifact import Artifact
from edgebert.errors import ConversionFailed, InputError, MissingDependency
from edgebert.exporters.tflite import draft, weights
from edgebert.exporters.tflite import export as exporter
from edgebert.exporters.tflite.ranges import Range, find_ranges
from edgebert.exporters.tflite.versions import VERSIONS
from edgebert.models import Model
from edgebert.models.signature import Arrays
from edgebert.quantization.recipes import RECIPES
from edgebert.runtimes.tflite import session as runtime
from edgebert.runtimes.tflite.layout import ITEM_NAMES

pytestmark = pytest.mark.skipif(exporter.missing() is not None, reason=f"needs {exporter.missing()}")

LENGTHS = (16,)

# The rows of the tolerance table, dB; what was seen on these models beside them.
FLOORS = {"fp16": 45, "w8": 28, "w8a8-static": 14, "w4a8-dynamic": 10}
CASES = [
    ("bert", "token-classification", "w4a8-dynamic"),  # 18
]
SLOW = [
    ("squeezebert", "token-classification", "w8a8-static"),  # 29
    ("squeezebert", "base", "fp16"),  # 65
    ("convbert", "sequence-classification", "w8"),  # 44
    ("bert", "masked-lm", "fp16"), ("convbert", "question-answering", "fp16"), ("rembert", "causal-lm", "fp16"),
    ("rembert", "token-classification", "w8"), ("squeezebert", "question-answering", "w8"),
    ("bert", "masked-lm", "w8a8-static"), ("convbert", "question-answering", "w8a8-static"),
    ("rembert", "causal-lm", "w8a8-static"), ("squeezebert", "sequence-classification", "w4a8-dynamic"),
    ("convbert", "token-classification", "w4a8-dynamic"), ("rembert", "question-answering", "w4a8-dynamic"),
]  # fmt: skip
# What the matrices of linear layers, and tables, are stored as.
KINDS = {
    "fp16": ("float16", "float16"),
    "w8": ("int8", "int8"),
    "w8a8-static": ("int8", "int8"),
    "w4a8-dynamic": ("int4", "int8"),
}


def samples() -> list[Arrays]:
    """Sixteen rows to calibrate on, none of which a test asks for, without their padding."""
    rows = []
    for seed in range(5, 9):
        inputs = batch(LENGTHS[-1], seed)
        for row, tokens in enumerate(inputs["attention_mask"].sum(1)):
            rows.append({name: value[row : row + 1, :tokens] for name, value in inputs.items()})
    return rows


def export(model: Model, recipe: str, path: Path, keep_float: tuple[str, ...] = ()) -> Artifact:
    return exporter.export(model, RECIPES[recipe], LENGTHS, path, keep_float, samples())


def answers(model: Model, path: Path) -> float:
    """The lowest signal to noise of the file's outputs, dB."""
    session = runtime.open(path)
    noise = []
    for tokens in (16, 11, 7):
        inputs = batch(tokens)
        want, got = expected(model, inputs, LENGTHS[-1]), session.run(inputs)
        assert got.keys() == want.keys()
        noise += [sqnr(want[name], got[name]) for name in want]
    session.close()
    return min(noise)


def folded(model: Model) -> set[str]:
    """Biases that others have taken over, of norms between layers, or that softmax does not see."""
    family, last = model.family.name, model.config.num_hidden_layers - 1
    norms = {f"encoder.layers.{i}.attention_norm.bias" for i in range(last + 1)}
    if family != "convbert":  # whose span of tokens has zeros beyond its ends, where a bias would not be
        norms |= {f"encoder.layers.{i}.norm.bias" for i in range(last)}
    if family in ("bert", "squeezebert"):  # no projection between the embeddings' norm and the layers
        norms.add("encoder.embeddings.norm.bias")
    if family != "convbert" and model.task in ("sequence-classification", "multiple-choice"):
        norms.add(f"encoder.layers.{last}.attention.key.bias")
    return norms


@pytest.mark.parity
@pytest.mark.parametrize(
    ("family", "task", "recipe"), [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_a_recipe_stores_what_it_says_and_stays_close(family: str, task: str, recipe: str, tmp_path: Path) -> None:
    model = visible(family, task)
    artifact = export(model, recipe, tmp_path / "m.tflite")
    noise = answers(model, artifact.path)
    print(f"{noise:.1f} dB")
    assert noise >= FLOORS[recipe]

    assert artifact.weights.keys() == dict(model.named_parameters()).keys() - folded(model)
    linear, table = KINDS[recipe]
    matrices = [name for name, parameter in model.named_parameters() if parameter.dim() > 1 and "bias" not in name]
    for name in matrices:
        kind = artifact.weights[name].dtype
        if name.startswith("encoder.embeddings."):
            assert kind == table, name
        elif "depthwise" not in name:
            assert kind == linear or (linear == "int4" and model.tied and "decoder" in name), name
    facts = runtime.open(artifact.path).facts()
    summed = Counter[str]()
    for stored in artifact.weights.values():
        summed[stored.dtype] += stored.bytes
    for kind in {linear, table}:
        assert facts.weight_bytes[kind] == summed[kind], "what the file holds is what the exporter says"
    assert facts.delegation is not None
    assert facts.delegation.share == 1.0, "XNNPACK does all of the arithmetic"
    lookups = {"EMBEDDING_LOOKUP", "DEQUANTIZE"} if recipe == "fp16" else {"GATHER"}
    assert set(facts.delegation.rest) <= {"RESHAPE", "CAST", *lookups}
    assert facts.delegation.rest.keys() == facts.delegation.reasons.keys()


def test_a_layer_whose_channels_one_scale_cannot_hold_has_no_fixed_one() -> None:
    model = visible("bert", "base")
    down = model.encoder.get_submodule("layers.0.down")
    down.get_parameter("weight").data[3] *= 1000  # trained models have such a channel: the norm after it takes it back
    found = find_ranges(model, samples(), LENGTHS[-1])
    layers = {f"encoder.layers.{i}.{name}.weight" for i in (0, 1) for name in ("up", "down")}
    assert layers - found.keys() == {"encoder.layers.0.down.weight"}


@pytest.mark.parity
def test_fp16_is_half_of_fp32_and_may_compute_in_half(tmp_path: Path) -> None:
    wide = visible("bert", "masked-lm", vocab_size=20_000)
    sizes = {name: export(wide, name, tmp_path / name).path.stat().st_size for name in ("fp32", "fp16")}
    assert sizes["fp16"] < 0.54 * sizes["fp32"]  # the graph is the rest
    said = {name: runtime.open(tmp_path / name).facts().metadata for name in sizes}
    assert said["fp16"]["reduced_precision_support"] == "fp16accfp16"
    assert "reduced_precision_support" not in said["fp32"]
    assert said["fp32"]["description"].startswith("edgebert ")


@pytest.mark.parity
@pytest.mark.parametrize("recipe", ["w8a8-dynamic", pytest.param("w8a8-static", marks=pytest.mark.slow)])
def test_modules_kept_float_are_float_and_no_others(recipe: str, tmp_path: Path) -> None:
    model = visible("squeezebert", "sequence-classification")
    patterns = ("encoder.layers.0.attention.*", "encoder.layers.1.out", "head.classifier", "encoder.embeddings.word")
    artifact = export(model, recipe, tmp_path / "m.tflite", patterns)
    kept = (
        *(f"encoder.layers.0.attention.{name}.weight" for name in ("query", "key", "value")),
        "encoder.layers.1.out.weight", "head.classifier.weight", "encoder.embeddings.word.weight",
    )  # fmt: skip
    matrices = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    assert {name for name in matrices if artifact.weights[name].dtype == "float32"} == set(kept)
    facts = runtime.open(artifact.path).facts()
    found = {weight.name: weight for weight in facts.weights}
    assert found["encoder.layers.1.out.weight"].dtype == "float32"
    # A grouped layer is one convolution, or, for a static recipe, a linear layer for each group.
    part, shape = ("", (32, 1, 1, 8)) if recipe == "w8a8-dynamic" else ("/2", (8, 8))
    assert found[f"encoder.layers.0.attention.key.weight{part}"].shape == shape
    assert found["encoder.layers.0.out.weight"].dtype == "int8"
    assert answers(model, artifact.path) > (20 if recipe == "w8a8-dynamic" else 14)


@pytest.mark.parity
def test_four_bits_in_blocks_where_they_fit(tmp_path: Path) -> None:
    from ai_edge_litert import schema_py_generated as schema

    model = visible("bert", "sequence-classification", intermediate_size=96)
    artifact = export(model, "w4a8-dynamic", tmp_path / "m.tflite")
    file = schema.ModelT.InitFromPackedBuf(artifact.path.read_bytes(), 0)
    found = {
        tensor.name.decode(): (list(tensor.shape), tensor.quantization)
        for tensor in file.subgraphs[0].tensors
        if tensor.type == schema.TensorType.INT4
    }
    shape, blocks = found["encoder.layers.0.down.weight"]
    assert (shape, blocks.details.blockSize) == ([32, 96], 32)
    shape, rows = found["encoder.layers.1.up.weight"]
    assert (shape, len(rows.scale), rows.details) == ([96, 32], 96, None)
    assert artifact.weights["encoder.layers.0.down.weight"].bytes == 32 * 96 // 2 + 2 * 32 * 3
    assert answers(model, artifact.path) >= 8


def operators(path: Path) -> set[tuple[str, int, str, str]]:
    """Of a file's operators with weights the name, the version, and the types of input and weight."""
    from ai_edge_litert import schema_py_generated as schema

    file = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    found = set()
    for graph in file.subgraphs:
        for operator in graph.operators:
            code = file.operatorCodes[operator.opcodeIndex]
            if names[code.builtinCode] in ("CONV_2D", "FULLY_CONNECTED"):
                types = (ITEM_NAMES[graph.tensors[tensor].type] for tensor in operator.inputs[:2])
                found.add((names[code.builtinCode], code.version, *types))
    return found


@pytest.mark.parity
@pytest.mark.parametrize(
    ("recipe", "wanted", "release"),
    [
        pytest.param("w8a8-dynamic", {("CONV_2D", 5, "FLOAT32", "INT8")}, "2.12.0", marks=pytest.mark.slow),
        ("w8a8-static", {("FULLY_CONNECTED", 10, "INT8", "INT8"), ("CONV_2D", 5, "FLOAT32", "INT8")}, "2.13.0"),
        pytest.param(
            "w4a8-dynamic",
            {("FULLY_CONNECTED", 14, "FLOAT32", "INT4"), ("CONV_2D", 5, "FLOAT32", "INT8")},
            "2.21.0",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_operators_have_versions_that_older_runtimes_refuse(
    recipe: str, wanted: set[tuple[str, int, str, str]], release: str, tmp_path: Path
) -> None:
    model = visible("bert", "masked-lm")  # in four bits the output layer, which is the table, has eight
    artifact = export(model, recipe, tmp_path / "m.tflite")
    assert operators(artifact.path) == wanted
    facts = runtime.open(artifact.path).facts()
    assert facts.metadata["min_runtime_version"] == release
    # What stands between a dynamic recipe's integer products may be computed in half.
    assert ("reduced_precision_support" in facts.metadata) == (recipe == "w8a8-dynamic")
    assert answers(model, artifact.path) > 10


@pytest.mark.parity
def test_a_file_that_the_runtime_is_too_old_for_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERSIONS, ("CONV_2D", "FLOAT32", "INT8"), 99)
    path = export(visible("bert", "base"), "w8a8-dynamic", tmp_path / "m.tflite").path
    with pytest.raises(MissingDependency, match=r"a later LiteRT than .*'CONV_2D' version '99'.*upgrade"):
        runtime.open(path)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("bert", "multiple-choice"),
        pytest.param("convbert", "sequence-classification", marks=pytest.mark.slow),
        pytest.param("squeezebert", "question-answering", marks=pytest.mark.slow),
        pytest.param("rembert", "causal-lm", marks=pytest.mark.slow),
        pytest.param("convbert", "base", marks=pytest.mark.slow),
        pytest.param("rembert", "sequence-classification", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_layers_that_the_converter_never_saw_are_right(
    family: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths, stand_in = [], draft._stand_in
    monkeypatch.setattr(
        draft, "_stand_in", lambda model, depth, *rest: depths.append(depth) or stand_in(model, depth, *rest)
    )
    model = visible(family, task, num_hidden_layers=5)
    artifact = export(model, "fp32", tmp_path / "m.tflite")
    assert depths == [3 if family in ("rembert", "convbert") else 2]
    assert answers(model, artifact.path) > 100
    facts = runtime.open(artifact.path).facts()
    names = {weight.name.split("/")[0] for weight in facts.weights}
    assert names >= dict(model.named_parameters()).keys() - folded(model)


@pytest.mark.parity
@pytest.mark.slow
def test_layers_that_differ_are_all_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft, "_alike", lambda *_: False)
    model = visible("bert", "base", num_hidden_layers=3)
    assert answers(model, export(model, "fp32", tmp_path / "m.tflite").path) > 100


@pytest.mark.parity
def test_a_parameter_that_the_graph_lacks_stops_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognize: Callable[..., object] = draft._source

    def blind(numbers: np.ndarray, shape: tuple[int, ...], arrays: dict[str, np.ndarray]) -> object:
        return recognize(numbers, shape, {name: a for name, a in arrays.items() if "down.conv.weight" not in name})

    monkeypatch.setattr(draft, "_source", blind)
    with pytest.raises(ConversionFailed, match=r"2 parameters are not in the converted graph: .*0\.down\.conv\.weight"):
        export(visible("bert", "base"), "w8a8-dynamic", tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parity
def test_arithmetic_is_counted_from_shapes(tmp_path: Path) -> None:
    model = visible("bert", "token-classification")
    facts = runtime.open(export(model, "fp32", tmp_path / "m.tflite").path).facts()
    tokens, width, inner, labels = 16, 32, 64, len(model.config.labels)
    layer = tokens * width * (4 * width + 2 * inner) + 2 * tokens * tokens * width
    assert facts.delegation is not None
    assert facts.delegation.macs == facts.delegation.taken_macs == 2 * layer + tokens * width * labels
    assert facts.delegation.rest["EMBEDDING_LOOKUP"] == 2


def test_a_static_recipe_needs_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sample texts, and none came"):
        exporter.export(visible("bert", "base"), RECIPES["w8a8-static"], (8,), tmp_path / "m.tflite")


def test_rounding_to_eight_and_four_bits() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 96)).astype(np.float32)
    integers, scale = weights.eight_bits(weight, 0)
    assert np.abs(integers * scale[:, None] - weight).max() <= scale.max() / 2 + 1e-6
    rounded = weights.nearest(weight)
    assert (rounded.scales.shape, rounded.group) == ((5, 3), 32)
    assert (rounded.integers.min(), rounded.integers.max()) >= (-8, 7)
    assert sqnr(weight, rounded.floats()) > 20
    assert weights.nearest(weight[:, :33]).group == 33
    assert not weights.nearest(np.zeros((2, 8), np.float32)).integers.any()
    assert [hex(byte) for byte in weights._nibbles(np.array([[1, -1], [-8, 7]], np.int8))] == ["0xf1", "0x78"]


def test_a_range_holds_zero_exactly() -> None:
    step, zero = Range(-1.0, 3.0).scale()
    assert step == pytest.approx(4 / 255)
    assert (0 - zero) * step == pytest.approx(-zero * step)
    assert -128 <= zero + round(-1.0 / step)
    assert zero + round(3.0 / step) <= 127
    assert Range(0.0, 0.0).scale()[1] in (-128, 127, 0)
