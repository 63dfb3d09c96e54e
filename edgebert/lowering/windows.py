"""ModernBERT's local attention in blocks where the number of tokens is known only as a file runs."""

import torch

from edgebert.lowering.rewrite import duplicate
from edgebert.models.family import Model
from edgebert.models.modernbert import ModernBertEncoder, block_mask, worth_cutting


def cut_windows(model: Model, longest: int) -> Model:
    """Let local layers work on blocks at every length, where the longest is worth it: else they cost its square."""
    lowered = duplicate(model)
    encoder = lowered.encoder
    if isinstance(encoder, ModernBertEncoder) and worth_cutting(longest, encoder.reach):
        encoder.near = block_mask(encoder.reach, torch.float32)
        lowered.lowerings["cut_windows"] = ("encoder",)
    return lowered.eval()
