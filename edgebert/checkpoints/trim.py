"""Trimming: a vocabulary cut to what a text corpus needs, with the same pieces and answers on that corpus.

Two ways of splitting choose among the pieces there are: WordPiece the longest that fits, Unigram the likeliest row of
them. A choice stands when others that lost are taken away, so every piece that the corpus does not use may go, but for
a few that decide without being seen: those on WordPiece's way to giving a word up, and the least likely piece of a
Unigram, from whose score that of unknown text is counted. The third, BPE, puts a piece together from its bytes merge by
merge; kept are the bytes and all that stands on the way to a piece, and so every merge that the corpus takes, in its
order. The new tokenizer is held to the old one on every text.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Set
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import models

from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import ConversionFailed, InputError
from edgebert.files import sha256
from edgebert.models import Model
from edgebert.tokenizers import structure, vocabulary
from edgebert.tokenizers.corpus import read_corpus
from edgebert.tokenizers.tokenizer import Tokenizer

BATCH = 1 << 20  # characters that are encoded at once

# Where a config.json names tokens by id; `pad_token_id` and its like are told by their ending.
LISTS_OF_IDS = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens")

POSITIONS = "encoder.embeddings.position.weight"
# What runs over the vocabulary in a model, and along which axis: rows of the word embedding, and of the output
# embedding with its bias; columns of what MobileBERT scores its other channels with.
TABLES = {
    "encoder.embeddings.word.weight": 0,
    "head.decoder.weight": 0,
    "head.decoder.bias": 0,
    "head.rest.weight": 1,
}


def trim(source: Checkpoint, corpus: str | Path) -> Checkpoint:
    """Cut a model's vocabulary to the pieces that a corpus needs.

    Kept are the pieces of every text of the corpus, each of their characters as a piece of its own where there is one,
    all special and added tokens, and the ids that the config names. Rows that no token has are dropped.

    Args:
        source: the checkpoint; it is not changed, and shares all weights but the tables with the one returned.
        corpus: a UTF-8 file, a line a text; a tab parts the two texts of a pair.

    Returns:
        A checkpoint whose tokenizer makes the same pieces of each text of the corpus, under new ids that keep the old
        order, and whose model has the old rows under them. Its last note says what was done.

    Raises:
        InputError: the corpus is missing, empty or not UTF-8, or the checkpoint has no tokenizer of its model.
        ConversionFailed: a text of the corpus would be split another way.
    """
    words, config = source.tokenizer, source.model.config
    if words is None:
        raise InputError(f"{source.source} has no tokenizer to trim: put its tokenizer.json, or vocab.txt, beside it.")
    corpus = Path(corpus)
    texts = [text for line in read_corpus(corpus) for text in line]
    named = {name: value for name, value in source.raw_config.items() if _names_tokens(name)}
    wanted = _needed(words, texts) | _flat([*named.values(), config.pad_token_id])
    backend, rows = _subset(words.backend, wanted)
    if (last := max(rows)) >= config.vocab_size:
        raise InputError(
            f"{source.source}: {words.backend.id_to_token(last)!r:.80} has the id {last}, which is to be kept, and the "
            f"model has ids 0 to {config.vocab_size - 1}: they do not belong together."
        )
    new_ids = {old: new for new, old in enumerate(rows)}
    smaller = dataclasses.replace(
        words,
        backend=backend,
        ids={role: new_ids[old] for role, old in words.ids.items()},
        vocab_size=len(rows),
        vocabulary=None,
    )
    backend.post_processor = vocabulary.renumbered(
        words.backend.post_processor, backend, smaller.cls_id, smaller.sep_id, words.doubled, words.typed
    )
    _compare(words, smaller, rows, texts)
    pad_id = new_ids.get(config.pad_token_id, smaller.pad_id)
    note = (
        f"vocabulary trimmed to {len(rows):,} of {config.vocab_size:,} pieces by corpus {corpus.name} "
        f"(sha256 {sha256(corpus)})"
    )
    return dataclasses.replace(
        source,
        model=_cut(source.model, pad_id, rows),
        tokenizer=smaller,
        raw_config={**source.raw_config, **{name: _renumbered(value, new_ids) for name, value in named.items()}},
        notes=(*source.notes, note),
    )


def _needed(words: Tokenizer, texts: list[str]) -> set[int]:
    """Ids of the pieces that splitting these texts depends on, and of each character of them that is a piece too."""
    backend, model = words.backend, words.backend.model
    vocab = backend.get_vocab(with_added_tokens=False)
    used: set[int] = set()
    given_up: set[str] = set()  # text that became the unknown token
    for text, encoding in zip(texts, _encodings(words, texts), strict=True):
        used.update(encoding.ids)
        if words.unk_id in encoding.ids:
            pairs = zip(encoding.ids, encoding.offsets, strict=True)
            given_up.update(text[start:end] for i, (start, end) in pairs if i == words.unk_id)
    lead, hidden = "", set[int]()
    if isinstance(model, models.WordPiece):
        lead = model.continuing_subword_prefix
        for word in given_up:
            plain = backend.normalizer.normalize_str(word) if backend.normalizer else word
            if len(plain) <= model.max_input_chars_per_word:  # longer ones are given up unseen
                used.update(_dead_end(plain, vocab, lead))
    elif isinstance(model, models.BPE):
        hidden = {vocab[piece] for piece in _parts(backend, used)}
    else:
        hidden = _deciding(backend)
    added = set(backend.get_added_tokens_decoder())
    letters = {letter for i in used - added for letter in str(backend.id_to_token(i)).removeprefix(lead)}
    singles = {vocab[form] for letter in letters for form in (letter, lead + letter) if form in vocab}
    return used | hidden | singles | {words.unk_id}


def _dead_end(word: str, vocab: Mapping[str, int], lead: str) -> Iterator[int]:
    """The pieces that greedy matching takes of a word before it gives the word up; without them it might not."""
    start = 0
    while start < len(word):
        ends = range(len(word), start, -1)
        forms = ((lead if start else "") + word[start:end] for end in ends)
        found = next((form for form in forms if form in vocab), None)
        if found is None:
            return
        yield vocab[found]
        start += len(found) - (len(lead) if start else 0)


def _parts(backend: tokenizers.Tokenizer, used: Set[int]) -> set[str]:
    """The pieces that a BPE puts these together from, bytes first."""
    state = json.loads(backend.model.__getstate__())
    ranks = {(first, second): rank for rank, (first, second) in enumerate(state["merges"])}
    found = {character for character in structure.BYTES if character in state["vocab"]}
    for text in {str(backend.id_to_token(i)) for i in used} & state["vocab"].keys():
        row = list(text)
        while True:
            found |= set(row) & state["vocab"].keys()
            pairs = [(ranks[pair], at) for at, pair in enumerate(pairwise(row)) if pair in ranks]
            if not pairs:
                break
            _, at = min(pairs)
            row[at : at + 2] = [row[at] + row[at + 1]]
    return found


def _unigram(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """What a Unigram model says of itself: `vocab` as [text, score] by id, `unk_id`, `byte_fallback`."""
    state: dict[str, Any] = json.loads(backend.model.__getstate__())
    return state


def _deciding(backend: tokenizers.Tokenizer) -> set[int]:
    """Ids of a Unigram's pieces that decide on text without being in it."""
    state = _unigram(backend)
    scores = [score for _, score in state["vocab"]]
    found = {scores.index(min(scores))}  # unknown text scores 10 below it
    if state.get("byte_fallback"):
        found |= {i for i, (text, _) in enumerate(state["vocab"]) if len(text) == 6 and text.startswith("<0x")}
    return found


