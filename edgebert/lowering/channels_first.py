"""Every layer over (B, C, 1, T), its linear layers 1x1 convolutions: the layout of Apple's Neural Engine.

The Neural Engine reads a four-axis tensor with channels second and the sequence last, and multiplies by convolving:
https://machinelearning.apple.com/research/neural-engine-transformers. Parameters keep the names they have in the model
given, so that what becomes of each can be told from its name. Batch 1: reshapes name every axis but the tokens.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.errors import ConversionFailed
from edgebert.lowering.rewrite import derived, duplicate, linear
from edgebert.models import bert, convbert, heads, mobilebert, squeezebert
from edgebert.models.family import Model, executed
from edgebert.models.layers import MASKED, NoNorm, additive_mask


class Pointwise(nn.Conv2d):
    """A linear layer, block-diagonal where it has groups, as a 1x1 convolution over (B, C, 1, T)."""

    def __init__(self, weight: Tensor, bias: nn.Parameter | None, groups: int = 1) -> None:
        """Take over `weight` (outputs, inputs / groups) and `bias` (outputs)."""
        outputs, inputs = weight.shape
        super().__init__(inputs * groups, outputs, 1, groups=groups, bias=bias is not None, device="meta")
        self.weight = derived(weight[:, :, None, None], weight)
        self.bias = bias


class Depthwise(nn.Conv2d):
    """A convolution along the tokens of (B, C, 1, T), each channel by itself, the ends padded with zeros."""

    def __init__(self, weight: Tensor) -> None:
        """Take over `weight` (C, 1, kernel)."""
        channels, _, kernel = weight.shape
        super().__init__(
            channels, channels, (1, kernel), padding=(0, kernel // 2), groups=channels, bias=False, device="meta"
        )
        self.weight = derived(weight[:, :, None], weight)


class SeparableChannels(nn.Module):
    """ConvBERT's separable convolution over (B, C, 1, T), its bias in the pointwise half."""

    def __init__(self, conv: convbert.SeparableConv) -> None:
        """Take over the weights of `conv`."""
        super().__init__()
        self.depthwise = Depthwise(conv.depthwise.weight)
        self.bias = derived(conv.bias[:, 0], conv.bias)
        weight = conv.pointwise.weight
        self.pointwise = Pointwise(derived(weight[:, :, 0], weight), self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, C, 1, T) into (B, width, 1, T)."""
        out: Tensor = self.pointwise(self.depthwise(x))
        return out


@torch.library.custom_op("edgebert::channel_norm", mutates_args=())
def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over axis 1; an operator of its own, so that a converter sees one norm and not two transposes."""
    return F.layer_norm(x.movedim(1, -1), weight.shape, weight, bias, eps).movedim(-1, 1).contiguous()


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of (B, C, 1, T)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        """Take over the weights of `norm`."""
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each token of (B, C, 1, T)."""
        out: Tensor = channel_norm(x, self.weight, self.bias, self.eps)
        return out


class ChannelScale(nn.Module):
    """MobileBERT's NoNorm over the channels of (B, C, 1, T)."""

    def __init__(self, norm: NoNorm) -> None:
        """Take over the weights of `norm`."""
        super().__init__()
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift each channel of (B, C, 1, T)."""
        scaled = x * self.weight[:, None, None]
        return scaled if self.bias is None else scaled + self.bias[:, None, None]


def tokens_first(x: Tensor) -> Tensor:
    """Turn (B, C, 1, T) into (B, T, C)."""
    return x.squeeze(2).transpose(1, 2)


def _outputs(layer: nn.Module) -> int:
    """How many channels a 1x1 convolution makes; a number, where a tensor's size is something that may change."""
    assert isinstance(layer, Pointwise), type(layer)
    return layer.out_channels


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: tuple[int, int], mask: Tensor) -> Tensor:
    """Attention of (1, C, 1, T) parts, split into (H, D) heads by a reshape alone, to (1, H, D, T)."""
    q, k, v = (part.reshape(1, *heads, -1) for part in (query, key, value))
    scores = q.transpose(-1, -2) @ k / math.sqrt(heads[1]) + mask  # (1, H, T, T)
    return v @ torch.softmax(scores, dim=-1).transpose(-1, -2)


