"""Where in a context an answer stands, as transformers 4's question-answering pipeline finds it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgebert.answers.reading import Reading, applied
from edgebert.errors import InputError
from edgebert.tokenizers.tokenizer import Encoding

HIDDEN = -10000.0  # what transformers puts in the place of logits that are not to count
CANDIDATES = 12  # of a window; those that are the same text, as whole words, count together


def answer(
    context: str,
    windows: Sequence[Encoding],
    starts: Sequence[np.ndarray],
    ends: Sequence[np.ndarray],
    reading: Reading,
    may_be_none: bool = False,
) -> dict[str, Any]:
    """The likeliest span of whole words over all windows.

    Args:
        context: as it was given.
        windows: of question and context, see `Tokenizer.windows`.
        starts: a window's start logits, (T,) or more, which are padding.
        ends: likewise.
        reading: tells how scores are made, and how long an answer may be.
        may_be_none: whether the model was trained on questions without an answer, as those of SQuAD 2.

    Returns:
        `answer`, `start` and `end` in characters (code points), `score` the probabilities of all spans that are this
        text, in windows that overlap more than once; `no_answer` the probability that there is none, and where that is
        greater and `may_be_none` holds, the answer is empty.

    Raises:
        InputError: the context has no words.
    """
    found: dict[str, tuple[float, int, int]] = {}
    none = 1.0
    for window, start, end in zip(windows, starts, ends, strict=True):
        inside = _inside(window)
        if not inside.any():
            continue
        first, last = (_chances(logits[: len(inside)], inside, reading) for logits in (start, end))
        none = min(none, float(first[0] * last[0]))
        for score, at, to in _candidates(first, last, inside, reading.longest_answer or len(inside)):
            a, b = _word(window, at)[0], _word(window, to)[1]
            before, *place = found.get(context[a:b].lower(), (0.0, a, b))
            found[context[a:b].lower()] = (before + score, place[0], place[1])
    if not found:
        raise InputError("the context has no words to find an answer in: pass some with --pair.")
    best, a, b = max(found.values(), key=lambda each: each[0])
    if may_be_none and none > best:
        return {"answer": "", "start": 0, "end": 0, "score": none, "no_answer": none}
    return {"answer": context[a:b], "start": a, "end": b, "score": best, "no_answer": none}


def _candidates(first: np.ndarray, last: np.ndarray, inside: np.ndarray, most: int) -> list[tuple[float, int, int]]:
    """The likeliest spans of a window, each with its score, its first and its last token, the likeliest first."""
    pairs = np.tril(np.triu(np.outer(first * inside, last * inside)), most - 1)
    order = np.argsort(-pairs, axis=None, kind="stable")[:CANDIDATES]
    places = [(int(at), int(to)) for at, to in zip(*np.unravel_index(order, pairs.shape), strict=True)]
    return [(float(pairs[at, to]), at, to) for at, to in places if inside[at] and inside[to] and pairs[at, to] > 0]


def _inside(window: Encoding) -> np.ndarray:
    """Which tokens are the context's, the second text's."""
    return np.equal(window.sequences, 1)


def _chances(logits: np.ndarray, inside: np.ndarray, reading: Reading) -> np.ndarray:
    """Of each token, of all in the context and [CLS], which stands for no answer."""
    counted = inside.copy()
    counted[0] = True
    return applied(reading.activation, np.where(counted, logits, HIDDEN))


def _word(window: Encoding, token: int) -> tuple[int, int]:
    """The first character of a token's word and the one after its last, as far as the window has the word."""
    own = (window.sequences[token], window.words[token])
    same = [i for i, word in enumerate(zip(window.sequences, window.words, strict=True)) if word == own and own[1] >= 0]
    if not same:
        return window.offsets[token]
    return min(window.offsets[i][0] for i in same), max(window.offsets[i][1] for i in same)
