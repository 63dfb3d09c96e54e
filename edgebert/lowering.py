"""Exact rewrites of a torch model into one that a target runs faster or quantizes further.

Each function takes a Model and returns a rewritten copy that computes the same numbers, up to the order of sums; the
model given is not touched, and one to which a rewrite does not apply comes back as a plain copy. A copy shares its
weights with the original wherever no rewrite changes them.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.models.bert import BertConfig, BertEncoder
from edgebert.models.convbert import GroupedLinear, MixedAttention, SeparableConv
from edgebert.models.family import Model
from edgebert.models.heads import LanguageModel
from edgebert.models.layers import Embeddings
from edgebert.models.squeezebert import SqueezeBertEncoder


class GroupedPointwise(nn.Module):
    """A block-diagonal linear layer over (B, T, C) as one grouped 1x1 convolution.

    A runtime that keeps channels last cancels the turns to (B, C, 1, T) and back: its convolution reads (B, 1, T, C).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int) -> None:
        """Take over `weight` (outputs, inputs / groups) and `bias` (outputs)."""
        super().__init__()
        outputs, inputs = weight.shape
        self.conv = nn.Conv2d(inputs * groups, outputs, 1, groups=groups, bias=bias is not None, device="meta")
        self.conv.weight = nn.Parameter(weight[:, :, None, None], requires_grad=False)
        if bias is not None:
            self.conv.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, outputs)."""
        out: Tensor = self.conv(x[:, None].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, 0]
        return out


class SlicedLinears(nn.Module):
    """A block-diagonal linear layer over (B, T, C) as one linear layer for each group, their outputs joined."""

    def __init__(self, weight: Tensor, bias: Tensor | None, groups: int) -> None:
        """Take over `weight` (outputs, inputs / groups) and `bias` (outputs)."""
        super().__init__()
        biases = (None,) * groups if bias is None else bias.chunk(groups)
        self.parts = nn.ModuleList(_linear(w, b) for w, b in zip(weight.chunk(groups), biases, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, outputs)."""
        pieces = x.chunk(len(self.parts), dim=-1)
        return torch.cat([part(piece) for part, piece in zip(self.parts, pieces, strict=True)], dim=-1)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer around given tensors."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.register_parameter("bias", None if bias is None else nn.Parameter(bias, requires_grad=False))
    return linear


Kind = TypeVar("Kind", bound=nn.Module)


def _norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    """A plain LayerNorm with the tensors of one that works on another layout."""
    plain = nn.LayerNorm(norm.normalized_shape, eps=norm.eps, device="meta")
    plain.weight, plain.bias = norm.weight, norm.bias
    return plain


GroupedForm = Callable[[Tensor, Tensor | None, int], nn.Module]


def _pointwise(conv: nn.Conv1d, grouped: GroupedForm) -> nn.Module:
    """The same map as a 1x1 `Conv1d`, over (B, T, C) instead of (B, C, T)."""
    weight = conv.weight[:, :, 0]
    return _linear(weight, conv.bias) if conv.groups == 1 else grouped(weight, conv.bias, conv.groups)


