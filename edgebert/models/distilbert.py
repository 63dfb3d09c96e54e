"""DistilBERT (Sanh et al., arXiv 1910.01108): half of BERT's layers, without token types and without a pooler.

Tensor names follow transformers' `modeling_distilbert.py`. Token types are taken, as every model here takes them, and
not looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.models import heads
from edgebert.models.bert import Attention, Layer
from edgebert.models.config import parse, require_divisible
from edgebert.models.family import Family
from edgebert.models.layers import activation, additive_mask

EPS = 1e-12  # of every norm; no key of the config changes it


@dataclass(frozen=True, slots=True)
class DistilBertConfig:
    """Sizes of a DistilBERT, named as in Hugging Face's `config.json`. The defaults are the base model, uncased."""

    vocab_size: int = 30522
    dim: int = 768
    n_layers: int = 6
    n_heads: int = 12
    hidden_dim: int = 3072
    activation: str = "gelu"
    max_position_embeddings: int = 512
    initializer_range: float = 0.02
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.dim, self.n_heads, "dim must split over the heads")

    @property
    def type_vocab_size(self) -> int:
        """Token types are ignored: 0 stands for all."""
        return 1

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "DistilBertConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        # Sinusoidal positions are stored like learned ones.
        dropouts = {"dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"}
        return parse(cls, raw, frozenset({*dropouts, "sinusoidal_pos_embds", "tie_weights_"}))

    @classmethod
    def tiny(cls) -> "DistilBertConfig":
        """Two layers of width 32, for tests."""
        return cls(vocab_size=120, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64)


class Embeddings(nn.Module):
    """Word and position embeddings, summed and normalized."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.dim)
        self.position = nn.Embedding(config.max_position_embeddings, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=EPS)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embed (B, T) int32 or int64 ids as (B, T, C); token types change nothing."""
        # A slice of the table, not a lookup of 0..T-1: converters fold it into a constant.
        out: Tensor = self.norm(self.word(input_ids) + self.position.weight[: input_ids.shape[1]])
        return out


class DistilBertEncoder(nn.Module):
    """Embeddings and BERT's layers: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: DistilBertConfig) -> None:
        super().__init__()
        c = config
        self.embeddings = Embeddings(c)
        self.layers = nn.ModuleList(Layer(c.dim, c.n_heads, c.hidden_dim, c.activation, EPS) for _ in range(c.n_layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.embeddings(input_ids, token_type_ids)
        mask = additive_mask(attention_mask, x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def _classifier(c: DistilBertConfig, labels: int) -> nn.Module:
    return heads.Classifier(heads.DenseFirst(c.dim, F.relu), c.dim, labels)


_CLASSIFIER_WEIGHTS = {"pre_classifier": "pooler.dense", "classifier": "classifier"}

DISTILBERT = Family(
    name="distilbert",
    paper="1910.01108",
    config=DistilBertConfig,
    encoder=DistilBertEncoder,
    heads={
        "base": lambda c: heads.Base(),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.dim, c.max_position_embeddings, c.pooling),
        "masked-lm": lambda c: heads.LanguageModel(c.dim, c.dim, c.vocab_size, activation(c.activation), EPS),
        "sequence-classification": lambda c: _classifier(c, len(c.labels)),
        "multiple-choice": lambda c: _classifier(c, 1),
        "token-classification": lambda c: heads.TokenClassifier(c.dim, len(c.labels)),
        "question-answering": lambda c: heads.QuestionAnswering(c.dim),
    },
    architectures={
        "DistilBertModel": "base",
        "DistilBertForMaskedLM": "masked-lm",
        "DistilBertForSequenceClassification": "sequence-classification",
        "DistilBertForMultipleChoice": "multiple-choice",
        "DistilBertForTokenClassification": "token-classification",
        "DistilBertForQuestionAnswering": "question-answering",
    },
    prefix="distilbert.",
    encoder_weights={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.LayerNorm": "embeddings.norm",
        "transformer.layer.{}.attention.q_lin": "layers.{}.attention.query",
        "transformer.layer.{}.attention.k_lin": "layers.{}.attention.key",
        "transformer.layer.{}.attention.v_lin": "layers.{}.attention.value",
        "transformer.layer.{}.attention.out_lin": "layers.{}.attention.out",
        "transformer.layer.{}.sa_layer_norm": "layers.{}.attention_norm",
        "transformer.layer.{}.ffn.lin1": "layers.{}.up",
        "transformer.layer.{}.ffn.lin2": "layers.{}.down",
        "transformer.layer.{}.output_layer_norm": "layers.{}.norm",
    },
    head_weights={
        "base": {},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {"vocab_transform": "dense", "vocab_layer_norm": "norm", "vocab_projector": "decoder"},
        "sequence-classification": _CLASSIFIER_WEIGHTS,
        "multiple-choice": _CLASSIFIER_WEIGHTS,
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*"),
    unused_by_task={},
    parts=(Layer, Attention),
    # https://huggingface.co/distilbert/distilbert-base-uncased/blob/main/config.json
    presets={"distilbert-base": DistilBertConfig()},
    depth="n_layers",
)
