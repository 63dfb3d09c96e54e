"""The table of recipes, the matrix that is printed from it, and what `--keep-float` names."""

import pytest
from paths import ROOT

from edgebert.cli import support
from edgebert.gate.parity import TOLERANCES
from edgebert.quantization.recipes import NOT_TAKEN, RECIPES, TARGET_RECIPES, floor, kept

PAGE = ROOT / "docs" / "choosing.md"


def test_each_cell_is_taken_and_has_a_tolerance_or_is_refused_and_has_a_reason() -> None:
    cells = {(target, recipe) for target in TARGET_RECIPES for recipe in RECIPES}
    taken = {(target, recipe) for target, recipes in TARGET_RECIPES.items() for recipe in recipes}
    assert set(TOLERANCES) == taken
    assert set(NOT_TAKEN) == cells - taken
    for (target, _), reason in NOT_TAKEN.items():
        instead = reason.partition("; use ")[2]
        assert any(name in instead for name in TARGET_RECIPES[target]), reason


def test_recipe_names_keep_to_their_grammar() -> None:
    for name, recipe in RECIPES.items():
        assert name == recipe.name
        if recipe.quantized:
            assert name.startswith(f"w{recipe.weight_bits}")
            assert ("a8" in name) == (recipe.activation_bits == 8)
        assert recipe.static == name.endswith("static")


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("encoder.layers.0.attention.query", ("encoder.layers.0.attention.query",), True),
        ("encoder.layers.0.attention.query.parts.1", ("*.attention.query",), True),
        ("encoder.layers.10.up", ("encoder.layers.1",), False),
        ("encoder.layers.1.up", ("encoder.layers.1",), True),
        ("head.classifier", ("head.*", "nothing"), True),
        ("head.classifier", (), False),
    ],
)
def test_kept_names_a_module_and_all_that_is_in_it(name: str, patterns: tuple[str, ...], expected: bool) -> None:
    assert kept(name, patterns) is expected


def test_the_docs_hold_the_matrix() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert support.markdown(support.targets()) in text
    assert support.markdown(support.tasks()) in text
    assert support.markdown(support.floors()) in text


def test_a_floor_depends_on_target_recipe_and_in_core_ml_on_lengths() -> None:
    assert floor("onnx", "w4", (32, 64)) == "ONNX Runtime 1.23"
    assert floor("tflite", "w8", (32, 64)) == floor("tflite", "w8", (32,))
    assert (floor("coreml", "w8", (32,)), floor("coreml", "w8", (32, 64))) == ("iOS 17", "iOS 18")


def test_each_no_in_the_matrix_has_its_reason() -> None:
    refused = sum(row.count("no") for row in support.targets()[1:])
    assert len(support.reasons()) == refused
    for task, families, elsewhere in support.tasks()[1:]:
        assert (families == "all") == (elsewhere == "-"), task
