"""Greedy generation: the likeliest piece after a text, again and again, from a file or from torch alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edgebert.errors import InputError
from edgebert.models.signature import Arrays
from edgebert.tokenizers.tokenizer import Tokenizer

Run = Callable[[Mapping[str, np.ndarray]], Arrays]


@dataclass(frozen=True, slots=True)
class Generated:
    """A text's continuation.

    Attributes:
        text: the continuation alone, without special tokens.
        ids: its pieces; a [SEP] that ended it is the last of them.
        prompt_ids: what it continues: [CLS] and the pieces of the text.
        stopped: "sep" where the model closed the text, "max_new_tokens" or "length" where the limit of the caller or
            of the model's lengths was met.
    """

    text: str
    ids: list[int]
    prompt_ids: list[int]
    stopped: str


def greedy(run: Run, words: Tokenizer, text: str, max_new_tokens: int, longest: int) -> Generated:
    """Continue a text with the likeliest piece each time.

    The model reads [CLS] and the text, without a closing [SEP], then that and the first new piece, and so on: the whole
    sequence each time, nothing is kept from step to step. Rows above the tokenizer's vocabulary are no pieces and are
    never chosen. Of pieces that are equally likely the first is taken.

    Args:
        run: int32 `input_ids`, `attention_mask` and `token_type_ids`, each (1, T), to float `logits` (1, T, V).
        words: the model's tokenizer.
        text: what to continue; may be empty.
        max_new_tokens: the most pieces to add, at least 1.
        longest: the most tokens that `run` takes. A piece that is not read again may come after the last of them.

    Raises:
        InputError: the text has more tokens than `run` takes, or max_new_tokens is not positive.
    """
    if max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens}; it must be at least 1.")
    prompt = words.encode(text).ids[:-1]
    if len(prompt) > longest:
        raise InputError(
            f"the text has {len(prompt)} tokens with [CLS], and the model takes {longest}: shorten the text, "
            "or export with a longer length."
        )
    ids = list(prompt)
    stopped = "max_new_tokens"
    for _ in range(max_new_tokens):
        if len(ids) > longest:
            stopped = "length"
            break
        row = np.array([ids], dtype=np.int32)
        inputs = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        ids.append(int(run(inputs)["logits"][0, len(ids) - 1, : words.vocab_size].argmax()))
        if ids[-1] == words.sep_id:
            stopped = "sep"
            break
    added = ids[len(prompt) :]
    return Generated(words.decode(added), added, prompt, stopped)
