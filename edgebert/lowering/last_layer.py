"""The last layer, computed only for the token that the head reads."""

from typing import Any

import torch
from torch import Tensor, nn

from edgebert.lowering.rewrite import derived, duplicate, linear, matched, projections
from edgebert.models import bert, convbert, deberta_v2, heads, mobilebert, modernbert, nomic_bert
from edgebert.models.family import Model, executed, parted
from edgebert.models.layers import Rotary


def _first(x: Tensor, firsts: Tensor | None) -> Tensor:
    """The first token of (B, T, C), or the first of each of S texts, (B, S, C); see `packed.py`."""
    return x[:, :1] if firsts is None else firsts @ x


def _first_row(mask: Tensor, firsts: Tensor | None = None) -> Tensor:
    """Of a mask for each token, (B, 1 or H, T, T), the same tokens'; one for all, (B, 1, 1, T), as it is."""
    if mask.shape[2] == 1:
        return mask
    return mask[:, :, :1] if firsts is None else firsts[:, None] @ mask


class FirstTokenLayer(bert.Layer):
    """BERT's layer that answers for the first token alone, or each of `firsts`, (B, S, T) with a 1 in each row."""

    firsts: Tensor | None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, C) to (B, 1, C), or (B, S, C)."""
        return self.answer(_first(x, self.firsts), x, _first_row(mask, self.firsts))


class FirstTokenConvBertLayer(convbert.Layer):
    """ConvBERT's layer that answers for the first token alone."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, C) to (B, 1, C)."""
        return self.answer(x[:, :1], x, mask)


class FirstTokenDebertaV2Layer(deberta_v2.Layer):
    """DeBERTa's layer that answers for the first token alone."""

    def forward(self, x: Tensor, mask: Tensor, rows: tuple[Tensor, Tensor] | None) -> Tensor:
        """Map (B, T, C) to (B, 1, C)."""
        return self.answer(x[:, :1], x, mask, rows)


class FirstTokenMobileBertLayer(mobilebert.Layer):
    """MobileBERT's layer that answers for the first token alone."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, C) to (B, 1, C)."""
        first, values = x[:, :1], x
        if self.narrow is not None and self.values_narrow:
            values = self.narrow(x)
            stream = values[:, :1]
        else:
            stream = first if self.narrow is None else self.narrow(first)
        keys = values if self.narrow_attention is None else self.narrow_attention(x)
        return self.answer(first, stream + self.attention(keys[:, :1], keys, values, mask))


