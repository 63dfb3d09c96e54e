"""From a vocabulary file (tokenizer.json, vocab.txt, a SentencePiece .model) to a `tokenizers` backend.

What happens to text before it meets the vocabulary follows models/bert/tokenization_bert.py and
models/rembert/tokenization_rembert.py of transformers 5.23.
"""

import base64
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from edgebert.errors import InputError

Flags = Mapping[str, bool | None]

FILES = ("tokenizer.json", "vocab.txt", "sentencepiece.model", "spiece.model")  # in the order of preference

# What a tokenizer_config.json can ask for, and what holds where it does not: the defaults of the class's __init__.
FLAGS: Mapping[str, Flags] = {
    "wordpiece": {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True},
    "unigram": {"do_lower_case": False, "keep_accents": True, "add_prefix_space": True},
}

# Whose tokenizers, in transformers, read a vocab.txt or a .model as it is read here; the first is written when saving.
CLASSES = {
    "wordpiece": ("Bert", "SqueezeBert", "ConvBert", "DistilBert", "Electra", "MobileBert"),
    "unigram": ("RemBert",),
}
ANY_CLASS = "PreTrained"  # PreTrainedTokenizerFast takes a tokenizer.json as it is

UNSEEN = "\U0010fffe"  # a noncharacter: in no vocabulary, so what a model makes of it is its unknown token

# Of the .proto file: field numbers of ModelProto, of its pieces, of TrainerSpec and NormalizerSpec; types of pieces.
PIECES, TRAINER, NORMALIZER = 1, 2, 3
PIECE, SCORE, TYPE = 1, 2, 3
MODEL_TYPE = 3
CHARSMAP = 2
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
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


def find(path: Path) -> Path:
    """The file to read: `path` itself, or the first of FILES in it."""
    if path.is_file() and path.suffix in {".json", ".txt", ".model"}:
        return path
    if not path.is_dir():
        raise InputError(f"{path} is no tokenizer: give a folder that has one, or its {', '.join(FILES)}")
    others = sorted(path.glob("*.model"))
    found = [path / name for name in FILES if (path / name).is_file()] or others
    if not found or (len(others) > 1 and found is others):
        names = ", ".join(file.name for file in others) or "none of them"
        raise InputError(f"{path} has no tokenizer: looked for {', '.join(FILES)} or a single *.model, found {names}")
    return found[0]


def build(file: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, list[str]]:
    """Makes the backend that `file` and the config beside it describe, special tokens not yet added.

    Returns:
        the backend, and the pieces that a .model keeps whole: its control and user-defined symbols.
    """
    if file.suffix == ".json":
        return _from_json(file, config), []
    if file.suffix == ".txt":
        return _from_vocab(file, config), []
    model = read(file)
    return _from_unigram(file, model, config), model.symbols


def kind_of(backend: Tokenizer) -> str:
    """Names the model: "wordpiece" or "unigram", or another kind that is not supported."""
    return type(backend.model).__name__.lower()


def class_of(backend: Tokenizer, unk_id: int) -> tuple[str, Flags]:
    """The class of transformers that makes the same ids of a tokenizer.json, and the flags it needs.

    Its own classes build the pipeline anew from the flags, and the model from its vocabulary alone.
    """
    model, kind, found = backend.model, kind_of(backend), _flags_of(backend)
    if isinstance(model, models.WordPiece):
        usual = model.continuing_subword_prefix == "##" and model.max_input_chars_per_word == 100
    else:
        usual = unk_id == 2  # which RemBertTokenizer takes for granted
    if found is None or not usual:
        return f"{ANY_CLASS}TokenizerFast", {}
    return f"{CLASSES[kind][0]}Tokenizer", found[0]


def template(backend: Tokenizer, cls_id: int, sep_id: int) -> processors.TemplateProcessing:
    """[CLS] A [SEP] of one text and [CLS] A [SEP] B [SEP] of two, with the token type after each colon."""
    cls, sep = backend.id_to_token(cls_id), backend.id_to_token(sep_id)
    return processors.TemplateProcessing(
        single=[f"{cls}:0", "$A:0", f"{sep}:0"],
        pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
        special_tokens=[(cls, cls_id), (sep, sep_id)],
    )