def duplicate(model: Model) -> Model:
    """A copy with modules of its own and the original's weights."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def _replace(model: Model, kind: type[Kind], rewrite: Callable[[Kind], nn.Module]) -> Model:
    """A copy in which every module of the type `kind` is what `rewrite` makes of it."""
    lowered = duplicate(model)
    for parent in list(lowered.modules()):
        for name, child in parent.named_children():
            if isinstance(child, kind):
                setattr(parent, name, rewrite(child))
    return lowered.eval()


def tokens_before_channels(model: Model, grouped: GroupedForm = GroupedPointwise) -> Model:
    """Let SqueezeBERT work on (B, T, C) from end to end, as BERT does.

    SqueezeBERT is BERT with grouped projections. Its (B, C, T) layout costs runtimes that keep channels last two
    transposes around every convolution and norm; BERT's encoder with the grouped projections put in does without.

    Args:
        model: any model; other families come back as they are.
        grouped: what a projection with more than one group becomes; with one group it is a plain linear layer.
    """
    lowered = duplicate(model)
    encoder = lowered.encoder
    if not isinstance(encoder, SqueezeBertEncoder):
        return lowered
    names = {field.name for field in dataclasses.fields(BertConfig)}
    config = BertConfig(**{k: v for k, v in dataclasses.asdict(model.config).items() if k in names})
    with torch.device("meta"):  # every tensor is replaced below
        bert = BertEncoder(config)
    bert.embeddings = encoder.embeddings
    layers: Iterable[tuple[Any, Any]] = zip(bert.layers, encoder.layers, strict=True)
    for ours, theirs in layers:
        for name in ("query", "key", "value"):
            setattr(ours.attention, name, _pointwise(getattr(theirs.attention, name), grouped))
        ours.attention.out = _pointwise(theirs.out, grouped)
        ours.up, ours.down = _pointwise(theirs.up, grouped), _pointwise(theirs.down, grouped)
        for name in ("attention_norm", "norm"):
            setattr(ours, name, _norm(getattr(theirs, name)))
    lowered.encoder = bert
    return lowered.eval()


def split_grouped_linears(model: Model, grouped: GroupedForm = GroupedPointwise) -> Model:
    """Replace ConvBERT's batched product with a constant by a form whose weight a quantizer gives a scale per output.

    Args:
        model: any model; only modules of type GroupedLinear are replaced.
        grouped: what each becomes.
    """

    def rewrite(linear: GroupedLinear) -> nn.Module:
        # (groups, inputs, outputs) of each group to (all outputs, inputs of a group)
        weight = linear.weight.transpose(1, 2).flatten(0, 1).contiguous()
        return grouped(weight, linear.bias, len(linear.weight))

    return _replace(model, GroupedLinear, rewrite)


class SeparableTokens(nn.Module):
    """ConvBERT's separable convolution over (B, T, C) whose pointwise half is a linear layer, its bias included."""

    def __init__(self, conv: SeparableConv) -> None:
        """Take over the weights of `conv`."""
        super().__init__()
        channels, _, kernel = conv.depthwise.weight.shape
        self.depthwise = nn.Conv2d(
            channels, channels, (1, kernel), padding=(0, kernel // 2), groups=channels, bias=False, device="meta"
        )
        self.depthwise.weight = nn.Parameter(conv.depthwise.weight[:, :, None], requires_grad=False)
        self.pointwise = _linear(conv.pointwise.weight[:, :, 0], conv.bias[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, T, C) into (B, T, width)."""
        out: Tensor = self.pointwise(self.depthwise(x[:, None].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, 0])
        return out


def separate_convolutions(model: Model) -> Model:
    """Let ConvBERT's separable convolutions work on (B, T, C) too, the pointwise half as a linear layer."""
    return _replace(model, SeparableConv, SeparableTokens)


class AddedWindows(MixedAttention):
    """ConvBERT's mixed attention whose windows are added one to the next instead of stacked and summed."""

    def convolve(self, x: Tensor, query: Tensor) -> Tensor:
        """The convolution half: each token's own kernel over its span, (B, T, C) to (B, T, H, D)."""
        batch, tokens, _ = x.shape
        kernels = self.span_kernel(self.span_key(x) * query).reshape(batch, tokens, self.n_heads, self.kernel)
        kernels = torch.softmax(kernels, dim=-1)  # (B, T, H, K)
        reach = self.kernel // 2
        values = F.pad(self.span_value(x), (0, 0, reach, reach))  # (B, T + K - 1, C/2)
        total = self.split(values[:, :tokens]) * kernels[..., :1]
        for k in range(1, self.kernel):
            total = total + self.split(values[:, k : k + tokens]) * kernels[..., k : k + 1]
        return total


def add_windows(model: Model) -> Model:
    """Sum ConvBERT's windows by additions, for delegates that take no concatenation of nine tensors."""
    lowered = duplicate(model)
    for module in lowered.modules():
        if type(module) is MixedAttention:
            module.__class__ = AddedWindows  # the same parts, another order of work
    return lowered


def _embeddings(model: Model) -> Embeddings:
    """The module that turns ids into vectors; every family's is the same."""
    embeddings = model.encoder.get_submodule("embeddings")
    assert isinstance(embeddings, Embeddings), type(embeddings)
    return embeddings


def _first_rows(table: nn.Embedding, rows: int) -> nn.Embedding:
    """A table cut to its first rows."""
    weight = table.weight.detach()[:rows].contiguous()
    return nn.Embedding(weight.shape[0], weight.shape[1], _weight=weight)


class PositionLookup(nn.Module):
    """Embeddings that look positions up like words instead of slicing their table."""

    def __init__(self, embeddings: Embeddings, longest: int) -> None:
        """Take over BERT's embeddings, the position table cut to the `longest` sequence."""
        super().__init__()
        self.word, self.token_type, self.norm = embeddings.word, embeddings.token_type, embeddings.norm
        self.position = _first_rows(embeddings.position, longest)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embed (B, T) int32 ids as (B, T, width)."""
        tokens = torch.arange(input_ids.shape[1], dtype=input_ids.dtype)
        # An id is never negative, so the minimum adds 0; it keeps converters from folding the lookup into float rows.
        rows = self.position(tokens + input_ids.clamp(max=0))
        out: Tensor = self.norm(self.word(input_ids) + rows + self.token_type(token_type_ids))
        return out


def look_positions_up(model: Model, longest: int) -> Model:
    """Make the position table a lookup, so that it is stored once for all lengths and quantized like the word table."""
    lowered = duplicate(model)
    lowered.encoder.embeddings = PositionLookup(_embeddings(lowered), longest)
    return lowered.eval()


class BoundedNorm(nn.Module):
    """A LayerNorm and then a bound that no finite value reaches."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        """Take over a norm."""
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, T, C)."""
        out: Tensor = self.norm(x)
        return out.clamp(max=torch.finfo(x.dtype).max)


def keep_tied_table(model: Model) -> Model:
    """Keep converters from multiplying the last norm's scale into a decoder that is tied to the word table.

    The product would be a second table, as large as the first. A bound between the two prevents it and costs little.
    """
    lowered = duplicate(model)
    head = lowered.head
    if isinstance(head, LanguageModel) and head.decoder.weight is _embeddings(lowered).word.weight:
        head.norm = BoundedNorm(head.norm)  # type: ignore[assignment]  # the head only calls it
    return lowered.eval()


def trim_positions(model: Model, longest: int) -> Model:
    """Drop the rows of the position table that no sequence of up to `longest` tokens reads."""
    lowered = duplicate(model)
    embeddings = _embeddings(lowered)
    embeddings.position = _first_rows(embeddings.position, longest)
    return lowered.eval()