class FirstTokenModernBertAttention(nn.Module):
    """ModernBERT's attention from the first token, whose query is made apart from all keys and values.

    The first token is turned by no angle; where blocks are cut, it sees its own and the next.
    """

    def __init__(self, attention: modernbert.Attention) -> None:
        """Take over the parts of `attention`."""
        super().__init__()
        self.n_heads, self.scale, self.out = attention.n_heads, attention.scale, attention.out
        (qkv,) = projections(attention.qkv)
        weight, bias = qkv.weight.flatten(1), qkv.bias
        width = weight.shape[1]
        self.query, self.key_value = (
            linear(derived(weight[rows], qkv.weight), None if bias is None else derived(bias[rows], bias))
            for rows in (slice(width), slice(width, None))
        )

    def forward(
        self, asking: Tensor, x: Tensor, mask: Tensor, rotary: Rotary, windows: modernbert.Windows | None
    ) -> Tensor:
        """Attend from first tokens, (B, A, C), to (B, T, C) or its first window; `mask` is added to their scores."""
        batch, _, width = x.shape
        split = (batch, -1, self.n_heads, width // self.n_heads)
        query = self.query(asking).reshape(split).transpose(1, 2)  # (B, H, A, D)
        key, value = (part.reshape(split).transpose(1, 2) for part in self.key_value(x).chunk(2, dim=-1))
        key = rotary(key)
        if windows is not None:
            key, value = (windows.first(windows.around(part)) for part in (key, value))  # (B, H, 3 W, D)
        scores = query @ key.transpose(-1, -2)
        if self.scale != 1.0:
            scores = scores / self.scale
        context = torch.softmax(scores + mask, dim=-1) @ value  # (B, H, A, D)
        out: Tensor = self.out(context.transpose(1, 2).reshape(batch, -1, width))
        return out


class FirstTokenModernBertLayer(modernbert.Layer):
    """ModernBERT's layer that answers for the first token alone, or each of `firsts`, (B, S, T), that are not cut."""

    firsts: Tensor | None

    def forward(self, x: Tensor, mask: Tensor, rotary: Rotary, windows: modernbert.Windows | None) -> Tensor:
        """Map (B, T, C) to (B, 1, C), or (B, S, C)."""
        normed = self.attention_norm(x)
        seen = _first_row(mask if windows is None else windows.first(mask), self.firsts)
        attended = self.attention(_first(normed, self.firsts), normed, seen, rotary, windows)
        return self.answer(_first(x, self.firsts), attended)


class FirstTokenNomicBertLayer(nomic_bert.Layer):
    """Nomic BERT's layer that answers for the first token alone, or each of `firsts`, (B, S, T)."""

    firsts: Tensor | None

    def forward(self, x: Tensor, mask: Tensor, rotary: Rotary) -> Tensor:
        """Map (B, T, C) to (B, 1, C), or (B, S, C)."""
        return self.answer(_first(x, self.firsts), x, _first_row(mask, self.firsts), rotary)


FORMS: dict[type[nn.Module], type[nn.Module]] = {
    bert.Layer: FirstTokenLayer,
    convbert.Layer: FirstTokenConvBertLayer,
    deberta_v2.Layer: FirstTokenDebertaV2Layer,
    mobilebert.Layer: FirstTokenMobileBertLayer,
    modernbert.Layer: FirstTokenModernBertLayer,
    nomic_bert.Layer: FirstTokenNomicBertLayer,
}


# Those whose distances are the first token's, and what they were.
WHOLE: dict[type[nn.Module], type[nn.Module]] = {FirstTokenDebertaV2Layer: deberta_v2.Layer}


def reads_first(head: nn.Module) -> bool:
    """Whether a head reads no token but the first."""
    if type(head) is heads.SentenceEmbedding:
        return set(head.pooling.modes) == {"cls"} and not head.states
    pooler = head.pooler if type(head) is heads.Classifier else None
    return type(pooler) in (heads.Pooler, heads.DenseFirst, heads.TransformFirst) or (
        type(pooler) is heads.Summary and pooler.kind == "first"
    )


def first_token_only(model: Model) -> Model:
    """Let the last layer answer for the first token alone, where the head reads no other.

    Keys and values come from all tokens; queries, the attention's output and the feed-forward are one token's. That is
    a fourteenth of SqueezeBERT-base's products, and the numbers stay what they are. With `query_inputs` that is in int8
    at 128 tokens 31.7 M of 391.5 M instructions less in LiteRT, 43.4 M of 550.8 M in ONNX Runtime, 33.0 M of 419.0 M
    in ExecuTorch.

    Args:
        model: one whose layers work on (B, T, C); with another head, or layout, it comes back as it is. So does a large
            DeBERTa of one layer, whose convolution needs all tokens of it.
    """
    lowered = duplicate(model)
    uses = executed(lowered.encoder)
    known = type(uses[-1]) in FORMS
    alone = len(uses) == 1 and getattr(lowered.encoder, "convolution", None) is not None
    # Of a layer that runs several times this use alone changes.
    last = parted(lowered.encoder) if reads_first(lowered.head) and known and not alone else None
    for _, layer in matched(lowered, "first_token_only", FORMS, lambda layer: layer is last):
        layer.__class__ = FORMS[type(layer)]  # the same parts, for fewer tokens
        layer.register_buffer("firsts", None, persistent=False)
        if isinstance(layer, FirstTokenModernBertLayer):
            layer.add_module("attention", FirstTokenModernBertAttention(layer.attention))
    return lowered.eval()


def answer_firsts(encoder: nn.Module, firsts: Tensor) -> list[str]:
    """Let a last layer that answers for the first token alone answer for the first one of each text in a row.

    Args:
        encoder: its own; one whose distances are those of the first token answers for all tokens again.
        firsts: of the shape (B, S, T) that is to come.

    Returns:
        The name of the buffer that says which; none where the layer answers for all tokens.
    """
    last: Any = executed(encoder)[-1]
    last.__class__ = WHOLE.get(type(last), type(last))
    if type(last) not in FORMS.values():
        return []
    last.register_buffer("firsts", firsts, persistent=False)
    return [f"{name}.firsts" for name, module in encoder.named_modules() if module is last]