def unknown_token(file: Path, backend: Tokenizer) -> str:
    """What the model makes of text that it cannot spell."""
    try:
        tokens = backend.model.tokenize(UNSEEN)
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{file} is not usable: {error}; copy it again") from error
    if len(tokens) != 1:
        raise InputError(f"{file} spells unknown text as {len(tokens)} tokens; one unknown token is supported")
    return str(backend.id_to_token(tokens[0].id))  # Unigram's own value for it is the text as it came


def vocab_txt(vocab: Mapping[str, int]) -> bytes:
    """A WordPiece vocabulary as the file that `build` reads: one token a line, whose number is the id."""
    tokens = sorted(vocab, key=vocab.__getitem__)
    for i, token in enumerate(tokens):
        if vocab[token] != i or token != token.rstrip() or "\n" in token:
            raise InputError(f"the token {token!r} with id {vocab[token]} has no place in a vocab.txt; use save()")
    return "".join(f"{token}\n" for token in tokens).encode()


def _pipeline(kind: str, flags: Flags, charsmap: bytes) -> tuple[Normalizer, PreTokenizer]:
    """What happens to text before the model sees it."""
    if kind == "wordpiece":
        return normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=bool(flags["tokenize_chinese_chars"]),
            strip_accents=flags["strip_accents"],
            lowercase=bool(flags["do_lower_case"]),
        ), pre_tokenizers.BertPreTokenizer()
    steps: list[Normalizer] = [normalizers.Replace(quote, '"') for quote in ("``", "''")]
    steps += [normalizers.Replace(Regex(" {2,}"), " ")]
    if not flags["keep_accents"]:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if flags["do_lower_case"]:
        steps += [normalizers.Lowercase()]
    if charsmap:
        steps += [normalizers.Precompiled(charsmap)]
    scheme = "always" if flags["add_prefix_space"] else "never"
    return normalizers.Sequence(steps), pre_tokenizers.Metaspace("▁", scheme)


def _flags_of(backend: Tokenizer) -> tuple[Flags, bytes] | None:
    """The flags and the charsmap that `_pipeline` makes this backend's pipeline from; None where it cannot."""
    if backend.normalizer is None or backend.pre_tokenizer is None:
        return None
    states = backend.normalizer.__getstate__(), backend.pre_tokenizer.__getstate__()
    normalizer, pre_tokenizer = (json.loads(state) for state in states)
    flags: dict[str, bool | None] = {}
    charsmap = b""
    if kind_of(backend) == "wordpiece":
        theirs = {"do_lower_case": "lowercase", "tokenize_chinese_chars": "handle_chinese_chars"}
        flags = {name: normalizer.get(theirs.get(name, name)) for name in FLAGS["wordpiece"]}
    else:
        steps = {step["type"]: step for step in normalizer.get("normalizers", [])}
        flags["do_lower_case"], flags["keep_accents"] = "Lowercase" in steps, "StripAccents" not in steps
        flags["add_prefix_space"] = pre_tokenizer.get("prepend_scheme") == "always"
        charsmap = base64.b64decode(steps.get("Precompiled", {}).get("precompiled_charsmap", ""))
    rebuilt = _pipeline(kind_of(backend), flags, charsmap)
    return (flags, charsmap) if states == tuple(part.__getstate__() for part in rebuilt) else None


def _stated(kind: str, config: Mapping[str, Any]) -> Flags:
    """The flags that the config states."""
    flags = {name: config[name] for name in FLAGS[kind] if name in config}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InputError(f"tokenizer_config.json: {name} is {value!r}; true or false belongs there")
    return flags