def _subset(backend: tokenizers.Tokenizer, wanted: Set[int]) -> tuple[tokenizers.Tokenizer, list[int]]:
    """The backend with the wanted pieces and all added tokens.

    Returns:
        The new backend, without a post-processor; and for each of its ids, without a gap, the old id.
    """
    added = sorted(backend.get_added_tokens_decoder().items())
    wanted = wanted | {i for i, _ in added}
    pieces = sorted((i, text) for text, i in backend.get_vocab(with_added_tokens=False).items() if i in wanted)
    model = backend.model
    if isinstance(model, models.WordPiece):
        cut: models.Model = models.WordPiece(
            {text: new for new, (_, text) in enumerate(pieces)},
            unk_token=model.unk_token,
            max_input_chars_per_word=model.max_input_chars_per_word,
            continuing_subword_prefix=model.continuing_subword_prefix,
        )
    elif isinstance(model, models.BPE):
        kept = {text: new for new, (_, text) in enumerate(pieces)}
        merges = [tuple(merge) for merge in json.loads(model.__getstate__())["merges"]]
        cut = models.BPE(
            kept,
            [(first, second) for first, second in merges if {first, second, first + second} <= kept.keys()],
            unk_token=model.unk_token,
            fuse_unk=model.fuse_unk,
            ignore_merges=model.ignore_merges,
        )
    else:
        state = _unigram(backend)
        cut = models.Unigram(
            [(text, state["vocab"][i][1]) for i, text in pieces],
            unk_id=[i for i, _ in pieces].index(state["unk_id"]),
            byte_fallback=bool(state.get("byte_fallback")),
        )
    smaller = tokenizers.Tokenizer(cut)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if (value := getattr(backend, part)) is not None:
            setattr(smaller, part, value)
    smaller.add_tokens([token for _, token in added])
    # As a bundle's reader will have it, scores parsed from text included.
    smaller = tokenizers.Tokenizer.from_str(smaller.to_str())
    found = sorted((new, text) for text, new in smaller.get_vocab(with_added_tokens=True).items())
    return smaller, [int(backend.token_to_id(text) or 0) for _, text in found]


