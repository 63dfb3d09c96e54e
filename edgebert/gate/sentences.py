"""Golden sentences: texts with the ids that the checkpoint's tokenizer makes of them.

They go into the bundle as JSON, `{"sentences": [{"text": ..., "pair": null or a text, "ids": [...]}, ...]}`, for the
tokenizer of a phone to be held to them there. Nothing is cut: the ids are all there are.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edgebert.errors import InputError
from edgebert.files import JSON_BYTES, parse_json, read
from edgebert.gate import golden
from edgebert.report import Check
from edgebert.tokenizers.tokenizer import Tokenizer

# What tokenizers get wrong first, beside the sentences kept with this package.
HARD: tuple[tuple[str, str | None], ...] = (
    ("", None),
    (" \t\r\n ", None),
    ("Ünïcödé ÀÉÎÕÜ ñ ß ẞ ø Ł đ İstanbul ısı", None),
    ("cafe\u0301 A\u030angstro\u0308m q\u0323\u0307 \u0301alone Z\u0351\u036b\u0343algo", None),
    ("ΟΔΥΣΣΕΥΣ ΣΟΦΟΣ ὈΔΥΣΣΕΎΣ", None),
    ("你好,世界!𠮷野家で𩸽を食べる。ｶﾞｷﾞ", None),
    ("한글 \u1112\u1161\u11ab\u1100\u1173\u11af 각각", None),
    ("السَّلَامُ عَلَيْكُمْ ۱۲۳ ﷺ لَا", None),
    ("हिन्दी क़ ক্ষ தமிழ் ภาษาไทย", None),
    ("👩\u200d👩\u200d👧\u200d👦 🇮🇸 👍🏽 ☺\ufe0f #\ufe0f\u20e3 🏴\U000e0067\U000e0062\U000e007f", None),
    ("½ ² ™ № ㎏ ａｂｃ ﬁn ﬂow Ⅻ ℃ …", None),
    ("zero\u200bwidth soft\u00adhyphen no\u00a0break\u3000wide\ufeffmark \u202eright\u202c nul\u0000bell\u0007", None),
    ("[CLS] [MASK] [SEP] [UNK] <s> <mask> </s> ▁low ##ing", None),
    ("a" * 120 + " " + "ü" * 101, None),
    ("--resume=$HOME/~a_b.c@d.e?f=g&h+i^j|k<l>m`n{o}p\\q", None),
    ("naïve 咖啡 ☕?", "Да, с молоком 🥛."),
    ("", "an empty one before"),
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text, or a pair of texts, and its ids."""

    text: str
    pair: str | None
    ids: list[int]


def make(tokenizer: Tokenizer) -> list[Sentence]:
    """The gate's own texts and the hard ones, as a tokenizer reads them."""
    texts = [*((text[0], text[1] if len(text) == 2 else None) for text in golden.texts()), *HARD]
    return [Sentence(text, pair, tokenizer.encode(text, pair).ids) for text, pair in texts]


def save(sentences: list[Sentence], path: Path) -> None:
    """Write them, a line each."""
    lines = ",\n".join(json.dumps(asdict(one), ensure_ascii=False) for one in sentences)
    path.write_text(f'{{"sentences": [\n{lines}\n]}}\n', encoding="utf-8")


def load(path: Path) -> list[Sentence]:
    """Read what `save` wrote.

    Raises:
        InputError: the file holds anything else.
    """
    raw = parse_json(read(path, JSON_BYTES), path)
    listed = raw.get("sentences")
    if set(raw) != {"sentences"} or not isinstance(listed, list) or not all(_fits(one) for one in listed):
        raise InputError(f"{path} does not hold texts and their ids: export the bundle again.")
    return [Sentence(**one) for one in listed]


def _fits(one: object) -> bool:
    return (
        isinstance(one, dict)
        and set(one) == {"text", "pair", "ids"}
        and isinstance(one["text"], str)
        and isinstance(one["pair"], str | None)
        and isinstance(one["ids"], list)
        and all(type(i) is int for i in one["ids"])
    )


def check(sentences: list[Sentence], tokenizer: Tokenizer) -> Check:
    """Whether a tokenizer makes of them the ids that stand beside them."""
    name = "golden sentences become their ids"
    for one in sentences:
        ids = tokenizer.encode(one.text, one.pair).ids
        if ids != one.ids:
            return Check(name, False, f"{one.text!r:.60} becomes {ids[:8]} and not {one.ids[:8]}")
    return Check(name, bool(sentences), f"{len(sentences)} texts")
