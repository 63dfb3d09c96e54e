"""RemBERT (Chung et al., arXiv 2010.12821): BERT's layers between decoupled, differently wide embeddings.

The input embeddings are narrow (256) and projected to the hidden size; the output embeddings are wide (1664), belong to
language modelling alone and are dropped for every other task. Tensor names follow transformers' `modeling_rembert.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgebert.errors import Unsupported
from edgebert.models import heads
from edgebert.models.bert import LAYER_WEIGHTS, Attention, Layer
from edgebert.models.config import parse, require_divisible
from edgebert.models.family import Family
from edgebert.models.layers import Embeddings, activation, additive_mask, causal_mask


@dataclass(frozen=True, slots=True)
class RemBertConfig:
    """Sizes of a RemBERT model, named as in Hugging Face's `config.json`. The defaults are the published model."""

    vocab_size: int = 250300
    hidden_size: int = 1152
    num_hidden_layers: int = 32
    num_attention_heads: int = 18
    intermediate_size: int = 4608
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    tie_word_embeddings: bool = False
    input_embedding_size: int = 256
    output_embedding_size: int = 1664
    is_decoder: bool = False
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")
        if self.tie_word_embeddings and self.input_embedding_size != self.output_embedding_size:
            raise Unsupported(
                f"config.json: tie_word_embeddings=true with embeddings {self.input_embedding_size} and "
                f"{self.output_embedding_size} wide; RemBERT's are decoupled, set it to false."
            )

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "RemBertConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        return parse(cls, raw)

    @classmethod
    def tiny(cls) -> "RemBertConfig":
        """Two layers of width 32 between embeddings of 16 and 48, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=64, input_embedding_size=16, output_embedding_size=48,
        )  # fmt: skip


class RemBertEncoder(nn.Module):
    """Narrow embeddings, their projection, and BERT's layers: ids (B, T) to hidden states (B, T, C).

    With `is_decoder` a token sees itself and what came before, as generation needs it.
    """

    def __init__(self, config: RemBertConfig) -> None:
        super().__init__()
        c = config
        self.causal = c.is_decoder
        self.embeddings = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, c.input_embedding_size, c.layer_norm_eps
        )
        self.project = nn.Linear(c.input_embedding_size, c.hidden_size)
        self.layers = nn.ModuleList(
            Layer(c.hidden_size, c.num_attention_heads, c.intermediate_size, c.hidden_act, c.layer_norm_eps)
            for _ in range(c.num_hidden_layers)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.project(self.embeddings(input_ids, token_type_ids))
        mask = additive_mask(attention_mask, x.dtype)
        if self.causal:
            mask = mask + causal_mask(input_ids.shape[1], x.dtype)  # (B, 1, T, T)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def _language_model(c: RemBertConfig) -> nn.Module:
    return heads.LanguageModel(
        c.hidden_size, c.output_embedding_size, c.vocab_size, activation(c.hidden_act), c.layer_norm_eps
    )


_LANGUAGE_MODEL_WEIGHTS = {
    "cls.predictions.dense": "dense",
    "cls.predictions.LayerNorm": "norm",
    "cls.predictions.decoder": "decoder",
}

REMBERT = Family(
    name="rembert",
    paper="2010.12821",
    config=RemBertConfig,
    encoder=RemBertEncoder,
    heads={
        "base": lambda c: heads.Base(heads.Pooler(c.hidden_size)),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": _language_model,
        "causal-lm": _language_model,
        "sequence-classification": lambda c: heads.Classifier(
            heads.Pooler(c.hidden_size), c.hidden_size, len(c.labels)
        ),
        "multiple-choice": lambda c: heads.Classifier(heads.Pooler(c.hidden_size), c.hidden_size, 1),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
        "question-answering": lambda c: heads.QuestionAnswering(c.hidden_size),
    },
    architectures={
        "RemBertModel": "base",
        "RemBertForMaskedLM": "masked-lm",
        "RemBertForCausalLM": "causal-lm",
        "RemBertForSequenceClassification": "sequence-classification",
        "RemBertForMultipleChoice": "multiple-choice",
        "RemBertForTokenClassification": "token-classification",
        "RemBertForQuestionAnswering": "question-answering",
    },
    prefix="rembert.",
    encoder_weights={**LAYER_WEIGHTS, "encoder.embedding_hidden_mapping_in": "project"},
    head_weights={
        "base": {"pooler.dense": "pooler.dense"},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": _LANGUAGE_MODEL_WEIGHTS,
        "causal-lm": _LANGUAGE_MODEL_WEIGHTS,
        "sequence-classification": {"rembert.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "multiple-choice": {"rembert.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "*pooler.dense.*", "cls.predictions.*"),
    unused_by_task={},
    parts=(Layer, Attention),
    # https://huggingface.co/google/rembert/blob/main/config.json
    presets={"rembert-base": RemBertConfig()},
)