def _compare(words: Tokenizer, smaller: Tokenizer, rows: list[int], texts: list[str]) -> None:
    """Raise ConversionFailed unless both make the same pieces of every text."""
    both = zip(texts, _encodings(words, texts), _encodings(smaller, texts), strict=True)
    for text, old, new in both:
        if [rows[i] for i in new.ids] != old.ids or new.offsets != old.offsets:
            raise ConversionFailed(
                f"with the trimmed vocabulary the text {text!r:.80} would be {new.tokens[:20]} and no longer "
                f"{old.tokens[:20]}: export without trimming, and report this tokenizer."
            )


def _encodings(words: Tokenizer, texts: list[str]) -> Iterator[tokenizers.Encoding]:
    """The texts' encodings without [CLS] and [SEP], a batch at a time."""
    batch, size = list[str](), 0
    for text in (*texts, None):
        if text is None or size > BATCH:
            with structure.contained("the tokenizer cannot split one of these texts"):
                encodings = words.backend.encode_batch(batch, add_special_tokens=False)
            yield from encodings
            batch, size = [], 0
        if text is not None:
            batch.append(text)
            size += len(text)


def _cut(model: Model, pad_id: int, rows: list[int]) -> Model:
    """The model with these rows, or columns, of its tables and this id for padding; any other tensor is the same."""
    index, family = torch.tensor(rows), model.family
    state = {
        name: tensor.index_select(TABLES[name], index) if name in TABLES else tensor
        for name, tensor in model.state_dict().items()
    }
    config = dataclasses.replace(model.config, vocab_size=len(rows), pad_token_id=pad_id)
    # Where positions are counted from padding's id, as many rows before them go as ids before it.
    if fewer := family.first_position(model.config) - family.first_position(config):
        state[POSITIONS] = state[POSITIONS][fewer:]
        config = dataclasses.replace(config, max_position_embeddings=len(state[POSITIONS]))
    with torch.device("meta"):  # every tensor is put in its place below
        smaller = Model(model.family, config, model.task)
    smaller.load_state_dict(state, assign=True)
    smaller.tie()
    return smaller.requires_grad_(False)


def _names_tokens(key: str) -> bool:
    """Whether a key of config.json names tokens by id."""
    return key.endswith("_token_id") or key in LISTS_OF_IDS


def _flat(value: Any) -> set[int]:
    """The ids in a number, or in lists of them."""
    if isinstance(value, list):
        return {i for part in value for i in _flat(part)}
    return {value} if type(value) is int else set()


def _renumbered(value: Any, new_ids: Mapping[int, int]) -> Any:
    """A config's value with the new ids; what is no token's id becomes null."""
    if isinstance(value, list):
        return [_renumbered(part, new_ids) for part in value]
    return new_ids.get(value) if type(value) is int else value
