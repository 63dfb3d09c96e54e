"""What every model takes and gives, in torch and in every file: names, and which axes run over tokens."""

import numpy as np

Arrays = dict[str, np.ndarray]

# int32 (B, T) each.
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def has_token_axis(name: str, rank: int) -> bool:
    """Whether axis 1 of an output runs over tokens: the task's names and ranks tell (see models/heads.py)."""
    return rank == 3 or name in ("start_logits", "end_logits")


def limit_types(inputs: Arrays, types: int) -> Arrays:
    """Keep token types below what the model has: some have just one."""
    return inputs | {"token_type_ids": np.minimum(inputs["token_type_ids"], types - 1)}
