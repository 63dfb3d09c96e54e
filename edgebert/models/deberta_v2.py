"""DeBERTa v2 and v3 (He et al., arXiv 2006.03654 and 2111.09543): content and distance attend to each other.

To a score of two tokens' contents two more are added: the query's content with the distance to the key (c2p), and the
key's content with that distance (p2c). A distance stands for a row of one table, far ones sharing rows, that each layer
projects as it does contents, or with weights of its own. What is looked up depends on i - j alone, so a product with
2 T rows, one for each distance, is enough, and its rows are shifted against each other by a reshape; nothing is
gathered. Tensor names follow transformers' `modeling_deberta_v2.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.errors import InputError, Unsupported
from edgebert.models import heads
from edgebert.models.config import LARGEST, only, parse, require_divisible, within, words
from edgebert.models.family import Family
from edgebert.models.layers import activation, additive_mask

KINDS = ("c2p", "p2c")
# Keys that trainings leave or that stand for dropout.
IGNORED = frozenset({"cls_dropout", "pooler_dropout"})


@dataclass(frozen=True, slots=True)
class DebertaV2Config:
    """Sizes of a DeBERTa, named as in Hugging Face's `config.json`. The defaults are DeBERTa-v3-small.

    `conv_kernel_size` is 0 where there is no convolution, `position_buckets` -1 where each distance has its own row.
    """

    vocab_size: int = 128100
    hidden_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = within(0, 0, LARGEST)
    layer_norm_eps: float = 1e-7
    initializer_range: float = 0.02
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    embedding_size: int = 768
    position_biased_input: bool = False
    relative_attention: bool = True
    max_relative_positions: int = within(-1, -1, LARGEST)
    position_buckets: int = within(256, -1, LARGEST)
    norm_rel_ebd: str = "layer_norm"
    share_att_key: bool = True
    pos_att_type: tuple[str, ...] = ("p2c", "c2p")
    conv_kernel_size: int = within(0, 0, LARGEST)
    conv_act: str = "tanh"
    conv_groups: int = 1
    pooler_hidden_act: str = "gelu"
    legacy: bool = True
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")
        if self.conv_kernel_size:
            require_divisible(self.hidden_size, self.conv_groups, "hidden_size must split over conv_groups")
            if self.conv_kernel_size % 2 == 0:
                raise InputError(
                    f"config.json: conv_kernel_size={self.conv_kernel_size}; it must be odd, to centre on a token."
                )
        half = self.position_buckets // 2
        if self.relative_attention and self.position_buckets > 0 and half in (0, self.furthest - 1):
            raise InputError(
                f"config.json: position_buckets={self.position_buckets} for distances below {self.furthest}: the far "
                "ones have no scale to share buckets by."
            )

    @property
    def furthest(self) -> int:
        """The distance from which on all are the same."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def span(self) -> int:
        """Rows of the table for each direction."""
        return self.position_buckets if self.position_buckets > 0 else self.furthest

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "DebertaV2Config":
        """Read a parsed `config.json`; an unknown key raises InputError."""
        # What a file leaves out has transformers' own defaults, which are not those of the published models.
        known = {
            "type_vocab_size": 0, "relative_attention": False, "position_biased_input": True, "position_buckets": -1,
            "norm_rel_ebd": "none", "share_att_key": False, "num_hidden_layers": 24, "hidden_size": 1536,
            "num_attention_heads": 24, "intermediate_size": 6144,
        } | dict(raw)  # fmt: skip
        width, count = known["hidden_size"], known["num_attention_heads"]
        if known.get("embedding_size") is None:
            known["embedding_size"] = width
        known["pos_att_type"] = words(cls, "pos_att_type", raw.get("pos_att_type"), KINDS)
        if isinstance(width, int) and isinstance(count, int) and count > 0:
            own = {"attention_head_size": (width // count, None), "pooler_hidden_size": (width, None)}
            only(known, own | {"z_steps": (0, 1, None)})
        if known.get("legacy") is False:
            # The newer head for masked-lm is the older one with other names, and shares the word embeddings always.
            if known["embedding_size"] != width:
                raise Unsupported(
                    f"config.json: legacy=false with embedding_size={known['embedding_size']!r:.80}: the head that it "
                    "asks for needs embeddings as wide as hidden_size."
                )
            known |= {"legacy": True, "tie_word_embeddings": True}
        return parse(cls, known, IGNORED | {"attention_head_size", "pooler_hidden_size", "z_steps"})

    @classmethod
    def tiny(cls) -> "DebertaV2Config":
        """Two layers of width 32 with eight buckets, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=64, embedding_size=32, position_buckets=8,
        )  # fmt: skip


class Embeddings(nn.Module):
    """Word embeddings, with positions and token types where there are, as wide as the layers and normalized."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        c = config
        self.word = nn.Embedding(c.vocab_size, c.embedding_size)
        self.position = nn.Embedding(c.max_position_embeddings, c.embedding_size) if c.position_biased_input else None
        self.token_type = nn.Embedding(c.type_vocab_size, c.embedding_size) if c.type_vocab_size else None
        same = c.embedding_size == c.hidden_size
        self.project = nn.Identity() if same else nn.Linear(c.embedding_size, c.hidden_size, bias=False)
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embed (B, T) int32 or int64 ids as (B, T, C)."""
        x = self.word(input_ids)
        if self.position is not None:
            x = x + self.position.weight[: input_ids.shape[1]]
        if self.token_type is not None:
            # One type alone is every token's, whatever came.
            several = len(self.token_type.weight) > 1
            x = x + (self.token_type(token_type_ids) if several else self.token_type.weight[0])
        out: Tensor = self.norm(self.project(x))
        return out


def buckets(distances: Tensor, count: int, furthest: int) -> Tensor:
    """Where distances stand, from -count on: near ones have a place each, those from count / 2 on share more and more.

    Args:
        distances: whole numbers, int64.
        count: places for each direction, half of them for near ones.
        furthest: the distance that has the last place.
    """
    half = count // 2
    size = distances.abs().clamp(min=half).float()
    # In float32 and in this order, as those who trained them rounded up.
    far = torch.ceil(torch.log(size / half) / torch.log(torch.tensor((furthest - 1) / half)) * (half - 1)) + half
    return torch.where(distances.abs() <= half, distances, (far * distances.sign()).long())


class Distances(nn.Module):
    """The table of distances, read in the two orders that attention shifts.

    Attributes:
        rising: (2 L + 2), rows of the table for the distances from -L - 1 to L, of longest sequence L.
        falling: (2 L + 2), rows for L + 1 to -L.
    """

    rising: Tensor
    falling: Tensor

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        c = config
        self.table = nn.Embedding(2 * c.span, c.hidden_size) if c.relative_attention else None
        normed = "layer_norm" in [part.strip() for part in c.norm_rel_ebd.lower().split("|")]
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps) if normed else None
        with torch.device("cpu"):  # wherever modules are made: no checkpoint has these numbers
            # One more than any sequence reaches: a cut that may be the whole is two cases to a tracer.
            distances = torch.arange(-c.max_position_embeddings - 1, c.max_position_embeddings + 2)
            places = buckets(distances, c.position_buckets, c.furthest) if c.position_buckets > 0 else distances
            rows = (places + c.span).clamp(0, 2 * c.span - 1)
        self.register_buffer("rising", rows[:-1], persistent=False)
        self.register_buffer("falling", rows.flip(0)[:-1], persistent=False)

    def forward(self, tokens: int) -> tuple[Tensor, Tensor] | None:
        """What each distance means, (1, 2 T, C): from T to 1 - T, and from -T to T - 1; None without the table."""
        if self.table is None:
            return None
        middle = len(self.rising) // 2
        cut = slice(middle - tokens, middle + tokens)
        falling, rising = (F.embedding(rows[cut], self.table.weight)[None] for rows in (self.falling, self.rising))
        return (falling, rising) if self.norm is None else (self.norm(falling), self.norm(rising))


def shifted(products: Tensor) -> Tensor:
    """Of (B, H, T, 2 T), where column T + n is for what is n places after the row's token, the (B, H, T, T).

    Numbers that stood in rows of 2 T, read as rows of 2 T - 1, are shifted by one place from row to row.
    """
    batch, count, tokens, columns = products.shape
    read = products.reshape(batch, count, tokens * columns)[..., tokens:]
    return read.reshape(batch, count, tokens, columns - 1)[..., :tokens]


class Attention(nn.Module):
    """Disentangled self-attention (section 3.1 of the paper) over (B, T, C), the output projection included."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        c, width = config, config.hidden_size
        self.n_heads = c.num_attention_heads
        self.kinds = c.pos_att_type if c.relative_attention else ()
        # The kinds count even where no distances are read.
        self.scale = math.sqrt(width // self.n_heads * (1 + len(set(c.pos_att_type))))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        own = () if c.share_att_key else self.kinds
        self.distance_key = nn.Linear(width, width) if "c2p" in own else None
        self.distance_query = nn.Linear(width, width) if "p2c" in own else None

    def split(self, x: Tensor) -> Tensor:
        """Part (B, T, C) into heads, (B, H, T, D)."""
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.n_heads, width // self.n_heads).transpose(1, 2)

    def distances(self, rows: tuple[Tensor, Tensor] | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Keys and queries of distances, (1, H, D, 2 T) each, for (B, T, C); None for what is not asked."""
        if rows is None:
            return None, None
        falling, rising = rows
        key, query = self.distance_key or self.key, self.distance_query or self.query
        keys = self.split(key(falling)).transpose(-1, -2) if "c2p" in self.kinds else None
        queries = self.split(query(rising)).transpose(-1, -2) if "p2c" in self.kinds else None
        return keys, queries

    def forward(self, asking: Tensor, x: Tensor, mask: Tensor, rows: tuple[Tensor, Tensor] | None) -> Tensor:
        """Attend from all tokens, or from the first (B, 1, C), to (B, T, C).

        Args:
            asking: `x` itself, or its first token.
            x: what is attended to.
            mask: added to the scores (B, H, A, T).
            rows: what distances mean.
        """
        query, key, value = self.split(self.query(asking)), self.split(self.key(x)), self.split(self.value(x))
        scores = query @ key.transpose(-1, -2)  # (B, H, A, T)
        keys, queries = self.distances(rows, x)
        if keys is not None:
            scores = scores + (shifted(query @ keys) if asking is x else query @ keys[..., x.shape[1] :])
        if queries is not None:
            asked = shifted(key @ queries)
            scores = scores + (asked if asking is x else asked[..., :1]).transpose(-1, -2)
        if self.scale != 1.0:  # else it is in the weights, see `lowering/distances.py`
            scores = scores / self.scale
        context = torch.softmax(scores + mask, dim=-1) @ value  # (B, H, A, D)
        out: Tensor = self.out(context.transpose(1, 2).reshape(asking.shape))
        return out


class Layer(nn.Module):
    """One block: attention and feed-forward, each added to its input and then normalized."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        c = config
        self.attention = Attention(c)
        self.attention_norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.up = nn.Linear(c.hidden_size, c.intermediate_size)
        self.act = activation(c.hidden_act)
        self.down = nn.Linear(c.intermediate_size, c.hidden_size)
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, rows: tuple[Tensor, Tensor] | None) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        return self.answer(x, x, mask, rows)

    def answer(self, asking: Tensor, x: Tensor, mask: Tensor, rows: tuple[Tensor, Tensor] | None) -> Tensor:
        """What becomes of the tokens `asking`, all of (B, T, C) or the first, in their shape."""
        asking = self.attention_norm(asking + self.attention(asking, x, mask, rows))
        out: Tensor = self.norm(asking + self.down(self.act(self.up(asking))))
        return out


class Convolution(nn.Module):
    """What the large models add to the first layer's output: a convolution of the embeddings, then a norm."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        c = config
        self.conv = nn.Conv1d(
            c.hidden_size, c.hidden_size, c.conv_kernel_size, padding=c.conv_kernel_size // 2, groups=c.conv_groups
        )
        self.act = activation(c.conv_act)
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, embedded: Tensor, x: Tensor, attention_mask: Tensor) -> Tensor:
        """Add to (B, T, C) what (B, T, C) is convolved into; `attention_mask` (B, T) tells padding."""
        # Padding is a neighbour that is zero, as what is beyond the ends.
        kept = embedded * attention_mask.to(embedded.dtype)[:, :, None]
        out: Tensor = self.norm(x + self.act(self.conv(kept.transpose(1, 2)).transpose(1, 2)))
        return out


class DebertaV2Encoder(nn.Module):
    """Embeddings and layers: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.distances = Distances(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.convolution = Convolution(config) if config.conv_kernel_size else None

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        embedded: Tensor = self.embeddings(input_ids, token_type_ids)
        mask = additive_mask(attention_mask, embedded.dtype)
        rows = self.distances(input_ids.shape[1])
        x = embedded
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, rows)
            if i == 0 and self.convolution is not None:
                x = self.convolution(embedded, x, attention_mask)
        return x


def _classifier(c: DebertaV2Config, labels: int) -> nn.Module:
    return heads.Classifier(heads.DenseFirst(c.hidden_size, activation(c.pooler_hidden_act)), c.hidden_size, labels)


_CLASSIFIER_WEIGHTS = {"pooler.dense": "pooler.dense", "classifier": "classifier"}

DEBERTA_V2 = Family(
    name="deberta-v2",
    paper="2006.03654",
    config=DebertaV2Config,
    encoder=DebertaV2Encoder,
    heads={
        "base": lambda c: heads.Base(),
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
        "DebertaV2Model": "base",
        "DebertaV2ForMaskedLM": "masked-lm",
        "DebertaV2ForSequenceClassification": "sequence-classification",
        "DebertaV2ForMultipleChoice": "multiple-choice",
        "DebertaV2ForTokenClassification": "token-classification",
        "DebertaV2ForQuestionAnswering": "question-answering",
    },
    prefix="deberta.",
    encoder_weights={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.position_embeddings": "embeddings.position",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.embed_proj": "embeddings.project",
        "embeddings.LayerNorm": "embeddings.norm",
        "encoder.rel_embeddings": "distances.table",
        "encoder.LayerNorm": "distances.norm",
        "encoder.conv.conv": "convolution.conv",
        "encoder.conv.LayerNorm": "convolution.norm",
        "encoder.layer.{}.attention.self.query_proj": "layers.{}.attention.query",
        "encoder.layer.{}.attention.self.key_proj": "layers.{}.attention.key",
        "encoder.layer.{}.attention.self.value_proj": "layers.{}.attention.value",
        "encoder.layer.{}.attention.self.pos_key_proj": "layers.{}.attention.distance_key",
        "encoder.layer.{}.attention.self.pos_query_proj": "layers.{}.attention.distance_query",
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
            "cls.predictions.transform.dense": "dense",
            "cls.predictions.transform.LayerNorm": "norm",
            "cls.predictions.decoder": "decoder",
            "cls.predictions": "decoder",  # `cls.predictions.bias`, the older name of the decoder's bias
            "lm_predictions.lm_head.dense": "dense",  # and what a config with `legacy` false has
            "lm_predictions.lm_head.LayerNorm": "norm",
            "lm_predictions.lm_head": "decoder",
        },
        "sequence-classification": _CLASSIFIER_WEIGHTS,
        "multiple-choice": _CLASSIFIER_WEIGHTS,
        "token-classification": {"classifier": "classifier"},
        "question-answering": {"qa_outputs": "span"},
    },
    # The published encoders come with position tables that they do not read, and with what they were trained by.
    harmless=(
        "*embeddings.position_ids",
        "*embeddings.position_embeddings.*",
        "pooler.*",
        "cls.predictions.*",
        "lm_predictions.*",
        "mask_predictions.*",
    ),
    unused_by_task={},
    parts=(Attention,),
    presets={
        # https://huggingface.co/microsoft/deberta-v3-xsmall/blob/main/config.json
        "deberta-v3-xsmall": DebertaV2Config(
            hidden_size=384, embedding_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536
        ),
        # https://huggingface.co/microsoft/deberta-v3-small/blob/main/config.json
        "deberta-v3-small": DebertaV2Config(),
    },
    token_cuts=True,
)
