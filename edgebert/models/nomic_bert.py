"""Nomic BERT (Nussbaum et al., arXiv 2402.01613): BERT's layers with rotary positions and a gated feed-forward.

Its published folders name classes whose code comes with them; none of it is run. Their configs have the names of GPT-2
and their tensors those of the first release: both are translated. Tensor names follow transformers'
`modeling_nomic_bert.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgebert.errors import Unsupported
from edgebert.models import heads
from edgebert.models.config import only, parse, require_divisible, require_rotary, rope_theta, within
from edgebert.models.family import Family
from edgebert.models.layers import Rotary, activation, additive_mask

# The names that published configs have for fields.
OLDER = {
    "n_embd": "hidden_size", "n_head": "num_attention_heads", "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers", "n_positions": "max_position_embeddings", "layer_norm_epsilon": "layer_norm_eps",
    "activation_function": "hidden_act", "rotary_emb_base": "rope_theta",
}  # fmt: skip
# What those call the activation of the gate.
GATES = {"swiglu": "silu", "geglu": "gelu"}
# What would be another model, and the values that are this one.
FIXED: Mapping[str, tuple[Any, ...]] = {
    "causal": (False, None),
    "expert_choice_router": (False, None),
    "moe_every_n_layers": (0, None),
    "moe_top_k": (1, 0, None),
    "num_experts": (0, 1, None),
    "num_shared_experts": (0, None),
    "parallel_block": (False, None),
    "prenorm": (False, None),
    "rotary_emb_fraction": (1.0, None),
    "rotary_emb_interleaved": (False, None),
    "rotary_emb_scale_base": (None,),
    "rotary_scaling_factor": (None,),
    "rope_scaling": (None,),
    "scale_attn_by_inverse_layer_idx": (False, None),
    "scale_attn_weights": (True, None),
    "use_rms_norm": (False, None),
}
# Keys for trainings, dropout and other kernels; what says how experts work, where there are none.
IGNORED = frozenset({
    "attn_pdrop", "dense_seq_output", "embd_pdrop", "ffn_div", "fused_bias_fc", "fused_dropout_add_ln", "head_dim",
    "last_layer_subset", "mask_token_id", "max_trained_positions", "moe_impl", "moe_normalize_expert_weights",
    "moe_resid_pdrop", "pad_vocab_size_multiple", "parallel_block_tied_norm", "reorder_and_upcast_attn", "resid_pdrop",
    "rope_parameters", "sequence_parallel", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "summary_type", "summary_use_proj", "use_flash_attn", "use_xentropy",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class NomicBertConfig:
    """Sizes of a Nomic BERT, named as in Hugging Face's `config.json`. The defaults are nomic-embed-text-v1.5.

    The biases are those of the published configs; transformers' own class has none.
    """

    vocab_size: int = 30528
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    tie_word_embeddings: bool = True
    rope_theta: float = within(1000.0, 1, 1e12)
    qkv_proj_bias: bool = False
    mlp_fc1_bias: bool = False
    mlp_fc2_bias: bool = False
    labels: tuple[str, ...] = ("LABEL_0", "LABEL_1")
    pooling: heads.Pooling = heads.MEAN

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        require_divisible(self.hidden_size, self.num_attention_heads, "hidden_size must split over the heads")
        require_rotary(self.hidden_size, self.num_attention_heads, self.max_position_embeddings)

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "NomicBertConfig":
        """Read a parsed `config.json`, of transformers or as published before; an unknown key raises InputError."""
        only(raw, FIXED)
        known = {key: value for key, value in raw.items() if key not in FIXED}
        if "n_embd" in raw:
            # What a published config leaves out has the defaults of its own class, which turns nothing then.
            only({"rotary_emb_fraction": raw.get("rotary_emb_fraction", 0.0)}, {"rotary_emb_fraction": (1.0,)})
            known = _translated(known)
        width, count = known.get("hidden_size", 768), known.get("num_attention_heads", 12)
        if isinstance(width, int) and isinstance(count, int) and count > 0:
            only(known, {"head_dim": (width // count, None)})
        known["rope_theta"] = rope_theta(known, raw.get("rope_parameters"), "rope_theta", 1000.0)
        return parse(cls, known, IGNORED)

    @classmethod
    def tiny(cls) -> "NomicBertConfig":
        """Two layers of width 32, for tests."""
        return cls(
            vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=64,
        )  # fmt: skip


def _translated(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A published config under transformers' names.

    Raises:
        Unsupported: its feed-forward has no gate.
    """
    known = {OLDER.get(key, key): value for key, value in raw.items() if value is not None}
    # Where both names stand the newer one counts: edgebert writes it beside what it has read.
    known |= {key: raw[key] for key in OLDER.values() if key in raw}
    gate = raw.get("activation_function", "gelu")
    if gate not in GATES:
        raise Unsupported(
            f"config.json: activation_function={gate!r:.80} is not supported; only {' and '.join(GATES)}, whose "
            "feed-forward has a gate, are."
        )
    if "hidden_act" not in raw:
        known["hidden_act"] = GATES[gate]
    if "intermediate_size" not in known and isinstance(known["hidden_size"], int):
        known["intermediate_size"] = 4 * known["hidden_size"]
    # The vocabulary's table has rows up to the next multiple.
    size, multiple = known.get("vocab_size"), raw.get("pad_vocab_size_multiple", 1)
    if type(size) is int and type(multiple) is int and multiple > 0:
        known["vocab_size"] = -(-size // multiple) * multiple
    return {"qkv_proj_bias": True, "mlp_fc1_bias": True, "mlp_fc2_bias": True, "rope_theta": 10000.0} | known


def renamed(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Tensors of the first release under transformers' names, queries, keys and values apart; others as they are."""
    if not any(".attn.Wqkv." in name for name in tensors):
        return tensors
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for older, newer in RENAMED:
            name = name.replace(older, newer)
        name = name.replace("bert.", "nomic_bert.", 1) if name.startswith("bert.") else name
        if ".attn.Wqkv." in name:
            parts = tensor.chunk(3) if tensor.dim() > 0 else (tensor,) * 3
            found |= {
                name.replace(".attn.Wqkv.", f".self_attn.{one}_proj."): part.contiguous()
                for one, part in zip("qkv", parts, strict=False)
            }
        else:
            found[name] = tensor
    return found


RENAMED = (
    ("encoder.layers.", "layers."), ("emb_ln.", "embeddings.LayerNorm."), (".attn.out_proj.", ".self_attn.o_proj."),
    (".mlp.fc11.", ".mlp.up_proj."), (".mlp.fc12.", ".mlp.gate_proj."), (".mlp.fc2.", ".mlp.down_proj."),
    (".norm1.", ".post_attention_layernorm."), (".norm2.", ".post_mlp_layernorm."),
)  # fmt: skip


class Embeddings(nn.Module):
    """Word and token type embeddings, summed and normalized."""

    def __init__(self, config: NomicBertConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embed (B, T) int32 or int64 ids as (B, T, C)."""
        # One type alone is every token's, whatever came.
        several = len(self.token_type.weight) > 1
        types = self.token_type(token_type_ids) if several else self.token_type.weight[0]
        out: Tensor = self.norm(self.word(input_ids) + types)
        return out


class Attention(nn.Module):
    """Multi-head self-attention over (B, T, C) with turned queries and keys, the output projection included."""

    def __init__(self, config: NomicBertConfig) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.qkv_proj_bias
        self.n_heads = config.num_attention_heads
        self.scale = math.sqrt(width // self.n_heads)
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def split(self, x: Tensor) -> Tensor:
        """Part (B, T, C) into heads, (B, H, T, D)."""
        batch, tokens, width = x.shape
        return x.reshape(batch, tokens, self.n_heads, width // self.n_heads).transpose(1, 2)

    def forward(self, asking: Tensor, x: Tensor, mask: Tensor, rotary: Rotary) -> Tensor:
        """Attend from `asking`, all tokens or the first, to (B, T, C); `mask` is added to the scores (B, H, A, T)."""
        query, key, value = self.split(self.query(asking)), self.split(self.key(x)), self.split(self.value(x))
        query = rotary(query) if asking is x else query  # the first is turned by no angle
        scores = query @ rotary(key).transpose(-1, -2)  # (B, H, A, T)
        if self.scale != 1.0:  # else it is in the weights, see `lowering/scaled_keys.py`
            scores = scores / self.scale
        context = torch.softmax(scores + mask, dim=-1) @ value  # (B, H, A, D)
        out: Tensor = self.out(context.transpose(1, 2).reshape(asking.shape))
        return out


class Layer(nn.Module):
    """One block: attention and a gated feed-forward, each added to its input and then normalized."""

    def __init__(self, config: NomicBertConfig) -> None:
        super().__init__()
        c = config
        self.attention = Attention(c)
        self.attention_norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.up = nn.Linear(c.hidden_size, c.intermediate_size, bias=c.mlp_fc1_bias)
        self.gate = nn.Linear(c.hidden_size, c.intermediate_size, bias=c.mlp_fc1_bias)
        self.act = activation(c.hidden_act)
        self.down = nn.Linear(c.intermediate_size, c.hidden_size, bias=c.mlp_fc2_bias)
        self.norm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor, rotary: Rotary) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        return self.answer(x, x, mask, rotary)

    def answer(self, asking: Tensor, x: Tensor, mask: Tensor, rotary: Rotary) -> Tensor:
        """What becomes of the tokens `asking`, all of (B, T, C) or the first, in their shape."""
        asking = self.attention_norm(asking + self.attention(asking, x, mask, rotary))
        out: Tensor = self.norm(asking + self.down(self.up(asking) * self.act(self.gate(asking))))
        return out


class NomicBertEncoder(nn.Module):
    """Embeddings and layers: ids (B, T) to hidden states (B, T, C)."""

    def __init__(self, config: NomicBertConfig) -> None:
        super().__init__()
        c = config
        self.embeddings = Embeddings(c)
        self.rotary = Rotary(c.hidden_size // c.num_attention_heads, c.max_position_embeddings, c.rope_theta)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encode (B, T) ids into (B, T, C)."""
        x: Tensor = self.embeddings(input_ids, token_type_ids)
        mask = additive_mask(attention_mask, x.dtype)
        for layer in self.layers:
            x = layer(x, mask, self.rotary)
        return x


NOMIC_BERT = Family(
    name="nomic_bert",
    paper="2402.01613",
    config=NomicBertConfig,
    encoder=NomicBertEncoder,
    heads={
        "base": lambda c: heads.Base(),
        "sentence-embedding": lambda c: heads.SentenceEmbedding(c.hidden_size, c.max_position_embeddings, c.pooling),
        "masked-lm": lambda c: heads.LanguageModel(
            c.hidden_size, c.hidden_size, c.vocab_size, activation(c.hidden_act), c.layer_norm_eps
        ),
        "sequence-classification": lambda c: heads.Classifier(
            heads.Pooler(c.hidden_size), c.hidden_size, len(c.labels)
        ),
        "token-classification": lambda c: heads.TokenClassifier(c.hidden_size, len(c.labels)),
    },
    architectures={
        "NomicBertModel": "base",
        "NomicBertForMaskedLM": "masked-lm",
        "NomicBertForPreTraining": "masked-lm",
        "NomicBertForSequenceClassification": "sequence-classification",
        "NomicBertForTokenClassification": "token-classification",
    },
    prefix="nomic_bert.",
    encoder_weights={
        "embeddings.word_embeddings": "embeddings.word",
        "embeddings.token_type_embeddings": "embeddings.token_type",
        "embeddings.LayerNorm": "embeddings.norm",
        "layers.{}.self_attn.q_proj": "layers.{}.attention.query",
        "layers.{}.self_attn.k_proj": "layers.{}.attention.key",
        "layers.{}.self_attn.v_proj": "layers.{}.attention.value",
        "layers.{}.self_attn.o_proj": "layers.{}.attention.out",
        "layers.{}.post_attention_layernorm": "layers.{}.attention_norm",
        "layers.{}.mlp.up_proj": "layers.{}.up",
        "layers.{}.mlp.gate_proj": "layers.{}.gate",
        "layers.{}.mlp.down_proj": "layers.{}.down",
        "layers.{}.post_mlp_layernorm": "layers.{}.norm",
    },
    head_weights={
        "base": {},
        "sentence-embedding": heads.DENSE_WEIGHTS,
        "masked-lm": {
            "cls.predictions.transform.dense": "dense",
            "cls.predictions.transform.layer_norm": "norm",
            "cls.predictions.decoder": "decoder",
            "cls.predictions": "decoder",  # `cls.predictions.bias`, the older name of the decoder's bias
        },
        "sequence-classification": {"nomic_bert.pooler.dense": "pooler.dense", "classifier": "classifier"},
        "token-classification": {"classifier": "classifier"},
    },
    harmless=("*embeddings.position_ids", "*pooler.dense.*", "cls.predictions.*", "*inv_freq"),
    unused_by_task={},
    parts=(Attention, Rotary),
    # https://huggingface.co/nomic-ai/nomic-embed-text-v1.5/blob/main/config.json
    presets={"nomic-embed": NomicBertConfig(max_position_embeddings=8192)},
    renamed=renamed,
)
