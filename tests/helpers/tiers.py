"""Which cells of a table `make test` runs; `make test-all` runs them all."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest


def quick(cells: Iterable[Any], chosen: Sequence[Any]) -> list[Any]:
    """The cells, those that are not among the chosen ones marked slow."""
    rows = list(cells)
    assert set(chosen) <= set(rows), "a chosen cell is not in the table"
    return [
        row if row in chosen else pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.slow)
        for row in rows
    ]
