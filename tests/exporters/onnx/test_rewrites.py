"""ONNX graphs rewritten for fewer instructions: each rewrite by itself, in ONNX Runtime, against torch."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from onnx_files import batch, visible, weights
from tiers import quick
from tiny import expected

from edgebert import lowering
from edgebert.models import MODELS
from edgebert.models.signature import INPUTS
from edgebert.quantization.recipes import RECIPES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


from edgebert.exporters.onnx import export as exporter  # noqa: E402
from edgebert.exporters.onnx import rewrites as rewrites  # noqa: E402
from edgebert.exporters.onnx.rewriter import Rewriter  # noqa: E402

LONGEST = 24
FAMILIES = tuple(MODELS)
QUICK = ("bert",)

Rewrite = Callable[[Rewriter], None]


@cache
def lowered(family: str, task: str) -> Any:
    """A tiny model in the form that becomes an int8 graph."""
    return exporter.lower(visible(family, task), RECIPES["w8a8-dynamic"], LONGEST)


@cache
def plain(family: str, task: str) -> Any:
    """Its graph in float."""
    import onnx_ir

    return onnx_ir.to_proto(exporter._convert(lowered(family, task), LONGEST))


def rewritten(family: str, task: str, rewrite: Rewrite) -> Any:
    """Its graph in float, with one rewrite."""
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    converted = onnx_ir.from_proto(plain(family, task))
    rewrite(Rewriter(converted))
    RemoveUnusedNodesPass()(converted)
    return onnx_ir.to_proto(converted)


def ops(proto: Any) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def largest_difference(family: str, task: str, proto: Any) -> float:
    """From torch's answers over a few sizes, over the largest of them."""
    model, found = visible(family, task), 0.0
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows, tokens in ((1, 1), (2, 7), (3, LONGEST)):
        inputs = batch(rows, tokens)
        wanted = expected(model, inputs)
        got = session.run(None, {name: inputs[name] for name in INPUTS})
        for value, other in zip(wanted.values(), got, strict=True):
            found = max(found, float(np.abs(value - other).max() / np.abs(value).max()))
    return found


# DeBERTa's keys are scaled where its distances are folded, see tests/lowering.
@pytest.mark.parametrize("family", quick([name for name in FAMILIES if name != "deberta-v2"], QUICK))
@pytest.mark.parametrize("task", ["base", "sequence-classification"])
def test_scaled_keys_answer_the_same(family, task):
    model = visible(family, task)
    plain = lowering.tokens_before_channels(model, lowering.SlicedLinears)
    scaled = lowering.scale_keys(plain)
    inputs = batch(2, 9)
    for name, value in expected(model, inputs).items():
        np.testing.assert_allclose(expected(scaled, inputs)[name], value, atol=1e-5)
    named = dict(scaled.named_parameters())
    keys = [name for name, tensor in plain.named_parameters() if not torch.equal(tensor, named[name])]
    assert keys
    assert all("attention.qkv" in name if family == "modernbert" else "attention.key" in name for name in keys)


@pytest.mark.parity
@pytest.mark.parametrize("family", quick(FAMILIES, QUICK))
def test_masks_are_widened_once(family):
    # One token asks in the last layer of a classifier, though not in ConvBERT's. A causal mask has that shape already,
    # and so have one that knows distances and that of local layers; of ModernBERT's three one is global.
    other = {"convbert": ("sequence-classification", 2), "rembert": ("causal-lm", 0), "mpnet": ("masked-lm", 0)}
    base = {"mpnet": 0, "modernbert": 1}.get(family, 2)
    for task, layers in (("base", base), other.get(family, ("sequence-classification", 1))):
        proto = rewritten(family, task, rewrites.masks_for_all_tokens)
        widened = [node.output[0] for node in proto.graph.node if node.op_type == "Expand"]
        assert len(widened) == min(layers, 1)
        assert sum(name in widened for node in proto.graph.node for name in node.input) == layers
        assert largest_difference(family, task, proto) < 1e-5


@pytest.mark.parity
@pytest.mark.parametrize("family", quick(FAMILIES, QUICK))
def test_norms_by_instance_are_layer_norms(family):
    for task in ("base", "sequence-classification"):  # the last layer of the second has one token
        before = ops(rewritten(family, task, lambda graph: None))["LayerNormalization"]
        proto = rewritten(family, task, rewrites.norms_by_instance)
        # MobileBERT has none. ModernBERT's head has one of a mean, which is no token.
        pooled = int(family == "modernbert" and task != "base")
        assert before == {"mobilebert": 0, "modernbert": 7 + pooled}.get(family, 5)
        assert ops(proto)["InstanceNormalization"] == before - pooled
        assert ops(proto)["LayerNormalization"] == pooled
        assert largest_difference(family, task, proto) < 1e-5


@pytest.mark.parity
@pytest.mark.parametrize("family", quick(["squeezebert", "convbert"], ["squeezebert"]))
def test_groups_stay_apart_in_the_feed_forward(family):
    before = ops(rewritten(family, "base", lambda graph: None))
    proto = rewritten(family, "base", rewrites.keep_groups_apart)
    groups = 4 if family == "squeezebert" else 2
    assert ops(proto)["Gelu"] == groups * before["Gelu"]
    assert largest_difference(family, "base", proto) < 1e-5


@pytest.mark.parity
@pytest.mark.parametrize("family", quick(FAMILIES, QUICK))
def test_what_is_computed_in_half_differs_by_less_than_int8(family):
    for rewrite, op in ((rewrites.gelus_in_half, "Gelu"), (rewrites.products_in_half, "MatMul")):
        before = ops(rewritten(family, "base", lambda graph: None))
        proto = rewritten(family, "base", rewrite)
        # Two casts a Gelu; three a product, two products a layer, and DeBERTa's two more with distances.
        products = {"deberta-v2": 2 * 4, "modernbert": 3 * 2}.get(family, 2 * 2)
        assert ops(proto)["Cast"] - before["Cast"] == {"Gelu": 2 * before["Gelu"], "MatMul": 3 * products}[op]
        assert largest_difference(family, "base", proto) < 3e-3


@pytest.mark.parity
def test_only_recipes_with_8_bit_activations_compute_in_half(tmp_path):
    model = visible("squeezebert", "base")
    for recipe, half in (("fp32", False), ("w8a8-dynamic", True)):
        path = exporter.export(model, RECIPES[recipe], (LONGEST,), tmp_path / f"{recipe}.onnx").path
        casts = [a.i for n in onnx.load(str(path)).graph.node if n.op_type == "Cast" for a in n.attribute]
        assert (onnx.TensorProto.FLOAT16 in casts) == half
        assert not any(array.dtype == np.float16 for array in weights(path).values())
