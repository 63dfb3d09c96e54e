"""Where in a context an answer stands, as transformers 4's question-answering pipeline finds it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgebert.answers.reading import Reading, applied
from edgebert.errors import InputError
from edgebert.tokenizers.tokenizer import Encoding

HIDDEN = -10000.0  # what transformers puts in the place of logits that are not to count


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
        `answer`, `start` and `end` in characters (code points), `score` a probability; `no_answer` the probability that
        there is none, and where that is greater and `may_be_none` holds, the answer is empty.

    Raises:
        InputError: the context has no words.
    """
    best, place, none = -1.0, (0, 0, 0), 1.0
    for number, (window, start, end) in enumerate(zip(windows, starts, ends, strict=True)):
        inside = _inside(window)
        if not inside.any():
            continue
        first, last = (_chances(logits[: len(inside)], inside, reading) for logits in (start, end))
        none = min(none, float(first[0] * last[0]))
        first[0] = last[0] = 0.0
        # From a token to one at most so many further on.
        pairs = np.tril(np.triu(first[:, None] * last[None, :]), (reading.longest_answer or len(inside)) - 1)
        at, to = (int(i) for i in np.unravel_index(int(pairs.argmax()), pairs.shape))
        if inside[at] and inside[to] and pairs[at, to] > best:
            best, place = float(pairs[at, to]), (number, at, to)
    if best < 0:
        raise InputError("the context has no words to find an answer in: pass some with --pair.")
    if may_be_none and none > best:
        return {"answer": "", "start": 0, "end": 0, "score": none, "no_answer": none}
    window, at, to = windows[place[0]], *place[1:]
    a, b = _word(window, at)[0], _word(window, to)[1]
    return {"answer": context[a:b], "start": a, "end": b, "score": best, "no_answer": none}


def _inside(window: Encoding) -> np.ndarray:
    """Which tokens are the context's, the second text's."""
    return np.array(window.sequences) == 1


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
