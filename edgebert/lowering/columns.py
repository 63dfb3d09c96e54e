"""MobileBERT's product with a matrix that stands the other way round, as a linear layer."""

from edgebert.lowering.rewrite import derived, duplicate, linear, matched, put
from edgebert.models.family import Model
from edgebert.models.mobilebert import Columns


def columns_as_linears(model: Model) -> Model:
    """Let the words' scores that have no embedding be made by a linear layer, which is quantized by channel."""
    lowered = duplicate(model)
    for name, columns in list(matched(lowered, "columns_as_linears", (Columns,))):
        put(lowered, name, linear(derived(columns.weight.t().contiguous(), columns.weight), None))
    return lowered.eval()
