"""The MIL evaluator: operators against torch, packed weights against coremltools' unpacking, and what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgebert.errors import InputError
from edgebert.runtimes.coreml import mil, mil_constants, package
from edgebert.runtimes.coreml import session as runtime
from edgebert.runtimes.coreml.mil_ops import OPS

pytestmark = pytest.mark.skipif(runtime.missing() is not None, reason=f"needs {runtime.missing()}")

ROOT = f"Data/{package.AUTHOR}/model.mlmodel"


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


X, Y, P = numbers(1, 6, 3, 4), numbers(1, 6, 3, 4, seed=1), np.abs(numbers(1, 6, 3, 4, seed=2)) + 0.1
T = torch.from_numpy
W = numbers(8, 3, 1, 3, seed=3)
# Operator, its parameters, and what torch says.
CASES: list[tuple[str, dict[str, Any], Any]] = [
    ("add", {"x": X, "y": Y}, T(X) + T(Y)),
    ("sub", {"x": X, "y": Y}, T(X) - T(Y)),
    ("mul", {"x": X, "y": Y[:, :, :1]}, T(X) * T(Y[:, :, :1])),
    ("real_div", {"x": X, "y": P}, T(X) / T(P)),
    ("maximum", {"x": X, "y": Y}, torch.maximum(T(X), T(Y))),
    ("minimum", {"x": X, "y": Y}, torch.minimum(T(X), T(Y))),
    ("pow", {"x": P, "y": np.float32(1.5)}, T(P) ** 1.5),
    ("greater", {"x": X, "y": Y}, T(X) > T(Y)),
    ("less_equal", {"x": X, "y": X}, T(X) <= T(X)),
    ("logical_not", {"x": X > 0}, T(X) <= 0),
    ("select", {"cond": X > 0, "a": X, "b": Y}, torch.where(T(X) > 0, T(X), T(Y))),
    ("abs", {"x": X}, T(X).abs()),
    ("erf", {"x": X}, T(X).erf()),
    ("exp", {"x": X}, T(X).exp()),
    ("tanh", {"x": X}, T(X).tanh()),
    ("sigmoid", {"x": X}, T(X).sigmoid()),
    ("silu", {"x": X}, F.silu(T(X))),
    ("relu", {"x": X}, F.relu(T(X))),
    ("softplus", {"x": X}, F.softplus(T(X))),
    ("sqrt", {"x": P}, T(P).sqrt()),
    ("square", {"x": X}, T(X).square()),
    ("rsqrt", {"x": P, "epsilon": np.float32(0.5)}, (T(P) + 0.5).rsqrt()),
    ("log", {"x": P}, T(P).log()),
    ("inverse", {"x": P, "epsilon": np.float32(0)}, 1 / T(P)),
    ("leaky_relu", {"x": X, "alpha": np.float32(0.2)}, F.leaky_relu(T(X), 0.2)),
    ("clip", {"x": X, "alpha": np.float32(-0.5), "beta": np.float32(0.7)}, T(X).clamp(-0.5, 0.7)),
    ("gelu", {"x": X}, F.gelu(T(X))),
    ("gelu", {"x": X, "mode": "TANH_APPROXIMATION"}, F.gelu(T(X), approximate="tanh")),
    ("softmax", {"x": X, "axis": np.int32(1)}, T(X).softmax(1)),
    ("softmax", {"x": X}, T(X).softmax(-1)),
    ("layer_norm", {"x": X, "axes": ints(-1), "gamma": Y[0, 0, 0], "beta": Y[0, 0, 1], "epsilon": np.float32(1e-3)},
     F.layer_norm(T(X), (4,), T(Y[0, 0, 0]), T(Y[0, 0, 1]), 1e-3)),
    ("layer_norm", {"x": X, "axes": ints(1), "gamma": Y[0, :, 0, 0], "beta": Y[0, :, 0, 1]},
     F.layer_norm(T(X).movedim(1, -1), (6,), T(Y[0, :, 0, 0]), T(Y[0, :, 0, 1])).movedim(-1, 1)),
    ("batch_norm", {"x": X, "mean": Y[0, :, 0, 0], "variance": P[0, :, 0, 0], "gamma": Y[0, :, 0, 1]},
     F.batch_norm(T(X), T(Y[0, :, 0, 0]), T(P[0, :, 0, 0]), T(Y[0, :, 0, 1]))),
    ("conv", {"x": X, "weight": W, "groups": np.int32(2), "bias": numbers(8), "pad_type": "custom",
              "pad": ints(0, 0, 1, 2), "strides": ints(1, 2)},
     F.conv2d(F.pad(T(X), (1, 2, 0, 0)), T(W), T(numbers(8)), (1, 2), groups=2)),
    ("conv", {"x": X, "weight": numbers(5, 6, 1, 1), "bias": numbers(5), "pad": ints(0, 0, 0, 0)},
     F.conv2d(T(X), T(numbers(5, 6, 1, 1)), T(numbers(5)))),
    ("conv", {"x": X[0], "weight": numbers(5, 3, 2), "dilations": ints(2)},
     F.conv1d(T(X[0]), T(numbers(5, 3, 2)), dilation=2)),
    ("linear", {"x": X, "weight": numbers(5, 4), "bias": numbers(5)}, F.linear(T(X), T(numbers(5, 4)), T(numbers(5)))),
    ("matmul", {"x": X, "y": Y, "transpose_y": np.bool_(True)}, T(X) @ T(Y).mT),
    ("matmul", {"x": X, "y": Y, "transpose_x": np.bool_(True)}, T(X).mT @ T(Y)),
    ("reduce_mean", {"x": X, "axes": ints(-1, 1), "keep_dims": np.bool_(True)}, T(X).mean((1, 3), keepdim=True)),
    ("reduce_sum", {"x": X, "axes": ints(2)}, T(X).sum(2)),
    ("reduce_max", {"x": X}, T(X).max()),
    ("shape", {"x": X}, torch.tensor([1, 6, 3, 4], dtype=torch.int32)),
    ("reshape", {"x": X, "shape": ints(3, -1)}, T(X).reshape(3, -1)),
    ("transpose", {"x": X, "perm": ints(0, 3, 1, 2)}, T(X).permute(0, 3, 1, 2)),
    ("expand_dims", {"x": X, "axes": ints(1, -1)}, T(X)[:, None, ..., None]),
    ("squeeze", {"x": X, "axes": ints(0)}, T(X)[0]),
    ("concat", {"values": [X, Y], "axis": np.int32(1)}, torch.cat([T(X), T(Y)], 1)),
    ("concat", {"values": [np.int32(3), ints(4)], "axis": np.int32(0)}, torch.tensor([3, 4], dtype=torch.int32)),
    ("stack", {"values": [X, Y], "axis": np.int32(2)}, torch.stack([T(X), T(Y)], 2)),
    ("slice_by_index", {"x": X, "begin": ints(0, 1, 0, -3), "end": ints(0, 5, 2, -1), "stride": ints(1, 2, 1, 1),
                        "begin_mask": np.array([True, False, True, False]), "end_mask": np.array([True, *[False] * 3])},
     T(X)[:, 1:5:2, :2, -3:-1]),
    ("slice_by_index", {"x": X, "begin": ints(0, 4, 0, 0), "end": ints(1, 0, 3, 4),
                        "squeeze_mask": np.array([False, True, False, False])}, T(X)[:, 4]),
    ("gather", {"x": X[0, 0], "indices": ints(2, 0, 2)}, T(X[0, 0])[[2, 0, 2]]),
    ("gather", {"x": X, "indices": np.uint16(3), "axis": np.int32(1)}, T(X)[:, 3]),
    ("tile", {"x": X, "reps": ints(2, 1, 1, 3)}, T(X).repeat(2, 1, 1, 3)),
    ("fill", {"shape": ints(2, 3), "value": np.float32(4)}, torch.full((2, 3), 4.0)),
    ("range_1d", {"start": np.int32(1), "end": np.int32(8), "step": np.int32(3)}, torch.arange(1, 8, 3).int()),
    ("pad", {"x": X, "pad": ints(1, 2), "constant_val": np.float32(3)}, F.pad(T(X), (1, 2), value=3.0)),
    ("cast", {"x": X * 3, "dtype": "int32"}, (T(X) * 3).int()),
    ("cast", {"x": X > 0, "dtype": "fp16"}, (T(X) > 0).float()),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "want"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_operator_equals_torch(kind: str, given: dict[str, Any], want: torch.Tensor) -> None:
    got = np.asarray(OPS[kind](**given))
    assert got.shape == tuple(want.shape)
    assert got.dtype == want.numpy().dtype
    np.testing.assert_allclose(got, want.numpy(), rtol=2e-6, atol=2e-6)


def test_split_and_quantize_equal_torch() -> None:
    for part, want in zip(OPS["split"](x=X, axis=np.int32(1), num_splits=np.int32(3)), T(X).chunk(3, 1), strict=True):
        np.testing.assert_array_equal(part, want)
    for part, want in zip(
        OPS["split"](x=X, axis=ints(1)[0], split_sizes=ints(1, 5)), T(X).split([1, 5], 1), strict=True
    ):
        np.testing.assert_array_equal(part, want)
    scale, zero = np.float32(0.01), np.int8(-7)
    whole = OPS["quantize"](input=X, scale=scale, zero_point=zero, output_dtype="int8")
    want = torch.fake_quantize_per_tensor_affine(T(X), 0.01, -7, -128, 127)
    assert whole.dtype == np.int8
    assert whole.min() == -128
    np.testing.assert_allclose(OPS["dequantize"](input=whole, scale=scale, zero_point=zero), want, 1e-6)


@pytest.mark.parametrize(("kind", "given"), [
    ("gelu", {"x": X, "mode": "SIGMOID_APPROXIMATION"}),
    ("conv", {"x": X, "weight": W, "pad_type": "same"}),
    ("cast", {"x": X, "dtype": "fp8"}),
    ("reshape", {"x": X, "shape": ints(0, -1)}),
    ("gather", {"x": X, "indices": ints(-1)}),
    ("gather", {"x": X, "indices": ints(1), "batch_dims": np.int32(1)}),
    ("concat", {"values": [X, Y], "axis": np.int32(1), "interleave": np.bool_(True)}),
    ("pad", {"x": X, "pad": ints(1, 2), "mode": "reflect"}),
    ("softmax", {"x": X, "axis": np.int32(9)}),
    ("fill", {"shape": ints(2**20, 2**20)}),
    ("tile", {"x": X, "reps": ints(2**30, 1, 1, 2**10)}),
    ("quantize", {"input": X, "scale": np.float32(1), "output_dtype": "int4"}),
    ("constexpr_blockwise_shift_scale", {"data": np.zeros((4, 6), np.int8), "scale": numbers(4, 4)}),
])  # fmt: skip
def test_a_value_that_is_not_known_is_refused_and_not_guessed(kind: str, given: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        OPS[kind](**given)


@pytest.mark.parametrize("dtype", ["int4", "uint1", "uint3", "uint4", "uint6"])
def test_unpacks_elements_smaller_than_a_byte(dtype: str) -> None:
    lowest, highest = (-8, 7) if dtype == "int4" else (0, 2 ** mil_constants.SUB_BYTE[dtype] - 1)
    values = np.random.default_rng(0).integers(lowest, highest + 1, 21)
    bits = mil_constants.SUB_BYTE[dtype]
    each = (values[:, None] & (1 << bits) - 1) >> np.arange(bits) & 1
    packed = np.packbits(each.astype(np.uint8), bitorder="little")
    np.testing.assert_array_equal(mil_constants.unpack(packed, dtype, 21), values)
    with pytest.raises(InputError):
        mil_constants.unpack(packed[:-1], dtype, 21)


def test_rounding_to_half_is_numpys() -> None:
    x = np.concatenate([numbers(1000) * 10.0**k for k in range(-8, 6)])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(mil.half(x), x.astype(np.float16).astype(np.float32))


def small_program(target: str) -> Any:
    """A model of one matrix and one table, as coremltools makes it."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec((1, 64)), mb.TensorSpec((3,), ct.converters.mil.mil.types.int32)],
                opset_version=getattr(ct.target, target))  # fmt: skip
    def program(x: Any, ids: Any) -> Any:
        rows = mb.gather(x=numbers(40, 64), indices=ids, axis=0, name="rows")
        return mb.linear(x=mb.add(x=rows, y=x), weight=numbers(48, 64, seed=5), bias=numbers(48), name="out")

    return ct.convert(program, minimum_deployment_target=getattr(ct.target, target), skip_model_load=True,
                      compute_precision=ct.precision.FLOAT32)  # fmt: skip


