"""MobileBERT's NoNorms, a weight and a bias for each channel, inside of what stands beside them."""

import torch
from torch import nn

from edgebert.lowering.residual import add_bias
from edgebert.lowering.rewrite import derived, duplicate, matched, projections
from edgebert.models import mobilebert
from edgebert.models.family import Model
from edgebert.models.layers import NoNorm


def fold_no_norms(model: Model) -> Model:
    """Let what narrows a layer's input be its norm as well, and what widens its output add the bias of the norm before.

    Args:
        model: one whose layers work on (B, T, C).
    """
    lowered = duplicate(model)
    for _, narrow in matched(lowered, "fold_no_norms", (mobilebert.Narrow,), lambda part: type(part.norm) is NoNorm):
        assert isinstance(narrow.norm, NoNorm)
        weight, bias = narrow.norm.weight, narrow.norm.bias
        for part in projections(narrow.dense):
            part.weight = derived(part.weight.detach() * weight.detach()[:, None], part.weight, weight)
            part.bias = derived(part.bias.detach() * weight.detach() + bias.detach(), part.bias, weight, bias)
        narrow.norm = nn.Identity()
    for layer in lowered.encoder.modules():
        if isinstance(layer, mobilebert.Layer) and layer.widen is not None and type(layer.narrow_norm) is NoNorm:
            bias = layer.narrow_norm.bias
            with torch.no_grad():
                add_bias(layer.widen, layer.widen(bias[None, None])[0, 0] - layer.widen.bias, bias)
            layer.narrow_norm.register_parameter("bias", None)
    return lowered.eval()
