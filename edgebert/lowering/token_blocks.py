"""Linear layers as convolutions over blocks of tokens, which leave XNNPACK, LiteRT's delegate, in half precision."""

import math

import torch
from torch import Tensor, nn

from edgebert.lowering.rewrite import derived, duplicate, matched, put
from edgebert.models.family import Model

BLOCK = 4  # tokens that share a scale: as many rows as XNNPACK's int8 kernels for Arm multiply at once


class TokenBlocks(nn.Module):
    """A linear layer over (B, T, C), block-diagonal where it has groups, as a 1x1 convolution over blocks of tokens.

    XNNPACK's fully connected layer in int8 gives float32, and so does every operator that its result reaches
    (FallbackToFp32 in src/subgraph/rewrites/cvt_to_fp32.cc); its convolution gives what the graph computes in. A
    convolution quantizes each entry of its batch with a scale of its own: so that an outlier coarsens four tokens and
    not all, four are one entry. The embedded default is 28 dB from torch so, 23 with all tokens as one entry, 33 with
    a scale for each token of each group. SqueezeBERT-base in int8, encoder, 128 tokens, instructions on a Cortex-A76:
    it took 0.589 G with a fully connected layer for each group, and 0.400 G so. BERT-base takes 0.968 G so, and 1.210 G
    as others convert it.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int) -> None:
        """Take over `weight` (outputs, inputs / groups) and `bias` (outputs)."""
        super().__init__()
        outputs, inputs = weight.shape
        # A step of two along an axis of one entry changes nothing, but without it and without groups XNNPACK makes a
        # fully connected layer of a 1x1 convolution: 15 M instructions more for SqueezeBERT's one such layer.
        step = (2, 1) if groups == 1 else 1
        self.conv = nn.Conv2d(inputs * groups, outputs, 1, step, groups=groups, bias=bias is not None, device="meta")
        self.conv.weight = derived(weight[:, :, None, None], weight)
        if bias is not None:
            self.conv.bias = derived(bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, outputs)."""
        batch, tokens, channels = x.shape
        size = math.gcd(tokens, BLOCK)
        blocks = x.reshape(batch * tokens // size, 1, size, channels).permute(0, 3, 1, 2)
        out: Tensor = self.conv(blocks).permute(0, 2, 3, 1).reshape(batch, tokens, -1)
        return out


def linears_in_blocks(model: Model) -> Model:
    """Make every linear layer of an encoder a convolution over blocks of tokens; the head's stay as they are.

    SqueezeBERT has one a layer without groups: its classifier takes 359.9 M instructions, 370.6 M without it.
    """
    lowered = duplicate(model)
    inside = {id(module) for module in lowered.encoder.modules()}
    for name, layer in list(matched(lowered, "linears_in_blocks", (nn.Linear,), lambda layer: id(layer) in inside)):
        bias = layer.bias
        # A kernel adds a bias in any case, and a converter makes an operator of its own of a convolution without.
        if bias is None:
            bias = derived(torch.zeros(layer.out_features), layer.weight)
        put(lowered, name, TokenBlocks(layer.weight, bias, 1))
    return lowered.eval()
