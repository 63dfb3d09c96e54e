"""MPNet (Song et al., arXiv 2004.09297): BERT's layers, whose attention also knows how far apart two tokens are.

What a head adds to a score for a distance, T5's buckets (arXiv 1910.10683, section 2.1), is one term for all layers: it
is added to the mask once. The first token reads row 2 of the position table, as in RoBERTa; there are no token types.
transformers counts positions from id 1 and makes 32 buckets whatever the config says of either. Tensor names follow its
`modeling_mpnet.py`.
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
from edgebert.models.bert import Attention, Layer
from edgebert.models.config import parse, require_divisible
from edgebert.models.family import Family
from edgebert.models.layers import additive_mask

FIRST = 2  # the row of the position table that the first token reads; the rows before it stand for padding
BUCKETS = 32  # half of them for tokens before, half for tokens after
FARTHEST = 128  # from this distance on all are in one bucket


@dataclass(frozen=True, slots=True)
class MPNetConfig:
    """Sizes of an MPNet, named as in Hugging Face's `config.json`. The defaults are MPNet-base."""

    vocab_size: int = 30527
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 514
    relative_attention_num_buckets: int = BUCKETS
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int = 1
    tie_word_embeddings: bool = True
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")
        if self.relative_attention_num_buckets < BUCKETS:
            raise InputError(
                f"config.json: relative_attention_num_buckets={self.relative_attention_num_buckets}; distances are "
                f"in {BUCKETS} buckets, each with a row."
            )
        if self.max_position_embeddings <= FIRST:
            raise InputError(
                f"config.json: max_position_embeddings={self.max_position_embeddings} leaves no row for a token after "
                f"the {FIRST} that stand for padding."
            )

    @property
    def type_vocab_size(self) -> int:
        """Token types are ignored: 0 stands for all."""
        return 1

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "MPNetConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        # What a file leaves out has transformers' own defaults, which are not those of the published model.
        return parse(cls, {"max_position_embeddings": 512, "layer_norm_eps": 1e-12} | dict(raw))

    @classmethod
    def tiny(cls) -> "MPNetConfig":
        """Two layers of width 32 over 64 positions, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=66,
        )  # fmt: skip


class Embeddings(nn.Module):
    """Word and position embeddings, summed and normalized."""

    first = FIRST

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embed (B, T) int32 or int64 ids as (B, T, C); token types change nothing."""
        # A slice of the table, not a lookup of 2..T+1: converters fold it into a constant.
        position = self.position.weight[self.first : self.first + input_ids.shape[1]]
        out: Tensor = self.norm(self.word(input_ids) + position)
        return out


def buckets() -> Tensor:
    """The bucket of a token that stands -FARTHEST to FARTHEST after the one that asks, int64 (2 FARTHEST + 1).

    A bucket for each of the nearest, then ever wider ones; those of tokens after come behind those of tokens before.
    """
    after = torch.arange(-FARTHEST, FARTHEST + 1, device="cpu")
    far, each = after.abs(), BUCKETS // 2
    near = each // 2
    # In float32, as transformers: where a bucket starts at a power of two, its rounding decides.
    steps = torch.log(far.clamp(min=1).float() / near) / math.log(FARTHEST / near) * (each - near)
    wide = (near + steps.long()).clamp(max=each - 1)
    return torch.where(far < near, far, wide) + (after > 0) * each


class PositionBias(nn.Module):
    """What each head adds to its scores for the distance between two tokens: a row of `table` (buckets, H) a bucket."""

    bucket: Tensor

    def __init__(self, rows: int, n_heads: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, n_heads)
        self.register_buffer("bucket", buckets(), persistent=False)

    def forward(self, tokens: int) -> Tensor:
        """The term (H, T, T) for a number of tokens."""
        place = torch.arange(tokens)
        after = (place[None, :] - place[:, None]).clamp(-FARTHEST, FARTHEST)  # (T, T)
        out: Tensor = self.table(self.bucket[after + FARTHEST])  # (T, T, H)
        return out.permute(2, 0, 1)


class MPNetEncoder(nn.Module):
    """Embeddings and BERT's layers, under a mask that knows distances: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        c = config
        self.embeddings = Embeddings(c)
        self.position_bias = PositionBias(c.relative_attention_num_buckets, c.num_attention_heads)
        self.layers = nn.ModuleList(
            Layer(c.hidden_size, c.num_attention_heads, c.intermediate_size, c.hidden_act, c.layer_norm_eps)
            for _ in range(c.num_hidden_layers)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.embeddings(input_ids, token_type_ids)
        mask = additive_mask(attention_mask, x.dtype) + self.position_bias(input_ids.shape[1])  # (B, H, T, T)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def _classifier(c: MPNetConfig, labels: int) -> nn.Module:
    return heads.Classifier(heads.Pooler(c.hidden_size), c.hidden_size, labels)


MPNET = Family(
    name="mpnet",
    paper="2004.09297",
    config=MPNetConfig,
    encoder=MPNetEncoder,
    heads={
        "base": lambda c: heads.Base(heads.Pooler(c.hidden_size)),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        # GELU whatever the layers have.
        "masked-lm": lambda c: heads.LanguageModel(
            c.hidden_size, c.hidden_size, c.vocab_size, F.gelu, c.layer_norm_eps
        ),
        "sequence-classification": lambda c: _classifier(c, len(c.labels)),
        "multiple-choice": lambda c: _classifier(c, 1),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
        "question-answering": lambda c: heads.QuestionAnswering(c.hidden_size),
    },
    architectures={
        "MPNetModel": "base",
        "MPNetForMaskedLM": "masked-lm",
        "MPNetForSequenceClassification": "sequence-classification",
        "MPNetForMultipleChoice": "multiple-choice",
        "MPNetForTokenClassification": "token-classification",
        "MPNetForQuestionAnswering": "question-answering",
    },
    prefix="mpnet.",
    encoder_weights={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.relative_attention_bias": "position_bias.table",
        "encoder.layer.{}.attention.attn.q": "layers.{}.attention.query",
        "encoder.layer.{}.attention.attn.k": "layers.{}.attention.key",
        "encoder.layer.{}.attention.attn.v": "layers.{}.attention.value",
        "encoder.layer.{}.attention.attn.o": "layers.{}.attention.out",
        "encoder.layer.{}.attention.LayerNorm": "layers.{}.attention_norm",
        "encoder.layer.{}.intermediate.dense": "layers.{}.up",
        "encoder.layer.{}.output.dense": "layers.{}.down",
        "encoder.layer.{}.output.LayerNorm": "layers.{}.norm",
    },
    head_weights={
        "base": {"pooler.dense": "pooler.dense"},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {
            "lm_head.dense": "dense",
            "lm_head.layer_norm": "norm",
            "lm_head.decoder": "decoder",
            "lm_head": "decoder",  # `lm_head.bias`, the older name of the decoder's bias
        },
        "sequence-classification": {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"},
        "multiple-choice": {"mpnet.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "*pooler.dense.*", "lm_head.*"),
    unused_by_task={},
    parts=(Layer, Attention, PositionBias),
    # https://huggingface.co/microsoft/mpnet-base/blob/main/config.json
    presets={"mpnet-base": MPNetConfig()},
    first_position=lambda config: FIRST,
)
