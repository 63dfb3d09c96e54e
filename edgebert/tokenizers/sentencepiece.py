"""A SentencePiece `.model` file, read without the sentencepiece package: the few fields that a Unigram needs."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgebert import files
from edgebert.errors import InputError
from edgebert.tokenizers import structure

# Of the .proto file: field numbers of ModelProto, of its pieces, of TrainerSpec and NormalizerSpec; types of pieces.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE, SCORE, TYPE = 1, 2, 3
MODEL_TYPE = 3
CHARSMAP = 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
LARGEST = 8 << 20  # bytes of a file; RemBERT's has 5 million
MODEL_TYPES = {1: "Unigram", 2: "BPE", 3: "Word", 4: "Char"}


@dataclass(frozen=True, slots=True)
class UnigramModel:
    """What a .model file says.

    Attributes:
        pieces: (V,) pairs of text and log probability; a piece's id is its place.
        unk_id: the one piece of type UNKNOWN.
        symbols: pieces that the text is never split inside of: control and user-defined ones.
        charsmap: the compiled normalization table, empty when the model normalizes nothing.
    """

    pieces: list[tuple[str, float]]
    unk_id: int
    symbols: list[str]
    charsmap: bytes


class _Damaged(ValueError):
    """The bytes are not this message; becomes an InputError that names the file."""


def read(path: Path) -> UnigramModel:
    """Reads `path`, a SentencePiece model of type Unigram, without the sentencepiece package.

    A .model file is one protobuf message: https://protobuf.dev/programming-guides/encoding. Field numbers and defaults
    are those of https://github.com/google/sentencepiece/blob/v0.2.0/src/sentencepiece_model.proto. byte_fallback,
    add_dummy_prefix, remove_extra_whitespaces and escape_whitespaces are left unread, as transformers leaves them when
    it converts a RemBERT model. Every length is checked against the bytes that are there.

    Raises:
        InputError: the file is damaged, is no SentencePiece model, or holds another kind of model.
    """
    try:
        return _model(files.read(path, LARGEST))
    except ValueError as damage:
        raise InputError(f"{path} is not a usable SentencePiece Unigram model: {damage}; copy it again") from damage


def _model(data: bytes) -> UnigramModel:
    pieces: list[tuple[str, float]] = []
    types: list[int] = []
    model_type, charsmap = 1, b""  # the defaults of the .proto file
    for field, value in _fields(data):
        if field == PIECES:
            text, score, kind = _piece(_bytes(value))
            pieces.append((text, score))
            types.append(kind)
            if len(pieces) > structure.LARGEST:
                raise _Damaged(f"it has more than {structure.LARGEST:,} pieces")
        elif field == TRAINER:
            model_type = _int(dict(_fields(_bytes(value))).get(MODEL_TYPE, model_type))
        elif field == NORMALIZER:
            charsmap = _bytes(dict(_fields(_bytes(value))).get(CHARSMAP, charsmap))
    if model_type != 1:
        raise _Damaged(f"its model type is {MODEL_TYPES.get(model_type, model_type)}, and RemBERT's is Unigram")
    _check_pieces([text for text, _ in pieces], types)
    structure.check_pieces([text for text, _ in pieces])
    if charsmap:
        structure.check_charsmap(charsmap)
    symbols = [text for (text, _), kind in zip(pieces, types, strict=True) if kind in (CONTROL, USER_DEFINED)]
    structure.check_added(symbols)
    return UnigramModel(pieces, types.index(UNKNOWN), symbols, charsmap)


def _piece(data: bytes) -> tuple[str, float, int]:
    fields = dict(_fields(data))  # of a field that comes twice the last one counts, as in protobuf
    kind = _int(fields.get(TYPE, NORMAL))
    try:
        text = _bytes(fields.get(PIECE, b"")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Damaged(f"the piece {fields[PIECE]!r} is not UTF-8") from error
    score = fields.get(SCORE, 0.0)
    if not isinstance(score, float) or not math.isfinite(score):
        raise _Damaged(f"the piece {text!r} has the score {score!r}")
    return text, score, kind


def _check_pieces(texts: list[str], types: list[int]) -> None:
    """Refuses what sentencepiece itself refuses to load (ModelInterface::InitializePieces)."""
    if not texts:
        raise _Damaged("it holds no pieces")
    if "" in texts:
        raise _Damaged(f"piece {texts.index('')} is empty")
    if len(set(texts)) != len(texts):
        raise _Damaged("it holds the same piece twice")
    if types.count(UNKNOWN) != 1:
        raise _Damaged(f"it holds {types.count(UNKNOWN)} unknown pieces where one is needed")


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Walks one protobuf message.

    Yields:
        (field number, value): an int for a varint, a float for 4 bytes, bytes for what has a length. 8 byte values
        are stepped over: no field that is wanted here has one.
    """
    at = 0
    while at < len(data):
        start = at
        key, at = (data[at], at + 1) if data[at] < 128 else _varint(data, at)  # nearly every key is one byte
        wire = key & 7
        value: int | float | bytes
        if wire == 0:
            value, at = _varint(data, at)
        elif wire in (1, 2, 5):
            length, at = _varint(data, at) if wire == 2 else (8 if wire == 1 else 4, at)
            value = data[at : at + length]
            if len(value) < length:
                raise _Damaged(f"a field at byte {start} says {length} bytes and {len(value)} are left")
            at += length
            if wire == 5:
                (value,) = struct.unpack("<f", value)
        else:
            raise _Damaged(f"wire type {wire} at byte {start} is not one that SentencePiece writes")
        if wire != 1:
            yield key >> 3, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Reads a base-128 number: seven bits a byte, low ones first, at most ten bytes."""
    number = 0
    for place in range(at, min(at + 10, len(data))):
        number |= (data[place] & 127) << 7 * (place - at)
        if data[place] < 128:
            return number, place + 1
    raise _Damaged(f"the number at byte {at} does not end")


def _bytes(value: int | float | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    raise _Damaged("a field has a number where a message or a text belongs")


def _int(value: int | float | bytes) -> int:
    if isinstance(value, int):
        return value
    raise _Damaged("a field has another type than the number that belongs there")
