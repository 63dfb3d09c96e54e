"""ELECTRA (Clark et al., arXiv 2003.10555): BERT trained to tell replaced tokens, with embeddings that may be narrower.

Its discriminator and its generator are one architecture in two sizes. Tensor names follow transformers'
`modeling_electra.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgebert.errors import InputError
from edgebert.models import heads
from edgebert.models.bert import LAYER_WEIGHTS, Attention, Layer
from edgebert.models.config import parse, require_divisible
from edgebert.models.family import Family
from edgebert.models.layers import Embeddings, activation, additive_mask, causal_mask


@dataclass(frozen=True, slots=True)
class ElectraConfig:
    """Sizes of an ELECTRA, named as in Hugging Face's `config.json`. The defaults are the small discriminator."""

    vocab_size: int = 30522
    embedding_size: int = 128
    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    is_decoder: bool = False
    # How multiple choice sums a sequence up.
    summary_type: str = "first"
    summary_use_proj: bool = True
    summary_activation: str = "gelu"
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")
        if self.summary_type not in heads.SUMMARIES:
            raise InputError(
                f"config.json: summary_type={self.summary_type!r}; it must be one of {', '.join(heads.SUMMARIES)}."
            )

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "ElectraConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        # transformers takes null for no activation.
        known = {key: "" if key == "summary_activation" and value is None else value for key, value in raw.items()}
        return parse(cls, known, frozenset({"summary_first_dropout", "summary_last_dropout"}))

    @classmethod
    def tiny(cls) -> "ElectraConfig":
        """Two layers of width 32 with narrower embeddings, for tests."""
        return cls(
            vocab_size=120, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64,
        )  # fmt: skip


class ElectraEncoder(nn.Module):
    """Embeddings, their projection where they are narrower, and BERT's layers: ids (B, T) to hidden states (B, T, C).

    With `is_decoder` a token sees itself and what came before, as generation needs it.
    """

    def __init__(self, config: ElectraConfig) -> None:
        super().__init__()
        c = config
        self.causal = c.is_decoder
        self.embeddings = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, c.embedding_size, c.layer_norm_eps
        )
        same = c.embedding_size == c.hidden_size
        self.project = nn.Identity() if same else nn.Linear(c.embedding_size, c.hidden_size)
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


def _language_model(c: ElectraConfig) -> nn.Module:
    return heads.LanguageModel(c.hidden_size, c.embedding_size, c.vocab_size, activation("gelu"), c.layer_norm_eps)


def _summary(c: ElectraConfig) -> nn.Module:
    return heads.Summary(c.hidden_size, c.summary_type, c.summary_use_proj, c.summary_activation)


_LANGUAGE_MODEL_WEIGHTS = {
    "generator_predictions.dense": "dense",
    "generator_predictions.LayerNorm": "norm",
    "generator_lm_head": "decoder",
}

ELECTRA = Family(
    name="electra",
    paper="2003.10555",
    config=ElectraConfig,
    encoder=ElectraEncoder,
    heads={
        "base": lambda c: heads.Base(),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": _language_model,
        "causal-lm": _language_model,
        "sequence-classification": lambda c: heads.Classifier(
            heads.DenseFirst(c.hidden_size, activation("gelu")), c.hidden_size, len(c.labels)
        ),
        "multiple-choice": lambda c: heads.Classifier(_summary(c), c.hidden_size, 1),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
        "replaced-token-detection": lambda c: heads.ReplacedTokens(c.hidden_size, activation(c.hidden_act)),
        "question-answering": lambda c: heads.QuestionAnswering(c.hidden_size),
    },
    architectures={
        "ElectraModel": "base",
        "ElectraForMaskedLM": "masked-lm",
        "ElectraForCausalLM": "causal-lm",
        "ElectraForSequenceClassification": "sequence-classification",
        "ElectraForMultipleChoice": "multiple-choice",
        "ElectraForTokenClassification": "token-classification",
        "ElectraForPreTraining": "replaced-token-detection",
        "ElectraForQuestionAnswering": "question-answering",
    },
    prefix="electra.",
    encoder_weights={**LAYER_WEIGHTS, "embeddings_project": "project"},
    head_weights={
        "base": {},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": _LANGUAGE_MODEL_WEIGHTS,
        "causal-lm": _LANGUAGE_MODEL_WEIGHTS,
        "sequence-classification": {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"},
        "multiple-choice": {"sequence_summary.summary": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "replaced-token-detection": {
            "discriminator_predictions.dense": "dense",
            "discriminator_predictions.dense_prediction": "score",
        },
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "*embeddings.token_type_ids", "generator_*", "discriminator_predictions.*"),
    unused_by_task={},
    parts=(Layer, Attention),
    presets={
        # https://huggingface.co/google/electra-small-discriminator/blob/main/config.json
        "electra-small": ElectraConfig(),
        # https://huggingface.co/google/electra-base-discriminator/blob/main/config.json
        "electra-base": ElectraConfig(
            embedding_size=768, hidden_size=768, num_attention_heads=12, intermediate_size=3072
        ),
    },
)
