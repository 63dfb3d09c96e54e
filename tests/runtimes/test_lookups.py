"""What made-up inputs must stay below, told by steps made by hand; real files are asked in tests/profiling."""

from edgebert.runtimes.lookups import Step, rows


def test_the_smallest_table_that_an_input_reaches_counts() -> None:
    steps = [
        Step(["ids"], ["turned"]),
        Step(["words", "turned"], ["hidden"], ids="turned", rows=100),
        Step(["ids", "pad"], ["places"]),
        Step(["positions", "places"], ["more"], ids="places", rows=64),
        Step(["mask"], ["term"]),
    ]
    assert rows({"ids": "input_ids", "mask": "attention_mask"}, steps) == {"input_ids": 64}


def test_what_is_looked_up_is_no_number_of_a_row() -> None:
    steps = [
        Step(["table", "ids"], ["hidden"], ids="ids", rows=100),
        Step(["other", "hidden"], ["x"], ids="hidden", rows=2),
    ]
    assert rows({"ids": "ids"}, steps) == {"ids": 100}
    assert rows({}, steps) == {}