class BertAttention(bert.Attention):
    """BERT's attention over (1, C, 1, T)."""

    def forward(self, queries: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Attend from the tokens `queries` (1, C, 1, A) to (1, C, 1, T)."""
        width = _outputs(self.query)
        context = _attend(self.query(queries), self.key(x), self.value(x), (self.n_heads, width // self.n_heads), mask)
        out: Tensor = self.out(context.reshape(1, width, 1, -1))
        return out


class SqueezeBertAttention(squeezebert.Attention):
    """SqueezeBERT's attention over (1, C, 1, T)."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attend within (1, C, 1, T)."""
        width = _outputs(self.query)
        context = _attend(self.query(x), self.key(x), self.value(x), (self.n_heads, width // self.n_heads), mask)
        return context.reshape(1, width, 1, -1)


class MixedAttention(convbert.MixedAttention):
    """ConvBERT's mixed attention over (1, C, 1, T)."""

    def forward(self, queries: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Attend and convolve within (1, C, 1, T), and answer for the first tokens, `queries` (1, C, 1, A)."""
        query = self.query(x)
        split = (self.n_heads, _outputs(self.query) // self.n_heads)
        attended = _attend(query, self.key(x), self.value(x), split, mask)
        both = torch.cat([attended, self.convolve(x, query)], dim=1)  # (1, 2H, D, T)
        both = both.reshape(1, _outputs(self.out), 1, -1)
        out: Tensor = self.out(both if queries is x else both[..., : queries.shape[-1]])
        return out

    def convolve(self, x: Tensor, query: Tensor) -> Tensor:
        """The convolution half: (1, C, 1, T) to (1, H, D, T)."""
        kernels = self.span_kernel(self.span_key(x) * query).reshape(1, self.n_heads, self.kernel, -1)
        kernels = torch.softmax(kernels, dim=2)  # (1, H, K, T)
        reach = self.kernel // 2
        values = F.pad(self.span_value(x), (reach, reach))  # (1, C/2, 1, T + K - 1)
        values = values.reshape(1, self.n_heads, _outputs(self.query) // self.n_heads, -1)
        # Ends counted from the end, so that no slice depends on the number of tokens.
        windows = (values[..., k : k + 1 - self.kernel or None] for k in range(self.kernel))
        total = next(windows) * kernels[:, :, :1]
        for k, window in enumerate(windows, 1):
            total = total + window * kernels[:, :, k : k + 1]
        return total


class MobileBertAttention(mobilebert.Attention):
    """MobileBERT's attention over (1, C, 1, T)."""

    def forward(self, asking: Tensor, x: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attend by (1, width, 1, T), `asking` the same, to what is made of `values` (1, C, 1, T)."""
        width = _outputs(self.query)
        split = (self.n_heads, width // self.n_heads)
        context = _attend(self.query(x), self.key(x), self.value(values), split, mask)
        out: Tensor = self.out(context.reshape(1, width, 1, -1))
        return out


class ChannelEncoder(nn.Module):
    """An encoder of any family over (B, C, 1, T): ids (B, T) to hidden states (B, C, 1, T)."""

    def __init__(self, encoder: Any, causal: bool, longest: int) -> None:
        """Take over the parts of `encoder`; `causal` hides what comes after a token, for up to `longest` tokens."""
        super().__init__()
        self.embeddings, self.layers = encoder.embeddings, encoder.layers
        self.order = tuple(getattr(encoder, "order", range(len(encoder.layers))))
        self.position_bias: nn.Module | None = getattr(encoder, "position_bias", None)
        self.project: nn.Module = getattr(encoder, "project", nn.Identity())
        self.causal = causal
        self.register_buffer("place", torch.arange(longest, dtype=torch.float32), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, C, 1, T)."""
        x: Tensor = self.project(self.embeddings(input_ids, token_type_ids).transpose(1, 2).unsqueeze(2))
        mask = additive_mask(attention_mask, x.dtype)
        if self.causal:
            place = self.get_buffer("place")[: input_ids.shape[1]]
            # Whole numbers, so the difference held to 0 and 1 is the comparison itself.
            mask = mask + (place[None, :] - place[:, None]).clamp(0.0, 1.0) * MASKED
        if self.position_bias is not None:
            mask = mask + self.position_bias(input_ids.shape[1])
        for layer in executed(self):
            x = layer(x, mask)
        return x


class _Pooler(heads.Pooler):
    def forward(self, hidden: Tensor) -> Tensor:
        return torch.tanh(self.dense(hidden[..., :1]))


class _DenseFirst(heads.DenseFirst):
    def forward(self, hidden: Tensor) -> Tensor:
        return self.act(self.dense(hidden[..., :1]))


class _Summary(heads.Summary):
    def forward(self, hidden: Tensor) -> Tensor:
        pooled = {
            "first": lambda: hidden[..., :1],
            "last": lambda: hidden[..., -1:],
            "mean": lambda: hidden.mean(-1, keepdim=True),
        }[self.kind]()
        out: Tensor = self.act(self.dense(pooled))
        return out


class _Base(heads.Base):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        outputs = {"last_hidden_state": tokens_first(hidden)}
        return outputs if self.pooler is None else outputs | {"pooler_output": self.pooler(hidden).flatten(1)}


class _LanguageModel(heads.LanguageModel):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        # A linear layer, for its weight may be the word table, and is stored once.
        return {"logits": self.decoder(tokens_first(self.norm(self.act(self.dense(hidden)))))}


class _MobileBertLanguageModel(mobilebert.LanguageModel):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        return {"logits": self.score(tokens_first(self.norm(self.act(self.dense(hidden)))))}


class _Classifier(heads.Classifier):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        return self.told(self.classifier(self.pooler(hidden)).flatten(1))


class _Transform(heads.Transform):
    """The same over (B, C, 1, T): its parts work on that."""


class _TransformFirst(heads.TransformFirst):
    def forward(self, hidden: Tensor) -> Tensor:
        return heads.Transform.forward(self, hidden[..., :1])


class _MeanClassifier(heads.MeanClassifier):
    def forward(self, hidden: Tensor, attention_mask: Tensor) -> heads.Outputs:  # type: ignore[override]
        weights = torch.softmax(additive_mask(attention_mask, hidden.dtype)[:, 0], dim=-1)  # (1, 1, T)
        mean = (hidden.squeeze(2) @ weights.transpose(1, 2)).unsqueeze(3)  # (1, C, 1, 1)
        return self.told(self.classifier(self.pooler(mean)).flatten(1))


class _TokenClassifier(heads.TokenClassifier):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        return {"logits": tokens_first(self.classifier(hidden))}


class _TransformedTokens(heads.TransformedTokens):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        return {"logits": tokens_first(self.classifier(self.transform(hidden)))}


class _ReplacedTokens(heads.ReplacedTokens):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        return {"logits": tokens_first(self.score(self.act(self.dense(hidden))))}


class _QuestionAnswering(heads.QuestionAnswering):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        span = self.span(hidden)  # (B, 2, 1, T)
        return {"start_logits": span[:, 0, 0], "end_logits": span[:, 1, 0]}


class _TransformedSpans(heads.TransformedSpans):
    def forward(self, hidden: Tensor) -> heads.Outputs:
        span = self.span(self.transform(hidden))  # (B, 2, 1, T)
        return {"start_logits": span[:, 0, 0], "end_logits": span[:, 1, 0]}


class _SentenceEmbedding(heads.SentenceEmbedding):
    def forward(self, hidden: Tensor, attention_mask: Tensor) -> heads.Outputs:
        x = torch.cat([self.pool(mode, hidden, attention_mask) for mode in self.pooling.modes], dim=1)
        for layer in self.dense:
            x = layer(x)
        return {"sentence_embedding": self.to_length(x, 1).flatten(1)}

    def pool(self, mode: str, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Pool (1, C, 1, T) into (1, C, 1, 1)."""
        if mode == "cls":
            return hidden[..., :1]
        scores = self.scores(mode, attention_mask, hidden.dtype)  # (1, 1, T)
        if mode == "max":
            return (hidden + scores[:, :, None]).amax(-1, keepdim=True)
        return (hidden.squeeze(2) @ torch.softmax(scores, dim=-1).transpose(1, 2)).unsqueeze(3)


# Linear layers that make a vocabulary's scores of (B, T, C).
VOCABULARY = ("head.decoder", "head.rest")

# Modules that keep their parts and do their work in the other layout.
FORMS: dict[type[nn.Module], type[nn.Module]] = {
    bert.Attention: BertAttention,
    squeezebert.Attention: SqueezeBertAttention,
    convbert.MixedAttention: MixedAttention,
    mobilebert.Attention: MobileBertAttention,
    mobilebert.LanguageModel: _MobileBertLanguageModel,
    heads.Base: _Base,
    heads.Classifier: _Classifier,
    heads.DenseFirst: _DenseFirst,
    heads.LanguageModel: _LanguageModel,
    heads.MeanClassifier: _MeanClassifier,
    heads.Pooler: _Pooler,
    heads.QuestionAnswering: _QuestionAnswering,
    heads.ReplacedTokens: _ReplacedTokens,
    heads.SentenceEmbedding: _SentenceEmbedding,
    heads.Summary: _Summary,
    heads.TokenClassifier: _TokenClassifier,
    heads.Transform: _Transform,
    heads.TransformFirst: _TransformFirst,
    heads.TransformedSpans: _TransformedSpans,
    heads.TransformedTokens: _TransformedTokens,
}

# Layers of which nothing but their parts knows a layout.
LAYERS = (bert.Layer, convbert.Layer, mobilebert.Layer, squeezebert.Layer)

# Modules whose parameters turn; the name of the parameters stays.
PARTS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Linear: lambda m: Pointwise(m.weight, m.bias),
    nn.Conv1d: lambda m: Pointwise(derived(m.weight[:, :, 0], m.weight), m.bias, m.groups),
    convbert.GroupedLinear: lambda m: Pointwise(
        derived(m.weight.transpose(1, 2).flatten(0, 1), m.weight), m.bias, len(m.weight)
    ),
    convbert.SeparableConv: SeparableChannels,
    nn.LayerNorm: ChannelNorm,
    NoNorm: ChannelScale,
    # Over the vocabulary, and so as its decoder: a linear layer over (B, T, C).
    mobilebert.Columns: lambda m: linear(derived(m.weight.t(), m.weight), None),
    squeezebert.ChannelNorm: ChannelNorm,
}


def channels_before_tokens(model: Model, longest: int) -> Model:
    """Let the whole model work on (B, C, 1, T), every linear layer but a vocabulary's as a 1x1 convolution.

    Args:
        model: any family and task; the lowered copy takes a batch of 1. One with layers of other kinds than LAYERS
            comes back as it is, and `notes` says so.
        longest: the longest sequence a causal mask is made for.
    """
    lowered = duplicate(model)
    layers = list(lowered.encoder.get_submodule("layers").children())
    if strange := {type(layer) for layer in layers if not isinstance(layer, LAYERS)}:
        named = ", ".join(sorted(f"{kind.__module__.rpartition('.')[2]}.{kind.__qualname__}" for kind in strange))
        lowered.notes.append(f"channels_before_tokens left as it is: {named}, whose layout is not known")
        lowered.lowerings["channels_before_tokens"] = ()
        return lowered
    embedded = set(lowered.encoder.get_submodule("embeddings").modules())  # these stay (B, T, C)
    changed = []
    for path, parent in list(lowered.named_modules()):
        if type(parent) in PARTS or parent in embedded:
            continue
        for name, child in parent.named_children():
            if type(child) in PARTS and not (name == "decoder" and isinstance(parent, heads.LanguageModel)):
                setattr(parent, name, PARTS[type(child)](child))
                changed.append(f"{path}.{name}")
        if type(parent) in FORMS:
            parent.__class__ = FORMS[type(parent)]
            changed.append(path)
    causal = bool(getattr(lowered.encoder, "causal", False))
    lowered.encoder = ChannelEncoder(lowered.encoder, causal, longest)
    for path, module in lowered.named_modules():
        kinds: tuple[type[nn.Module], ...] = (*FORMS, *PARTS)
        if isinstance(module, kinds) and not _known(path, module) and module not in embedded:
            raise ConversionFailed(
                f"channels_before_tokens: {path} is a {type(module).__qualname__}, whose layout is not known: "
                "give it a row in FORMS or PARTS."
            )
    lowered.lowerings["channels_before_tokens"] = tuple(changed)
    return lowered.eval()


def _known(path: str, module: nn.Module) -> bool:
    """Whether a module of the lowered model works on (B, C, 1, T), or makes a vocabulary's scores."""
    return type(module).__module__ == __name__ or (path in VOCABULARY and type(module) is nn.Linear)
