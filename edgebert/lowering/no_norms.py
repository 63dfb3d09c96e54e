"""MobileBERT's NoNorms, a weight and a bias for each channel, inside of what stands beside them."""

from torch import nn

from edgebert.lowering.residual import pass_on
from edgebert.lowering.rewrite import derived, duplicate, matched, projections
from edgebert.models import mobilebert
from edgebert.models.family import Model
from edgebert.models.layers import NoNorm


def fold_no_norms(model: Model) -> Model:
    """Let what narrows a layer's input be its norm as well, and what reads a norm alone have its bias.

    Args:
        model: one whose layers work on (B, T, C), after `fold_norm_biases`, which gives narrowing layers biases.
    """
    lowered = duplicate(model)
    for _, narrow in matched(lowered, "fold_no_norms", (mobilebert.Narrow,), lambda part: type(part.norm) is NoNorm):
        assert isinstance(narrow.norm, NoNorm)
        weight, bias = narrow.norm.weight, narrow.norm.bias
        for part in projections(narrow.dense):
            part.weight = derived(part.weight.detach() * weight.detach()[:, None], part.weight)
            moved = part.bias.detach() * weight.detach()
            part.bias = derived(moved if bias is None else moved + bias.detach(), part.bias)
        narrow.norm = nn.Identity()
    for layer in (module for module in lowered.encoder.modules() if isinstance(module, mobilebert.Layer)):
        asking = layer.narrow_attention
        if asking is not None and isinstance(asking.norm, nn.Identity):
            # LiteRT's converter would do it, for two products follow each other now.
            pass_on(asking.dense, layer.attention.query, layer.attention.key)
        if layer.widen is not None and type(layer.narrow_norm) is NoNorm:
            pass_on(layer.narrow_norm, layer.widen)
    return lowered.eval()
