"""RoBERTa (Liu et al., arXiv 1907.11692): BERT's layers, trained longer, with positions counted from the padding's id.

XLM-R (arXiv 1911.02116) and CamemBERT (arXiv 1911.03894) are the same with other vocabularies. The first token reads
row `pad_token_id` + 1 of the position table; the rows before it stand for padding. transformers counts the ids that are
not padding's, which is the same where padding stands at the end and nowhere else. Tensor names follow transformers'
`modeling_roberta.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.errors import InputError
from edgebert.models import heads
from edgebert.models.bert import LAYER_WEIGHTS, Attention, Layer
from edgebert.models.config import parse, require_divisible
from edgebert.models.family import Family
from edgebert.models.layers import Embeddings, additive_mask, causal_mask


@dataclass(frozen=True, slots=True)
class RobertaConfig:
    """Sizes of a RoBERTa, named as in Hugging Face's `config.json`. The defaults are RoBERTa-base."""

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 514
    type_vocab_size: int = 1
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    pad_token_id: int = 1
    tie_word_embeddings: bool = True
    is_decoder: bool = False
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")
        if first_position(self) >= self.max_position_embeddings:
            raise InputError(
                f"config.json: max_position_embeddings={self.max_position_embeddings} leaves no row for a token after "
                f"pad_token_id={self.pad_token_id}, from which positions are counted."
            )

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "RobertaConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        # What a file leaves out has transformers' own defaults, which are not those of the published models.
        return parse(cls, {"max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12} | dict(raw))

    @classmethod
    def tiny(cls) -> "RobertaConfig":
        """Two layers of width 32 over 64 positions, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=66,
        )  # fmt: skip


def first_position(config: RobertaConfig) -> int:
    """The row of the position table that the first token reads."""
    return config.pad_token_id + 1


class RobertaEncoder(nn.Module):
    """Embeddings and BERT's layers: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        c = config
        self.causal = c.is_decoder
        self.embeddings = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, c.hidden_size, c.layer_norm_eps,
            first_position(c),
        )  # fmt: skip
        self.layers = nn.ModuleList(
            Layer(c.hidden_size, c.num_attention_heads, c.intermediate_size, c.hidden_act, c.layer_norm_eps)
            for _ in range(c.num_hidden_layers)
        )

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.embeddings(input_ids, token_type_ids)
        mask = additive_mask(attention_mask, x.dtype)
        if self.causal:
            mask = mask + causal_mask(input_ids.shape[1], x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        return x


def _language_model(c: RobertaConfig) -> nn.Module:
    # GELU whatever the layers have.
    return heads.LanguageModel(c.hidden_size, c.hidden_size, c.vocab_size, F.gelu, c.layer_norm_eps)


def _classifier(c: RobertaConfig, labels: int) -> nn.Module:
    return heads.Classifier(heads.Pooler(c.hidden_size), c.hidden_size, labels)


_LANGUAGE_MODEL_WEIGHTS = {
    "lm_head.dense": "dense",
    "lm_head.layer_norm": "norm",
    "lm_head.decoder": "decoder",
    "lm_head": "decoder",  # `lm_head.bias`, the older name of the decoder's bias
}
_NAMES = ("Roberta", "XLMRoberta", "Camembert")
_HEADS = {
    "Model": "base",
    "ForMaskedLM": "masked-lm",
    "ForCausalLM": "causal-lm",
    "ForSequenceClassification": "sequence-classification",
    "ForMultipleChoice": "multiple-choice",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}

ROBERTA = Family(
    name="roberta",
    paper="1907.11692",
    config=RobertaConfig,
    encoder=RobertaEncoder,
    heads={
        "base": lambda c: heads.Base(heads.Pooler(c.hidden_size)),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": _language_model,
        "causal-lm": _language_model,
        "sequence-classification": lambda c: _classifier(c, len(c.labels)),
        "multiple-choice": lambda c: _classifier(c, 1),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
        "question-answering": lambda c: heads.QuestionAnswering(c.hidden_size),
    },
    architectures={f"{name}{head}": task for name in _NAMES for head, task in _HEADS.items()},
    prefix="roberta.",
    encoder_weights=LAYER_WEIGHTS,
    head_weights={
        "base": {"pooler.dense": "pooler.dense"},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": _LANGUAGE_MODEL_WEIGHTS,
        "causal-lm": _LANGUAGE_MODEL_WEIGHTS,
        "sequence-classification": {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"},
        "multiple-choice": {"roberta.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "*embeddings.token_type_ids", "*pooler.dense.*", "lm_head.*"),
    unused_by_task={},
    parts=(Layer, Attention),
    # https://huggingface.co/FacebookAI/roberta-base/blob/main/config.json, and xlm-roberta-base beside it
    presets={"roberta-base": RobertaConfig(), "xlm-roberta-base": RobertaConfig(vocab_size=250002)},
    first_position=first_position,
    model_types=("roberta", "xlm-roberta", "camembert"),
)
