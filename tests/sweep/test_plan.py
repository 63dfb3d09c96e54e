"""What a sweep is asked for, and the cells that it comes to."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgebert.errors import InputError
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES
from edgebert.sweep import plan
from edgebert.sweep.contents import Content
from edgebert.sweep.plan import TORCH, Plan

MODELS = {"default": Content("default")}


def test_all_stands_for_each_target_and_recipe() -> None:
    cells = plan.cells(Plan(), MODELS, None)
    assert [(cell.target, cell.recipe) for cell in cells] == [(t, r) for t in TARGET_RECIPES for r in RECIPES]
    assert len({cell.key for cell in cells}) == len(cells)


def test_texts_with_labels_ask_the_model_itself_first() -> None:
    first, *others = plan.cells(Plan(target=("tflite",), recipe=("fp16", "fp16")), MODELS, Content("texts", "/texts"))
    assert (first.target, first.recipe, first.name) == (TORCH, "fp32", "default torch")
    assert [cell.name for cell in others] == ["default tflite fp16"]


def test_int8_is_each_targets_own() -> None:
    cells = plan.cells(Plan(target=("onnx", "coreml"), recipe=("int8", "w8")), MODELS, None)
    assert [(cell.target, cell.recipe) for cell in cells] == [
        ("onnx", "w8a8-dynamic"), ("onnx", "w8"), ("coreml", "w8")
    ]  # fmt: skip


CHANGES = [
    {"content": Content("other")},
    {"recipe": "fp16"},
    {"lengths": (32,)},
    {"device": ("pixel-4",)},
    {"figures": Content("texts", "/here")},
    {"task": "base"},
    {"random_init": True},
    {"threads": 2},
    {"runs": 5},
    {"versions": {"edgebert": "0"}},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_cell_is_another_where_its_results_may_be(change: dict[str, object]) -> None:
    cell = plan.cells(Plan(target=("onnx",), recipe=("fp32",)), MODELS, None)[0]
    assert replace(cell, **change).key != cell.key


def test_a_cell_is_the_same_wherever_its_model_stands() -> None:
    cell = plan.cells(Plan(target=("onnx",), recipe=("fp32",)), {"default": Content("digest", "/here")}, None)[0]
    assert replace(cell, model="elsewhere", content=Content("digest", "/there")).key == cell.key


def test_a_plan_file_has_the_options_as_keys(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(
        'model = ["a", "b"]\ntarget = "tflite"\nlengths = [32, 64]\nrandom_init = true\nruns = 5\neval = "dev.tsv"\n'
        'budget = ["latency_ms=20@pixel-6"]\n',
        encoding="utf-8",
    )
    assert Plan(**plan.read(path)) == Plan(
        model=("a", "b"), target=("tflite",), lengths=(32, 64), random_init=True, runs=5, eval="dev.tsv",
        budget=("latency_ms=20@pixel-6",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("modle = 'a'", "did you mean model?"),
        ("lengths = ['a']", r"lengths = \['a'\]; int or a list of them is needed"),
        ("runs = true", "runs = True; int is needed"),
        ("runs = [1]", r"runs = \[1\]; int is needed"),
        ("model = ", "cannot be read as a plan"),
    ],
)
def test_what_a_plan_has_not_is_refused(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=told):
        plan.read(path)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (Plan(target=("tflight",)), "did you mean tflite"),
        (Plan(recipe=("w9",)), "recipe 'w9' is not known"),
        (Plan(task="clasification"), "task 'clasification' is not known"),
        (Plan(lengths=(0,)), "lengths 0; at least 1 is needed"),
        (Plan(runs=0), "runs 0"),
        (Plan(model=()), "needs a model"),
    ],
)
def test_what_no_cell_could_do_is_refused_beforehand(asked: Plan, told: str) -> None:
    with pytest.raises(InputError, match=told):
        plan.check(asked)
