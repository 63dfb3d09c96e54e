"""The task heads, written once for all families. Each maps hidden states (B, T, C) to named outputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgebert.models.layers import MASKED, activation, additive_mask

Outputs = dict[str, Tensor]

# How sentence-transformers pools, by the words that a config here has for it.
MODES = ("cls", "max", "mean", "last")
# What `similarity_fn_name` of sentence-transformers may say; the first where it says nothing.
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
# Added to the score of a token for each one before it, so that a softmax takes the last: the least whole numbers that
# half precision holds apart up to 65,504, which is 2,047 tokens.
LATER = 32.0
# A vector's squared length counts as no less: half precision has no smaller normal number.
SHORTEST = 2.0**-14
# The names that a checkpoint's reader gives the layers of sentence-transformers' Dense modules, which have files each.
DENSE_WEIGHTS = {"dense.{}.linear": "dense.{}.linear"}

# Activations that a classifier may end with, and what its output is called then: probabilities add up to one.
ACTIVATED = {"softmax": "probabilities", "sigmoid": "scores"}

# What `Summary` knows of transformers' `summary_type`.
SUMMARIES = ("first", "last", "mean")


class Pooler(nn.Module):
    """BERT's summary of a sequence: tanh of a dense layer over the first token, (B, T, C) to (B, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        return torch.tanh(self.dense(hidden[:, 0]))


