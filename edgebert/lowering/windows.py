"""ModernBERT's local attention in blocks where the number of tokens is known only as a file runs."""

import torch

from edgebert.lowering.rewrite import duplicate, matched
from edgebert.models.family import Model
from edgebert.models.modernbert import ModernBertEncoder, block_mask, block_size, worth_cutting


def window_block(model: Model) -> int:
    """Tokens of the blocks that local layers may be parted into; 0 for a model without such layers."""
    encoder = model.encoder
    return block_size(encoder.reach) if isinstance(encoder, ModernBertEncoder) else 0


def cut_windows(model: Model, longest: int) -> Model:
    """Let local layers work on blocks at every length, where the longest is worth it: else they cost its square."""
    lowered = duplicate(model)

    def worth_it(encoder: ModernBertEncoder) -> bool:
        return worth_cutting(longest, encoder.reach)

    for _, encoder in matched(lowered, "cut_windows", (ModernBertEncoder,), worth_it):
        encoder.near = block_mask(encoder.reach, torch.float32)
    return lowered.eval()
