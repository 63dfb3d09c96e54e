"""Tiny checkpoints with a tokenizer, as transformers and sentence-transformers save them, and texts to ask them."""

from pathlib import Path
from typing import Any

import torch
from reference import reference
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import BertTokenizerFast

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = "where is the red house it stands on a hill by sea ? . , new york angela merkel went to in".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KNOWN = [*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
VOCABULARY = [*KNOWN, *(f"word{i}" for i in range(120 - len(KNOWN)))]  # as many as a tiny model's table has rows

TEXTS = (
    "the red house stands on a hill by the sea.",
    "Where is it?",
    "Angela Merkel went to New York, in the red house",
    "zzzz abc xyz, the",
    "the the by a",
)


def save(folder: Path, task: str, family: str = "bert", **changes: Any) -> Path:
    """A tiny model of transformers' own with its tokenizer."""
    reference(family, task, **changes).save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


def labelled(*names: str) -> dict[str, Any]:
    """A config's keys for labels of these names."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


def save_sentence_encoder(
    folder: Path, family: str = "bert", modes: str | tuple[str, ...] = "mean", dense: int = 0, normalize: bool = True,
    include_prompt: bool = True, **said: Any,
) -> Path:  # fmt: skip
    """A tiny sentence encoder, saved by sentence-transformers; `said` are prompts and the like."""
    inner = folder.with_name(f"{folder.name}-inner")
    save(inner, "base", family)
    torch.manual_seed(1)
    transformer = Transformer(str(inner))
    width = transformer.get_embedding_dimension()
    modules: list[Any] = [transformer, Pooling(width, modes, include_prompt)]
    if dense:
        modules.append(Dense(width * (1 if isinstance(modes, str) else len(modes)), dense))
    modules += [Normalize()] if normalize else []
    SentenceTransformer(modules=modules, device="cpu", **said).save(str(folder))
    return folder


def _save_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    BertTokenizerFast.from_pretrained(folder).save_pretrained(folder)