def packings() -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """Ways that coremltools has to make weights smaller, and the target each is for."""
    import coremltools.optimize.coreml as cto

    def linear(**options: Any) -> Callable[[Any], Any]:
        config = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0, **options))
        return lambda model: cto.linear_quantize_weights(model, config)

    def palette(**options: Any) -> Callable[[Any], Any]:
        config = cto.OptimizationConfig(cto.OpPalettizerConfig(weight_threshold=0, mode="uniform", **options))
        return lambda model: cto.palettize_weights(model, config)

    pruned = cto.OptimizationConfig(cto.OpMagnitudePrunerConfig(weight_threshold=0, target_sparsity=0.5))
    grouped = {"granularity": "per_grouped_channel", "group_size": 8}
    return {
        "affine": ("iOS16", linear(mode="linear")),
        "palette": ("iOS16", palette(nbits=4)),
        "six bits": ("iOS16", palette(nbits=6)),
        "sparse": ("iOS16", lambda model: cto.prune_weights(model, pruned)),
        "blocks of int4": ("iOS18", linear(dtype="int4", granularity="per_block", block_size=16)),
        "blocks of uint8": ("iOS18", linear(dtype="uint8", mode="linear")),
        "palettes": ("iOS18", palette(nbits=3, **grouped)),
        "scaled palettes": ("iOS18", palette(nbits=4, enable_per_channel_scale=True, **grouped)),
    }


