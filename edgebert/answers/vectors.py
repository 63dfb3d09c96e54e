"""A text as one vector, and how alike two of them are."""

import numpy as np


def similarity(a: np.ndarray, b: np.ndarray, kind: str) -> float:
    """How alike two vectors (D,) are: their cosine, their product, or a distance less than zero.

    Args:
        a: one vector.
        b: the other.
        kind: `cosine`, `dot`, `euclidean` or `manhattan`.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    if kind == "cosine":
        return float(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-12))
    if kind == "dot":
        return float(x @ y)
    return -float(np.abs(x - y).sum() if kind == "manhattan" else np.linalg.norm(x - y))
