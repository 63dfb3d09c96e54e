"""ModernBERT (Warner et al., arXiv 2412.13663): rotary positions, gated feed-forward, norms first, local attention.

Most layers are local: a token sees those within half of `local_attention` on either side. Where sequences are much
longer than that and their length is known, a block of tokens attends to itself and to its two neighbours alone, so that
the work grows as the length and not as its square. Tensor names follow transformers' `modeling_modernbert.py`.
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
from edgebert.models.config import parse, require_divisible, require_rotary, rope_theta, within, words
from edgebert.models.family import Family
from edgebert.models.layers import MASKED, Rotary, activation, additive_mask, band_mask

GLOBAL, LOCAL = "full_attention", "sliding_attention"
POOLINGS = ("cls", "mean")
# Keys for trainings, dropout, other kernels, and what follows from other keys.
IGNORED = frozenset({
    "attention_dropout", "classifier_dropout", "deterministic_flash_attn", "embedding_dropout",
    "initializer_cutoff_factor", "layer_norm_eps", "mlp_dropout", "reference_compile", "repad_logits_with_grad",
    "rope_parameters", "rope_scaling", "sliding_window", "sparse_pred_ignore_index", "sparse_prediction",
})  # fmt: skip
# Tokens of a block, or half a window where that is more: smaller ones are more work to cut than to compute.
BLOCK = 16
# Blocks that a sequence has at least, to be cut: of three all would see all.
BLOCKS = 4


@dataclass(frozen=True, slots=True)
class ModernBertConfig:
    """Sizes of a ModernBERT, named as in Hugging Face's `config.json`. The defaults are ModernBERT-base.

    `layer_types` is empty where every `global_attn_every_n_layers`-th layer is global, the first of them first.
    """

    vocab_size: int = 50368
    hidden_size: int = 768
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    intermediate_size: int = 1152
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    initializer_range: float = 0.02
    pad_token_id: int = 50283
    tie_word_embeddings: bool = True
    layer_types: tuple[str, ...] = ()
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    global_rope_theta: float = within(160000.0, 1, 1e12)
    local_rope_theta: float = within(10000.0, 1, 1e12)
    decoder_bias: bool = True
    classifier_pooling: str = "mean"
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")
        require_rotary(self.hidden_size, self.num_attention_heads, self.max_position_embeddings)
        if self.classifier_pooling not in POOLINGS:
            raise InputError(
                f"config.json: classifier_pooling={self.classifier_pooling!r}; it must be one of {', '.join(POOLINGS)}."
            )

    @property
    def type_vocab_size(self) -> int:
        """ModernBERT has no token types: whatever is given counts as one."""
        return 1

    @property
    def kinds(self) -> tuple[str, ...]:
        """Each layer's attention, GLOBAL or LOCAL."""
        numbers = range(self.num_hidden_layers)
        regular = tuple(LOCAL if i % self.global_attn_every_n_layers else GLOBAL for i in numbers)
        return self.layer_types[: self.num_hidden_layers] or regular

    @property
    def period(self) -> int:
        """After how many layers their kinds come again."""
        kinds = self.kinds
        return next(size for size in range(1, len(kinds) + 1) if kinds[size:] == kinds[:-size])

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "ModernBertConfig":
        """Read a parsed `config.json`, of transformers 5 or those before; an unknown key raises InputError."""
        # What a file leaves out has transformers' own defaults, which are not all those of the published models.
        known = {"classifier_pooling": "cls"} | dict(raw)
        known["layer_types"] = words(cls, "layer_types", raw.get("layer_types"), (GLOBAL, LOCAL))
        if known["layer_types"] and len(known["layer_types"]) != raw.get("num_hidden_layers", cls().num_hidden_layers):
            raise InputError(
                f"config.json: {len(known['layer_types'])} layer_types for num_hidden_layers="
                f"{raw.get('num_hidden_layers')!r:.80}: each layer needs one."
            )
        by_kind = raw.get("rope_parameters") or {}
        if not isinstance(by_kind, dict):
            raise InputError(f"config.json: rope_parameters={by_kind!r:.80}; a map is needed.")
        for kind, key, default in (
            (GLOBAL, "global_rope_theta", cls().global_rope_theta), (LOCAL, "local_rope_theta", cls().local_rope_theta)
        ):  # fmt: skip
            scaled = by_kind.get(kind)
            known[key] = rope_theta(raw, raw.get("rope_scaling") if scaled is None else scaled, key, default)
        return parse(cls, known, IGNORED)

    @classmethod
    def tiny(cls) -> "ModernBertConfig":
        """A global and two local layers of width 32 with windows of nine tokens, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=64, pad_token_id=0, local_attention=8,
        )  # fmt: skip


class Embeddings(nn.Module):
    """Word embeddings, normalized."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed (B, T) int32 or int64 ids as (B, T, C)."""
        out: Tensor = self.norm(self.word(input_ids))
        return out


