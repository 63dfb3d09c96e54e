"""The task heads, written once for all families. Each maps hidden states (B, T, C) to named outputs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgebert.models.layers import activation

Outputs = dict[str, Tensor]

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
        self, width: int, embedding: int, vocab_size: int, act: Callable[[Tensor], Tensor], eps: float
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(width, embedding)
        self.act = act
        self.norm = nn.LayerNorm(embedding, eps=eps)
        self.decoder = nn.Linear(embedding, vocab_size)

    def forward(self, hidden: Tensor) -> Outputs:
        """Score every vocabulary entry for every token."""
        return {"logits": self.decoder(self.norm(self.act(self.dense(hidden))))}


class Classifier(nn.Module):
    """A sequence's classes, or one choice's score: `logits` (B, labels) from a pooled sequence."""

    def __init__(self, pooler: nn.Module, width: int, labels: int) -> None:
        super().__init__()
        self.pooler = pooler
        self.classifier = nn.Linear(width, labels)

    def forward(self, hidden: Tensor) -> Outputs:
        """Score the classes of each row."""
        return {"logits": self.classifier(self.pooler(hidden))}


class TokenClassifier(nn.Module):
    """Each token's classes: `logits` (B, T, labels)."""

    def __init__(self, width: int, labels: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(width, labels)

    def forward(self, hidden: Tensor) -> Outputs:
        """Score the classes of each token."""
        return {"logits": self.classifier(hidden)}


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
