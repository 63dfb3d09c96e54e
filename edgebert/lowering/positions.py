"""Embedding tables, cut."""

from torch import nn

from edgebert.lowering.rewrite import derived, duplicate
from edgebert.models.family import Model

TABLE = "encoder.embeddings.position"


def trim_positions(model: Model, longest: int) -> Model:
    """Drop the rows of the position table that no sequence of up to `longest` tokens reads.

    With 128 of 512 positions of 768 channels that is 0.3 MB of int8 less.
    """
    lowered = duplicate(model)
    table = lowered.get_submodule(TABLE).get_parameter("weight")
    rows = table.detach()[:longest].contiguous()
    cut = nn.Embedding(rows.shape[0], rows.shape[1], device="meta")
    cut.weight = derived(rows, table)
    lowered.encoder.get_submodule("embeddings").add_module("position", cut)
    lowered.lowerings["trim_positions"] = (TABLE,)
    return lowered.eval()
