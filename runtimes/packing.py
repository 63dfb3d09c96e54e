"""Texts laid into rows of several: which stand together, and the arrays that a file takes."""

from collections.abc import Sequence

import numpy as np

from edgebert.models.signature import Arrays


def fill(sizes: Sequence[int], tokens: int, texts: int) -> list[list[int]]:
    """Share texts out to rows: the longest first, each into the row that it fills best.

    Args:
        sizes: tokens of each text, at most a row's.
        tokens: of a row.
        texts: that a row has room for.

    Returns:
        For each row the numbers of its texts.
    """
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(tokens + 1)]  # rows that take a further text, by the tokens left
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        size = sizes[number]
        left = next((left for left in range(size, tokens + 1) if by_room[left]), None)
        if left is None:
            rows.append([])
        row = len(rows) - 1 if left is None else by_room[left].pop()
        rows[row].append(number)
        if len(rows[row]) < texts:
            by_room[(tokens if left is None else left) - size].append(row)
    return rows


def lay(texts: Sequence[np.ndarray], tokens: int, pad_id: int = 0) -> Arrays:
    """One row (1, tokens) of the texts' ids, int32, and of their numbers, from 1 on."""
    ids, numbers = np.full((1, tokens), pad_id, np.int32), np.zeros((1, tokens), np.int32)
    ids[0, : sum(map(len, texts))] = np.concatenate(texts)
    numbers[0, : sum(map(len, texts))] = np.repeat(np.arange(1, len(texts) + 1), [len(text) for text in texts])
    return {"input_ids": ids, "segment_ids": numbers}
