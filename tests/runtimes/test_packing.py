"""Sharing texts out to rows: each is in one row, none is overfull, and few rows are needed."""

from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgebert.runtimes.packing import fill, lay


@given(st.lists(st.integers(1, 32), max_size=60), st.integers(1, 8))
def test_every_text_is_in_one_row_and_no_row_is_overfull(sizes: list[int], texts: int) -> None:
    rows = fill(sizes, 32, texts)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    assert all(1 <= len(row) <= texts and sum(sizes[number] for number in row) <= 32 for row in rows)


@given(st.lists(st.integers(1, 32), min_size=1, max_size=7))
def test_few_rows_are_needed(sizes: list[int]) -> None:
    # What longest first is sure to reach: Dosa, The tight bound of first fit decreasing, ESCAPE 2007.
    assert len(fill(sizes, 32, 32)) <= 11 / 9 * fewest(tuple(sizes), 32) + 6 / 9


def fewest(sizes: tuple[int, ...], room: int) -> int:
    """The fewest rows for texts, by trying every way to fill the first one's."""
    if not sizes:
        return 0
    first, rest = sizes[0], range(1, len(sizes))
    ways = [chosen for count in range(len(sizes)) for chosen in combinations(rest, count)]
    fitting = [chosen for chosen in ways if first + sum(sizes[number] for number in chosen) <= room]
    return 1 + min(fewest(tuple(sizes[n] for n in rest if n not in chosen), room) for chosen in fitting)


def test_a_thousand_short_texts_leave_hardly_any_room() -> None:
    sizes = [int(size) for size in np.random.default_rng(0).integers(3, 40, 1000)]
    assert len(fill(sizes, 128, 32)) <= np.ceil(sum(sizes) / 128) + 1


def test_a_row_has_the_texts_one_after_the_other() -> None:
    row = lay([np.array([7, 8, 9]), np.array([5])], 6, pad_id=1)
    assert row["input_ids"].tolist() == [[7, 8, 9, 5, 1, 1]]
    assert row["segment_ids"].tolist() == [[1, 1, 1, 2, 0, 0]]
    assert {value.dtype for value in row.values()} == {np.dtype(np.int32)}
