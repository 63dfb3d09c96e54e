"""Vocabularies trained here, on the lines of cases.py."""

import io

import sentencepiece
import tokenizers
from cases import LINES, SPECIALS
from tokenizers import models, normalizers, pre_tokenizers, trainers

from edgebert.tokenizers import vocabulary


def trained_vocab(lowercase: bool) -> str:
    """A WordPiece vocabulary, as vocab.txt."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=900, special_tokens=SPECIALS))
    return vocabulary.vocab_txt(made.get_vocab()).decode()


def trained_merges(specials: list[str], **options: object) -> models.BPE:
    """A byte-level BPE, the special tokens first."""
    made = tokenizers.Tokenizer(models.BPE(**options))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=specials, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(LINES, trainer)
    return made.model


def trained_model(kind: str = "unigram", **options: object) -> bytes:
    """A SentencePiece model; its special pieces stand where google/rembert's do: padding 0, unknown 2."""
    layout = {
        "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "pad_piece": "<pad>", "unk_piece": "<unk>",
        "control_symbols": ["[CLS]", "[SEP]", "[MASK]"], "user_defined_symbols": ["<user>"],
    }  # fmt: skip
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=out, model_type=kind, vocab_size=500, hard_vocab_limit=False,
        character_coverage=1.0, minloglevel=3, num_threads=1, **(layout | options),
    )  # fmt: skip
    return out.getvalue()