class DenseFirst(nn.Module):
    """ConvBERT's classifier summary: activation of a dense layer over the first token, (B, T, C) to (B, C)."""

    def __init__(self, width: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.act = act

    def forward(self, hidden: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        return self.act(self.dense(hidden[:, 0]))


class Summary(nn.Module):
    """What multiple choice scores: one vector (B, C) out of (B, T, C), as a config's `summary_*` keys say."""

    def __init__(self, width: int, kind: str, project: bool, act: str) -> None:
        super().__init__()
        self.kind = kind
        self.dense = nn.Linear(width, width) if project else nn.Identity()
        self.act = activation(act) if act else nn.Identity()

    def forward(self, hidden: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        pooled = {"first": lambda: hidden[:, 0], "last": lambda: hidden[:, -1], "mean": lambda: hidden.mean(1)}[
            self.kind
        ]()
        out: Tensor = self.act(self.dense(pooled))
        return out


class Transform(nn.Module):
    """ModernBERT's prediction head without its last layer: dense, activation and norm of (..., C)."""

    def __init__(
        self, width: int, act: Callable[[Tensor], Tensor], eps: float, bias: bool = True, norm_bias: bool = True
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width, bias=bias)
        self.act = act
        self.norm = nn.LayerNorm(width, eps=eps, bias=norm_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        out: Tensor = self.norm(self.act(self.dense(x)))
        return out


class TransformFirst(Transform):
    """The same of the first token alone, (B, T, C) to (B, C)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Pool (B, T, C) into (B, C)."""
        return super().forward(hidden[:, 0])


class Base(nn.Module):
    """The encoder's own output, `last_hidden_state` (B, T, C), and `pooler_output` (B, C) where there is a pooler."""

    def __init__(self, pooler: nn.Module | None = None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(self, hidden: Tensor) -> Outputs:
        """Name the hidden states, and pool them."""
        if self.pooler is None:
            return {"last_hidden_state": hidden}
        return {"last_hidden_state": hidden, "pooler_output": self.pooler(hidden)}


class LanguageModel(nn.Module):
    """Masked and causal language modelling: `logits` (B, T, V) through a dense layer of width `embedding`."""

    def __init__(
        self, width: int, embedding: int, vocab_size: int, act: Callable[[Tensor], Tensor], eps: float,
        bias: bool = True, norm_bias: bool = True, decoder_bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dense = nn.Linear(width, embedding, bias=bias)
        self.act = act
        self.norm = nn.LayerNorm(embedding, eps=eps, bias=norm_bias)
        self.decoder = nn.Linear(embedding, vocab_size, bias=decoder_bias)

    def forward(self, hidden: Tensor) -> Outputs:
        """Score every vocabulary entry for every token."""
        return {"logits": self.decoder(self.norm(self.act(self.dense(hidden))))}


class Classifier(nn.Module):
    """A sequence's classes, or one choice's score: `logits` (B, labels) from a pooled sequence.

    With `activation`, a key of ACTIVATED, it gives what that makes of them in their place, for clients that apply none.
    """

    def __init__(self, pooler: nn.Module, width: int, labels: int) -> None:
        super().__init__()
        self.pooler, self.activation = pooler, ""
        self.classifier = nn.Linear(width, labels)

    def forward(self, hidden: Tensor) -> Outputs:
        """Score the classes of each row."""
        return self.told(self.classifier(self.pooler(hidden)))

    def told(self, logits: Tensor) -> Outputs:
        """Name what (B, labels) become."""
        if not self.activation:
            return {"logits": logits}
        scores = torch.softmax(logits, -1) if self.activation == "softmax" else torch.sigmoid(logits)
        return {ACTIVATED[self.activation]: scores}


class MeanClassifier(Classifier):
    """A sequence's classes from what the pooler makes of the mean of its tokens (B, C)."""

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Outputs:  # type: ignore[override]
        """Score the classes of each row of (B, T, C), of which `attention_mask` (B, T) says what counts."""
        # As SentenceEmbedding does it: a row that is all padding has a mean too.
        weights = torch.softmax(additive_mask(attention_mask, hidden.dtype)[:, 0], dim=-1)  # (B, 1, T)
        return self.told(self.classifier(self.pooler((weights @ hidden)[:, 0])))


class TokenClassifier(nn.Module):
    """Each token's classes: `logits` (B, T, labels)."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, labels)

    def forward(self, hidden: Tensor) -> Outputs:
        """Score the classes of each token."""
        return {"logits": self.classifier(hidden)}


class TransformedTokens(TokenClassifier):
    """Each token's classes from what a Transform makes of it."""

    def __init__(self, transform: Transform, width: int, labels: int) -> None:
        super().__init__(width, labels)
        self.transform = transform

    def forward(self, hidden: Tensor) -> Outputs:
        """Score the classes of each token."""
        return super().forward(self.transform(hidden))


class ReplacedTokens(nn.Module):
    """ELECTRA's own task: `logits` (B, T, 1), above 0 where a token looks replaced (transformers squeezes the axis)."""

    def __init__(self, width: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.act = act
        self.score = nn.Linear(width, 1)

    def forward(self, hidden: Tensor) -> Outputs:
        """Score each token."""
        return {"logits": self.score(self.act(self.dense(hidden)))}


class QuestionAnswering(nn.Module):
    """Where an answer starts and ends: `start_logits` and `end_logits`, (B, T) each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.span = nn.Linear(width, 2)

    def forward(self, hidden: Tensor) -> Outputs:
        """Score each token as the answer's first and last."""
        span = self.span(hidden)  # (B, T, 2)
        return {"start_logits": span[:, :, 0], "end_logits": span[:, :, 1]}


class TransformedSpans(QuestionAnswering):
    """Where an answer starts and ends, from what a Transform makes of each token."""

    def __init__(self, transform: Transform, width: int) -> None:
        super().__init__(width)
        self.transform = transform

    def forward(self, hidden: Tensor) -> Outputs:
        """Score each token as the answer's first and last."""
        return super().forward(self.transform(hidden))


@dataclass(frozen=True, slots=True)
class Dense:
    """A layer on a pooled vector.

    Attributes:
        width: of its output.
        bias: whether it has one.
        activation: a name of `layers.ACTIVATIONS`, or empty for none.
    """

    width: int
    bias: bool = True
    activation: str = "tanh"


@dataclass(frozen=True, slots=True)
class Pooling:
    """How hidden states become a sentence's vector, as the modules of sentence-transformers say.

    Attributes:
        modes: of MODES; several are joined one after the other.
        dense: layers after that.
        normalize: whether the vector's length becomes 1.
        prompt: what stands before each text.
        skipped: tokens at the start, [CLS] and the prompt's, that `mean` and `max` do not count.
        similarity: of two vectors, see `edgebert.answers.vectors`.
    """

    modes: tuple[str, ...] = ("mean",)
    dense: tuple[Dense, ...] = ()
    normalize: bool = False
    prompt: str = ""
    skipped: int = 0
    similarity: str = "cosine"


MEAN = Pooling()  # what sentence-transformers does with an encoder that says nothing


class DenseLayer(nn.Module):
    """A linear layer and its activation on pooled vectors (B, C)."""

    def __init__(self, width: int, dense: Dense) -> None:
        super().__init__()
        self.linear = nn.Linear(width, dense.width, dense.bias)
        self.act = activation(dense.activation) if dense.activation else nn.Identity()

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (B, C) to (B, D)."""
        return self.act(self.linear(pooled))


class SentenceEmbedding(nn.Module):
    """One vector for each row: `sentence_embedding` (B, D), of hidden states (B, T, C) and the attention mask (B, T).

    With `states` it gives `last_hidden_state` before it, for clients that pool by themselves.

    A mean is a product with a softmax of the mask, and the last token's states one with a softmax that grows from token
    to token: every runtime has both, and nothing is divided by a count.
    """

    def __init__(self, width: int, positions: int, pooling: Pooling) -> None:
        super().__init__()
        self.pooling, self.states = pooling, False
        widths = [width * len(pooling.modes), *(layer.width for layer in pooling.dense)]
        self.dense = nn.ModuleList(
            DenseLayer(before, layer) for before, layer in zip(widths, pooling.dense, strict=False)
        )
        place = torch.arange(positions, dtype=torch.float32, device="cpu")
        self.register_buffer("place", (place + 1) * LATER, persistent=False)
        self.register_buffer("prompt", (place < pooling.skipped).float() * MASKED, persistent=False)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Outputs:
        """Pool (B, T, C) into (B, D)."""
        x = torch.cat([self.pool(mode, hidden, attention_mask) for mode in self.pooling.modes], dim=-1)
        for layer in self.dense:
            x = layer(x)
        told = {"last_hidden_state": hidden} if self.states else {}
        return told | {"sentence_embedding": self.to_length(x, -1)}

    def pool(self, mode: str, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """One way to pool (B, T, C) into (B, C)."""
        if mode == "cls":
            return hidden[:, 0]
        scores = self.scores(mode, attention_mask, hidden.dtype)  # (B, 1, T)
        if mode == "max":
            return (hidden + scores.transpose(1, 2)).amax(1)
        return (torch.softmax(scores, dim=-1) @ hidden)[:, 0]

    def scores(self, mode: str, attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, 1, T): 0 for tokens that count and far less for others; for `last` more from token to token.

        Of a mask (B, S, T) for each of S texts in a row it is (B, S, T).
        """
        tokens = attention_mask.shape[-1]
        if mode == "last":
            scores = self.get_buffer("place")[:tokens] * attention_mask.to(dtype)
            return scores[:, None] if scores.dim() == 2 else scores
        scores = additive_mask(attention_mask, dtype)[:, 0]
        return scores + self.get_buffer("prompt")[:tokens] if self.pooling.skipped else scores

    def to_length(self, x: Tensor, axis: int) -> Tensor:
        """Vectors of length 1, where that is asked for."""
        if not self.pooling.normalize:
            return x
        return x / (x * x).sum(axis, keepdim=True).clamp(min=SHORTEST).sqrt()
