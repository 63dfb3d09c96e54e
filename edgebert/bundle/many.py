"""Vectors of many texts, in the quickest way that a file has."""

from collections.abc import Callable, Sequence

import numpy as np

from edgebert.runtimes.packing import fill, lay
from edgebert.runtimes.session import Batching, Packing, Session
from edgebert.tokenizers.tokenizer import Encoding


def vectors(
    encodings: Sequence[Encoding],
    session: Session,
    lengths: Sequence[int],
    run: Callable[[Sequence[Encoding]], np.ndarray],
) -> np.ndarray:
    """Vectors (N, D) float32 of N texts, in their order.

    A file of fixed lengths is asked for several short texts in a row, see `shared`; one that takes batches for texts of
    about one length together; and any other for one text at a time, which where it takes any length pays for no
    padding. docs/choosing.md has what each way takes.

    Args:
        encodings: texts, none of them too long.
        session: the open file.
        lengths: those that the file has, ascending.
        run: answers texts, padded to the longest of them, with (B, D).
    """
    sizes = [len(encoding.ids) for encoding in encodings]
    found: dict[int, np.ndarray] = {}
    if isinstance(session, Packing) and session.packed:
        for row in shared(sizes, lengths, *session.packed):
            ids = [np.array(encodings[number].ids, np.int32) for number in row]
            (answers,) = session.run_packed(lay(ids, session.packed[0]))
            found |= dict(zip(row, answers, strict=False))  # a row may have room for more texts
    elif isinstance(session, Batching) and session.together:
        for batch in alike(sizes, session.together):
            found |= dict(zip(batch, run([encodings[number] for number in batch]), strict=True))
    each = [found[i] if i in found else run([encoding])[0] for i, encoding in enumerate(encodings)]
    return np.stack(each) if each else np.zeros((0, 0), np.float32)


def alike(sizes: Sequence[int], tokens: int) -> list[list[int]]:
    """Numbers of texts in batches of about one length, which padded to the longest have up to so many tokens."""
    batches: list[list[int]] = []
    for number in sorted(range(len(sizes)), key=lambda number: sizes[number]):
        if not batches or (len(batches[-1]) + 1) * sizes[number] > tokens:
            batches.append([])
        batches[-1].append(number)
    return batches


def shared(sizes: Sequence[int], lengths: Sequence[int], tokens: int, texts: int) -> list[list[int]]:
    """Which texts are to share a row: those that would take more tokens one after the other, at lengths that fit each.

    Args:
        sizes: tokens of each text.
        lengths: those that a text alone is padded to, ascending.
        tokens: of a row.
        texts: that a row has room for.

    Returns:
        For each row the numbers of its texts; what is in none is to be asked alone.
    """
    fitting = [number for number, size in enumerate(sizes) if size <= tokens]
    rows = [[fitting[place] for place in row] for row in fill([sizes[number] for number in fitting], tokens, texts)]
    apart = [next(length for length in lengths if length >= size) for size in sizes]
    return [row for row in rows if sum(apart[number] for number in row) > tokens]
