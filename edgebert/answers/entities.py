"""Labels of tokens, of the words that they make, and of the entities that words make.

Words and groups are those of transformers' token-classification pipeline with `aggregation_strategy="first"`; where the
labels tell ends and single words too (BIOES, BILOU), entities are those of seqeval's `get_entities`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgebert.answers.reading import Reading, applied
from edgebert.tokenizers.tokenizer import Encoding, Tokenizer

OUTSIDE = "O"
# The letters of BILOU for those of BIOES.
LETTERS = {"L": "E", "U": "S"}


@dataclass(frozen=True, slots=True)
class Word:
    """One word.

    Attributes:
        tokens: its pieces.
        sequence: 0 in the first text, 1 in the second.
        start: its first character in that text.
        end: the one after its last.
        label: its first piece's.
        score: of that label.
    """

    tokens: list[str]
    sequence: int
    start: int
    end: int
    label: str
    score: float


def find(
    texts: Sequence[str], encoding: Encoding, logits: np.ndarray, labels: Sequence[str], reading: Reading,
    words: Tokenizer,
) -> dict[str, Any]:  # fmt: skip
    """What is said of each token, word and entity.

    Args:
        texts: one, or a pair, as given.
        encoding: of them.
        logits: (T, labels) or more tokens, which are padding.
        labels: their names.
        reading: how scores are made.
        words: the tokenizer.

    Returns:
        `tokens` and `words` with `label` and `score`, and `entities` with `entity_group` and `score`, each with
        `start` and `end` in characters (code points) of its own text. `word` is as the pieces spell it, `text` as it
        was given.
    """
    scores = applied(reading.activation, logits)
    best = scores.argmax(-1)
    kept = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    tokens = [
        {
            "token": encoding.tokens[i],
            "start": encoding.offsets[i][0],
            "end": encoding.offsets[i][1],
            "label": labels[best[i]],
            "score": float(scores[i, best[i]]),
        }
        for i in kept
    ]
    found: list[Word] = []
    for token, i in zip(tokens, kept, strict=True):
        (start, end), sequence = encoding.offsets[i], encoding.sequences[i]
        text = texts[sequence]
        if found and found[-1].sequence == sequence and _continues(text, encoding, i, words):
            last = found.pop()
            found.append(replace(last, tokens=[*last.tokens, encoding.tokens[i]], end=end))
        else:
            unknown = encoding.ids[i] == words.unk_id
            spelt = text[start:end] if unknown else encoding.tokens[i]
            found.append(Word([spelt], sequence, start, end, str(token["label"]), float(token["score"])))
    return {
        "tokens": tokens,
        "words": [
            {
                "word": _spelt(word.tokens, words),
                "start": word.start,
                "end": word.end,
                "label": word.label,
                "score": word.score,
            }
            for word in found
        ],
        "entities": [_entity(texts[group[0].sequence], kind, group, words) for kind, group in _groups(found, labels)],
    }


def _continues(text: str, encoding: Encoding, place: int, words: Tokenizer) -> bool:
    """Whether a token goes on with the word before it."""
    if encoding.ids[place] == words.unk_id:
        return False
    if words.kind == "wordpiece":
        return encoding.tokens[place].startswith(words.backend.model.continuing_subword_prefix)
    start = encoding.offsets[place][0]
    return start > 0 and " " not in text[start - 1 : start + 1]


def _spelt(tokens: list[str], words: Tokenizer) -> str:
    return str(words.backend.decoder.decode(tokens)) if words.backend.decoder else " ".join(tokens)


def _entity(text: str, kind: str, group: list[Word], words: Tokenizer) -> dict[str, Any]:
    start, end = group[0].start, group[-1].end
    return {
        "entity_group": kind,
        "score": float(np.mean([word.score for word in group])),
        "word": _spelt([token for word in group for token in word.tokens], words),
        "text": text[start:end],
        "start": start,
        "end": end,
    }


def _groups(found: Sequence[Word], labels: Sequence[str]) -> Iterator[tuple[str, list[Word]]]:
    """Entities: their kind and their words, what is outside left out."""
    ends = any(label[:2] in ("E-", "S-", "L-", "U-") for label in labels) and any(label[:2] == "B-" for label in labels)
    group: list[Word] = []
    before, kind_before = OUTSIDE, ""
    for word in found:
        letter, kind = _parsed(word.label, ends)
        starts = letter in ("B", "S") or kind != kind_before or before in ("E", "S", OUTSIDE)
        starts = starts or (bool(group) and group[-1].sequence != word.sequence)
        if group and (starts or letter == OUTSIDE):
            yield kind_before, group
            group = []
        if letter != OUTSIDE:
            group.append(word)
        before, kind_before = letter, kind
    if group:
        yield kind_before, group


def _parsed(label: str, ends: bool) -> tuple[str, str]:
    """A label's letter (B, I, O, and E and S where ends are told) and its kind."""
    if label == OUTSIDE:
        return OUTSIDE, ""
    letter, dash, kind = label.partition("-")
    letter = LETTERS.get(letter, letter) if ends else letter
    if dash and letter in (("B", "I", "E", "S") if ends else ("B", "I")):
        return letter, kind
    return "I", label