def _class(config: Mapping[str, Any]) -> str:
    """Whose tokenizer the config names, in the words of CLASSES; "" when it names none."""
    name = str(config.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer")
    return ANY_CLASS if name == "TokenizersBackend" else name


def _flags(file: Path, kind: str, config: Mapping[str, Any]) -> Flags:
    """All flags of a vocabulary file, which says nothing of them itself."""
    if _class(config) not in {"", ANY_CLASS, *CLASSES[kind]}:
        raise InputError(
            f"{file} is for {config['tokenizer_class']}, and is read here as for {', '.join(CLASSES[kind])}: "
            "have transformers save it as a tokenizer.json"
        )
    return {**FLAGS[kind], **_stated(kind, config)}


def _from_json(file: Path, config: Mapping[str, Any]) -> Tokenizer:
    try:
        backend = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{file} is no usable tokenizer.json: {error}; copy it again") from error
    if (kind := kind_of(backend)) not in CLASSES:
        raise InputError(f"{file} holds a {kind} model; supported are {' and '.join(CLASSES)}")
    backend.no_truncation()
    backend.no_padding()
    found, named = _flags_of(backend), _class(config)
    if found is not None and named != ANY_CLASS:
        # Where both speak, the classes of transformers follow the config and not the tokenizer.json.
        flags = {**(FLAGS[kind] if named in CLASSES[kind] else found[0]), **_stated(kind, config)}
        backend.normalizer, backend.pre_tokenizer = _pipeline(kind, flags, found[1])
    return backend


def _from_vocab(file: Path, config: Mapping[str, Any]) -> Tokenizer:
    flags = _flags(file, "wordpiece", config)
    try:
        vocab = models.WordPiece.read_file(str(file))
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{file} is no vocabulary, one token a line in UTF-8: {error}; copy it again") from error
    unk = str(config.get("unk_token", "[UNK]"))
    if unk not in vocab:
        raise InputError(f"{file} has no {unk}, which stands for what it cannot spell: is it a BERT vocabulary?")
    backend = Tokenizer(models.WordPiece(vocab, unk_token=unk))
    backend.normalizer, backend.pre_tokenizer = _pipeline("wordpiece", flags, b"")
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def _from_unigram(file: Path, model: UnigramModel, config: Mapping[str, Any]) -> Tokenizer:
    flags = _flags(file, "unigram", config)
    backend = Tokenizer(models.Unigram(model.pieces, unk_id=model.unk_id, byte_fallback=False))
    backend.normalizer, backend.pre_tokenizer = _pipeline("unigram", flags, model.charsmap)
    backend.decoder = decoders.Metaspace("▁", "always" if flags["add_prefix_space"] else "never")
    return backend


class _Damaged(Exception):
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
        return _model(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a SentencePiece .model file") from error
    except _Damaged as damage:
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
        elif field == TRAINER:
            model_type = _int(dict(_fields(_bytes(value))).get(MODEL_TYPE, model_type))
        elif field == NORMALIZER:
            charsmap = _bytes(dict(_fields(_bytes(value))).get(CHARSMAP, charsmap))
    if model_type != 1:
        raise _Damaged(f"its model type is {MODEL_TYPES.get(model_type, model_type)}, and RemBERT's is Unigram")
    _check_pieces([text for text, _ in pieces], types)
    if charsmap:
        _check_charsmap(charsmap)
    symbols = [text for (text, _), kind in zip(pieces, types, strict=True) if kind in (CONTROL, USER_DEFINED)]
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


def _check_charsmap(data: bytes) -> None:
    """Refuses a normalization table that would lead the Rust code outside of it, which ends in a panic.

    The table is a u32 size, a double-array trie of that many bytes (darts-clone), then NUL-terminated replacements.
    A unit holds its label in bits 0-7, has_leaf in bit 8, and the offset to its children; bit 31 marks a leaf, whose
    other bits point into the replacements.
    """
    size = int.from_bytes(data[:4], "little")
    if size == 0 or size % 4 or 4 + size >= len(data):
        raise _Damaged(f"its normalization table says {size} bytes and has {max(len(data) - 4, 0)}")
    units = np.frombuffer(data, dtype="<u4", count=size // 4, offset=4).astype(np.int64)  # (N,)
    texts = np.frombuffer(data, dtype=np.uint8, offset=4 + size)  # (M,)
    children = np.arange(len(units)) ^ ((units >> 10) << ((units & 512) >> 6))  # (N,) where each unit's children start
    inner = units < 1 << 31
    if (children[inner] | 255).max(initial=0) >= len(units):
        raise _Damaged("its normalization table points outside itself")
    starts = units[children[inner & ((units & 256) > 0)]] & 0x7FFFFFFF  # (L,) places in the replacements
    if starts.max(initial=0) >= len(texts) or (texts[starts[starts > 0] - 1] != 0).any() or texts[-1] != 0:
        raise _Damaged("its normalization table points outside its replacements")
    try:
        bytes(texts).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Damaged("its normalization table is not UTF-8") from error


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
