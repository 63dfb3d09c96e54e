"""Every cell of families, tasks, targets and recipes: exported, read back from disk, run in its runtime, and gated."""

from pathlib import Path

import pytest
from reference import cells, reference

import edgebert
from edgebert.errors import Unsupported
from edgebert.models import MODELS
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES

# What `make test` runs, so that each family, task, target and recipe comes up; `make test-all` runs every cell.
QUICK = [
    ("mobilebert", "masked-lm", "tflite", "fp32"),
    ("bert", "base", "tflite", "fp16"),
    ("rembert", "sequence-classification", "tflite", "w8"),
    ("squeezebert", "question-answering", "tflite", "w8a8-dynamic"),
    ("distilbert", "token-classification", "tflite", "w8a8-static"),
    ("mpnet", "multiple-choice", "tflite", "w4a8-dynamic"),
    ("rembert", "causal-lm", "onnx", "fp32"),
    ("roberta", "multiple-choice", "onnx", "fp16"),
    ("albert", "question-answering", "onnx", "w4"),
    ("modernbert", "sequence-classification", "onnx", "w8a8-dynamic"),
    ("nomic_bert", "sentence-embedding", "onnx", "w8a8-static"),
    ("convbert", "base", "executorch", "fp32"),
    ("electra", "replaced-token-detection", "executorch", "w8a8-dynamic"),
    ("mpnet", "sentence-embedding", "executorch", "w8a8-dynamic"),
    ("mobilebert", "token-classification", "executorch", "w8a8-static"),
    ("bert", "sequence-classification", "executorch", "w4a8-dynamic"),
    ("deberta-v2", "masked-lm", "coreml", "fp32"),
    ("convbert", "sequence-classification", "coreml", "fp16"),
    ("squeezebert", "base", "coreml", "w8"),
    ("bert", "multiple-choice", "coreml", "w4"),
    ("squeezebert", "sequence-classification", "coreml", "w8a8-static"),
]

ALL = [
    (name, task, target, recipe)
    for name, task in cells()
    for target, recipes in TARGET_RECIPES.items()
    for recipe in recipes
]


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "task", "target", "recipe"),
    [pytest.param(*cell, marks=[] if cell in QUICK else [pytest.mark.slow]) for cell in ALL],
)
def test_cell(tmp_path: Path, name: str, task: str, target: str, recipe: str) -> None:
    reference(name, task).save_pretrained(tmp_path / "checkpoint")
    where, out = tmp_path / "checkpoint", tmp_path / "out"
    # A second length, and a second look, are asked of the choice alone: they double what a cell takes.
    chosen = (name, task, target, recipe) in QUICK
    lengths = (8, 16) if chosen else (16,)
    made = edgebert.export(where, task=task, target=target, recipe=recipe, lengths=lengths, out=out)
    assert made.report is not None
    assert made.report.passed
    if chosen:
        assert edgebert.validate(tmp_path / "out").outputs == made.report.outputs


def test_the_quick_choice_covers_every_row_and_column() -> None:
    assert set(QUICK) <= set(ALL)
    assert {name for name, *_ in QUICK} == set(MODELS)
    assert {task for _, task, *_ in QUICK} == {task for family in MODELS.values() for task in family.heads}
    assert {(target, recipe) for *_, target, recipe in QUICK} == {
        (target, recipe) for target, recipes in TARGET_RECIPES.items() for recipe in recipes
    }


@pytest.mark.parametrize("target", TARGET_RECIPES)
def test_a_recipe_the_target_does_not_take_is_refused_with_its_row(tmp_path: Path, target: str) -> None:
    for recipe in RECIPES.keys() - set(TARGET_RECIPES[target]):
        with pytest.raises(Unsupported, match=f"{target} does not take {recipe}; it takes {TARGET_RECIPES[target][0]}"):
            edgebert.export("default", target=target, recipe=recipe, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


LACKING = [(name, "causal-lm") for name, family in MODELS.items() if "causal-lm" not in family.heads]


@pytest.mark.parametrize(("name", "task"), LACKING)
def test_a_task_the_family_lacks_is_refused_with_its_row(tmp_path: Path, name: str, task: str) -> None:
    preset = next(iter(MODELS[name].presets))
    with pytest.raises(Unsupported, match=f"{name} has no task '{task}'; it has base, sentence-embedding, masked-lm"):
        edgebert.export(preset, task=task, random_init=True, out=tmp_path / "out")
