"""Sample inputs, for recipes whose scales or roundings are chosen on real texts before export."""

from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError
from edgebert.files import ASSETS
from edgebert.models.signature import Arrays, check_ids, limit_types
from edgebert.tokenizers.corpus import read_corpus
from edgebert.tokenizers.tokenizer import Tokenizer

# Written for this project: requests to an assistant, news, reviews, letters, code, pairs, and ten languages. None of
# the texts that a file is validated with is among them.
TEXTS = ASSETS / "calibration.txt"

ROWS = 128  # random rows for a model that came without a tokenizer
MOST = 10_000  # texts of a file: each is run through the model, and some hundred tell as much
SHORT = 8  # tokens that hold no text worth the name once the special ones are in


def load_samples(tokenizer: Tokenizer | None, config: Any, longest: int, file: Path | None = None) -> list[Arrays]:
    """Inputs to calibrate on, one text each, without padding.

    Args:
        tokenizer: turns texts into ids; without one random ids stand for them, which suits random weights.
        config: the model's: ids and token types stay below its sizes.
        longest: texts are cut to this many tokens.
        file: UTF-8 texts, one a line, a tab between the two of a pair; None takes the texts kept with this package.

    Returns:
        `input_ids`, `attention_mask` and `token_type_ids` of each text, int32 (1, T).

    Raises:
        InputError: the file cannot be read, is not UTF-8, has no text or more than MOST, or there is no tokenizer to
            read it with, or one that makes ids which the model has not.
    """
    if tokenizer is None:
        if file is not None:
            raise InputError(f"{file}: the model came without a tokenizer, so texts cannot calibrate it.")
        rows = _random(config.vocab_size, longest)
    elif longest < SHORT:
        rows = _random(min(tokenizer.vocab_size, config.vocab_size), longest)
    else:
        texts = read_corpus(file or TEXTS, MOST)
        rows = [
            tokenizer.batch([(text[0], text[1]) if len(text) == 2 else text[0]], max_length=longest) for text in texts
        ]
    for row in rows:
        check_ids(row, config.vocab_size)
    return [limit_types(row, config.type_vocab_size) for row in rows]


def _random(vocabulary: int, longest: int) -> list[Arrays]:
    rng = np.random.default_rng(0)
    rows = []
    for tokens in rng.integers(1, longest + 1, ROWS):
        types = (np.arange(tokens) * 2 >= tokens).astype(np.int32)[None]
        ids = rng.integers(0, vocabulary, (1, tokens), dtype=np.int32)
        rows.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types})
    return rows