def neighbours(x: Tensor) -> Tensor:
    """Each block of (B, H, N + 2, W, D) but the ends between those beside it, (B, H, N, 3 W, D)."""
    return torch.cat([x[:, :, :-2], x[:, :, 1:-1], x[:, :, 2:]], dim=3)


def block_size(reach: int) -> int:
    """Tokens of a block, W, where attention reaches so far."""
    return max(reach, BLOCK)


def worth_cutting(tokens: int, reach: int) -> bool:
    """Whether a sequence is so much longer than what a token sees that blocks of it are less work."""
    return tokens > BLOCKS * block_size(reach)


def block_mask(reach: int, dtype: torch.dtype) -> Tensor:
    """A finite (W, 3 W) term for the scores of a block that hides from each token those further away than `reach`."""
    size = block_size(reach)
    return band_mask(3 * size, reach, dtype)[size : 2 * size]


class Windows:
    """The cut of T tokens into blocks of W, for attention that reaches no further than one.

    Attributes:
        count: of blocks, N; 0 where nothing is cut.
    """

    def __init__(self, tokens: int, reach: int, near: Tensor | None = None) -> None:
        """Cut `tokens`; a number of them that is only known at run time, to a tracer, is left whole without `near`."""
        self.tokens, self.reach, self.size = tokens, reach, block_size(reach)
        self.cut = near is not None or (type(tokens) is int and worth_cutting(tokens, reach))
        # Where the number is not known there is a block more: a tracer makes a constant of what may be one.
        self.count = tokens // self.size + 2 if near is not None else -(-tokens // self.size) if self.cut else 0
        self.near = near

    def blocks(self, x: Tensor, beyond: int, value: float = 0.0) -> Tensor:
        """Part (B, H, T, D) into blocks, (B, H, N + 2 beyond, W, D), filled up and with some of `value` at the ends."""
        batch, count, tokens, width = x.shape
        rest = self.count * self.size - tokens
        filled = F.pad(x, (0, 0, beyond * self.size, rest + beyond * self.size), value=value)
        return filled.reshape(batch, count, -1, self.size, width)

    def own(self, x: Tensor) -> Tensor:
        """Part (B, H, T, D) into blocks, (B, H, N, W, D)."""
        return self.blocks(x, 0)

    def around(self, x: Tensor, value: float = 0.0) -> Tensor:
        """For each block of (B, H, T, D) what it sees, (B, H, N, 3 W, D), of `value` beyond the ends."""
        return neighbours(self.blocks(x, 1, value))

    def joined(self, x: Tensor) -> Tensor:
        """Blocks (B, H, N, W, D) as a sequence again, (B, H, T, D)."""
        return x.flatten(2, 3).narrow(2, 0, self.tokens)

    def first(self, x: Tensor) -> Tensor:
        """The first of the blocks along the third axis, which goes."""
        return x[:, :, 0]

    def mask(self, mask: Tensor) -> Tensor:
        """What to add to scores: of (B, 1, 1, T) for padding (B, 1, T, T), or (B, 1, N, W, 3 W) where it is cut."""
        if not self.cut:
            return mask + band_mask(self.tokens, self.reach, mask.dtype)
        near = block_mask(self.reach, mask.dtype) if self.near is None else self.near
        return near + self.around(mask.transpose(2, 3), MASKED).transpose(-2, -1)


