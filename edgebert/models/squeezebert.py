"""SqueezeBERT (Iandola et al., arXiv 2006.11316): BERT with grouped 1x1 convolutions, made for phones.

The encoder works on (B, C, T), channels before tokens; it turns (B, T, C) around once on entry and once on exit.
Tensor names follow transformers' `modeling_squeezebert.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgebert.errors import InputError
from edgebert.models import heads
from edgebert.models.config import parse, require_divisible
from edgebert.models.family import Family
from edgebert.models.layers import Embeddings, activation, additive_mask

EPS = 1e-12  # of the norms in layers, as transformers has them; `layer_norm_eps` is of the others


@dataclass(frozen=True, slots=True)
class SqueezeBertConfig:
    """Sizes and groups, named as in Hugging Face's `config.json`. The defaults are the paper's base model."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    embedding_size: int = 768
    q_groups: int = 4
    k_groups: int = 4
    v_groups: int = 4
    post_attention_groups: int = 1
    intermediate_groups: int = 4
    output_groups: int = 4
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")
        for groups in (self.q_groups, self.k_groups, self.v_groups, self.post_attention_groups):
            require_divisible(self.hidden_size, groups, "hidden_size must split over the groups")
        for groups in (self.intermediate_groups, self.output_groups):
            require_divisible(
                math.gcd(self.hidden_size, self.intermediate_size), groups, "sizes must split over the groups"
            )
        if self.embedding_size != self.hidden_size:
            raise InputError(
                f"config.json: embedding_size={self.embedding_size} but hidden_size={self.hidden_size}; "
                "SqueezeBERT has no projection between the two and needs them equal."
            )

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "SqueezeBertConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        # A config that names no embedding size means the hidden size: the paper has just one.
        return parse(cls, {"embedding_size": raw.get("hidden_size", 768), **raw})

    @classmethod
    def tiny(cls) -> "SqueezeBertConfig":
        """Two layers of width 32, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64,
        )  # fmt: skip


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each token of (B, C, T)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention over (B, C, T) with grouped projections; the output projection is the layer's own."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads = config.num_attention_heads
        self.query = nn.Conv1d(width, width, 1, groups=config.q_groups)
        self.key = nn.Conv1d(width, width, 1, groups=config.k_groups)
        self.value = nn.Conv1d(width, width, 1, groups=config.v_groups)

    def split(self, x: Tensor) -> Tensor:
        """Part (B, C, T) into heads, (B, H, D, T)."""
        batch, width, tokens = x.shape
        return x.reshape(batch, self.n_heads, width // self.n_heads, tokens)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Attend within (B, C, T); `mask` is added to the scores (B, H, T, T)."""
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = query.transpose(-1, -2) @ key / math.sqrt(query.shape[2]) + mask  # (B, H, T, T)
        context = torch.softmax(scores, dim=-1) @ value.transpose(-1, -2)  # (B, H, T, D)
        return context.transpose(-1, -2).reshape(x.shape)  # (B, C, T)


class Layer(nn.Module):
    """One block over (B, C, T): attention, its projection, and a grouped feed-forward, with two norms."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.attention = Attention(config)
        self.out = nn.Conv1d(width, width, 1, groups=config.post_attention_groups)
        self.attention_norm = ChannelNorm(width, eps=EPS)
        self.up = nn.Conv1d(width, inner, 1, groups=config.intermediate_groups)
        self.act = activation(config.hidden_act)
        self.down = nn.Conv1d(inner, width, 1, groups=config.output_groups)
        self.norm = ChannelNorm(width, eps=EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C, T)."""
        x = self.attention_norm(x + self.out(self.attention(x, mask)))
        out: Tensor = self.norm(x + self.down(self.act(self.up(x))))
        return out


class SqueezeBertEncoder(nn.Module):
    """Embeddings and layers: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: SqueezeBertConfig) -> None:
        super().__init__()
        c = config
        self.embeddings = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, c.hidden_size, c.layer_norm_eps
        )
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.embeddings(input_ids, token_type_ids).transpose(1, 2)  # (B, C, T)
        mask = additive_mask(attention_mask, x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        return x.transpose(1, 2)  # (B, T, C)


SQUEEZEBERT = Family(
    name="squeezebert",
    paper="2006.11316",
    config=SqueezeBertConfig,
    encoder=SqueezeBertEncoder,
    heads={
        "base": lambda c: heads.Base(heads.Pooler(c.hidden_size)),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": lambda c: heads.LanguageModel(
            c.hidden_size, c.hidden_size, c.vocab_size, activation(c.hidden_act), c.layer_norm_eps
        ),
        "sequence-classification": lambda c: heads.Classifier(
            heads.Pooler(c.hidden_size), c.hidden_size, len(c.labels)
        ),
        "multiple-choice": lambda c: heads.Classifier(heads.Pooler(c.hidden_size), c.hidden_size, 1),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
        "question-answering": lambda c: heads.QuestionAnswering(c.hidden_size),
    },
    architectures={
        "SqueezeBertModel": "base",
        "SqueezeBertForMaskedLM": "masked-lm",
        "SqueezeBertForSequenceClassification": "sequence-classification",
        "SqueezeBertForMultipleChoice": "multiple-choice",
        "SqueezeBertForTokenClassification": "token-classification",
        "SqueezeBertForQuestionAnswering": "question-answering",
    },
    prefix="transformer.",
    encoder_weights={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.layers.{}.attention.query": "layers.{}.attention.query",
        "encoder.layers.{}.attention.key": "layers.{}.attention.key",
        "encoder.layers.{}.attention.value": "layers.{}.attention.value",
        "encoder.layers.{}.post_attention.conv1d": "layers.{}.out",
        "encoder.layers.{}.post_attention.layernorm": "layers.{}.attention_norm",
        "encoder.layers.{}.intermediate.conv1d": "layers.{}.up",
        "encoder.layers.{}.output.conv1d": "layers.{}.down",
        "encoder.layers.{}.output.layernorm": "layers.{}.norm",
    },
    head_weights={
        "base": {"pooler.dense": "pooler.dense"},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {
            "cls.predictions.transform.dense": "dense",
            "cls.predictions.transform.LayerNorm": "norm",
            "cls.predictions.decoder": "decoder",
            "cls.predictions": "decoder",  # `cls.predictions.bias`, the older name of the decoder's bias
        },
        "sequence-classification": {"transformer.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "multiple-choice": {"transformer.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "*pooler.dense.*", "cls.seq_relationship.*", "cls.predictions.*"),
    # transformers gives every SqueezeBERT class a pooler, also where the task reads the tokens alone.
    unused_by_task=dict.fromkeys(
        ("masked-lm", "token-classification", "question-answering"), ("transformer.pooler.dense",)
    ),
    parts=(SqueezeBertEncoder, Layer, Attention),
    # https://huggingface.co/squeezebert/squeezebert-uncased/blob/main/config.json
    presets={"squeezebert-base": SqueezeBertConfig()},
)
