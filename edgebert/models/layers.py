"""The parts that families share to the letter: activations, the attention mask, the embeddings.

Shapes use one alphabet: B batch, T tokens, C hidden, H heads, D head width, V vocabulary.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.errors import Unsupported

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}

# Added to the attention score of a padded token. One value for every dtype, for a graph that is float32 here becomes
# float16 inside Core ML or XNNPACK without our hands on it: there -1e4 leaves room for the score it is added to (the
# largest half is 65504), and exp(-1e4) is 0 in every format. Infinity or the dtype's own minimum give NaN.
MASKED = -1e4


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation that `hidden_act` names.

    Raises:
        Unsupported: the name is not in ACTIVATIONS.
    """
    if name not in ACTIVATIONS:
        raise Unsupported(f"config.json: activation {name!r} is not supported; choose one of {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]


def additive_mask(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a (B, T) mask of 1 for tokens and 0 for padding into a finite (B, 1, 1, T) term for attention scores.

    One of (B, A, T), which says for each of A tokens what it sees, becomes (B, 1, A, T).
    """
    hidden = (1.0 - attention_mask.to(dtype)) * MASKED
    return hidden[:, None] if hidden.dim() == 3 else hidden[:, None, None, :]


def causal_mask(tokens: int, dtype: torch.dtype) -> Tensor:
    """A finite (T, T) term for attention scores that hides from each token what comes after it."""
    place = torch.arange(tokens)
    return (place[None, :] > place[:, None]).to(dtype) * MASKED


class NoNorm(nn.Module):
    """What MobileBERT (arXiv 2004.02984, section 3.3) has for a norm: each channel times a weight, plus a bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        scaled = x * self.weight
        return scaled if self.bias is None else scaled + self.bias  # where None, see `lowering/residual.py`


def band_mask(tokens: int, reach: int, dtype: torch.dtype) -> Tensor:
    """A finite (T, T) term for attention scores that hides from each token those further away than `reach`."""
    place = torch.arange(tokens)
    row, column = place[:, None], place[None, :]
    return (column > row + reach).to(dtype) * MASKED + (row > column + reach).to(dtype) * MASKED


class Rotary(nn.Module):
    """Rotary positions (Su et al., arXiv 2104.09864) of queries and keys: channels turned in pairs, by position.

    Channel d of the first half turns with channel d of the second, by an angle that is the token's place times
    theta ** (-2 d / D). The angles' tables are constants: a runtime reads the first T rows.

    Args:
        width: D, even.
        positions: rows of the tables.
        theta: the base.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, width: int, positions: int, theta: float) -> None:
        super().__init__()
        # On the CPU wherever modules are made: on `meta` there would be no numbers, and no checkpoint has them.
        rates = 1.0 / (theta ** (torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width))
        angles = torch.arange(positions, dtype=torch.float32, device="cpu")[:, None] * rates  # (positions, D / 2)
        self.register_buffer("cos", torch.cat([angles.cos(), angles.cos()], dim=-1), persistent=False)
        # With the signs of a rotation, which spares a pass to negate.
        self.register_buffer("sin", torch.cat([-angles.sin(), angles.sin()], dim=-1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, H, T, D)."""
        tokens = x.shape[2]
        first, second = x.chunk(2, dim=-1)
        return x * self.cos[:tokens] + torch.cat([second, first], dim=-1) * self.sin[:tokens]


class Embeddings(nn.Module):
    """Word, position and token type embeddings, summed and normalized (BERT, arXiv 1810.04805, figure 2).

    Args:
        vocab_size: V.
        positions: rows of the position table.
        types: rows of the token types' table.
        width: C.
        eps: of the norm.
        first: the row of the position table that the first token reads; the rows before it stand for nothing.
    """

    def __init__(self, vocab_size: int, positions: int, types: int, width: int, eps: float, first: int = 0) -> None:
        super().__init__()
        self.first = first
        self.word = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(positions, width)
        self.token_type = nn.Embedding(types, width)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Embed (B, T) int32 or int64 ids as (B, T, width)."""
        tokens = input_ids.shape[1]
        # A slice of the table, not a lookup of 0..T-1: converters fold it into a constant.
        # Two cuts, for coremltools adds nothing to a number of tokens that it traced.
        position = self.position.weight[self.first :] if self.first else self.position.weight
        position = position[:tokens]  # (T, width)
        x = self.word(input_ids) + position
        if self.token_type is not None:  # else its one row is in the positions, see `lowering/positions.py`
            # One type alone is every token's, whatever came.
            several = len(self.token_type.weight) > 1
            x = x + (self.token_type(token_type_ids) if several else self.token_type.weight[0])
        out: Tensor = self.norm(x)
        return out