class Attention(nn.Module):
    """Multi-head self-attention over (B, T, C) with turned queries and keys, the output projection included."""

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.n_heads = config.num_attention_heads
        self.scale = math.sqrt(width // self.n_heads)
        self.qkv = nn.Linear(width, 3 * width, bias=config.attention_bias)
        self.out = nn.Linear(width, width, bias=config.attention_bias)

    def split(self, x: Tensor) -> Tensor:
        """Part (B, T, C) into heads, (B, H, T, D)."""
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.n_heads, width // self.n_heads).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor, rotary: Rotary, windows: Windows | None) -> Tensor:
        """Attend within (B, T, C); `mask` is added to the scores, which are of all pairs or of those in `windows`."""
        query, key, value = (self.split(part) for part in self.qkv(x).chunk(3, dim=-1))
        query, key = rotary(query), rotary(key)
        if windows is not None:
            query, key, value = windows.own(query), windows.around(key), windows.around(value)
        scores = query @ key.transpose(-1, -2)  # (B, H, T, T) or (B, H, N, W, 3 W)
        if self.scale != 1.0:  # else it is in the weights, see `lowering/scaled_keys.py`
            scores = scores / self.scale
        context = torch.softmax(scores + mask, dim=-1) @ value  # (B, H, T, D) or (B, H, N, W, D)
        if windows is not None:
            context = windows.joined(context)
        out: Tensor = self.out(context.transpose(1, 2).reshape(x.shape))
        return out


class Layer(nn.Module):
    """One block: attention and a gated feed-forward (Shazeer, arXiv 2002.05202), each of its normalized input."""

    def __init__(self, config: ModernBertConfig, number: int) -> None:
        super().__init__()
        c = config
        self.local = c.kinds[number] == LOCAL
        # The embeddings are normalized already.
        first = nn.Identity() if number == 0 else nn.LayerNorm(c.hidden_size, eps=c.norm_eps, bias=c.norm_bias)
        self.attention_norm = first
        self.attention = Attention(c)
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.norm_eps, bias=c.norm_bias)
        self.up = nn.Linear(c.hidden_size, 2 * c.intermediate_size, bias=c.mlp_bias)
        self.act = activation(c.hidden_activation)
        self.down = nn.Linear(c.intermediate_size, c.hidden_size, bias=c.mlp_bias)

    def forward(self, x: Tensor, mask: Tensor, rotary: Rotary, windows: Windows | None) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        return self.answer(x, self.attention(self.attention_norm(x), mask, rotary, windows))

    def answer(self, x: Tensor, attended: Tensor) -> Tensor:
        """What becomes of tokens (B, A, C) and what they found, in their shape."""
        x = x + attended
        inner, gate = self.up(self.norm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down(self.act(inner) * gate)
        return out


class ModernBertEncoder(nn.Module):
    """Embeddings, layers and a last norm: ids (B, T) to hidden states (B, T, C)."""

    near: Tensor | None

    def __init__(self, config: ModernBertConfig) -> None:
        super().__init__()
        c = config
        self.reach = c.local_attention // 2
        # What a block's scores get at every length, where that is known only at run time; see `lowering/windows.py`.
        self.register_buffer("near", None, persistent=False)
        self.embeddings = Embeddings(c)
        width = c.hidden_size // c.num_attention_heads
        self.rotary = Rotary(width, c.max_position_embeddings, c.global_rope_theta)
        self.local_rotary = Rotary(width, c.max_position_embeddings, c.local_rope_theta)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_hidden_layers))
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.norm_eps, bias=c.norm_bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C); token types change nothing."""
        x: Tensor = self.embeddings(input_ids)
        mask = additive_mask(attention_mask, x.dtype)
        windows = self.windows(input_ids.shape[1])
        near = windows.mask(mask)
        cut = windows if windows.cut else None
        for layer in self.layers:
            x = layer(x, near, self.local_rotary, cut) if layer.local else layer(x, mask, self.rotary, None)
        out: Tensor = self.norm(x)
        return out

    def windows(self, tokens: int) -> Windows:
        """How local layers part so many tokens."""
        return Windows(tokens, self.reach, self.near)


def _parts(c: ModernBertConfig) -> tuple[Any, ...]:
    return c.hidden_size, activation(c.classifier_activation), c.norm_eps, c.classifier_bias, c.norm_bias


def _classifier(c: ModernBertConfig, labels: int) -> nn.Module:
    if c.classifier_pooling == "mean":
        return heads.MeanClassifier(heads.Transform(*_parts(c)), c.hidden_size, labels)
    return heads.Classifier(heads.TransformFirst(*_parts(c)), c.hidden_size, labels)


def _language_model(c: ModernBertConfig) -> nn.Module:
    width, act, eps, bias, norm_bias = _parts(c)
    return heads.LanguageModel(width, width, c.vocab_size, act, eps, bias, norm_bias, c.decoder_bias)


_POOLED_WEIGHTS = {"head.dense": "pooler.dense", "head.norm": "pooler.norm", "classifier": "classifier"}
_TOKEN_WEIGHTS = {"head.dense": "transform.dense", "head.norm": "transform.norm"}

MODERNBERT = Family(
    name="modernbert",
    paper="2412.13663",
    config=ModernBertConfig,
    encoder=ModernBertEncoder,
    heads={
        "base": lambda c: heads.Base(),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": _language_model,
        "sequence-classification": lambda c: _classifier(c, len(c.labels)),
        "multiple-choice": lambda c: _classifier(c, 1),
        "token-classification": lambda c: heads.TransformedTokens(
            heads.Transform(*_parts(c)), c.hidden_size, len(c.labels)
        ),
        "question-answering": lambda c: heads.TransformedSpans(heads.Transform(*_parts(c)), c.hidden_size),
    },
    architectures={
        "ModernBertModel": "base",
        "ModernBertForMaskedLM": "masked-lm",
        "ModernBertForSequenceClassification": "sequence-classification",
        "ModernBertForMultipleChoice": "multiple-choice",
        "ModernBertForTokenClassification": "token-classification",
        "ModernBertForQuestionAnswering": "question-answering",
    },
    prefix="model.",
    encoder_weights={
        "embeddings.tok_embeddings": "embeddings.word",
        "embeddings.norm": "embeddings.norm",
        "layers.{}.attn_norm": "layers.{}.attention_norm",
        "layers.{}.attn.Wqkv": "layers.{}.attention.qkv",
        "layers.{}.attn.Wo": "layers.{}.attention.out",
        "layers.{}.mlp_norm": "layers.{}.norm",
        "layers.{}.mlp.Wi": "layers.{}.up",
        "layers.{}.mlp.Wo": "layers.{}.down",
        "final_norm": "norm",
    },
    head_weights={
        "base": {},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {"head.dense": "dense", "head.norm": "norm", "decoder": "decoder"},
        "sequence-classification": _POOLED_WEIGHTS,
        "multiple-choice": _POOLED_WEIGHTS,
        "token-classification": _TOKEN_WEIGHTS | {"classifier": "classifier"},
        "question-answering": _TOKEN_WEIGHTS | {"classifier": "span"},
    },
    harmless=("head.*", "decoder.*"),
    unused_by_task={},
    parts=(Attention, Rotary),
    # https://huggingface.co/answerdotai/ModernBERT-base/blob/main/config.json
    presets={"modernbert-base": ModernBertConfig()},
    period=lambda config: config.period,
)
