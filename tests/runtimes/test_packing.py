"""Sharing texts out to rows: each is in one row, none is overfull, and few rows are needed."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgebert.runtimes.packing import fill, lay


@given(st.lists(st.integers(1, 32), max_size=60), st.integers(1, 8))
def test_every_text_is_in_one_row_and_no_row_is_overfull(sizes: list[int], texts: int) -> None:
    rows = fill(sizes, 32, texts)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    assert all(1 <= len(row) <= texts and sum(sizes[number] for number in row) <= 32 for row in rows)


@given(st.lists(st.integers(1, 32), min_size=1, max_size=60))
def test_few_rows_are_needed(sizes: list[int]) -> None:
    # Best fit, longest first, needs at most 11/9 of the fewest rows and 6/9 more (Johnson 1973; Dosa 2007); the
    # fewest are at least the tokens' share, and one for each text of more than half a row.
    fewest = max(-(-sum(sizes) // 32), sum(size > 16 for size in sizes))
    assert len(fill(sizes, 32, 32)) <= max(fewest * 1.5 + 1, fewest)


def test_a_thousand_short_texts_leave_hardly_any_room() -> None:
    sizes = [int(size) for size in np.random.default_rng(0).integers(3, 40, 1000)]
    assert len(fill(sizes, 128, 32)) <= np.ceil(sum(sizes) / 128) + 1


def test_a_row_has_the_texts_one_after_the_other() -> None:
    row = lay([np.array([7, 8, 9]), np.array([5])], 6, pad_id=1)
    assert row["input_ids"].tolist() == [[7, 8, 9, 5, 1, 1]]
    assert row["segment_ids"].tolist() == [[1, 1, 1, 2, 0, 0]]
    assert {value.dtype for value in row.values()} == {np.dtype(np.int32)}
