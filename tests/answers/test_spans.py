"""Spans of made-up logits; test_pipelines.py holds real models to transformers 4."""

import numpy as np
import pytest

from edgebert.answers import spans
from edgebert.answers.reading import READINGS
from edgebert.errors import InputError
from edgebert.files import ASSETS
from edgebert.tokenizers import tokenizer
from edgebert.tokenizers.tokenizer import Encoding

WORDS = tokenizer.load(ASSETS / "default")
READING = READINGS["question-answering"]
CONTEXT = "the bank opens at nine and closes at five in the afternoon on weekdays, at noon on saturdays"


def _sure(window: Encoding, token: str) -> np.ndarray:
    """Logits that are high where the context has a token."""
    return np.where((np.array(window.tokens) == token) & (np.array(window.sequences) == 1), 4.0, -4.0)


def asked(first: str, last: str, room: int = 64, cls: float = -9.0) -> dict[str, object]:
    """The answer where a model is sure of a first and a last token."""
    windows = WORDS.windows("when does it open?", CONTEXT, room, 4)
    starts, ends = [], []
    for window in windows:
        at, to = (_sure(window, token) for token in (first, last))
        at[0] = to[0] = cls
        padding = np.full(3, 50.0)  # no token of the text's
        starts.append(np.concatenate([at, padding]))
        ends.append(np.concatenate([to, padding]))
    return spans.answer(CONTEXT, windows, starts, ends, READING, may_be_none=cls > 0)


def test_the_likeliest_span_is_found_in_whichever_window_it_stands() -> None:
    for room in (64, 20, 14):
        answer = asked("close", "five", room)
        assert answer["answer"] == "closes at five"
        assert CONTEXT[answer["start"] : answer["end"]] == "closes at five"  # type: ignore[misc]
        assert 0.9 < float(answer["score"]) <= 1  # type: ignore[arg-type]
        assert float(answer["no_answer"]) < 1e-6  # type: ignore[arg-type]


def test_an_answer_goes_forward_and_is_not_too_long() -> None:
    assert asked("five", "close")["answer"] != CONTEXT[27:41]
    far = asked("open", "saturday")
    assert len(WORDS.encode(str(far["answer"])).ids) - 2 <= (READING.longest_answer or 0)


def test_there_may_be_none() -> None:
    answer = asked("close", "five", cls=12.0)
    assert (answer["answer"], answer["start"], answer["end"]) == ("", 0, 0)
    assert answer["score"] == answer["no_answer"]


def test_a_context_without_words_is_refused() -> None:
    windows = WORDS.windows("when?", " ", 16, 4)
    with pytest.raises(InputError, match=r"the context has no words"):
        spans.answer(" ", windows, [np.zeros(16)], [np.zeros(16)], READING)
