"""The cell that keeps to budgets, or the nearest."""

import pytest

from edgebert.errors import InputError
from edgebert.sweep import budget
from edgebert.sweep.records import DONE, FAILED, Record


def cell(recipe: str, ms: float | None, size: float, accuracy: float, status: str = DONE) -> Record:
    rows = [
        {"device": "pixel-6", "tokens": tokens, "median_ms": ms and ms * tokens / 128} for tokens in (32, 128, 64)
    ]  # fmt: skip
    return Record(recipe, "m", "tflite", recipe, status, size_mb=size, figures={"accuracy": accuracy}, rows=rows)


CELLS = [
    Record("torch", "m", "torch", "fp32", DONE, figures={"accuracy": 0.9}),
    cell("fp32", 40.0, 40.0, 0.9),
    cell("fp16", 25.0, 20.0, 0.899),
    cell("int8", 15.0, 10.0, 0.89),
    cell("w4", 14.0, 6.0, 0.5),
    cell("broken", 1.0, 1.0, 0.9, FAILED),
    cell("untimed", None, 2.0, 0.9),
]


@pytest.mark.parametrize(
    ("limits", "recipe"),
    [
        (["latency_ms=30@pixel-6"], "w4"),
        (["latency_ms=30@pixel-6", "loss=2%"], "int8"),
        (["loss=0.5", "latency_ms=30@pixel-6"], "fp16"),
        (["size_mb=10"], "untimed"),
        (["size_mb=10", "latency_ms=30@pixel-6", "loss=1.0%"], "int8"),
    ],
)
def test_the_fastest_that_keeps_to_all_is_picked(limits: list[str], recipe: str) -> None:
    parsed = [budget.parse(text) for text in limits]
    picked = budget.pick(CELLS, parsed)
    assert picked is not None
    assert picked.record.recipe == recipe
    assert picked.over(parsed) <= 1


@pytest.mark.parametrize(
    ("limits", "recipe"),
    [
        (["latency_ms=10@pixel-6", "loss=2%"], "int8"),
        (["latency_ms=13@pixel-6"], "w4"),
        (["loss=0%", "latency_ms=35@pixel-6"], "fp32"),
    ],
)
def test_the_nearest_is_named_where_none_does(limits: list[str], recipe: str) -> None:
    parsed = [budget.parse(text) for text in limits]
    picked = budget.pick(CELLS, parsed)
    assert picked is not None
    assert picked.record.recipe == recipe
    assert picked.over(parsed) > 1


def test_nothing_done_is_nothing_picked() -> None:
    assert budget.pick([CELLS[0], CELLS[5]], [budget.parse("size_mb=10")]) is None


@pytest.mark.parametrize(
    "text", ["", "latency_ms=20", "size_mb=10@pixel-6", "size_mb=10%", "speed=1", "loss=-1%", "latency_ms=a@pixel-6"]
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"latency_ms=20@pixel-6, size_mb=10 or loss=0\.5% is needed"):
        budget.parse(text)


def test_a_budget_is_of_what_is_looked_at() -> None:
    with pytest.raises(InputError, match="the sweep is on host; add --device pixel-6"):
        budget.check([budget.parse("latency_ms=20@pixel-6")], ["host"], True)
    with pytest.raises(InputError, match="add --eval FILE"):
        budget.check([budget.parse("loss=0.5%")], ["host"], False)
    assert str(budget.parse("latency_ms=20@adb:emulator-5554")) == "latency_ms=20@adb:emulator-5554"
