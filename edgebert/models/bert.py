"""BERT (Devlin et al., arXiv 1810.04805), the baseline. Tensor names follow transformers' `modeling_bert.py`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgebert.models import heads
from edgebert.models.config import parse, require_divisible
from edgebert.models.family import Family
from edgebert.models.layers import Embeddings, activation, additive_mask


@dataclass(frozen=True, slots=True)
class BertConfig:
    """Sizes of a BERT model, named as in Hugging Face's `config.json`. The defaults are BERT-base, uncased."""

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
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "BertConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        return parse(cls, raw)

    @classmethod
    def tiny(cls) -> "BertConfig":
        """Two layers of width 32, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=64,
        )  # fmt: skip


class Attention(nn.Module):
    """Multi-head self-attention over (B, T, C), the output projection included."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """Part (B, T, C) into heads, (B, H, T, D)."""
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.n_heads, width // self.n_heads).transpose(1, 2)

    def forward(self, queries: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Attend from the tokens `queries` (B, A, C) to (B, T, C); `mask` is added to the scores (B, H, A, T)."""
        query, key, value = self.split(self.query(queries)), self.split(self.key(x)), self.split(self.value(x))
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask  # (B, H, A, T)
        context = torch.softmax(scores, dim=-1) @ value  # (B, H, A, D)
        out: Tensor = self.out(context.transpose(1, 2).reshape(queries.shape))
        return out


class Layer(nn.Module):
    """One transformer block: attention and feed-forward, each added to its input and then normalized."""

    def __init__(self, width: int, n_heads: int, inner: int, act: str, eps: float) -> None:
        super().__init__()
        self.attention = Attention(width, n_heads)
        self.attention_norm = nn.LayerNorm(width, eps=eps)
        self.up = nn.Linear(width, inner)
        self.act = activation(act)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        return self.answer(x, x, mask)

    def answer(self, queries: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """What becomes of the tokens `queries` (B, A, C) among (B, T, C), in their shape."""
        queries = self.attention_norm(queries + self.attention(queries, x, mask))
        out: Tensor = self.norm(queries + self.down(self.act(self.up(queries))))
        return out


class BertEncoder(nn.Module):
    """Embeddings and layers: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        c = config
        self.embeddings = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, c.hidden_size, c.layer_norm_eps
        )
        self.layers = nn.ModuleList(
            Layer(c.hidden_size, c.num_attention_heads, c.intermediate_size, c.hidden_act, c.layer_norm_eps)
            for _ in range(c.num_hidden_layers)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.embeddings(input_ids, token_type_ids)
        mask = additive_mask(attention_mask, x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        return x


# The names transformers gives BERT's modules are RemBERT's too, so that file reads this table as well.
LAYER_WEIGHTS = {
    "embeddings.word_embeddings": "embeddings.word",
    "embeddings.position_embeddings": "embeddings.position",
    "embeddings.token_type_embeddings": "embeddings.token_type",
    "embeddings.LayerNorm": "embeddings.norm",
    "encoder.layer.{}.attention.self.query": "layers.{}.attention.query",
    "encoder.layer.{}.attention.self.key": "layers.{}.attention.key",
    "encoder.layer.{}.attention.self.value": "layers.{}.attention.value",
    "encoder.layer.{}.attention.output.dense": "layers.{}.attention.out",
    "encoder.layer.{}.attention.output.LayerNorm": "layers.{}.attention_norm",
    "encoder.layer.{}.intermediate.dense": "layers.{}.up",
    "encoder.layer.{}.output.dense": "layers.{}.down",
    "encoder.layer.{}.output.LayerNorm": "layers.{}.norm",
}

BERT = Family(
    name="bert",
    paper="1810.04805",
    config=BertConfig,
    encoder=BertEncoder,
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
        "BertModel": "base",
        "BertForMaskedLM": "masked-lm",
        "BertForPreTraining": "masked-lm",
        "BertForSequenceClassification": "sequence-classification",
        "BertForMultipleChoice": "multiple-choice",
        "BertForTokenClassification": "token-classification",
        "BertForQuestionAnswering": "question-answering",
    },
    prefix="bert.",
    encoder_weights=LAYER_WEIGHTS,
    head_weights={
        "base": {"pooler.dense": "pooler.dense"},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {
            "cls.predictions.transform.dense": "dense",
            "cls.predictions.transform.LayerNorm": "norm",
            "cls.predictions.decoder": "decoder",
            "cls.predictions": "decoder",  # `cls.predictions.bias`, the older name of the decoder's bias
        },
        "sequence-classification": {"bert.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "multiple-choice": {"bert.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "*pooler.dense.*", "cls.seq_relationship.*", "cls.predictions.*"),
    unused_by_task={},
    parts=(Layer, Attention),
    # https://huggingface.co/google-bert/bert-base-uncased/blob/main/config.json
    presets={"bert-base": BertConfig()},
)
