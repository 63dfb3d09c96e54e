"""What every model takes and gives, in torch and in every file: names, and which axes run over tokens."""

from collections.abc import Mapping

import numpy as np

from edgebert.errors import InputError

Arrays = dict[str, np.ndarray]

# int32 (B, T) each.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")

# Of a row (1, T) of several texts, int32: the second has the number of each token's text, from 1 on; 0 is padding.
PACKED_INPUTS = ("input_ids", "segment_ids")


def has_token_axis(name: str, rank: int) -> bool:
    """Whether axis 1 of an output runs over tokens: the task's names and ranks tell (see models/heads.py)."""
    return rank == 3 or name in ("start_logits", "end_logits")


def limit_types(inputs: Arrays, types: int) -> Arrays:
    """Keep token types below what the model has: some have just one, or no table of them, which is 0."""
    return inputs | {"token_type_ids": np.minimum(inputs["token_type_ids"], max(types, 1) - 1)}


def check_ids(inputs: Mapping[str, np.ndarray], vocab_size: int) -> None:
    """See that ids have rows in the model's table.

    Raises:
        InputError: one has none: a tokenizer may have more entries than its model has rows.
    """
    ids = np.asarray(inputs.get("input_ids", ()))
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= vocab_size):
        raise InputError(
            f"input_ids from {ids.min()} to {ids.max()}, but the vocabulary has ids 0 to {vocab_size - 1}: use the "
            "model's own tokenizer, and texts without pieces that only the tokenizer has."
        )
