"""ConvBERT (Jiang et al., arXiv 2008.02496): half of the attention heads are span-based dynamic convolutions.

The convolution reads the neighbours of a token whether they are padding or not, as the paper's and transformers' models
do, so a sentence padded further may answer a little differently (`padding_invariant=False` below).
Tensor names follow transformers' `modeling_convbert.py`.
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
from edgebert.models.config import parse, require_divisible
from edgebert.models.family import Family
from edgebert.models.layers import Embeddings, activation, additive_mask


@dataclass(frozen=True, slots=True)
class ConvBertConfig:
    """Sizes of a ConvBERT model, named as in Hugging Face's `config.json`. The defaults are the base model."""

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
    pad_token_id: int = 1
    tie_word_embeddings: bool = True
    embedding_size: int = 768
    head_ratio: int = 2
    conv_kernel_size: int = 9
    num_groups: int = 1
    # How multiple choice sums a sequence up. transformers falls back to the last token where a config is silent.
    summary_type: str = "last"
    summary_use_proj: bool = False
    summary_activation: str = ""
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(
            self.hidden_size, 2 * self.heads, "hidden_size must split over attention and convolution heads"
        )
        require_divisible(
            math.gcd(self.hidden_size, self.intermediate_size), self.num_groups, "sizes must split over num_groups"
        )
        if self.conv_kernel_size % 2 == 0:
            raise InputError(
                f"config.json: conv_kernel_size={self.conv_kernel_size}; it must be odd, to centre on a token."
            )
        if self.summary_type not in heads.SUMMARIES:
            raise InputError(
                f"config.json: summary_type={self.summary_type!r}; it must be one of {', '.join(heads.SUMMARIES)}."
            )

    @property
    def heads(self) -> int:
        """Attention heads that remain, and as many convolution heads: num_attention_heads / head_ratio, at least 1."""
        return max(self.num_attention_heads // self.head_ratio, 1)

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "ConvBertConfig":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        known = {key: value for key, value in raw.items() if not (key == "summary_activation" and value is None)}
        # linear_groups is the original release's name for num_groups; a tensor's shape tells if the two disagree.
        return parse(cls, known, frozenset({"linear_groups", "summary_first_dropout", "summary_last_dropout"}))

    @classmethod
    def tiny(cls) -> "ConvBertConfig":
        """Two layers of width 32 with narrower embeddings and grouped feed-forward, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, embedding_size=16, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64, num_groups=2,
        )  # fmt: skip


class SeparableConv(nn.Module):
    """A depthwise and a pointwise convolution over the tokens of (B, T, C), giving (B, T, width)."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, kernel, groups=channels, padding=kernel // 2, bias=False)
        self.pointwise = nn.Conv1d(channels, width, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (B, T, C) into (B, T, width)."""
        y: Tensor = self.pointwise(self.depthwise(x.transpose(1, 2))) + self.bias
        return y.transpose(1, 2)


class MixedAttention(nn.Module):
    """Self-attention heads beside span-based dynamic convolution heads (figure 4 of the paper), over (B, T, C)."""

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__()
        width, half = config.hidden_size, config.hidden_size // 2
        self.n_heads, self.kernel = config.heads, config.conv_kernel_size
        self.query = nn.Linear(width, half)
        self.key = nn.Linear(width, half)
        self.value = nn.Linear(width, half)
        self.span_key = SeparableConv(width, half, self.kernel)
        self.span_kernel = nn.Linear(half, self.n_heads * self.kernel)
        self.span_value = nn.Linear(width, half)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """Part (B, T, C/2) into heads, (B, T, H, D)."""
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.n_heads, width // self.n_heads)

    def attend(self, x: Tensor, query: Tensor, mask: Tensor) -> Tensor:
        """The self-attention half: (B, T, C) to (B, T, H, D)."""
        queries = self.split(query).transpose(1, 2)  # (B, H, T, D)
        keys = self.split(self.key(x)).transpose(1, 2)
        values = self.split(self.value(x)).transpose(1, 2)
        scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1]) + mask  # (B, H, T, T)
        return (torch.softmax(scores, dim=-1) @ values).transpose(1, 2)

    def convolve(self, x: Tensor, query: Tensor) -> Tensor:
        """The convolution half: each token's own kernel over its span, (B, T, C) to (B, T, H, D)."""
        batch, tokens, _ = x.shape
        kernels = self.span_kernel(self.span_key(x) * query).reshape(batch, tokens, self.n_heads, self.kernel)
        kernels = torch.softmax(kernels, dim=-1)  # (B, T, H, K)
        # Shifted slices of one padded tensor stand for unfold, which not every converter lowers.
        reach = self.kernel // 2
        values = F.pad(self.span_value(x), (0, 0, reach, reach))  # (B, T + K - 1, C/2)
        # Added one to the next: XNNPACK takes no concatenation of nine tensors, and would leave it to slow kernels.
        total = self.split(values[:, :tokens]) * kernels[..., :1]
        for k in range(1, self.kernel):
            total = total + self.split(values[:, k : k + tokens]) * kernels[..., k : k + 1]
        return total

    def forward(self, queries: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Answer for the tokens `queries`, the first (B, A, C) of (B, T, C); `mask` is added to the scores."""
        query = self.query(x)
        both = torch.cat([self.attend(x, query, mask), self.convolve(x, query)], dim=2).reshape(x.shape)
        out: Tensor = self.out(both if queries is x else both[:, : queries.shape[1]])
        return out


class GroupedLinear(nn.Module):
    """A block-diagonal linear layer; `weight` is (groups, inputs / groups, outputs / groups), as in transformers."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(groups, inputs // groups, outputs // groups))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, inputs) to (B, T, outputs)."""
        batch, tokens, _ = x.shape
        groups, inputs, outputs = self.weight.shape
        parts = x.reshape(batch * tokens, groups, inputs).transpose(0, 1) @ self.weight  # (groups, B*T, outputs)
        return parts.transpose(0, 1).reshape(batch, tokens, groups * outputs) + self.bias


class Layer(nn.Module):
    """One block: mixed attention and a feed-forward, grouped where `num_groups` is above 1."""

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__()
        width, inner, groups = config.hidden_size, config.intermediate_size, config.num_groups
        self.attention = MixedAttention(config)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.up = GroupedLinear(width, inner, groups) if groups > 1 else nn.Linear(width, inner)
        self.act = activation(config.hidden_act)
        self.down = GroupedLinear(inner, width, groups) if groups > 1 else nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        return self.answer(x, x, mask)

    def answer(self, queries: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """What becomes of the tokens `queries`, the first (B, A, C) of (B, T, C), in their shape."""
        queries = self.attention_norm(queries + self.attention(queries, x, mask))
        out: Tensor = self.norm(queries + self.down(self.act(self.up(queries))))
        return out


class ConvBertEncoder(nn.Module):
    """Embeddings, their projection where they are narrower, and layers: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: ConvBertConfig) -> None:
        super().__init__()
        c = config
        self.embeddings = Embeddings(
            c.vocab_size, c.max_position_embeddings, c.type_vocab_size, c.embedding_size, c.layer_norm_eps
        )
        same = c.embedding_size == c.hidden_size
        self.project = nn.Identity() if same else nn.Linear(c.embedding_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.project(self.embeddings(input_ids, token_type_ids))
        mask = additive_mask(attention_mask, x.dtype)
        for layer in self.layers:
            x = layer(x, mask)
        return x


CONVBERT = Family(
    name="convbert",
    paper="2008.02496",
    config=ConvBertConfig,
    encoder=ConvBertEncoder,
    heads={
        "base": lambda c: heads.Base(),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": lambda c: heads.LanguageModel(
            c.hidden_size, c.embedding_size, c.vocab_size, activation("gelu"), c.layer_norm_eps
        ),
        "sequence-classification": lambda c: heads.Classifier(
            heads.DenseFirst(c.hidden_size, activation(c.hidden_act)), c.hidden_size, len(c.labels)
        ),
        "multiple-choice": lambda c: heads.Classifier(
            heads.Summary(c.hidden_size, c.summary_type, c.summary_use_proj, c.summary_activation), c.hidden_size, 1
        ),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
        "question-answering": lambda c: heads.QuestionAnswering(c.hidden_size),
    },
    architectures={
        "ConvBertModel": "base",
        "ConvBertForMaskedLM": "masked-lm",
        "ConvBertForSequenceClassification": "sequence-classification",
        "ConvBertForMultipleChoice": "multiple-choice",
        "ConvBertForTokenClassification": "token-classification",
        "ConvBertForQuestionAnswering": "question-answering",
    },
    prefix="convbert.",
    encoder_weights={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        "embeddings_project": "project",
        "encoder.layer.{}.attention.self.query": "layers.{}.attention.query",
        "encoder.layer.{}.attention.self.key": "layers.{}.attention.key",
        "encoder.layer.{}.attention.self.value": "layers.{}.attention.value",
        "encoder.layer.{}.attention.self.key_conv_attn_layer.depthwise": "layers.{}.attention.span_key.depthwise",
        "encoder.layer.{}.attention.self.key_conv_attn_layer.pointwise": "layers.{}.attention.span_key.pointwise",
        "encoder.layer.{}.attention.self.key_conv_attn_layer": "layers.{}.attention.span_key",
        "encoder.layer.{}.attention.self.conv_kernel_layer": "layers.{}.attention.span_kernel",
        "encoder.layer.{}.attention.self.conv_out_layer": "layers.{}.attention.span_value",
        "encoder.layer.{}.attention.output.dense": "layers.{}.attention.out",
        "encoder.layer.{}.attention.output.LayerNorm": "layers.{}.attention_norm",
        "encoder.layer.{}.intermediate.dense": "layers.{}.up",
        "encoder.layer.{}.output.dense": "layers.{}.down",
        "encoder.layer.{}.output.LayerNorm": "layers.{}.norm",
    },
    head_weights={
        "base": {},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {
            "generator_predictions.dense": "dense",
            "generator_predictions.LayerNorm": "norm",
            "generator_lm_head": "decoder",
        },
        "sequence-classification": {"classifier.dense": "pooler.dense", "classifier.out_proj": "classifier"},
        "multiple-choice": {"sequence_summary.summary": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    harmless=("*embeddings.position_ids", "*embeddings.token_type_ids", "generator_*", "discriminator_predictions.*"),
    unused_by_task={},
    parts=(Layer, MixedAttention, SeparableConv),
    # https://huggingface.co/YituTech/conv-bert-base/blob/main/config.json
    presets={"convbert-base": ConvBertConfig()},
    padding_invariant=False,
)
