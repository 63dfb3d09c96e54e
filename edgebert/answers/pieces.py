"""Which pieces of the vocabulary stand behind a [MASK] or come next, and which tokens look replaced."""

from typing import Any

import numpy as np

from edgebert.answers.reading import Reading, applied
from edgebert.errors import InputError
from edgebert.tokenizers.tokenizer import Encoding, Tokenizer

TOP = 5  # pieces that are told of a place


def fill(encoding: Encoding, logits: np.ndarray, reading: Reading, words: Tokenizer, given: int) -> dict[str, Any]:
    """The likeliest pieces for each [MASK]: `words`, best first, and `label` and `score` of the first place's best.

    Args:
        encoding: of the text, cut to what the file takes.
        logits: (T, V).
        reading: how scores are made.
        words: the tokenizer.
        given: tokens of the text before it was cut.

    Raises:
        InputError: the text has no [MASK], or it was cut off.
    """
    places = [i for i, token in enumerate(encoding.ids) if token == words.mask_id]
    if not places and given > len(encoding.ids):
        raise InputError(
            f"the first {len(encoding.ids)} of the text's {given} tokens, which the file takes, have no {words.mask}: "
            "shorten the text, or export with a longer length."
        )
    if not places:
        raise InputError(f"the text has no {words.mask} to fill: put one where a word is wanted.")
    return _told([logits[place] for place in places], reading, words)


def next_piece(encoding: Encoding, logits: np.ndarray, reading: Reading, words: Tokenizer) -> dict[str, Any]:
    """The likeliest pieces after a text's last one, as `fill` tells them; the closing [SEP] is no part of the text."""
    return _told([logits[len(encoding.ids) - 2]], reading, words)


def replaced(encoding: Encoding, logits: np.ndarray, reading: Reading) -> dict[str, Any]:
    """How much each token looks replaced.

    Args:
        encoding: of the text.
        logits: (T, 1).
        reading: how scores are made.
    """
    scores = applied(reading.activation, logits[:, 0])
    return {
        "tokens": [
            {"token": token, "start": start, "end": end, "score": float(score)}
            for token, (start, end), special, score in zip(
                encoding.tokens, encoding.offsets, encoding.special_tokens_mask, scores, strict=False
            )
            if not special
        ]
    }


def _told(rows: list[np.ndarray], reading: Reading, words: Tokenizer) -> dict[str, Any]:
    filled = []
    for row in rows:
        scores = applied(reading.activation, row)[: words.vocab_size]  # rows above fill the table up to a round size
        best = np.argsort(-scores, kind="stable")[:TOP]
        filled.append([
            {"label": words.decode([int(i)], skip_special_tokens=False), "score": float(scores[i])} for i in best
        ])
    return {"label": filled[0][0]["label"], "score": filled[0][0]["score"], "words": filled}
