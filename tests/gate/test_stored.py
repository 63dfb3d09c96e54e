"""Stored numbers are held to the weights that they came from."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
from tiny import visible

from edgebert.gate import stored
from edgebert.models import Model
from edgebert.quantization.integers import by_row
from edgebert.runtimes.session import Constant

NAME = "encoder.layers.0.up.weight"
TABLE = "encoder.embeddings.word.weight"


@pytest.fixture(scope="module")
def model() -> Model:
    return visible("bert", "base")


def whole(name: str, values: np.ndarray) -> Constant:
    return Constant(name, values, np.zeros(1, np.float32), 32)


def packed(name: str, values: np.ndarray) -> Constant:
    integers, step = by_row(values)
    return Constant(name, integers * step, step, 8)


def constants(model: Model) -> Iterator[Constant]:
    """What a right file has: matrices in 8 bits, the rest in float."""
    for name, parameter in model.named_parameters():
        values = parameter.numpy()
        yield packed(name, values) if values.ndim == 2 else whole(name, values.copy())


def hold(model: Model, *changed: Constant, without: str = "") -> stored.Held:
    names = {name: (name,) for name, _ in model.named_parameters(remove_duplicate=False)}
    instead = {constant.name for constant in changed} | {without}
    right = [constant for constant in constants(model) if constant.name not in instead]
    return stored.hold(model, names, [*right, *changed])


def test_a_right_file_is_the_model(model: Model) -> None:
    held = hold(model)
    assert held.wrong == []
    assert held.check().passed
    assert held.count == sum(parameter.numel() for parameter in model.parameters())
    assert NAME in held.packed
    assert "encoder.layers.0.up.bias" not in held.packed


@pytest.mark.parametrize("order", ["turned", "axes of one", "filled up", "another name"])
def test_axes_padding_and_names_are_the_formats_own(model: Model, order: str) -> None:
    one = packed(NAME, model.get_parameter(NAME).numpy())
    if order == "turned":
        one = Constant(NAME, one.values.T, one.step.T, 8)
    elif order == "axes of one":
        one = Constant(NAME, one.values[:, None, None, :], one.step[:, None, None, :], 8)
    elif order == "filled up":
        wide = np.pad(one.values, ((0, 0), (0, 5)))
        one = Constant(NAME, wide, np.broadcast_to(one.step, wide.shape), 8)
    else:
        one = dataclasses.replace(one, name=NAME.replace(".", "_"))
        assert hold(model, one, without=NAME).wrong == []
        return
    assert hold(model, one).wrong == []


def test_a_matrix_of_one_row_may_have_its_scales_in_blocks() -> None:
    choosing, name = visible("bert", "multiple-choice"), "head.classifier.weight"
    one = packed(name, choosing.get_parameter(name).numpy())
    assert one.values.shape[0] == 1
    assert hold(choosing, dataclasses.replace(one, step=np.broadcast_to(one.step, one.values.shape))).wrong == []


def test_only_the_first_rows_of_a_table_may_stand_in_a_file(model: Model) -> None:
    name = "encoder.embeddings.position.weight"
    rows = model.get_parameter(name).numpy()
    assert hold(model, whole(name, rows[:8])).wrong == []
    assert hold(model, whole(name, rows[1:9])).wrong != []


def wrong_values(kind: str, values: np.ndarray) -> np.ndarray:
    values = values.copy()
    match kind:
        case "one number off by a step":
            values[-1, -1] += 1.01 * np.abs(values[-1]).max() / 127
        case "one number negated":
            values[-1, np.abs(values[-1]).argmax()] *= -1
        case "two rows swapped":
            values[-2:] = values[-2:][::-1].copy()
        case "times 1.1":
            values *= 1.1
        case "zero":
            values[:] = 0
        case "not a number":
            values[-1, -1] = np.nan
    return values


@pytest.mark.parametrize("name", [NAME, TABLE])
@pytest.mark.parametrize(
    "kind",
    ["one number off by a step", "one number negated", "two rows swapped", "times 1.1", "zero", "not a number"],
)
def test_a_wrong_number_is_named(model: Model, name: str, kind: str) -> None:
    right = packed(name, model.get_parameter(name).numpy())
    held = hold(model, dataclasses.replace(right, values=wrong_values(kind, right.values)))
    assert len(held.wrong) >= 1
    assert held.wrong[0].startswith(f"{name} is not what the file has")
    assert not held.check().passed


def test_a_scale_that_swallows_its_numbers_is_wrong(model: Model) -> None:
    values = model.get_parameter(NAME).numpy()
    step = np.full((len(values), 1), 4 * np.abs(values).max(), np.float32)
    assert hold(model, Constant(NAME, np.zeros_like(values), step, 8)).wrong != []


def test_a_weight_that_is_left_out_is_named(model: Model) -> None:
    assert hold(model, without="encoder.layers.1.attention.query.bias").wrong == [
        "encoder.layers.1.attention.query.bias is not in the file"
    ]


def test_a_second_part_that_is_nothing_of_the_model_is_named(model: Model) -> None:
    values = model.get_parameter(NAME).numpy()
    held = hold(model, packed(f"{NAME}/0", values), packed(f"{NAME}/1", values[::-1]), without=NAME)
    assert held.wrong == [f"{NAME}/1 in the file is no weight of the model"]


def test_four_bits_are_held_as_a_whole(model: Model) -> None:
    values = model.get_parameter(NAME).numpy()
    step = np.abs(values).max(1, keepdims=True) / 7
    chosen = np.clip(np.rint(values / step) + np.random.default_rng(0).integers(-1, 2, values.shape), -8, 7) * step
    assert hold(model, Constant(NAME, chosen, step, 4)).wrong == []
    assert hold(model, Constant(NAME, chosen[::-1], step[::-1], 4)).wrong != []


def test_a_model_carries_what_the_file_has(model: Model) -> None:
    carrying = stored.carrying(model, hold(model).values)
    right = packed(NAME, model.get_parameter(NAME).numpy())
    np.testing.assert_array_equal(carrying.get_parameter(NAME).numpy(), right.values)
    assert not np.array_equal(model.get_parameter(NAME).numpy(), right.values)
