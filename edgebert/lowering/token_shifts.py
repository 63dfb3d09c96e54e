"""Rewrites that only XNNPACK's delegate in ExecuTorch asks for: it knows no slice of a free token axis."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.lowering.rewrite import matched
from edgebert.lowering.scaled_keys import ScaledKeysMixedAttention, scale_keys
from edgebert.models import heads, mobilebert
from edgebert.models.family import Model


class Shift(nn.Module):
    """Token t + `by` in the place of token t of (B, T, C), zeros beyond the ends, by a convolution for each channel.

    The kernel has a single 1. A delegate that slices no free axis has this operator, and it costs little.
    """

    kernel: Tensor

    def __init__(self, channels: int, by: int) -> None:
        super().__init__()
        self.reach = abs(by)
        kernel = torch.zeros(channels, 1, 1, 2 * self.reach + 1)
        kernel[..., -1 if by > 0 else 0] = 1.0
        self.register_buffer("kernel", kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Move the tokens of (B, T, C)."""
        if self.reach == 0:
            return x
        turned = x[:, None].permute(0, 3, 1, 2)
        moved: Tensor = F.conv2d(turned, self.kernel, padding=(0, self.reach), groups=x.shape[2])
        return moved.permute(0, 2, 3, 1)[:, 0]


class ShiftedMixedAttention(ScaledKeysMixedAttention):
    """ConvBERT's attention with scaled keys, its windows moved by convolutions instead of slices."""

    shifts: nn.ModuleList

    def convolve(self, x: Tensor, query: Tensor) -> Tensor:
        """The convolution half: each token's own kernel over its span, (B, T, C) to (B, T, H, D)."""
        batch, tokens, _ = x.shape
        kernels = self.span_kernel(self.span_key(x) * query).reshape(batch, tokens, self.n_heads, self.kernel)
        kernels = torch.softmax(kernels, dim=-1)  # (B, T, H, K)
        values = self.span_value(x)
        terms = [self.split(move(values)) * kernels[..., k : k + 1] for k, move in enumerate(self.shifts)]
        return sum(terms[1:], terms[0])


class LastToken(heads.Summary):
    """ConvBERT's summary of the last token, picked by a product with a row that is 1 there alone."""

    shift: Shift

    def forward(self, hidden: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        ones = hidden[..., :2] * 0 + 1  # (B, T, 2)
        last = (ones - self.shift(ones)).transpose(1, 2)  # (B, 2, T)
        out: Tensor = self.act(self.dense((last @ hidden)[:, 0]))
        return out


class ShiftedEmbeddings(mobilebert.Embeddings):
    """MobileBERT's embeddings, the words beside each one moved by convolutions."""

    next: Shift
    last: Shift

    def trigram(self, x: Tensor) -> Tensor:
        """Join to each token of (B, T, E) the next one, before it, and the one before, after it: (B, T, 3 E)."""
        return torch.cat([self.next(x), x, self.last(x)], dim=-1)


def avoid_token_slices(model: Model) -> Model:
    """Move ConvBERT's windows and MobileBERT's words without slices, pick the last token so, and scale keys beforehand.

    The root of the head's width goes into the weights of the keys, which spares a pass over all scores.
    """
    lowered = scale_keys(model)
    shifts: nn.ModuleList | None = None  # all layers share them
    for _, summary in matched(lowered, "pick_last_token", (heads.Summary,), lambda summary: summary.kind == "last"):
        summary.__class__ = LastToken
        summary.shift = Shift(2, 1)
    for _, mixed in matched(lowered, "shift_tokens", (ScaledKeysMixedAttention,)):
        reach, channels = mixed.kernel // 2, mixed.value.weight.shape[0]
        shifts = shifts or nn.ModuleList(Shift(channels, by) for by in range(-reach, reach + 1))
        mixed.__class__ = ShiftedMixedAttention  # the same parts, another order of work
        mixed.shifts = shifts
    for _, embeddings in matched(lowered, "shift_words", (mobilebert.Embeddings,), lambda module: module.trigrams):
        embeddings.__class__ = ShiftedEmbeddings
        assert isinstance(embeddings, ShiftedEmbeddings)
        embeddings.next, embeddings.last = (Shift(embeddings.word.embedding_dim, by) for by in (1, -1))
    return lowered.eval()
