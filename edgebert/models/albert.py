"""ALBERT (Lan et al., arXiv 1909.11942): BERT's layers, few of them and each run many times, behind narrow embeddings.

A group of layers runs several times before the next one does; all of the published models have one group of one layer.
Tensor names follow transformers' `modeling_albert.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from edgebert.models import heads
from edgebert.models.bert import Attention, Layer
from edgebert.models.config import parse, require_divisible, require_shallow
from edgebert.models.family import Family, executed
from edgebert.models.layers import Embeddings, activation, additive_mask


@dataclass(frozen=True, slots=True)
class AlbertConfig:
    """Sizes of an ALBERT, named as in Hugging Face's `config.json`. The defaults are ALBERT-base, version 2.

    `num_hidden_layers` counts how often a group runs, in all.
    """

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_hidden_groups: int = 1
    inner_group_num: int = 1
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu_new"
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
        require_shallow(self.num_hidden_layers, self.inner_group_num, "inner_group_num")

    @property
    def groups(self) -> tuple[int, ...]:
        """The group that runs, of each of `num_hidden_layers`."""
        # With this rounding, as transformers has it: 18 layers of 14 groups are not what whole numbers make of it.
        each = self.num_hidden_layers / self.num_hidden_groups
        return tuple(int(i / each) for i in range(self.num_hidden_layers))

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "AlbertConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        # What a file leaves out has transformers' own defaults, which are those of the largest of the published models.
        largest = {"hidden_size": 4096, "num_attention_heads": 64, "intermediate_size": 16384}
        # Of the first release, and the same in all its models.
        unused = {"down_scale_factor", "gap_size", "net_structure_type", "num_memory_blocks"}
        return parse(cls, largest | dict(raw), frozenset(unused))

    @classmethod
    def tiny(cls) -> "AlbertConfig":
        """One layer of width 32 that runs twice, behind narrower embeddings, for tests."""
        return cls(
            vocab_size=120, embedding_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64,
        )  # fmt: skip


def layer_numbers(config: AlbertConfig) -> tuple[tuple[int, ...], ...]:
    """The group, and the place in it, of each layer; groups that never run are left out."""
    return tuple((group, place) for group in dict.fromkeys(config.groups) for place in range(config.inner_group_num))


class AlbertEncoder(nn.Module):
    """Embeddings, their projection and BERT's layers: ids (B, T) to hidden states (B, T, C).

    `layers` holds each layer once, and `order` says which of them run one after the other.
    """

    def __init__(self, config: AlbertConfig) -> None:
        super().__init__()
        c = config
        self.embeddings = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, c.embedding_size, c.layer_norm_eps
        )
        self.project = nn.Linear(c.embedding_size, c.hidden_size)
        known = layer_numbers(c)
        self.layers = nn.ModuleList(
            Layer(c.hidden_size, c.num_attention_heads, c.intermediate_size, c.hidden_act, c.layer_norm_eps)
            for _ in known
        )
        self.order = tuple(known.index((group, place)) for group in c.groups for place in range(c.inner_group_num))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.project(self.embeddings(input_ids, token_type_ids))
        mask = additive_mask(attention_mask, x.dtype)
        for layer in executed(self):
            x = layer(x, mask)
        return x


def _classifier(c: AlbertConfig, labels: int) -> nn.Module:
    return heads.Classifier(heads.Pooler(c.hidden_size), c.hidden_size, labels)


ALBERT = Family(
    name="albert",
    paper="1909.11942",
    config=AlbertConfig,
    encoder=AlbertEncoder,
    heads={
        "base": lambda c: heads.Base(heads.Pooler(c.hidden_size)),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": lambda c: heads.LanguageModel(
            c.hidden_size, c.embedding_size, c.vocab_size, activation(c.hidden_act), c.layer_norm_eps
        ),
        "sequence-classification": lambda c: _classifier(c, len(c.labels)),
        "multiple-choice": lambda c: _classifier(c, 1),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
        "question-answering": lambda c: heads.QuestionAnswering(c.hidden_size),
    },
    architectures={
        "AlbertModel": "base",
        "AlbertForMaskedLM": "masked-lm",
        "AlbertForPreTraining": "masked-lm",
        "AlbertForSequenceClassification": "sequence-classification",
        "AlbertForMultipleChoice": "multiple-choice",
        "AlbertForTokenClassification": "token-classification",
        "AlbertForQuestionAnswering": "question-answering",
    },
    prefix="albert.",
    encoder_weights={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.embedding_hidden_mapping_in": "project",
        "encoder.albert_layer_groups.{}.albert_layers.{}.attention.query": "layers.{}.attention.query",
        "encoder.albert_layer_groups.{}.albert_layers.{}.attention.key": "layers.{}.attention.key",
        "encoder.albert_layer_groups.{}.albert_layers.{}.attention.value": "layers.{}.attention.value",
        "encoder.albert_layer_groups.{}.albert_layers.{}.attention.dense": "layers.{}.attention.out",
        "encoder.albert_layer_groups.{}.albert_layers.{}.attention.LayerNorm": "layers.{}.attention_norm",
        "encoder.albert_layer_groups.{}.albert_layers.{}.ffn": "layers.{}.up",
        "encoder.albert_layer_groups.{}.albert_layers.{}.ffn_output": "layers.{}.down",
        "encoder.albert_layer_groups.{}.albert_layers.{}.full_layer_layer_norm": "layers.{}.norm",
    },
    head_weights={
        "base": {"pooler": "pooler.dense"},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {
            "predictions.dense": "dense",
            "predictions.LayerNorm": "norm",
            "predictions.decoder": "decoder",
            "predictions": "decoder",  # `predictions.bias`, the older name of the decoder's bias
        },
        "sequence-classification": {"albert.pooler": "pooler.dense", "classifier": "classifier"},
        "multiple-choice": {"albert.pooler": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "*pooler.weight", "*pooler.bias", "predictions.*", "sop_classifier.*"),
    unused_by_task={},
    parts=(Layer, Attention),
    # https://huggingface.co/albert/albert-base-v2/blob/main/config.json
    presets={"albert-base": AlbertConfig()},
    layer_numbers=layer_numbers,
)
