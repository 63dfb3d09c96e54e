"""Grouped projections as what a runtime multiplies fastest or quantizes further."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from edgebert.lowering.rewrite import derived, duplicate, linear, matched, put
from edgebert.models import bert, squeezebert
from edgebert.models.convbert import GroupedLinear
from edgebert.models.family import Model


class GroupedPointwise(nn.Module):
    """A block-diagonal linear layer over (B, T, C) as one grouped 1x1 convolution.

    A runtime that keeps channels last cancels the turns to (B, C, 1, T) and back: its convolution reads (B, 1, T, C).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int) -> None:
        """Take over `weight` (outputs, inputs / groups) and `bias` (outputs)."""
        super().__init__()
        outputs, inputs = weight.shape
        self.conv = nn.Conv2d(inputs * groups, outputs, 1, groups=groups, bias=bias is not None, device="meta")
        self.conv.weight = derived(weight[:, :, None, None], weight)
        if bias is not None:
            self.conv.bias = derived(bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, outputs)."""
        out: Tensor = self.conv(x[:, None].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, 0]
        return out


class SlicedLinears(nn.Module):
    """A block-diagonal linear layer over (B, T, C) as one linear layer for each group, their outputs joined."""

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int) -> None:
        """Take over `weight` (outputs, inputs / groups) and `bias` (outputs)."""
        super().__init__()
        weights = [derived(rows, weight) for rows in weight.chunk(groups)]
        biases = [None] * groups if bias is None else [derived(rows, bias) for rows in bias.chunk(groups)]
        self.parts = nn.ModuleList(linear(w, b) for w, b in zip(weights, biases, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, outputs)."""
        pieces = x.chunk(len(self.parts), dim=-1)
        return torch.cat([part(piece) for part, piece in zip(self.parts, pieces, strict=True)], dim=-1)


def _norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    """A plain LayerNorm with the tensors of one that works on another layout."""
    plain = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device="meta")
    plain.weight, plain.bias = norm.weight, norm.bias
    return plain


# Weight (outputs, inputs / groups), bias (outputs), groups.
GroupedForm = Callable[[Tensor, Tensor | None, int], nn.Module]


def _pointwise(conv: nn.Conv1d, grouped: GroupedForm) -> nn.Module:
    """The same map as a 1x1 `Conv1d`, over (B, T, C) instead of (B, C, T)."""
    weight = derived(conv.weight[:, :, 0], conv.weight)
    return linear(weight, conv.bias) if conv.groups == 1 else grouped(weight, conv.bias, conv.groups)


def tokens_before_channels(model: Model, grouped: GroupedForm = GroupedPointwise) -> Model:
    """Let SqueezeBERT work on (B, T, C) from end to end, as BERT does.

    SqueezeBERT is BERT with grouped projections. Its (B, C, T) layout costs runtimes that keep channels last two
    transposes around every convolution and norm; BERT's encoder with the grouped projections put in does without: in
    LiteRT SqueezeBERT-base's classifier takes 359.9 M instructions, 438.0 M without it. Other targets build on it.

    Args:
        model: any model; other families come back as they are.
        grouped: what a projection with more than one group becomes; with one group it is a plain linear layer.
    """
    lowered = duplicate(model)
    kinds = (squeezebert.SqueezeBertEncoder, squeezebert.Layer, squeezebert.Attention)
    found = dict(matched(lowered, "tokens_before_channels", kinds))
    encoder: Any = found.get("encoder")
    if encoder is None or len(found) < 1 + 2 * len(encoder.layers):  # a layer of another kind: told by `matched`
        return lowered
    names = [field.name for field in dataclasses.fields(bert.BertConfig) if hasattr(model.config, field.name)]
    config = bert.BertConfig(**{name: getattr(model.config, name) for name in names})
    with torch.device("meta"):  # every tensor is replaced below
        turned = bert.BertEncoder(config)
    turned.embeddings = encoder.embeddings
    layers: Iterable[tuple[Any, Any]] = zip(turned.layers, encoder.layers, strict=True)
    for ours, theirs in layers:
        for name in ("query", "key", "value"):
            setattr(ours.attention, name, _pointwise(getattr(theirs.attention, name), grouped))
        ours.attention.out = _pointwise(theirs.out, grouped)
        ours.up, ours.down = _pointwise(theirs.up, grouped), _pointwise(theirs.down, grouped)
        for name in ("attention_norm", "norm"):
            setattr(ours, name, _norm(getattr(theirs, name)))
    lowered.encoder, lowered.parts = turned, (bert.Layer, bert.Attention)
    return lowered.eval()


def split_grouped_linears(model: Model, grouped: GroupedForm = GroupedPointwise) -> Model:
    """Replace ConvBERT's batched product with a constant by a form whose weight a quantizer gives a scale per output.

    For accuracy, and for the smaller ConvBERTs: the base one has a single group.

    Args:
        model: any model; only modules of type GroupedLinear are replaced.
        grouped: what each becomes.
    """
    lowered = duplicate(model)
    for name, batched in matched(lowered, "split_grouped_linears", (GroupedLinear,)):
        # (groups, inputs, outputs) of each group to (all outputs, inputs of a group)
        weight = batched.weight.transpose(1, 2).flatten(0, 1).contiguous()
        put(lowered, name, grouped(derived(weight, batched.weight), batched.bias, len(batched.weight)))
    return lowered.eval()
