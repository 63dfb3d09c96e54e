"""What attention knows of distances, made beforehand where it depends on no text."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgebert.lowering.rewrite import derived, duplicate, matched, multiply
from edgebert.models import deberta_v2, mpnet
from edgebert.models.family import Model

# The names of the tables that attention has then.
DISTANCE_KEYS, DISTANCE_QUERIES = "distance_keys", "distance_queries"


class ConstantDistances(deberta_v2.Attention):
    """DeBERTa's attention whose distances' keys and queries are made beforehand, and whose keys are scaled.

    Attributes:
        distance_keys: (H, D, 2 L) for the distances from L to 1 - L, of longest sequence L; None where none are asked.
        distance_queries: (H, D, 2 L) for those from -L to L - 1; the same.
    """

    distance_keys: nn.Parameter | None
    distance_queries: nn.Parameter | None

    def distances(self, rows: tuple[Tensor, Tensor] | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Keys and queries of distances, (H, D, 2 T) each, for (B, T, C); None for what is not asked."""
        tokens = x.shape[1]
        keys, queries = (
            None if table is None else table[..., table.shape[-1] // 2 - tokens : table.shape[-1] // 2 + tokens]
            for table in (self.distance_keys, self.distance_queries)
        )
        return keys, queries


class MovingDistances(ConstantDistances):
    """The same, of tables that are no constants to a delegate which takes none as a product's second factor."""

    def distances(self, rows: tuple[Tensor, Tensor] | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Keys and queries of distances, (H, D, 2 T) each, for (B, T, C); None for what is not asked."""
        nothing = x[:1, :1, :1].clamp(0.0, 0.0)
        keys, queries = (None if table is None else table + nothing for table in super().distances(rows, x))
        return keys, queries


def move_distances(model: Model) -> Model:
    """Make what `fold_distances` folded a sum with nothing: XNNPACK multiplies by no constant in half precision.

    A file of LiteRT's that asks for half precision would not be prepared on a phone which has it.
    """
    lowered = duplicate(model)
    for _, attention in matched(lowered, "move_distances", (ConstantDistances,)):
        attention.__class__ = MovingDistances
    return lowered.eval()


class ConstantBuckets(mpnet.PositionBias):
    """MPNet's term, which knows each pair's bucket.

    Attributes:
        pairs: the bucket of each pair of tokens, int32 (L, L), of longest sequence L.
        terms: what each head adds for a bucket, (buckets, H).
    """

    pairs: Tensor
    terms: nn.Parameter

    def forward(self, tokens: int) -> Tensor:
        """The term (H, T, T) for a number of tokens."""
        return F.embedding(self.pairs[:tokens, :tokens], self.terms).permute(2, 0, 1)


class ConstantBias(mpnet.PositionBias):
    """MPNet's term as it is added.

    Attributes:
        terms: (H, L, L) for each pair of tokens, of longest sequence L.
    """

    terms: nn.Parameter

    def forward(self, tokens: int) -> Tensor:
        """The term (H, T, T) for a number of tokens."""
        return self.terms[:, :tokens, :tokens]


def fold_distances(model: Model, longest: int, spare: int = 1) -> Model:
    """Project DeBERTa's table of distances before a model is written, with each layer's weights.

    A layer of DeBERTa-v3-small projects 512 rows twice for every text, which is more than it does with 128 tokens. Keys
    are divided by the scores' scale as `scale_keys` does it; the distances' queries meet those.

    Args:
        model: any; only DeBERTa's attention is replaced.
        longest: the longest sequence that distances are asked for.
        spare: how many tokens longer L is: where the token axis is free, a cut that may be the whole is two cases to a
            tracer. 0 where each length is traced for itself.
    """
    lowered = duplicate(model)
    found = list(matched(lowered, "fold_distances", (deberta_v2.Attention,)))
    if not found:
        return lowered
    table: deberta_v2.Distances = lowered.encoder.get_submodule("distances")  # type: ignore[assignment]
    with torch.no_grad():
        rows, any_text = table(longest + spare), torch.zeros(1, longest + spare, 1)
        for _, attention in found:
            keys, queries = attention.distances(rows, any_text)
            made_of = [*table.parameters(), *attention.parameters()]
            attention.__class__ = ConstantDistances
            assert isinstance(attention, ConstantDistances)
            attention.distance_keys = None if keys is None else derived(keys[0] / attention.scale, *made_of)
            attention.distance_queries = None if queries is None else derived(queries[0].contiguous(), *made_of)
            attention.distance_key = attention.distance_query = None
            multiply(attention.key, 1 / attention.scale, "weight", "bias")
            attention.scale = 1.0
    table.table = table.norm = None  # read by nothing now
    return lowered.eval()


def fold_bias(model: Model, longest: int) -> Model:
    """Look MPNet's term up before a model is written: a converter that knows the length would, and name it anew."""
    lowered = duplicate(model)
    for _, bias in matched(lowered, "fold_bias", (mpnet.PositionBias,)):
        terms = derived(bias(longest).contiguous(), bias.table.weight)
        del bias.bucket, bias.table
        bias.__class__ = ConstantBias
        assert isinstance(bias, ConstantBias)
        bias.terms = terms
    return lowered.eval()


def find_buckets(model: Model, longest: int) -> Model:
    """Give MPNet's term the bucket of each pair of up to `longest` tokens: a square to cut, and nothing to compute.

    ExecuTorch's delegate looks nothing up, and the plain kernels before it compute no buckets.
    """
    lowered = duplicate(model)
    for _, bias in matched(lowered, "find_buckets", (mpnet.PositionBias,)):
        place = torch.arange(longest)
        after = (place[None, :] - place[:, None]).clamp(-mpnet.FARTHEST, mpnet.FARTHEST)
        pairs, terms = bias.bucket[after + mpnet.FARTHEST].int(), derived(bias.table.weight, bias.table.weight)
        del bias.bucket, bias.table
        bias.__class__ = ConstantBuckets
        assert isinstance(bias, ConstantBuckets)
        bias.register_buffer("pairs", pairs, persistent=False)
        bias.terms = terms
    return lowered.eval()
