"""Exact rewrites of a torch model into one that a target runs faster or quantizes further.

Each function takes a Model and returns a rewritten copy that computes the same numbers, up to the order of sums; the
model given is not touched, and one to which a rewrite does not apply comes back as a plain copy. A copy shares its
weights with the original wherever no rewrite changes them.
"""

from edgebert.lowering.channels_first import channels_before_tokens
from edgebert.lowering.columns import columns_as_linears
from edgebert.lowering.distances import find_buckets, fold_bias, fold_distances, move_distances
from edgebert.lowering.fused_qkv import fuse_qkv
from edgebert.lowering.grouped import (
    GroupedForm,
    GroupedPointwise,
    SlicedLinears,
    split_grouped_linears,
    tokens_before_channels,
)
from edgebert.lowering.half_norms import find_factors, norms_in_half
from edgebert.lowering.last_layer import first_token_only
from edgebert.lowering.no_norms import fold_no_norms
from edgebert.lowering.positions import trim_positions
from edgebert.lowering.residual import fold_norm_biases
from edgebert.lowering.rewrite import duplicate
from edgebert.lowering.scaled_keys import scale_keys
from edgebert.lowering.separable import SeparableTokens, convolve_tokens, separate_convolutions
from edgebert.lowering.single_query import query_inputs
from edgebert.lowering.token_blocks import TokenBlocks, linears_in_blocks
from edgebert.lowering.token_shifts import avoid_token_slices, shift_windows
from edgebert.lowering.windows import cut_windows, window_block

__all__ = [
    "GroupedForm", "GroupedPointwise", "SeparableTokens", "SlicedLinears", "TokenBlocks", "avoid_token_slices",
    "channels_before_tokens", "columns_as_linears", "convolve_tokens", "cut_windows", "duplicate", "find_buckets",
    "find_factors", "first_token_only", "fold_bias", "fold_distances", "fold_no_norms", "fold_norm_biases", "fuse_qkv",
    "linears_in_blocks", "move_distances", "norms_in_half", "query_inputs", "scale_keys", "separate_convolutions",
    "shift_windows", "split_grouped_linears", "tokens_before_channels", "trim_positions", "window_block",
]  # fmt: skip
