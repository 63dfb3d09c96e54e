"""MIL's ops, one by one: what they give is torch's answer, what they do not know they refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from edgebert.errors import EdgebertError, InputError, Unsupported
from edgebert.runtimes import mil
from edgebert.runtimes.mil import Operation, Program, Type
from edgebert.runtimes.mil_ops import OPS


def half(values: torch.Tensor) -> np.ndarray:
    return values.numpy().astype(np.float16)


G = torch.Generator().manual_seed(0)
X, W, V = (torch.randn(shape, generator=G).half().float() for shape in ((1, 6, 1, 5), (4, 3, 1, 3), (2, 3, 6)))
I = np.array  # noqa: E741
FLOAT_OPS = {
    "conv": ({"x": X, "weight": W, "pad_type": "custom", "pad": I([0, 0, 1, 1]), "groups": I(2), "bias": W[:, 0, 0, 0]},
             lambda: F.conv2d(X, W, W[:, 0, 0, 0], padding=(0, 1), groups=2)),
    "gelu": ({"x": X, "mode": "EXACT"}, lambda: F.gelu(X)),
    "layer_norm": ({"x": X, "axes": I([1]), "gamma": X[0, :, 0, 0], "beta": X[0, :, 0, 1], "epsilon": V[0, 0, 0] ** 2},
                   lambda: F.layer_norm(X.transpose(1, 3), (6,), X[0, :, 0, 0], X[0, :, 0, 1], float(V[0, 0, 0] ** 2))
                   .transpose(1, 3)),
    "linear": ({"x": V, "weight": V[0], "bias": V[0, :, 0]}, lambda: F.linear(V, V[0], V[0, :, 0])),
    "matmul": ({"x": V, "y": V, "transpose_x": I(False), "transpose_y": I(True)}, lambda: V @ V.transpose(1, 2)),
    "pad": ({"x": V, "pad": I([1, 2])}, lambda: F.pad(V, (1, 2))),
    "reduce_mean": ({"x": V, "axes": I([1]), "keep_dims": I(True)}, lambda: V.mean(1, keepdim=True)),
    "silu": ({"x": V}, lambda: F.silu(V)),
    "slice_by_index": ({"x": V, "begin": I([0, 1, -5]), "end": I([0, 3, -1]), "stride": I([1, 2, 1]),
                        "end_mask": I([True, False, False]), "squeeze_mask": I([False, False, False])},
                       lambda: V[:, 1:3:2, -5:-1]),
    "softmax": ({"x": V, "axis": I(1)}, lambda: V.softmax(1)),
    "sub": ({"x": V, "y": V[0, :1]}, lambda: V - V[0, :1]),
    "tanh": ({"x": V}, lambda: V.tanh()),
    "transpose": ({"x": V, "perm": I([2, 0, 1])}, lambda: V.permute(2, 0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("kind", list(FLOAT_OPS))
def test_an_op_says_what_torch_says(kind: str) -> None:
    given, reference = FLOAT_OPS[kind]
    want = reference().numpy()
    plain = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in given.items()}
    got = OPS[kind](**plain)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    narrow = OPS[kind](**{n: half(v) if isinstance(v, torch.Tensor) else v for n, v in given.items()})
    assert narrow.dtype == np.float16, "an op on halves gives halves"
    np.testing.assert_allclose(narrow, want, rtol=2**-10, atol=2e-4)


def array(values: Any, dtype: str) -> np.ndarray:
    return np.array(values, dtype)


@pytest.mark.parametrize(
    ("kind", "given", "want"),
    [
        # The example of iOS 18's documentation, two tables over the first axis.
        (
            "constexpr_lut_to_dense",
            {
                "indices": array([[2, 3], [3, 0], [1, 0], [3, 0], [2, 1], [0, 3]], "uint8"),
                "lut": array([1, 5, 9, 13, 2, 10, 18, 26], "float16").reshape(2, 1, 4, 1),
            },
            [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]],
        ),
        # iOS 16: five indices of two bits, the lowest first: 0, 3, 2, 1 in the first byte.
        (
            "constexpr_lut_to_dense",
            {"indices": array([0b01101100, 3], "uint8"), "lut": array([1, 2, 3, 4], "float16"), "shape": I([5])},
            [1, 4, 3, 2, 4],
        ),
        (
            "constexpr_affine_dequantize",
            {
                "quantized_data": array([[1, -2], [3, 127]], "int8"),
                "zero_point": array([1, 0], "int8"),
                "scale": array([0.5, 2], "float16"),
                "axis": I(0),
            },
            [[0, -1.5], [6, 254]],
        ),
        (
            "constexpr_blockwise_shift_scale",
            {
                "data": array([[1, -2, 3, 7]], "int8"),
                "scale": array([[0.5, 2]], "float16"),
                "offset": array([[1, 0]], "int8"),
            },
            [[0, -1.5, 6, 14]],
        ),
    ],
)
def test_compressed_weights_unpack_as_documented(kind: str, given: dict[str, Any], want: Any) -> None:
    got = OPS[kind](**given)
    assert got.dtype == np.float16
    assert got.tolist() == want


@pytest.mark.parametrize(
    ("kind", "given", "error"),
    [
        ("add", {"x": array([1], "float16"), "y": array([1], "float32")}, "mix"),
        ("cast", {"x": array([-1], "int32"), "dtype": "uint16"}, "does not fit uint16"),
        ("cast", {"x": array([1], "int32"), "dtype": "bf16"}, "'bf16' is not known"),
        ("concat", {"values": (I([1]), I([2])), "axis": I(0), "interleave": I(True)}, "interleaving is not known"),
        ("conv", {"x": half(X), "weight": half(W), "pad_type": "same"}, "pad_type 'same'"),
        ("gather", {"x": I([1, 2]), "indices": I([-1])}, "the table has 2 rows"),
        ("gather", {"x": I([1, 2]), "indices": I([0]), "batch_dims": I(1)}, "batch_dims above 0"),
        ("pad", {"x": half(V), "pad": I([1, 1]), "mode": "reflect"}, "mode 'reflect'"),
        ("pad", {"x": half(V), "pad": I([0, 2**30])}, "padding by"),
        ("range_1d", {"start": I(0), "end": I(2**30), "step": I(1)}, "a range from 0"),
        ("reshape", {"x": half(V), "shape": I([0, -1])}, "a shape with 0"),
        ("slice_by_index", {"x": I([1, 2]), "begin": I([0]), "end": I([2]), "stride": I([-1])}, "a stride below 1"),
        ("constexpr_lut_to_dense", {"indices": array([0], "uint8"), "lut": I([1, 2, 3]), "shape": I([4])}, "bytes of"),
        ("constexpr_lut_to_dense", {"indices": array([0], "uint8"), "lut": I([[[1, 2]] * 2])}, "a table"),
    ],
)
def test_what_is_not_known_is_refused(kind: str, given: dict[str, Any], error: str) -> None:
    with pytest.raises(EdgebertError, match=error):
        OPS[kind](**given)


def program(*operations: Operation, opset: str = "CoreML7", **outputs: Type) -> Program:
    return Program(opset, {"one": array(1, "float16")}, operations, {"x": Type("fp16", (None, 2))}, outputs)


def test_a_program_is_checked_before_it_runs_and_held_to_its_types_when_it_does() -> None:
    def add(inputs: dict[str, Any], declared: Type | None = None) -> Operation:
        result = ("y", declared or Type("fp16", (None, 2)))
        return Operation("add", {name: (value,) for name, value in inputs.items()}, (result,))

    x, good = array([[1, 2], [3, 4]], "float16"), add({"x": "x", "y": "one"})
    out = mil.Evaluator(program(good, y=Type("fp16", (None, 2)))).run({"x": x})
    assert out["y"].tolist() == [[2, 3], [4, 5]]
    for bad, match in (
        (program(add({"x": "x"})), "lacks its input y"),
        (program(add({"x": "x", "y": "z"})), "reads z, which no earlier op makes"),
        (program(add({"x": "x", "y": "one", "alpha": "one"})), "does not know its input alpha"),
        (program(Operation("lstm", {}, (("y", Type("fp16", ())),))), "op lstm .* not known"),
        (program(good, opset="CoreML9"), "rules are CoreML9"),
        (program(good, z=Type("fp16", ())), "gives back z"),
    ):
        with pytest.raises((InputError, Unsupported), match=match):
            mil.Evaluator(bad)
    for declared in (Type("fp32", (None, 2)), Type("fp16", (None, 3)), Type("fp16", (2,))):
        with pytest.raises(InputError, match="where the program declares"):
            mil.Evaluator(program(add({"x": "x", "y": "one"}, declared))).run({"x": x})
    with pytest.raises(InputError, match="input x: float32"):
        mil.Evaluator(program(good)).run({"x": x.astype(np.float32)})


def test_halves_are_rounded_after_each_op() -> None:
    big = array([60000], "float16")
    assert np.isinf(OPS["add"](x=big, y=big)).all(), "what leaves an op in fp16 overflows as fp16 does"
    wide = OPS["reduce_mean"](x=np.full((1, 64), 60000, np.float16), axes=I([1]), keep_dims=I(False))
    assert wide.tolist() == [60000], "a sum within an op does not"
