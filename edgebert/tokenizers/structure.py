"""What tokenizer files may hold, looked at before the library `tokenizers` is given them.

The library trusts them: a normalization table that points outside itself aborts the process, a template without its
token is a panic, a pattern can take years on a short text, and replacements that grow fill the memory.
"""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers

from edgebert.errors import EdgebertError, InputError

# What pipelines of BERT's family are made of, and what is known to be harmless beside.
NORMALIZERS = (
    "BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Prepend", "Replace", "Sequence",
    "Strip", "StripAccents",
)  # fmt: skip
PRE_TOKENIZERS = (
    "BertPreTokenizer", "ByteLevel", "Digits", "Metaspace", "Punctuation", "Sequence", "Whitespace",
    "WhitespaceSplit",
)  # fmt: skip
DECODERS = ("ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Sequence", "WordPiece")
POST_PROCESSORS = ("BertProcessing", "RobertaProcessing", "TemplateProcessing")
MODELS = ("WordPiece", "Unigram", "BPE")

# Patterns that take time in proportion to the text, and the fewest characters that each takes away.
PATTERNS = {" {2,}": 2, r"\s+": 1, r"\s{2,}": 2, r"\s{2,}|[\n\r\t]": 1}

LARGEST = 1 << 20  # pieces, and merges; the largest published vocabulary of the family has 501,153 (LaBSE)
# Bytes of all pieces together: a Unigram's take up to 350 times as much memory in the library, added tokens 120 times.
UNIGRAM_BYTES, ADDED_BYTES = 2_800_000, 1 << 20
LONGEST = 256  # bytes of a piece; characters of a word that WordPiece splits, in the square of them
STEPS = 32  # of a pipeline
BYTES = tuple(sorted(pre_tokenizers.ByteLevel.alphabet()))  # the characters that stand for bytes
EXPANSION = 256  # bytes that a normalization table may put in the place of a character


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Turn what the library raises into InputError: it raises nothing narrower than Exception, and panics beside."""
    try:
        yield
    except EdgebertError:
        raise
    except BaseException as error:
        # A panic of Rust code is no Exception, and its class is made when the first one happens.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what}: {error}") from error


def check_json(raw: Mapping[str, Any]) -> None:
    """Look at a parsed `tokenizer.json`.

    Raises:
        ValueError: it holds what the library had better not be given; the message says what.
    """
    splits = list(_steps(raw.get("pre_tokenizer"), "pretokenizers", PRE_TOKENIZERS))
    _check_model(raw.get("model"), bool(splits) and splits[-1]["type"] == "ByteLevel")
    _check_added(raw.get("added_tokens"))
    for step in _steps(raw.get("normalizer"), "normalizers", NORMALIZERS):
        _check_normalizer(step)
    for step in _steps(raw.get("decoder"), "decoders", DECODERS):
        _check_replace(step)
    for step in _steps(raw.get("post_processor"), "processors", POST_PROCESSORS):
        if step["type"] == "TemplateProcessing":
            _check_template(step)


def _steps(part: Any, inner: str, kinds: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """The steps of a pipeline, those of sequences in their order."""
    if part is None:
        return []
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in kinds:
        raise ValueError(f"it has a step {kind!r:.40} among its {inner}; supported are {', '.join(kinds)}")
    if kind != "Sequence":
        return [part]
    found = [step for each in _list(part.get(inner), inner) for step in _steps(each, inner, kinds)]
    names = [step["type"] for step in found if step["type"] != "Replace"]
    if len(found) > STEPS or len(names) > len(set(names)):
        raise ValueError(f"it has {len(found)} {inner}: up to {STEPS} are taken, of each kind but Replace one")
    return found


def _check_normalizer(step: Mapping[str, Any]) -> None:
    _check_replace(step)
    if step["type"] == "Prepend" and len(_text(step.get("prepend"), "prepend")) > LONGEST:
        raise ValueError("its normalizer prepends a long text")
    if step["type"] == "Precompiled":
        charsmap = _text(step.get("precompiled_charsmap"), "precompiled_charsmap")
        check_charsmap(base64.b64decode(charsmap, validate=True))


def _check_replace(step: Mapping[str, Any]) -> None:
    """A replacement takes a known pattern or a plain text, and never grows."""
    if step["type"] != "Replace":
        return
    pattern, content = step.get("pattern"), _text(step.get("content"), "content")
    kind, text = next(iter(pattern.items())) if isinstance(pattern, dict) and len(pattern) == 1 else ("none", None)
    if kind == "Regex" and text in PATTERNS:
        shortest = PATTERNS[text]
    elif kind == "String" and isinstance(text, str):
        shortest = len(text)
    else:
        raise ValueError(f"it replaces {pattern!r:.80}; texts and the patterns {', '.join(PATTERNS)} are supported")
    if len(content) > shortest:
        raise ValueError(f"it replaces {text!r:.40} by {content!r:.40}, which is longer: texts could grow without end")


def _check_template(step: Mapping[str, Any]) -> None:
    tokens = step.get("special_tokens")
    for part in (*_list(step.get("single"), "single"), *_list(step.get("pair"), "pair")):
        special = part.get("SpecialToken") if isinstance(part, dict) else None
        if special is None:
            continue
        token = _text(_mapping(special).get("id"), "template's token")
        if token not in _mapping(tokens):
            raise ValueError(f"its template has the token {special!r:.80}, which its special_tokens lack")


def _check_model(model: Any, bytewise: bool) -> None:
    """The model, and whether the last step before it makes characters of bytes."""
    kind, vocab = _mapping(model).get("type"), _mapping(model).get("vocab")
    if kind not in (None, *MODELS):  # the first files of BERT's and RoBERTa's do not name it
        raise ValueError(f"it holds a {str(kind).lower():.40} model; supported are {', '.join(MODELS).lower()}")
    if kind == "BPE" or (kind is None and isinstance(model.get("merges"), list)):
        if not bytewise:
            raise ValueError("its bpe model has no ByteLevel before it, which makes characters of bytes")
        check_bpe(model)
    elif isinstance(vocab, dict):
        check_ids(vocab.values())
        for name in ("max_input_chars_per_word", "continuing_subword_prefix"):
            value = model.get(name, 1)
            size = len(value) if isinstance(value, str) else value
            if type(size) is not int or not 0 <= size <= LONGEST:
                raise ValueError(f"its {name} is {value!r:.40}; up to {LONGEST} is supported")
    else:
        pairs = _list(vocab, "vocab")
        for pair in pairs:
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and _number(pair[1])):
                raise ValueError(f"a piece of its vocabulary is {pair!r:.80}; a text and its score belong there")
        check_pieces([text for text, _ in pairs])


def check_bpe(model: Mapping[str, Any]) -> None:
    """Look at a byte-level BPE model: `vocab`, `merges`, and what else its part of a tokenizer.json says.

    Raises:
        ValueError: its pieces cannot be merged, a byte could not be spelled, or it asks for what such a model has not.
    """
    vocab = _mapping(model.get("vocab"))
    check_ids(vocab.values())
    if len(set(vocab.values())) < len(vocab):
        raise ValueError("two pieces of its vocabulary have the same id")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name) not in (None, "", False):
            raise ValueError(f"its {name} is {model[name]!r:.40}; a byte-level model has none")
    if model.get("dropout") not in (None, 0):
        raise ValueError(f"its dropout is {model['dropout']!r:.40}, by which ids are left to chance")
    unknown = model.get("unk_token")
    if unknown is not None:
        _text(unknown, "unk_token")
    lacking = [character for character in BYTES if character not in vocab]
    if lacking and unknown not in vocab:
        raise ValueError(f"its vocabulary lacks {len(lacking)} of the 256 bytes, and has no unk_token for them")
    merges = pairs_of(_list(model.get("merges"), "merges"))
    if len(merges) > LARGEST:
        raise ValueError(f"it has {len(merges):,} merges; up to {LARGEST:,} are taken")
    for first, second in merges:
        absent = next((piece for piece in (first, second, first + second) if piece not in vocab), None)
        if absent is not None:
            raise ValueError(f"{first!r:.40} and {second!r:.40} are merged, and its vocabulary lacks {absent!r:.40}")


def pairs_of(merges: list[Any]) -> list[tuple[str, str]]:
    """Merges as pairs, whether they are written so or, as the lines of a merges.txt, with a space between.

    Raises:
        ValueError: one is no pair of texts, or they are written in both ways.
    """
    lines = bool(merges) and isinstance(merges[0], str)
    found = []
    for merge in merges:
        parts = merge.split(" ") if lines and isinstance(merge, str) else merge
        if lines and isinstance(merge, str) and merge.startswith("#version"):
            continue
        if (
            isinstance(merge, str) != lines
            or not isinstance(parts, list)
            or len(parts) != 2
            or not all(isinstance(part, str) for part in parts)
        ):
            raise ValueError(f"its merge {merge!r:.80} is no pair of texts, or not written as the others")
        found.append((parts[0], parts[1]))
    return found


def check_ids(ids: Iterable[Any]) -> None:
    """Raise ValueError unless these ids are those of a vocabulary of up to LARGEST pieces."""
    for i in ids:
        if type(i) is not int or not 0 <= i < LARGEST:
            raise ValueError(f"a piece has the id {i!r:.40}; ids run from 0 to {LARGEST - 1:,} at most")


def check_pieces(texts: list[str]) -> None:
    """Raise ValueError unless these pieces make a Unigram model of a size that memory holds."""
    sizes = [len(text.encode()) for text in texts]
    longest = max(sizes, default=0)
    if len(sizes) > LARGEST or sum(sizes) > UNIGRAM_BYTES or longest > LONGEST:
        raise ValueError(
            f"it has {len(sizes):,} pieces of {sum(sizes):,} bytes, the longest of {longest:,}; up to {LARGEST:,} of "
            f"{UNIGRAM_BYTES:,} bytes are taken, the longest of {LONGEST}"
        )


def check_added(texts: list[str]) -> None:
    """Raise ValueError unless these added tokens are of a number and length that memory holds."""
    size = sum(len(text.encode()) for text in texts)
    if size > ADDED_BYTES:
        raise ValueError(f"{len(texts):,} added tokens of {size:,} bytes; {ADDED_BYTES:,} are taken")


def _check_added(tokens: Any) -> None:
    listed = [_mapping(token) for token in _list([] if tokens is None else tokens, "added_tokens")]
    check_ids(token.get("id") for token in listed)
    check_added([_text(token.get("content"), "content of an added token") for token in listed])


def check_charsmap(data: bytes) -> None:
    """Refuse a normalization table that would lead the library outside of it, which ends in a panic or an abort.

    The table is a u32 size, a double-array trie of that many bytes (darts-clone), then NUL-terminated replacements.
    A unit holds its label in bits 0-7, has_leaf in bit 8, and the offset to its children; bit 31 marks a leaf, whose
    other bits point into the replacements.

    Raises:
        ValueError: the table is damaged.
    """
    size = int.from_bytes(data[:4], "little")
    if size == 0 or size % 4 or 4 + size >= len(data):
        raise ValueError(f"its normalization table says {size} bytes and has {max(len(data) - 4, 0)}")
    units = np.frombuffer(data, dtype="<u4", count=size // 4, offset=4).astype(np.int64)  # (N,)
    texts = np.frombuffer(data, dtype=np.uint8, offset=4 + size)  # (M,)
    children = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))  # (N,) where each unit's children start
    inner = units < 1 << 31
    if (children[inner] | 255).max(initial=0) >= len(units):
        raise ValueError("its normalization table points outside itself")
    starts = units[children[inner & ((units & 256) > 0)]] & 0x7FFFFFFF  # (L,) places in the replacements
    if starts.max(initial=0) >= len(texts) or (texts[starts[starts > 0] - 1] != 0).any() or texts[-1] != 0:
        raise ValueError("its normalization table points outside its replacements")
    if np.diff(np.flatnonzero(texts == 0), prepend=-1).max() > EXPANSION + 1:
        raise ValueError(f"its normalization table replaces a character by more than {EXPANSION} bytes")
    try:
        bytes(texts).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("its normalization table is not UTF-8") from None


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"its {name} is {value!r:.80}; a list belongs there")
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"it has {value!r:.80} where an object belongs")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its {name} is {value!r:.80}; a text belongs there")
    return value


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
