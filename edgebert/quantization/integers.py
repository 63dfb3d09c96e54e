"""Integers with a scale for each row: how every target stores 8-bit weights."""

from collections.abc import Iterator

import numpy as np

# Rows taken at a time, so that what stands beside a table of 250,000 rows stays some 50 MB.
CHUNK = 2**22


def by_row(floats: np.ndarray, smallest: float = float(np.finfo(np.float32).tiny)) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 with a scale for each row; a row's largest magnitude becomes 127.

    Values that lie on such a grid already come back as they are.

    Args:
        floats: (rows, columns), float32 or float16; a transposed view is read as it lies, without a copy of the whole.
        smallest: that a scale may be, where a runtime takes no smaller one.

    Returns:
        int8 of the same shape, from -127 to 127, and scales (rows, 1) in the dtype of the weights.
    """
    integers = np.empty(floats.shape, np.int8)
    scales = np.empty((len(floats), 1), floats.dtype)
    for rows in chunks(floats):
        part = floats[rows].astype(np.float32, copy=False)
        largest = np.abs(part).max(1, keepdims=True)
        scales[rows] = np.maximum(largest / np.float32(127), np.float32(smallest)).astype(floats.dtype)
        steps = part / scales[rows].astype(np.float32, copy=False)
        integers[rows] = np.clip(np.rint(steps), -127, 127).astype(np.int8)
    return integers, scales


def chunks(floats: np.ndarray) -> Iterator[slice]:
    """Slices of rows that hold some CHUNK numbers each."""
    step = max(CHUNK // floats.shape[1], 1)
    return (slice(start, start + step) for start in range(0, len(floats), step))
