"""MobileBERT (Sun et al., arXiv 2004.02984): many thin layers, each narrowed at its start and widened at its end.

A layer's attention and its several feed-forward networks work on `intra_bottleneck_size` channels between two linear
layers; queries and keys have a narrowing of their own, and values are of all channels. A word's embedding is joined by
those of the words beside it, so that a padding token next to the last word is seen. Where other families normalize, the
published models scale each channel. Tensor names follow transformers' `modeling_mobilebert.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.errors import InputError
from edgebert.models import heads
from edgebert.models.config import parse, require_divisible, require_shallow
from edgebert.models.family import Family
from edgebert.models.layers import NoNorm, activation, additive_mask

NORMS = ("no_norm", "layer_norm")
EPS = 1e-5  # of two kinds of norm, see where it is used; no key of the config changes it


@dataclass(frozen=True, slots=True)
class MobileBertConfig:
    """Sizes of a MobileBERT, named as in Hugging Face's `config.json`. The defaults are the published model."""

    vocab_size: int = 30522
    embedding_size: int = 128
    hidden_size: int = 512
    intra_bottleneck_size: int = 128
    num_hidden_layers: int = 24
    num_attention_heads: int = 4
    num_feedforward_networks: int = 4
    intermediate_size: int = 512
    hidden_act: str = "relu"
    trigram_input: bool = True
    use_bottleneck: bool = True
    use_bottleneck_attention: bool = False
    key_query_shared_bottleneck: bool = True
    normalization_type: str = "no_norm"
    classifier_activation: bool = False
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.true_hidden_size, self.num_attention_heads, "a layer's width must split over the heads")
        require_shallow(self.num_hidden_layers, self.num_feedforward_networks, "num_feedforward_networks")
        if self.normalization_type not in NORMS:
            raise InputError(
                f"config.json: normalization_type={self.normalization_type!r:.80}; it must be one of "
                f"{', '.join(NORMS)}."
            )
        narrowed = self.use_bottleneck_attention or self.key_query_shared_bottleneck
        if self.use_bottleneck and not narrowed and self.hidden_size != self.intra_bottleneck_size:
            raise InputError(
                "config.json: use_bottleneck without use_bottleneck_attention and key_query_shared_bottleneck gives "
                f"attention {self.hidden_size} channels where it has weights for {self.intra_bottleneck_size}."
            )

    @property
    def true_hidden_size(self) -> int:
        """Channels that attention and feed-forward work on."""
        return self.intra_bottleneck_size if self.use_bottleneck else self.hidden_size

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "MobileBertConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        # What a file leaves out has transformers' own default, which is not that of the published model.
        config = parse(cls, {"classifier_activation": True} | dict(raw), frozenset({"true_hidden_size"}))
        stated = raw.get("true_hidden_size", config.true_hidden_size)
        if stated != config.true_hidden_size:
            raise InputError(
                f"config.json: true_hidden_size={stated!r:.80}, and the other keys make {config.true_hidden_size}."
            )
        return config

    @classmethod
    def tiny(cls) -> "MobileBertConfig":
        """Two layers of width 32 around 16 with narrower embeddings, for tests."""
        return cls(
            vocab_size=120, embedding_size=16, hidden_size=32, intra_bottleneck_size=16, num_hidden_layers=2,
            num_attention_heads=4, num_feedforward_networks=2, intermediate_size=64, max_position_embeddings=64,
        )  # fmt: skip


def _norm(config: MobileBertConfig, width: int, eps: float) -> nn.Module:
    return NoNorm(width) if config.normalization_type == "no_norm" else nn.LayerNorm(width, eps=eps)


