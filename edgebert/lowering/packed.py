"""Several texts in one row, each answered as if it were alone: a sentence encoder asked for many short texts at once.

A file of fixed lengths pays for padding. Here a row is filled with texts one after the other, and `segment_ids` say
which token is whose (packing: Krell et al., arXiv 2107.02027): tokens see their own text alone, their places begin anew
with each text, and there is a vector for each.
"""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from edgebert.lowering.last_layer import answer_firsts
from edgebert.lowering.rewrite import duplicate
from edgebert.models import heads
from edgebert.models.family import Model
from edgebert.models.layers import Rotary

SHORTEST = 4  # tokens of a row to a text that it has room for: [CLS], two pieces and [SEP]

# Tables with a row for each place of a sequence, which a packed row reads in its texts' order.
POSITIONS = "embeddings.position.weight"
BY_PLACE = ("prompt", "place")  # of the head


class PackedEmbedding(heads.SentenceEmbedding):
    """A vector for each of S texts in a row, (B, S, D), of hidden states (B, T, C) and what is whose, (B, S, T)."""

    def pool(self, mode: str, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """One way to pool (B, T, C), or (B, S, C) of which each is a text's first, into (B, S, C)."""
        if mode == "cls":
            return hidden if hidden.shape[1] < attention_mask.shape[2] else self.get_buffer("firsts") @ hidden
        scores = self.scores(mode, attention_mask, hidden.dtype)  # (B, S, T)
        if mode == "max":
            return (hidden[:, None] + scores[..., None]).amax(2)
        return torch.softmax(scores, dim=-1) @ hidden


class Packed(nn.Module):
    """A lowered sentence encoder over rows of several texts.

    Whatever depends on a token's place is a table whose rows are put into the texts' order, and whatever depends on
    what a token sees is the mask: so no family's modules know of it. Terms of distances are the same within a text
    wherever it stands.

    Args:
        model: with tables from their first row on (`trim_positions`); it is not changed.
        tokens: of a row, T.
    """

    def __init__(self, model: Model, tokens: int) -> None:
        super().__init__()
        packed = duplicate(model)
        packed.head.__class__ = PackedEmbedding
        self.encoder, self.head = packed.encoder, packed.head
        self.texts = max(1, tokens // SHORTEST)
        turns = [path for path, module in self.encoder.named_modules() if isinstance(module, Rotary)]
        self.rotary = [f"{path}.{name}" for path in turns for name in ("cos", "sin")]
        self.position = getattr(self.encoder.embeddings, "position", None)
        none = torch.zeros(1, self.texts, tokens)
        self.head.register_buffer("firsts", none, persistent=False)
        self.last = answer_firsts(self.encoder, none)
        self.register_buffer("before", torch.ones(tokens, tokens).tril(-1), persistent=False)
        self.register_buffer("numbers", torch.arange(1.0, self.texts + 1), persistent=False)

    def forward(self, input_ids: Tensor, segment_ids: Tensor) -> heads.Outputs:
        """Answer a row (1, T) of ids and of texts' numbers, 1 to S and 0 for padding: `sentence_embedding` (S, D)."""
        whose = segment_ids.to(torch.float32)
        together = same(whose[:, :, None], whose[:, None, :])  # (1, T, T)
        places = (together * self.get_buffer("before")).sum(-1)  # (1, T)
        belongs = same(self.get_buffer("numbers")[None, :, None], whose[:, None, :])  # (1, S, T)
        firsts = belongs * (1.0 - places.clamp(max=1.0))[:, None, :]
        rows = places[0].to(torch.int32)
        tables = {name: self.encoder.get_buffer(name)[rows] for name in self.rotary}
        if self.position is not None:  # looked up as words are, for it is stored as they are
            tables[POSITIONS] = functional.embedding(rows, self.position.weight)
        given = tables | {name: firsts for name in self.last}
        # One for all, of type 0, which is the first token's place: a converter makes no constant of it.
        types = rows[None, :1]
        hidden = functional_call(self.encoder, given, (input_ids, together, types))
        pooled = {name: self.head.get_buffer(name)[rows] for name in BY_PLACE} | {"firsts": firsts}
        answers: heads.Outputs = functional_call(self.head, pooled, (hidden, belongs))
        return {"sentence_embedding": answers["sentence_embedding"][0]}


def same(a: Tensor, b: Tensor) -> Tensor:
    """1 where whole numbers are the same, else 0."""
    apart = a - b
    return 1.0 - (apart * apart).clamp(max=1.0)


def packs(model: Model) -> bool:
    """Whether texts of a model can stand beside each other: a convolution, as a trigram, sees across their borders."""
    wide = any(isinstance(module, nn.Conv1d) and module.kernel_size != (1,) for module in model.modules())
    return isinstance(model.head, heads.SentenceEmbedding) and model.family.padding_invariant and not wide