@pytest.mark.slow
@pytest.mark.parity
def test_packed_weights_are_what_coremltools_unpacks(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import coremltools.optimize.coreml as cto

    inputs = {"x": numbers(1, 64, seed=9), "ids": ints(3, 0, 39)}
    for name, (target, pack) in packings().items():
        model = pack(small_program(target))
        answers, sizes = [], []
        for kind, each in (("packed", model), ("plain", cto.decompress_weights(model))):
            path = tmp_path / f"{name} {kind}.mlpackage"
            each.save(str(path))
            opened = package.read(path)
            (answer,) = mil.Program(opened).run(inputs).values()
            answers.append(answer)
            sizes.append(sum(weight.bytes for weight in mil.read_weights(opened)))
        assert "constexpr" in str(runtime.open(tmp_path / f"{name} packed.mlpackage").facts().ops), name
        np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-5, err_msg=name)
        assert np.abs(answers[0]).max() > 1
        # A palette for each row is more than the row.
        assert sizes[0] < 0.7 * sizes[1] or name == "scaled palettes"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that edgebert did not make."""
    path = tmp_path_factory.mktemp("foreign") / "small.mlpackage"
    small_program("iOS17").save(str(path))
    return path


def changed(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """A copy of a package with its specification changed."""
    import shutil

    shutil.copytree(source, target)
    (spec,) = target.glob("Data/*/model.mlmodel")
    message = package.schema("Model_pb2").Model.FromString(spec.read_bytes())
    change(message)
    spec.write_bytes(message.SerializeToString())
    return target


def operation(spec: Any, kind: str) -> Any:
    function = spec.mlProgram.functions["main"]
    found = [op for op in function.block_specializations[function.opset].operations if op.type == kind]
    stored = (op for op in found if "val" in op.attributes and op.attributes["val"].HasField("blobFileValue"))
    return next(stored, found[-1])


def constant_type(spec: Any, number: int) -> None:
    kind = operation(spec, "const").attributes["val"].type.tensorType
    kind.dataType = number


REFUSED: dict[str, tuple[str, Callable[[Any], None]]] = {
    "operator": ("operator einsum is not known", lambda spec: setattr(operation(spec, "linear"), "type", "einsum")),
    "parameter": ("parameters are not known", lambda spec: operation(spec, "add").inputs["alpha"].CopyFrom(
        operation(spec, "add").inputs["x"])),
    "attribute": ("attribute scale is not known", lambda spec: operation(spec, "add").attributes["scale"].CopyFrom(
        operation(spec, "const").attributes["val"])),
    "type": ("bfloat16 is not known", lambda spec: constant_type(spec, 13)),
    "number of a type": ("99", lambda spec: constant_type(spec, 99)),
    "declared shape": ("comes out", lambda spec: setattr(
        operation(spec, "add").outputs[0].type.tensorType.dimensions[1].constant, "size", 63)),
    "declared type": ("mixes", lambda spec: setattr(operation(spec, "add").outputs[0].type.tensorType, "dataType", 10)),
    "huge constant": ("are stored in", lambda spec: setattr(
        operation(spec, "const").attributes["val"].type.tensorType.dimensions[0].constant, "size", 2**40)),
    "offset": ("has no weight", lambda spec: setattr(
        operation(spec, "const").attributes["val"].blobFileValue, "offset", 2**50)),
    "way out": ("outside its folder", lambda spec: setattr(
        operation(spec, "const").attributes["val"].blobFileValue, "fileName", "@model_path/../../../x")),
    "name": ("reads nothing", lambda spec: setattr(
        operation(spec, "add").inputs["x"].arguments[0], "name", "nothing")),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_known_is_refused_by_name(foreign: Path, tmp_path: Path, what: str) -> None:
    said, change = REFUSED[what]
    path = changed(foreign, tmp_path / "m.mlpackage", change)
    with pytest.raises(InputError, match=said):
        mil.Program(package.read(path)).run({
            "x": X.reshape(-1)[:64].reshape(1, 64),
            "ids": ints(0, 1, 2),
        })


def test_facts_of_a_foreign_package(foreign: Path) -> None:
    session = runtime.open(foreign)
    facts = session.facts()
    assert [(spec.name, spec.dtype, spec.shape) for spec in facts.inputs] == [
        ("x", "float32", (1, 64)),
        ("ids", "int32", (3,)),
    ]
    # The others keep an id from being negative.
    assert facts.ops == {"gather": 1, "add": 2, "linear": 1, "greater_equal": 1, "select": 1}
    assert facts.nodes == 6
    assert facts.weight_bytes == {"float32": 4 * (40 * 64 + 48 * 64 + 48)}
    assert "com.github.apple.coremltools.version" in facts.metadata
    assert facts.delegation is None
    with pytest.raises(InputError, match=r"takes x float32.*Only its facts"):
        session.run({"x": X})


def test_other_kinds_of_model_give_facts_and_do_not_run(foreign: Path, tmp_path: Path) -> None:
    def network(spec: Any) -> None:
        spec.ClearField("mlProgram")
        spec.neuralNetwork.layers.add(name="a").activation.ReLU.SetInParent()

    session = runtime.open(changed(foreign, tmp_path / "m.mlpackage", network))
    assert session.facts().ops == {"activation": 1}
    with pytest.raises(InputError, match="neuralNetwork, no mlProgram"):
        session.run({name: np.ones((1, 4), np.int32) for name in ("input_ids", "attention_mask", "token_type_ids")})


def entries(path: Path) -> dict[str, Any]:
    return json.loads((path / "Manifest.json").read_text())


@pytest.mark.parametrize(
    "what", ["no manifest", "no json", "way out", "link out", "no spec", "a pipe", "deep", "a file"]
)
def test_a_package_that_is_none_is_refused(foreign: Path, tmp_path: Path, what: str) -> None:
    path = changed(foreign, tmp_path / "m.mlpackage", lambda spec: None)
    manifest, spec = path / "Manifest.json", path / ROOT
    said = entries(path)
    if what == "no manifest":
        manifest.unlink()
    elif what == "no json":
        manifest.write_text("{")
    elif what == "deep":
        manifest.write_text("[" * 100_000)
    elif what == "way out":
        next(iter(said["itemInfoEntries"].values()))["path"] = "../../x"
        manifest.write_text(json.dumps(said))
    elif what == "a file":
        path = tmp_path / "file.mlpackage"
        path.write_bytes(b"x")
    else:
        spec.rename(tmp_path / "elsewhere")
        if what == "link out":
            spec.symlink_to(tmp_path / "elsewhere")
        elif what == "a pipe":
            os.mkfifo(spec)
    with pytest.raises(InputError):
        runtime.open(path)