class Embeddings(nn.Module):
    """Word embeddings, widened with those beside them, plus positions and token types, and normalized."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        c = config
        self.trigrams = c.trigram_input
        self.word = nn.Embedding(c.vocab_size, c.embedding_size)
        self.position = nn.Embedding(c.max_position_embeddings, c.hidden_size)
        self.token_type = nn.Embedding(c.type_vocab_size, c.hidden_size)
        joined = c.embedding_size * (3 if c.trigram_input else 1)
        # Of words alone that are wide enough nothing is made; checkpoints carry weights for it all the same.
        plain = not c.trigram_input and joined == c.hidden_size
        self.transform = nn.Identity() if plain else nn.Linear(joined, c.hidden_size)
        self.norm = _norm(c, c.hidden_size, EPS)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embed (B, T) int32 or int64 ids as (B, T, C)."""
        x = self.word(input_ids)
        if self.trigrams:
            x = self.trigram(x)
        # A slice of the table, not a lookup of 0..T-1: converters fold it into a constant.
        x = self.transform(x) + self.position.weight[: input_ids.shape[1]]
        if self.token_type is not None:  # else its one row is in the positions, see `lowering/positions.py`
            # One type alone is every token's, whatever came.
            several = len(self.token_type.weight) > 1
            x = x + (self.token_type(token_type_ids) if several else self.token_type.weight[0])
        out: Tensor = self.norm(x)
        return out

    def trigram(self, x: Tensor) -> Tensor:
        """Join to each token of (B, T, E) the next one, before it, and the one before, after it: (B, T, 3 E)."""
        padded = F.pad(x, (0, 0, 1, 1))  # (B, T + 2, E)
        return torch.cat([padded[:, 2:], x, padded[:, :-2]], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention over `width` channels, whose values may be made of more; the output included."""

    def __init__(self, width: int, values: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.scale = math.sqrt(width // n_heads)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(values, width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """Part (B, T, width) into heads, (B, H, T, D)."""
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.n_heads, width // self.n_heads).transpose(1, 2)

    def forward(self, asking: Tensor, x: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attend from `asking` (B, A, width) by (B, T, width) to what is made of `values` (B, T, C).

        `mask` is added to the scores (B, H, A, T).
        """
        query, key, value = self.split(self.query(asking)), self.split(self.key(x)), self.split(self.value(values))
        scores = query @ key.transpose(-1, -2)  # (B, H, A, T)
        if self.scale != 1.0:  # else it is in the weights, see `lowering/scaled_keys.py`
            scores = scores / self.scale
        context = torch.softmax(scores + mask, dim=-1) @ value  # (B, H, A, D)
        out: Tensor = self.out(context.transpose(1, 2).flatten(2))
        return out


class Narrow(nn.Module):
    """A layer's input, made narrower and normalized."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.true_hidden_size)
        self.norm = _norm(config, config.true_hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, width)."""
        out: Tensor = self.norm(self.dense(x))
        return out


class FeedForward(nn.Module):
    """A feed-forward network, added to its input and normalized."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.true_hidden_size, config.intermediate_size)
        self.act = activation(config.hidden_act)
        self.down = nn.Linear(config.intermediate_size, config.true_hidden_size)
        self.norm = _norm(config, config.true_hidden_size, config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, width) to (B, T, width)."""
        out: Tensor = self.norm(x + self.down(self.act(self.up(x))))
        return out


class Layer(nn.Module):
    """One block: narrowed, attention, several feed-forwards, and widened; each added to its input and normalized.

    Without `use_bottleneck` it is as wide all through, and ends with the last feed-forward.
    """

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        c, width = config, config.true_hidden_size
        self.narrow = Narrow(c) if c.use_bottleneck else None
        by_itself = c.use_bottleneck and c.key_query_shared_bottleneck and not c.use_bottleneck_attention
        self.narrow_attention = Narrow(c) if by_itself else None
        self.values_narrow = c.use_bottleneck and c.use_bottleneck_attention
        self.attention = Attention(width, width if self.values_narrow else c.hidden_size, c.num_attention_heads)
        self.attention_norm = _norm(c, width, c.layer_norm_eps)
        self.before = nn.ModuleList(FeedForward(c) for _ in range(c.num_feedforward_networks - 1))
        self.up = nn.Linear(width, c.intermediate_size)
        self.act = activation(c.hidden_act)
        self.down = nn.Linear(c.intermediate_size, width)
        self.narrow_norm = _norm(c, width, EPS)
        self.widen = nn.Linear(width, c.hidden_size) if c.use_bottleneck else None
        self.wide_norm = _norm(c, c.hidden_size, c.layer_norm_eps) if c.use_bottleneck else None

    @property
    def norm(self) -> nn.Module:
        """The one whose output is the layer's."""
        return self.narrow_norm if self.wide_norm is None else self.wide_norm

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        stream = x if self.narrow is None else self.narrow(x)  # (B, T, width)
        values = stream if self.values_narrow else x
        keys = values if self.narrow_attention is None else self.narrow_attention(x)
        return self.answer(x, stream + self.attention(keys, keys, values, mask))

    def answer(self, x: Tensor, attended: Tensor) -> Tensor:
        """What becomes of tokens (B, A, C) whose narrowed sum with attention is `attended` (B, A, width)."""
        stream = self.attention_norm(attended)
        for network in self.before:
            stream = network(stream)
        out: Tensor = self.narrow_norm(stream + self.down(self.act(self.up(stream))))
        if self.widen is not None and self.wide_norm is not None:
            out = self.wide_norm(x + self.widen(out))
        return out


class MobileBertEncoder(nn.Module):
    """Embeddings and layers: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: MobileBertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.embeddings(input_ids, token_type_ids)
        mask = additive_mask(attention_mask, x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        return x


class Columns(nn.Module):
    """A product with a matrix that stands as (inputs, outputs), the other way round than a linear layer's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, outputs)."""
        return x @ self.weight


class LanguageModel(heads.LanguageModel):
    """Masked language modelling: the first channels are scored by the word embeddings, the others by `rest`."""

    def __init__(self, config: MobileBertConfig) -> None:
        c, more = config, config.hidden_size - config.embedding_size
        if more < 0:
            raise InputError(
                f"config.json: embedding_size={c.embedding_size} is more than hidden_size={c.hidden_size}, of which "
                "masked-lm scores words."
            )
        super().__init__(c.hidden_size, c.hidden_size, c.vocab_size, activation(c.hidden_act), c.layer_norm_eps)
        self.decoder = nn.Linear(c.embedding_size, c.vocab_size)
        self.rest = Columns(more, c.vocab_size) if more else None

    def forward(self, hidden: Tensor) -> heads.Outputs:
        """Score every vocabulary entry for every token of (B, T, C)."""
        return {"logits": self.score(self.norm(self.act(self.dense(hidden))))}

    def score(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, V)."""
        out: Tensor = self.decoder(x[..., : self.decoder.in_features])
        return out if self.rest is None else out + self.rest(x[..., self.decoder.in_features :])


def _pooler(c: MobileBertConfig) -> nn.Module:
    # Without an activation there is no dense layer either: the first token is the summary.
    return heads.Pooler(c.hidden_size) if c.classifier_activation else heads.Summary(c.hidden_size, "first", False, "")


def _classifier(c: MobileBertConfig, labels: int) -> nn.Module:
    return heads.Classifier(_pooler(c), c.hidden_size, labels)


MOBILEBERT = Family(
    name="mobilebert",
    paper="2004.02984",
    config=MobileBertConfig,
    encoder=MobileBertEncoder,
    heads={
        "base": lambda c: heads.Base(_pooler(c)),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": LanguageModel,
        "sequence-classification": lambda c: _classifier(c, len(c.labels)),
        "multiple-choice": lambda c: _classifier(c, 1),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
        "question-answering": lambda c: heads.QuestionAnswering(c.hidden_size),
    },
    architectures={
        "MobileBertModel": "base",
        "MobileBertForMaskedLM": "masked-lm",
        "MobileBertForPreTraining": "masked-lm",
        "MobileBertForSequenceClassification": "sequence-classification",
        "MobileBertForMultipleChoice": "multiple-choice",
        "MobileBertForTokenClassification": "token-classification",
        "MobileBertForQuestionAnswering": "question-answering",
    },
    prefix="mobilebert.",
    encoder_weights={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.embedding_transformation": "embeddings.transform",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.layer.{}.bottleneck.input.dense": "layers.{}.narrow.dense",
        "encoder.layer.{}.bottleneck.input.LayerNorm": "layers.{}.narrow.norm",
        "encoder.layer.{}.bottleneck.attention.dense": "layers.{}.narrow_attention.dense",
        "encoder.layer.{}.bottleneck.attention.LayerNorm": "layers.{}.narrow_attention.norm",
        "encoder.layer.{}.attention.self.query": "layers.{}.attention.query",
        "encoder.layer.{}.attention.self.key": "layers.{}.attention.key",
        "encoder.layer.{}.attention.self.value": "layers.{}.attention.value",
        "encoder.layer.{}.attention.output.dense": "layers.{}.attention.out",
        "encoder.layer.{}.attention.output.LayerNorm": "layers.{}.attention_norm",
        "encoder.layer.{}.ffn.{}.intermediate.dense": "layers.{}.before.{}.up",
        "encoder.layer.{}.ffn.{}.output.dense": "layers.{}.before.{}.down",
        "encoder.layer.{}.ffn.{}.output.LayerNorm": "layers.{}.before.{}.norm",
        "encoder.layer.{}.intermediate.dense": "layers.{}.up",
        "encoder.layer.{}.output.dense": "layers.{}.down",
        "encoder.layer.{}.output.LayerNorm": "layers.{}.narrow_norm",
        "encoder.layer.{}.output.bottleneck.dense": "layers.{}.widen",
        "encoder.layer.{}.output.bottleneck.LayerNorm": "layers.{}.wide_norm",
    },
    head_weights={
        "base": {"pooler.dense": "pooler.dense"},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {
            "cls.predictions.transform.dense": "dense",
            "cls.predictions.transform.LayerNorm": "norm",
            "cls.predictions.dense": "rest",
            "cls.predictions.decoder": "decoder",
            "cls.predictions": "decoder",  # `cls.predictions.bias`, the older name of the decoder's bias
        },
        "sequence-classification": {"mobilebert.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "multiple-choice": {"mobilebert.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    # Of the encoder, those that a config leaves out while transformers makes them all the same.
    harmless=(
        "*embeddings.position_ids", "*embeddings.embedding_transformation.*", "*.bottleneck.attention.*",
        "*pooler.dense.*", "cls.seq_relationship.*", "cls.predictions.*",
    ),
    unused_by_task={},
    parts=(Attention,),
    padding_invariant=False,
    # https://huggingface.co/google/mobilebert-uncased/blob/main/config.json
    presets={"mobilebert-uncased": MobileBertConfig()},
)  # fmt: skip
