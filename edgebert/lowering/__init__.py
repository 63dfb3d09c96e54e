"""Exact rewrites of a torch model into one that a target runs faster or quantizes further.

Each function takes a Model and returns a rewritten copy that computes the same numbers, up to the order of sums; the
model given is not touched, and one to which a rewrite does not apply comes back as a plain copy. A copy shares its
weights with the original wherever no rewrite changes them.
"""

from edgebert.lowering.channels import channels_before_tokens
from edgebert.lowering.convolution import SeparableTokens, separate_convolutions
from edgebert.lowering.copies import duplicate
from edgebert.lowering.embeddings import trim_positions
from edgebert.lowering.executorch import avoid_token_slices
from edgebert.lowering.grouped import (
    GroupedForm,
    GroupedPointwise,
    SlicedLinears,
    split_grouped_linears,
    tokens_before_channels,
)
from edgebert.lowering.half import TokenBlocks, linears_in_blocks, norms_in_half
from edgebert.lowering.joined import join_projections
from edgebert.lowering.keys import scale_keys
from edgebert.lowering.last_layer import first_token_only
from edgebert.lowering.one_query import query_inputs
from edgebert.lowering.stream import fold_norm_biases

__all__ = [
    "GroupedForm", "GroupedPointwise", "SeparableTokens", "SlicedLinears",
    "TokenBlocks", "avoid_token_slices", "channels_before_tokens", "duplicate", "first_token_only", "fold_norm_biases",
    "join_projections", "linears_in_blocks", "norms_in_half", "query_inputs", "scale_keys", "separate_convolutions",
    "split_grouped_linears", "tokens_before_channels", "trim_positions",
]  # fmt: skip
