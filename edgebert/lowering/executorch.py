"""Rewrites that only XNNPACK's delegate in ExecuTorch asks for: it knows no slice of a free token axis."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.lowering.copies import duplicate
from edgebert.models import bert, convbert
from edgebert.models.family import Model


class ScaledAttention(bert.Attention):
    """BERT's attention whose keys are made already divided by the root of the head's width."""

    def forward(self, asked: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Attend from the tokens `asked` (B, A, C) to (B, T, C); `mask` is added to the scores (B, H, A, T)."""
        query, key, value = self.split(self.query(asked)), self.split(self.key(x)), self.split(self.value(x))
        context = torch.softmax(query @ key.transpose(-1, -2) + mask, dim=-1) @ value  # (B, H, A, D)
        out: Tensor = self.out(context.transpose(1, 2).reshape(asked.shape))
        return out


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


class ShiftedMixedAttention(convbert.MixedAttention):
    """ConvBERT's attention with scaled keys, its windows moved by convolutions instead of slices."""

    shifts: nn.ModuleList

    def attend(self, x: Tensor, query: Tensor, mask: Tensor) -> Tensor:
        """The self-attention half: (B, T, C) to (B, T, H, D)."""
        queries, keys = self.split(query).transpose(1, 2), self.split(self.key(x)).transpose(1, 2)
        values = self.split(self.value(x)).transpose(1, 2)
        scores = queries @ keys.transpose(-1, -2) + mask  # (B, H, T, T)
        return (torch.softmax(scores, dim=-1) @ values).transpose(1, 2)

    def convolve(self, x: Tensor, query: Tensor) -> Tensor:
        """The convolution half: each token's own kernel over its span, (B, T, C) to (B, T, H, D)."""
        batch, tokens, _ = x.shape
        kernels = self.span_kernel(self.span_key(x) * query).reshape(batch, tokens, self.n_heads, self.kernel)
        kernels = torch.softmax(kernels, dim=-1)  # (B, T, H, K)
        values = self.span_value(x)
        terms = [self.split(move(values)) * kernels[..., k : k + 1] for k, move in enumerate(self.shifts)]
        return sum(terms[1:], terms[0])


class LastToken(convbert.Summary):
    """ConvBERT's summary of the last token, picked by a product with a row that is 1 there alone."""

    shift: Shift

    def forward(self, hidden: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        ones = hidden[..., :2] * 0 + 1  # (B, T, 2)
        last = (ones - self.shift(ones)).transpose(1, 2)  # (B, 2, T)
        out: Tensor = self.act(self.dense((last @ hidden)[:, 0]))
        return out


def avoid_token_slices(model: Model) -> Model:
    """Move ConvBERT's windows and pick its last token without slices, and scale attention's keys beforehand.

    The root of the head's width goes into the weights of the keys, which spares a pass over all scores.
    """
    lowered = duplicate(model)
    kinds: dict[type[nn.Module], type[nn.Module]] = {
        bert.Attention: ScaledAttention,
        convbert.MixedAttention: ShiftedMixedAttention,
    }
    shifts: nn.ModuleList | None = None  # all layers share them
    for module in list(lowered.modules()):
        if isinstance(module, convbert.Summary) and module.kind == "last":
            module.__class__ = LastToken
            module.shift = Shift(2, 1)
        if type(module) is convbert.MixedAttention:
            reach, channels = module.kernel // 2, module.value.weight.shape[0]
            shifts = shifts or nn.ModuleList(Shift(channels, by) for by in range(-reach, reach + 1))
            module.shifts = shifts
        if type(module) in kinds:
            module.__class__ = kinds[type(module)]  # the same parts, another order of work
            key, heads = module.get_submodule("key"), int(module.n_heads)  # type: ignore[arg-type]
            _scale(key, 1 / math.sqrt(_outputs(key) // heads))
    return lowered.eval()


def _outputs(projection: nn.Module) -> int:
    """How wide a projection's result is; a grouped one has parts."""
    layers = [part for part in projection.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    return sum(part.weight.shape[0] for part in layers)


def _scale(projection: nn.Module, factor: float) -> None:
    """Multiply a projection's weights and biases."""
    for part in projection.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            part.register_parameter(name, nn.Parameter(parameter.detach() * factor, requires_grad=False))
