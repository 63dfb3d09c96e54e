"""What the Rust library `tokenizers` knows of each code point, observed and packed for the tokenizer of android_demo.

Phones differ in their Unicode tables, and all of them from the library's, which itself has four of different age. So
nothing is asked of the platform: each of the library's normalizers and pre-tokenizers is given every code point, and
what it did is written down. The library decides; the Unicode standard is not looked at.

    python tools/unicode_tables.py            # writes android_demo/edgebert/src/main/resources/.../unicode.bin

The file, all numbers as LEB128: the distinct sets of attributes; runs (how many code points, which set) from U+0000 on;
lower case, canonical and compatibility decompositions (code point as a difference to the one before, how many, which);
pairs that compose (first as a difference, second, composed).
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cmp_to_key
from itertools import groupby
from pathlib import Path

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

OUT = Path(__file__).parents[1] / "android_demo/edgebert/src/main/resources/dev/edgebert/tokenizer/unicode.bin"

LAST = 0x10FFFF
CODES = [c for c in range(LAST + 1) if not 0xD800 <= c < 0xE000]
CHUNK = 4096
HANGUL = range(0xAC00, 0xAC00 + 11172)  # decomposed and composed by rule

# Places of the attributes in their set; Unicode.kt names the same.
CLEAN, NMT = 0, 2  # of two bits: 0 is kept, 1 goes, 2 becomes a space
CHINESE, WHITE, WORD, PUNCTUATION, NUMERIC, NONSPACING, COMBINING = range(4, 11)
LOWER, CANONICAL, COMPATIBLE = 11, 12, 13  # there is a mapping
CLASS = 14  # of six bits: the rank of the canonical combining class, 0 for starters
GRAPHEME = 20  # of four bits: a place in GRAPHEMES
LINKER, CONJUNCT_EXTEND = 24, 25
LETTER, NUMBER = 26, 27  # \p{L} and \p{N} of the library's regular expressions, which Digits does not go by

# Classes of grapheme cluster breaks; of regional indicators the library's charsmap shows nothing, and they are "other".
GRAPHEMES = (
    "other", "cr", "lf", "control", "l", "v", "t", "lv", "lvt", "extend", "zwj", "spacing", "prepend", "consonant",
    "pictographic",
)  # fmt: skip

ACUTE, CIRCUMFLEX, ZWJ, COPYRIGHT = "\u0301", "\u0302", "\u200d", "\u00a9"
JAMO_L, JAMO_V, JAMO_T = "\u1100", "\u1161", "\u11a8"
KA, VIRAMA = "\u0915", "\u094d"


def chunks() -> Iterator[list[int]]:
    """All code points, some at a time."""
    for start in range(0, len(CODES), CHUNK):
        yield CODES[start : start + CHUNK]


def mapped(normalizer: Normalizer, around: tuple[str, str] = ("", ""), between: str = "|") -> dict[int, str]:
    """What a normalizer makes of each code point, between two texts where they are given.

    `between` parts one from the next: it must be a starter that nothing changes, drops or joins.
    """
    before, after = around
    found = {}
    for codes in chunks():
        asked = [c for c in codes if chr(c) != between]
        text = normalizer.normalize_str(between.join(before + chr(c) + after for c in asked))
        found |= dict(zip(asked, text.split(between), strict=True))
    return {ord(between): normalizer.normalize_str(before + between + after), **found}


def pieces(pre_tokenizer: PreTokenizer) -> Iterator[tuple[int, bool, bool]]:
    """For each code point after an "a": whether it is kept, and whether it is a piece of its own."""
    for codes in chunks():
        spans = [span for _, span in pre_tokenizer.pre_tokenize_str("".join("a" + chr(c) for c in codes) + "a")]
        covered, alone = set(), set()
        for start, end in spans:
            covered |= set(range(start, end))
            alone |= {start} if end == start + 1 else set()
        yield from ((c, 2 * i + 1 in covered, 2 * i + 1 in alone) for i, c in enumerate(codes))


def charsmap(keys: Iterable[bytes], anything: bytes | None = None) -> Normalizer:
    """SentencePiece's normalizer with a table that puts "Q" in the place of each key.

    With `anything` of three-byte characters, each character that starts with such a byte is a key too.
    """
    units = [0] * 256

    def block() -> int:
        units.extend([0] * 256)
        return len(units) - 256

    def link(at: int, label: int, base: int, leaf: bool) -> None:
        units[at] = label | leaf << 8 | (at ^ base) << 10

    end = block()
    units[end] = 1 << 31
    root = block()
    link(0, 0, root, False)
    if anything:
        second, third = block(), block()
        for byte in anything:
            link(root + byte, byte, second, False)
        for byte in range(0x80, 0xC0):
            link(second + byte, byte, third, False)
            link(third + byte, byte, end, True)
    for key in keys:
        base = root
        for byte in key[:-1]:
            at = base + byte
            if not units[at]:
                link(at, byte, block(), False)
            base = at ^ (units[at] >> 10)
        link(base + key[-1], key[-1], end, True)
    table = b"".join(unit.to_bytes(4, "little") for unit in units)
    return normalizers.Precompiled(len(table).to_bytes(4, "little") + table + b"Q\0")


def graphemes() -> tuple[dict[int, str], set[int], set[int]]:
    """The class of each code point in grapheme clusters; those that link conjuncts; those that conjuncts may hold.

    The library shows where clusters end by what it looks up: a cluster of under six bytes is looked up whole, by its
    beginning, and the rest of it is lost then.
    """
    to_q = {text: charsmap([text.encode()]) for text in ("a", ACUTE, COPYRIGHT, JAMO_L, JAMO_V, JAMO_T)}
    three = charsmap([], bytes(range(0xE0, 0xF0)))

    def seen(table: Normalizer, before: str, after: str) -> dict[int, str]:
        return mapped(table, (before, after), between="\n")

    def joined(table: Normalizer, before: str, after: str, end: str = ACUTE) -> set[int]:
        return {c for c, text in seen(table, before, after).items() if text.endswith(end)}

    attached = {c for c, text in seen(to_q["a"], "a", "").items() if text == "Q"}
    controls = {c for c, text in seen(to_q[ACUTE], "", ACUTE + CIRCUMFLEX).items() if not text.endswith(CIRCUMFLEX)}
    prepended = joined(to_q["a"], "", "a" + ACUTE)
    extending = attached & joined(to_q[COPYRIGHT], COPYRIGHT, ZWJ + COPYRIGHT + ACUTE)
    joiners = attached & joined(to_q[COPYRIGHT], COPYRIGHT, COPYRIGHT + ACUTE)
    pictures = joined(to_q[COPYRIGHT], "", ZWJ + COPYRIGHT + ACUTE) - attached - prepended
    before_l, before_v, before_t = (
        joined(to_q[jamo], "", jamo + ACUTE) - prepended for jamo in (JAMO_L, JAMO_V, JAMO_T)
    )
    after_v = joined(three, JAMO_V, ACUTE)
    consonants = joined(three, "", VIRAMA + KA + ACUTE) - attached - prepended
    linkers = attached & joined(three, KA, KA + ACUTE)
    inside = (attached & joined(three, KA + VIRAMA, KA + ACUTE)) - linkers

    def name(c: int) -> str:
        if c in (0x0D, 0x0A):
            return "cr" if c == 0x0D else "lf"
        if c in controls:
            return "control"
        if c in attached:
            return "zwj" if c in joiners else "extend" if c in extending else "spacing"
        if c in prepended:
            return "prepend"
        if c in before_l:
            return "l"
        if c in before_v:
            return "v" if c in after_v else "lv"
        if c in before_t:
            return "t" if c in after_v else "lvt"
        return "consonant" if c in consonants else "pictographic" if c in pictures else "other"

    return {c: name(c) for c in CODES}, linkers, inside


def combining_classes(nfd: Normalizer, decomposed: dict[int, str]) -> dict[int, int]:
    """The rank of the canonical combining class of each code point that has one, by the order they come out in."""
    low, high = "\u0334", "\u0345"  # of the lowest and the highest class
    kept = [c for c in CODES if decomposed[c] == chr(c)]
    above = mapped(nfd, ("", low))
    below = mapped(nfd, (high, ""))
    marks = [chr(c) for c in kept if above[c] == low + chr(c) or below[c] == chr(c) + high]

    def order(a: str, b: str) -> int:
        if nfd.normalize_str(a + b) == b + a and a != b:
            return 1
        return -1 if nfd.normalize_str(b + a) == a + b and a != b else 0

    marks.sort(key=cmp_to_key(order))
    ranks, rank, last = {}, 0, ""
    for mark in marks:
        rank += not last or order(last, mark) != 0
        ranks[ord(mark)], last = rank, mark
    assert rank < 64, "more classes than six bits hold"
    return ranks


def compositions(composed: dict[int, str], decomposed: dict[int, str], nfc: Normalizer) -> list[tuple[int, int, int]]:
    """(first, second, what they compose to), Hangul left out."""
    found = []
    for c in CODES:
        parts = decomposed[c]
        if c in HANGUL or len(parts) < 2 or composed[c] != chr(c):
            continue
        first, second = nfc.normalize_str(parts[:-1]), parts[-1]
        assert nfc.normalize_str(first + second) == chr(c), f"U+{c:04X} composes otherwise"
        found.append((ord(first), ord(second), c))
    return sorted(found)


def attributes() -> tuple[list[int], list[dict[int, str]], list[tuple[int, int, int]]]:
    """The set of each code point as one number, the three mappings, and the pairs that compose."""
    sets = [0] * (LAST + 1)

    def mark(place: int, codes: Iterable[int]) -> None:
        for c in codes:
            sets[c] |= 1 << place

    def bert(**on: bool) -> Normalizer:
        off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
        return normalizers.BertNormalizer(**{**off, **on})

    def dropped(normalizer: Normalizer) -> list[int]:
        return [c for c, text in mapped(normalizer).items() if not text]

    for place, normalizer in ((CLEAN, bert(clean_text=True)), (NMT, normalizers.Nmt())):
        for c, text in mapped(normalizer).items():
            assert text in ("", " ", chr(c)), f"U+{c:04X} becomes {text!r}"
            sets[c] |= (1 if not text else 2 if text == " " != chr(c) else 0) << place
    mark(CHINESE, (c for c, text in mapped(bert(handle_chinese_chars=True)).items() if text != chr(c)))
    splits = list(pieces(pre_tokenizers.Whitespace()))
    white = {c for c, kept, _ in splits if not kept}
    assert white == {c for c, kept, _ in pieces(pre_tokenizers.WhitespaceSplit()) if not kept}
    assert white == set(dropped(normalizers.Replace(Regex(r"\s+"), "")))
    mark(WHITE, white)
    mark(WORD, (c for c, kept, alone in splits if kept and not alone))
    signs = {c for c, kept, _ in pieces(pre_tokenizers.Punctuation("removed")) if not kept}
    assert signs == {c for c, kept, alone in pieces(pre_tokenizers.BertPreTokenizer()) if kept and alone}
    mark(PUNCTUATION, signs)
    mark(NUMERIC, (c for c, _, alone in pieces(pre_tokenizers.Digits(individual_digits=True)) if alone))
    letters, numbers = (set(dropped(normalizers.Replace(Regex(kind), ""))) for kind in (r"\p{L}+", r"\p{N}+"))
    # ByteLevel, whose pattern is its own, parts from an "a" what is no letter; a space it puts before the next "a".
    parted = {c for c, _, alone in pieces(pre_tokenizers.ByteLevel(add_prefix_space=False)) if alone}
    assert letters | parted | {ord(" ")} == set(CODES), "letters are not ByteLevel's"
    assert not letters & (parted | numbers)
    mark(LETTER, letters)
    mark(NUMBER, numbers)
    mark(NONSPACING, dropped(bert(strip_accents=True)))
    mark(COMBINING, dropped(normalizers.StripAccents()))

    nfd, nfc, nfkd = normalizers.NFD(), normalizers.NFC(), normalizers.NFKD()
    canonical, compatible, composed = mapped(nfd), mapped(nfkd, between="\n"), mapped(nfc)
    lower = mapped(normalizers.Lowercase())
    assert lower == mapped(bert(lowercase=True))
    changed = [
        {c: text for c, text in sorted(lower.items()) if text != chr(c)},
        {c: text for c, text in sorted(canonical.items()) if text != chr(c) and c not in HANGUL},
        {c: text for c, text in sorted(compatible.items()) if text != canonical[c]},
    ]
    for place, mapping in zip((LOWER, CANONICAL, COMPATIBLE), changed, strict=True):
        mark(place, mapping)
    for c, rank in combining_classes(nfd, canonical).items():
        sets[c] |= rank << CLASS
    names, linkers, inside = graphemes()
    for c, name in names.items():
        sets[c] |= GRAPHEMES.index(name) << GRAPHEME
    mark(LINKER, linkers)
    mark(CONJUNCT_EXTEND, inside)
    return sets, changed, compositions(composed, canonical, nfc)


def number(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, the top bit where more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def packed() -> bytes:
    """The file."""
    sets, mappings, pairs = attributes()
    distinct = sorted(set(sets))
    place = {value: i for i, value in enumerate(distinct)}
    out = [number(len(distinct)), *map(number, distinct)]
    for value, run in groupby(sets):
        out += [number(len(list(run))), number(place[value])]
    for mapping in mappings:
        out.append(number(len(mapping)))
        last = 0
        for c, text in mapping.items():
            out += [number(c - last), number(len(text)), *(number(ord(to)) for to in text)]
            last = c
    out.append(number(len(pairs)))
    last = 0
    for first, second, whole in pairs:
        out += [number(first - last), number(second), number(whole)]
        last = first
    return b"".join(out)


def main(write: Callable[[bytes], object] = OUT.write_bytes) -> None:
    """Writes the file."""
    content = packed()
    write(content)
    print(f"{OUT.name}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
