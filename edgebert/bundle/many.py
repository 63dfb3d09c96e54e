"""Vectors of many texts, in the quickest way that a file has."""

from collections.abc import Callable, Sequence

import numpy as np

from edgebert.runtimes.packing import fill, lay
from edgebert.runtimes.session import Packing, Session
from edgebert.tokenizers.tokenizer import Encoding


def vectors(
    encodings: Sequence[Encoding], session: Session, lengths: Sequence[int], alone: Callable[[Encoding], np.ndarray]
) -> np.ndarray:
    """Vectors (N, D) float32 of N texts, in their order.

    A file of fixed lengths is asked for several short texts in a row, see `shared`. One of any length pays for no
    padding and is asked for one text at a time (docs/choosing.md has what other ways take).

    Args:
        encodings: texts, none of them too long.
        session: the open file.
        lengths: those that the file has, ascending.
        alone: answers one text with (D,).
    """
    found: dict[int, np.ndarray] = {}
    if isinstance(session, Packing) and session.packed:
        for row in shared([len(encoding.ids) for encoding in encodings], lengths, *session.packed):
            ids = [np.array(encodings[number].ids, np.int32) for number in row]
            (answers,) = session.run_packed(lay(ids, session.packed[0]))
            found |= dict(zip(row, answers, strict=False))  # a row may have room for more texts
    each = [found[i] if i in found else alone(encoding) for i, encoding in enumerate(encodings)]
    return np.stack(each) if each else np.zeros((0, 0), np.float32)


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
