"""Rewrites that only XNNPACK's delegate in ExecuTorch asks for: it knows no slice of a free token axis."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.lowering.rewrite import duplicate, matched
from edgebert.lowering.scaled_keys import ScaledKeysMixedAttention, scale_keys
from edgebert.models import heads, mobilebert, modernbert
from edgebert.models.family import Model
from edgebert.models.layers import MASKED


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
        moved: Tensor = F.conv2d(turned, self.kernel, padding=(0, self.reach), groups=len(self.kernel))
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


class ShiftedWindows(modernbert.Windows):
    """The cut of one text's tokens, whole blocks of them, to whose places convolutions move those beside them."""

    def __init__(self, tokens: int, reach: int, hidden: Tensor, shifts: nn.ModuleDict) -> None:
        """Cut `tokens`.

        Args:
            tokens: how many, of whole blocks.
            reach: how far attention reaches.
            hidden: (W, 3 W), what a block adds to scores where all that it sees is padding.
            shifts: for each width of channels what gives the block before, and the one after.
        """
        super().__init__(tokens, reach, hidden)
        self.count, self.hidden, self.shifts = tokens // self.size, hidden, shifts

    def own(self, x: Tensor) -> Tensor:
        """Part (1, H, T, D) into blocks, (H, N, W, D)."""
        return x.reshape(x.shape[1], self.count, self.size, x.shape[3])

    def around(self, x: Tensor, value: float = 0.0) -> Tensor:
        """For each block of (1, H, T, D) what it sees, (H, N, 3 W, D), of zeros beyond the ends."""
        own = self.own(x)
        channels = self.size * x.shape[3]
        flat = own.reshape(x.shape[1], self.count, channels)
        before, after = self.shifts[f"{channels}"].children()
        return torch.cat([before(flat).reshape(own.shape), own, after(flat).reshape(own.shape)], dim=2)

    def mask(self, mask: Tensor) -> Tensor:
        """What to add to scores: of (1, 1, 1, T) for padding (1, N, W, 3 W). Zeros beyond the ends are to hide."""
        return self.hidden + self.around(mask.transpose(2, 3) - MASKED).transpose(2, 3)

    def joined(self, x: Tensor) -> Tensor:
        """Blocks (H, N, W, D) as a sequence again, (1, H, T, D)."""
        return x.reshape(1, x.shape[0], self.tokens, x.shape[3])

    def first(self, x: Tensor) -> Tensor:
        """The first of the blocks along the second axis, which goes: (1, H, ...)."""
        return x[None, :, 0]


class ShiftedWindowsEncoder(modernbert.ModernBertEncoder):
    """ModernBERT's encoder for one text of as many tokens as whole blocks have."""

    near: Tensor
    shifts: nn.ModuleDict

    def windows(self, tokens: int) -> ShiftedWindows:
        """How local layers part so many tokens."""
        return ShiftedWindows(tokens, self.reach, self.near, self.shifts)


def shift_windows(model: Model) -> Model:
    """Part ModernBERT's local layers into blocks without slices, for inputs of whole blocks; others are left alone."""
    lowered = duplicate(model)
    for _, encoder in matched(lowered, "shift_windows", (modernbert.ModernBertEncoder,)):
        near = modernbert.block_mask(encoder.reach, torch.float32)
        size, width = modernbert.block_size(encoder.reach), encoder.rotary.cos.shape[1]
        encoder.__class__ = ShiftedWindowsEncoder  # the same parts, another order of work
        encoder.near = near + MASKED
        encoder.shifts = nn.ModuleDict({
            f"{channels}": nn.Sequential(Shift(channels, -1), Shift(channels, 1)) for channels in (size, size * width)
        })
    return lowered.eval()


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
