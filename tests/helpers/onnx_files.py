"""What the tests of ONNX files share: batches of several rows, and a file's initializers."""

from functools import partial
from pathlib import Path

import numpy as np
import tiny

from edgebert.models.signature import Arrays

visible = partial(tiny.visible, noise=1)

LONGEST = 48
# Batch and tokens: one token, the longest, and in between on both sides of the size that the converter saw (2, 8).
SIZES = [(1, 1), (1, 2), (2, 7), (3, 8), (1, 33), (2, LONGEST)]


def batch(rows: int, tokens: int, seed: int = 0, vocab_size: int = 120) -> Arrays:
    """Random ids and types; the last row is padding in its second half."""
    rng = np.random.default_rng((rows, tokens, seed))
    mask = np.ones((rows, tokens), np.int32)
    mask[-1, (tokens + 1) // 2 :] = 0
    ids = rng.integers(0, vocab_size, (rows, tokens), dtype=np.int32)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": rng.integers(0, 2, ids.shape, dtype=np.int32)}


def weights(path: Path) -> dict[str, np.ndarray]:
    """Initializer to its numbers."""
    import onnx

    proto = onnx.load(str(path))
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
