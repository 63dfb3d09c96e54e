"""Text to ids, through `tokenizers`: WordPiece, SentencePiece Unigram and byte-level BPE.

The ids are those of transformers 5.23 (models/bert/tokenization_bert.py, models/rembert/tokenization_rembert.py,
and so on) on any text. Its RemBertTokenizer has two slips when it starts from a bare .model file, and they are not
followed: it leaves [CLS] and [SEP] out, and it takes piece 2 for the unknown one whatever the file says.

Shapes: B texts, T tokens, V vocabulary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import AddedToken

from edgebert.errors import InputError
from edgebert.files import is_file, read, read_json
from edgebert.tokenizers import structure, vocabulary

# The special tokens, and the names they go by when no config names them; the unknown one is asked of the model.
ROLES = {
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
NAMED = ("bos_token", "eos_token", "unk_token", *ROLES)

# What a config can ask for and would not get: refused, because the ids would silently be others.
FIXED = {"truncation_side": "right", "padding_side": "right", "split_special_tokens": False}

T = TypeVar("T")
NO_LIMIT = 2**31  # ids come as int32; transformers writes 1e30 where it knows no model_max_length


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text, or pair of texts, as ids: every list has T entries.

    Attributes:
        ids: places in the vocabulary.
        attention_mask: 1 everywhere; `Tokenizer.batch` is what pads.
        token_type_ids: 0 up to and with the first [SEP], 1 after it.
        offsets: (start, end) of each token in its own text, in characters; (0, 0) for [CLS] and [SEP].
        special_tokens_mask: 1 for the [CLS] and [SEP] that encoding added, 0 for tokens of the text.
        tokens: the tokens as text.
        words: for each token the number of its word in its own text, by the splitting at spaces and signs that comes
            before the vocabulary; -1 for [CLS] and [SEP].
        sequences: for each token the number of its text, 0 or 1; -1 for [CLS] and [SEP].
    """

    ids: list[int]
    attention_mask: list[int]
    token_type_ids: list[int]
    offsets: list[tuple[int, int]]
    special_tokens_mask: list[int]
    tokens: list[str]
    words: list[int]
    sequences: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """A `tokenizers.Tokenizer` that nothing is ever set on, so that threads can share it; made by `load`.

    Attributes:
        backend: no truncation, no padding; adds [CLS] A [SEP], or [CLS] A [SEP] B [SEP].
        ids: the id of each special token, by its role ("cls_token").
        vocab_size: V, every id is below it. Tokens added on top of the vocabulary count: transformers' len(tokenizer).
        max_length: the most tokens that the model takes, None when its config does not say.
        vocabulary: the vocab.txt or .model that it was read from, as bytes; None when from another file.
        doubled: whether two [SEP] stand between the texts of a pair, as RoBERTa and XLM-R have it.
        typed: whether the second text of a pair is of type 1; else all tokens are of type 0, again as those have it.
    """

    backend: tokenizers.Tokenizer
    ids: Mapping[str, int]
    vocab_size: int
    max_length: int | None = None
    vocabulary: bytes | None = None
    doubled: bool = False
    typed: bool = True

    @property
    def kind(self) -> str:
        """Which model splits the words: "wordpiece", "unigram" or "bpe"."""
        return vocabulary.kind_of(self.backend)

    @property
    def pad_id(self) -> int:
        """The id that fills the end of a row."""
        return self.ids["pad_token"]

    @property
    def cls_id(self) -> int:
        """The id that starts a sequence."""
        return self.ids["cls_token"]

    @property
    def sep_id(self) -> int:
        """The id that ends each text."""
        return self.ids["sep_token"]

    @property
    def unk_id(self) -> int:
        """The id of what the vocabulary cannot spell; -1 where it spells every byte and names no token for that."""
        return self.ids.get("unk_token", -1)

    @property
    def mask_id(self) -> int:
        """The id to be guessed in masked language modelling."""
        return self.ids["mask_token"]

    @property
    def mask(self) -> str:
        """How a text spells a place that is to be guessed."""
        return str(self.backend.id_to_token(self.mask_id))

    def encode(self, text: str, pair: str | None = None, max_length: int | None = None) -> Encoding:
        """Turns one text, or a pair, into ids.

        Args:
            text: any text, also an empty one.
            pair: the second text; "" is one too, where transformers called with a single pair takes it for none.
            max_length: cut to this many tokens, the longer text first; None cuts nothing.

        Raises:
            InputError: a text is no str or has lone surrogates; max_length leaves no room for [CLS] and [SEP].
        """
        self._check_room(max_length, 1 if pair is None else 2)
        return self._join(self._split(text, pair), max_length)

    def windows(self, text: str, pair: str, max_length: int, stride: int) -> list[Encoding]:
        """A text whole and a longer one in windows, as transformers' `truncation="only_second"` makes them.

        Args:
            text: stands first in each window and is not cut.
            pair: one window holds all of it where it fits.
            max_length: tokens of a window at most.
            stride: tokens of `pair` that a window shares with the next; half of them where `text` leaves no more.

        Raises:
            InputError: as `encode`, and where `text` leaves no room for a token of `pair`.
        """
        first, second = self._split(text, pair)
        room = max_length - len(first) - self.specials(2)
        if room < 1:
            raise InputError(
                f"the first text has {len(first)} tokens, which leaves no room for another in {max_length}: shorten it."
            )
        step = room - (stride if stride < room else room // 2)
        starts = range(0, max(len(second) - room, 0) + step, step)
        return [self._framed([first, second], [(0, len(first)), (start, start + room)]) for start in starts]

    def _split(self, *texts: str | None) -> list[tokenizers.Encoding]:
        """Texts as pieces, without special tokens."""
        given = [_checked(part) for part in texts if part is not None]
        with structure.contained("the tokenizer cannot split this text"):
            return [self.backend.encode(part, add_special_tokens=False) for part in given]

    def batch(
        self, texts: Sequence[str | tuple[str, str]], length: int | None = None, max_length: int | None = None
    ) -> dict[str, npt.NDArray[np.int32]]:
        """Turns texts and pairs into the arrays that a model takes.

        Args:
            texts: B texts or pairs of texts.
            length: T, to which each row is cut or padded on the right; None pads to the longest row.
            max_length: cut each row to this many tokens, as in `encode`.

        Returns:
            input_ids, attention_mask and token_type_ids, each (B, T) int32. Padding is pad_id, 0 and 0.
        """
        if isinstance(texts, str):
            raise InputError("batch got one str; it takes a list of texts or (text, text) pairs: pass [text]")
        rows = [(item,) if isinstance(item, str) else _checked_pair(item) for item in texts]
        for limit in (length, max_length):
            self._check_room(limit, max((len(row) for row in rows), default=1))
        limit = min((n for n in (length, max_length) if n is not None), default=None)
        given = [_checked(t) for row in rows for t in row]
        with structure.contained("the tokenizer cannot split one of these texts"):
            parts = iter(self.backend.encode_batch(given, add_special_tokens=False))
        encodings = [self._join([next(parts) for _ in row], limit) for row in rows]

        return self.stack(encodings, length)

    def stack(self, encodings: Sequence[Encoding], length: int | None = None) -> dict[str, npt.NDArray[np.int32]]:
        """The arrays (B, T) of texts that are encoded, as `batch` makes them; none may be longer than `length`."""
        width = max((len(e.ids) for e in encodings), default=0) if length is None else length
        arrays = {
            name: np.full((len(encodings), width), fill, dtype=np.int32)
            for name, fill in (("input_ids", self.pad_id), ("attention_mask", 0), ("token_type_ids", 0))
        }
        for row, encoding in enumerate(encodings):
            used = slice(0, len(encoding.ids))
            arrays["input_ids"][row, used] = encoding.ids
            arrays["attention_mask"][row, used] = encoding.attention_mask
            arrays["token_type_ids"][row, used] = encoding.token_type_ids
        return arrays

    def _join(self, parts: list[tokenizers.Encoding], max_length: int | None) -> Encoding:
        """Cuts one or two encoded texts and puts [CLS] and [SEP] around them.

        The library can do both, but cuts by a setting that all threads would see, and keeps every piece it cuts off:
        of a pair each with each.
        """
        sizes = [len(part) for part in parts]
        keep = sizes if max_length is None else _longest_first(sizes, max_length - self.specials(len(parts)))
        return self._framed(parts, [(0, n) for n in keep])

    def _framed(self, parts: list[tokenizers.Encoding], keep: list[tuple[int, int]]) -> Encoding:
        """[CLS] and [SEP] around the pieces of one or two texts, each from one place to another."""
        cut = [slice(*places) for places in keep]
        ids = [part.ids[kept] for part, kept in zip(parts, cut, strict=True)]
        cls, sep = (str(self.backend.id_to_token(i)) for i in (self.cls_id, self.sep_id))
        framed = self.build_inputs_with_special_tokens(*ids)
        numbers = [[-1 if n is None else n for n in part.word_ids[kept]] for part, kept in zip(parts, cut, strict=True)]
        return Encoding(
            ids=framed,
            attention_mask=[1] * len(framed),
            token_type_ids=self.create_token_type_ids_from_sequences(*ids),
            offsets=self._frame((0, 0), (0, 0), [part.offsets[kept] for part, kept in zip(parts, cut, strict=True)]),
            special_tokens_mask=self._frame(1, 1, [[0] * len(part) for part in ids]),
            tokens=self._frame(cls, sep, [part.tokens[kept] for part, kept in zip(parts, cut, strict=True)]),
            words=self._frame(-1, -1, numbers),
            sequences=self._frame(-1, -1, [[number] * len(part) for number, part in enumerate(ids)]),
        )

    def specials(self, texts: int) -> int:
        """How many special tokens stand around and between one text or two."""
        return texts + 1 + (self.doubled and texts == 2)

    def _frame(self, first: T, last: T, parts: Sequence[Sequence[T]]) -> list[T]:
        """`first` before all, and `last` after each; twice between two where [SEP] is doubled."""
        between = [last] if self.doubled else []
        rest = [item for part in parts[1:] for item in (*between, *part, last)]
        return [first, *parts[0], last, *rest]

    def _check_room(self, limit: int | None, texts: int) -> None:
        needed = self.specials(texts)
        if limit is not None and limit < needed:
            raise InputError(f"length {limit} has no room for [CLS] and [SEP]: give {needed} or more, or None")

    def build_inputs_with_special_tokens(self, ids: Sequence[int], pair_ids: Sequence[int] | None = None) -> list[int]:
        """[CLS] A [SEP], or [CLS] A [SEP] B [SEP], from ids without special tokens."""
        return self._frame(self.cls_id, self.sep_id, [ids] if pair_ids is None else [ids, pair_ids])

    def create_token_type_ids_from_sequences(
        self, ids: Sequence[int], pair_ids: Sequence[int] | None = None
    ) -> list[int]:
        """0 for each token of [CLS] A [SEP], 1 for each of B [SEP]."""
        if pair_ids is None:
            return [0] * (len(ids) + 2)
        return [0] * (len(ids) + 2 + self.doubled) + [int(self.typed)] * (len(pair_ids) + 1)

    def get_special_tokens_mask(
        self, ids: Sequence[int], pair_ids: Sequence[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 where `build_inputs_with_special_tokens` puts a special token, or where `ids` already has one."""
        if not already_has_special_tokens:
            return self._frame(1, 1, [[0] * len(part) for part in (ids, pair_ids) if part is not None])
        if pair_ids is not None:
            raise InputError("ids that already have special tokens are one sequence; pass it without pair_ids")
        special = {i for i, token in self.backend.get_added_tokens_decoder().items() if token.special}
        return [int(i in special) for i in ids]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text that ids stand for, as near as the vocabulary allows."""
        if outside := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise InputError(f"id {outside[0]} is not in the vocabulary: ids are 0 to {self.vocab_size - 1}")
        with structure.contained("the tokenizer cannot join these ids"):
            return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def save_vocabulary(self, folder: Path, prefix: str | None = None) -> tuple[str, ...]:
        """Writes vocab.txt, sentencepiece.model, or vocab.json with merges.txt into `folder`.

        With a prefix they are `prefix`-vocab.txt and so on.

        Returns:
            The paths that were written.
        """
        if self.kind == "unigram" and self.vocabulary is None:
            raise InputError("a tokenizer.json does not hold its .model: use save(), or load the folder of the .model")
        if self.kind == "bpe":
            files = vocabulary.merged_files(self.backend)
        elif self.vocabulary is not None:
            files = {"vocab.txt" if self.kind == "wordpiece" else "sentencepiece.model": self.vocabulary}
        else:
            files = {"vocab.txt": vocabulary.vocab_txt(self.backend.get_vocab(with_added_tokens=False))}
        paths = {_make_folder(Path(folder)) / (f"{prefix}-{name}" if prefix else name): files[name] for name in files}
        for path, content in paths.items():
            path.write_bytes(content)
        return tuple(str(path) for path in paths)

    def save_json(self, path: Path) -> None:
        """Writes the tokenizer.json alone."""
        # Not by the backend's own save, which makes a bare Exception of a full disk.
        path.write_text(self.backend.to_str(pretty=True), encoding="utf-8")

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which transformers and `load` read back to the same ids."""
        class_name, flags = vocabulary.class_of(self.backend, self.unk_id)
        config: dict[str, Any] = {
            "tokenizer_class": class_name,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            **{role: self.backend.id_to_token(i) for role, i in self.ids.items()},
            **flags,
        }
        if self.max_length is not None:
            config["model_max_length"] = self.max_length
        folder = _make_folder(Path(folder))
        self.save_json(folder / "tokenizer.json")
        text = json.dumps(config, indent=2, ensure_ascii=False)
        (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> Tokenizer:
    """Reads a tokenizer from a checkpoint folder, or from one of its files.

    Taken is tokenizer.json, else vocab.txt, else a SentencePiece model, else vocab.json with merges.txt.
    tokenizer_config.json, special_tokens_map.json and added_tokens.json beside it say the rest, and the defaults of
    BERT, RemBERT and RoBERTa hold where those are absent.

    Raises:
        InputError: there is no such file, or it is damaged, or it asks for what would change the ids unnoticed.
    """
    file = vocabulary.find(Path(path))
    config = _read_config(file.parent)
    backend, symbols = vocabulary.build(file, config)
    with structure.contained(f"copy {file} again, it is no usable tokenizer"):
        ids = _add_tokens(file, backend, config)
        # Last, as in transformers: what a .model says of its symbols wins over what a config says.
        backend.add_tokens([AddedToken(text, normalized=False, special=True) for text in symbols])
        if backend.post_processor is None:
            backend.post_processor = vocabulary.template(backend, ids["cls_token"], ids["sep_token"])
        size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        source = None if file.suffix == ".json" else read(file, vocabulary.LARGEST)
        return _formed(file, Tokenizer(backend, ids, size, config["model_max_length"], source))


def _read_json(file: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no such file."""
    return read_json(file) if is_file(file) else {}


def _read_config(folder: Path) -> dict[str, Any]:
    """What the config files say, as one: each special token an AddedToken, `added` of them by id, `extra` by name."""
    config = {name: value for name, value in _read_json(folder / "tokenizer_config.json").items() if value is not None}
    for name, only in FIXED.items():
        if config.get(name, only) != only:
            raise InputError(
                f"{folder} asks for {name} {config[name]!r:.80}; edgebert has only {only!r}: change it there"
            )
    listed = config.get("added_tokens_decoder")
    if listed is None:  # only then does transformers read the two older files
        config |= {name: v for name, v in _read_json(folder / "special_tokens_map.json").items() if v is not None}
    config |= {role: _token(config[role], role) for role in NAMED if role in config}
    if listed is None:
        special = {config[role].content for role in NAMED if role in config}
        listed = {
            str(i): {"content": text, "special": text in special, "normalized": text not in special}
            for text, i in _read_json(folder / "added_tokens.json").items()
        }
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = list(extra.values()) if isinstance(extra, dict) else extra
    if not isinstance(extra, list):
        raise InputError(f"{folder} has the extra special tokens {extra!r:.80}; a list of tokens belongs there")
    config["extra"] = [_token(token, "an extra special token") for token in extra]
    try:
        config["added"] = {int(i): _token(t, f"added token {i}", bool(t.get("special"))) for i, t in listed.items()}
        limit = int(config.get("model_max_length", NO_LIMIT))
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{folder}: added tokens are objects by id, model_max_length a number: {error}") from error
    config["model_max_length"] = limit if 0 < limit < NO_LIMIT else None
    return config


def _token(stated: Any, where: str, special: bool = True) -> AddedToken:
    """A token from a config: its text, or an object with its text as "content" and how it is matched."""
    spec = {"content": stated} if isinstance(stated, str) else stated
    if not isinstance(spec, dict) or not isinstance(spec.get("content"), str) or not spec["content"]:
        raise InputError(
            f"the tokenizer's config: {where} is {stated!r:.80}; a text or {{'content': text}} belongs there"
        )
    flags = {name: bool(spec[name]) for name in ("lstrip", "rstrip", "single_word", "normalized") if name in spec}
    return AddedToken(spec["content"], special=special, **flags)


def _add_tokens(file: Path, backend: tokenizers.Tokenizer, config: dict[str, Any]) -> dict[str, int]:
    """Marks what text is never split inside of: the tokens that the config lists, and those with a role.

    Returns:
        role -> id. A [MASK] that the vocabulary lacks gets the next id, as in transformers; other roles must be in it.
    """
    stated = [*config["added"].values(), *config["extra"], *(config[role] for role in NAMED if role in config)]
    structure.check_added([token.content for token in stated])
    backend.add_tokens([token for _, token in sorted(config["added"].items())])
    for i, token in config["added"].items():
        if (got := backend.token_to_id(token.content)) != i:
            raise InputError(f"{file.parent}: {token.content!r} is listed as {i} and is {got}: not files of one model")
    named: dict[str, AddedToken] = {role: config[role] for role in NAMED if role in config}
    unknown = vocabulary.unknown_token(file, backend)
    if unknown is None:  # no text is unknown, so a config may name any token for it, or none
        names = (backend.model.unk_token, "[UNK]", "<unk>")
        known = [name for name in names if name and backend.token_to_id(name) is not None]
        named |= {} if "unk_token" in named or not known else {"unk_token": AddedToken(known[0], special=True)}
    elif named.setdefault("unk_token", AddedToken(unknown, special=True)).content != unknown:
        raise InputError(f"{file} makes {unknown} of unknown text, and the config's unk_token is {named['unk_token']}")
    for role, usual in ROLES.items():
        known = [name for name in usual if backend.token_to_id(name) is not None]
        named.setdefault(role, AddedToken((known or usual)[0], special=True))
        if role != "mask_token" and backend.token_to_id(named[role].content) is None:
            raise InputError(f"{file} has no {named[role].content}: name the {role} in tokenizer_config.json")
    marked = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_tokens([token for token in (*named.values(), *config["extra"]) if token.content not in marked])
    return {role: int(backend.token_to_id(token.content) or 0) for role, token in named.items()}


def _formed(file: Path, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the way to frame a pair that its tokenizer.json has.

    Raises:
        InputError: it frames texts in none of the ways of BERT's family, and makes ids that mean something else.
    """
    for doubled, typed in ((False, True), (True, False), (False, False)):
        formed = replace(tokenizer, doubled=doubled, typed=typed)
        pairs = [(formed.backend.encode("a", pair), formed.encode("a", pair)) for pair in (None, "b")]
        if all((theirs.ids, theirs.type_ids) == (ours.ids, ours.token_type_ids) for theirs, ours in pairs):
            return formed
    raise InputError(f"{file} does not make [CLS] A [SEP] B [SEP] of two texts: it is not of BERT's family")


def _checked(text: object) -> str:
    """`text`, if it is one that UTF-8, and so the library, can hold."""
    if not isinstance(text, str):
        raise InputError(f"a text is a str, and a {type(text).__name__} came")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        came = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise InputError(f"the text has a lone surrogate, {came}, which no UTF-8 holds: replace it first") from error
    return text


def _checked_pair(pair: object) -> tuple[str, str]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"batch takes texts and (text, text) pairs, and {pair!r:.80} came")
    return pair[0], pair[1]


def _longest_first(lengths: list[int], room: int) -> list[int]:
    """How many tokens to keep of one text or two, as truncate_encodings of tokenizers 0.23 has it.

    The longer text gives way until both are equal, then both do; the odd token goes to the longer one.
    """
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return [room]
    less = min(*lengths, room // 2)
    return [room - less, less] if lengths[0] > lengths[1] else [less, room - less]


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; choose another") from error
    return folder
