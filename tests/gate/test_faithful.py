"""Files of wrong models do not pass, in 8 bits as in float; benchmarks/wrong_models.py has many more of them."""

import contextlib
import copy
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT
from tiers import quick
from tiny import samples, visible

from edgebert.exporters import EXPORTERS
from edgebert.exporters.common import USUAL
from edgebert.exporters.provenance import origins
from edgebert.gate import faithful
from edgebert.gate.faithful import Made
from edgebert.gate.half import WHERE
from edgebert.models import Model
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES
from edgebert.report import Check
from edgebert.runtimes import SUFFIXES

LENGTHS = (8, 16)
REWRITES, WEIGHTS, GRAPH = "rewrites are exact", "every weight is the model's", "the graph without rounding is torch's"
PAIRS = [(target, recipe) for target, recipes in TARGET_RECIPES.items() for recipe in recipes]
QUICK = [("executorch", "w8a8-dynamic"), ("onnx", "w8a8-dynamic"), ("coreml", "w4"), ("tflite", "w8a8-dynamic")]


@pytest.fixture(scope="module")
def wrongs() -> Any:
    """The ways to be wrong, from the script that tries them all."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("wrong_models")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def checked(
    model: Model,
    broken: Model,
    pair: tuple[str, str],
    folder: Path,
    code: Callable[[], Any] = contextlib.nullcontext,
) -> dict[str, list[Check]]:
    """The checks of a file that was made of a broken model, by name."""
    target, recipe = pair
    exporter, how = EXPORTERS[target], RECIPES[recipe]
    with code():
        artifact = exporter.export(broken, how, LENGTHS, folder / f"model{SUFFIXES[target]}", (), samples())
    lowered = exporter.lower(model, how, LENGTHS[-1], (), USUAL if pair in WHERE else None)
    made = Made(artifact.path, model, lowered, origins(model, lowered), LENGTHS, artifact.dynamic, target)
    checks, *_ = faithful.check(made)
    found: dict[str, list[Check]] = {}
    for check in checks:
        found.setdefault(check.name, []).append(check)
    return found


def failed(checks: dict[str, list[Check]]) -> set[str]:
    return {name for name, each in checks.items() if not all(check.passed for check in each)}


@pytest.mark.parity
# Every export asks it of a right file, and tests/test_matrix.py exports them all.
@pytest.mark.parametrize(
    ("family", "target", "recipe"),
    quick([("squeezebert", *pair) for pair in PAIRS], [("squeezebert", *QUICK[0])]),
)
def test_a_right_file_passes(family: str, target: str, recipe: str, tmp_path: Path) -> None:
    model = visible(family, "sequence-classification")
    checks = checked(model, model, (target, recipe), tmp_path)
    assert failed(checks) == set(), checks
    assert set(checks) == {REWRITES, WEIGHTS, GRAPH}
    # ExecuTorch's file has a graph more, for processors that compute in half.
    assert len(checks[GRAPH]) == (2 if (target, recipe) == ("executorch", "w8a8-dynamic") else 1)


def by_turns(ways: list[str]) -> list[Any]:
    """Each way to be wrong with one pair, and each pair with one way; the former are quick."""
    chosen = [(way, *QUICK[0]) for way in ways]
    return quick(dict.fromkeys([*chosen, *((ways[i % len(ways)], *pair) for i, pair in enumerate(PAIRS))]), chosen)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "target", "recipe"),
    by_turns(["encoder.layers.1.up.weight", "encoder.layers.0.attention.query.bias", "head.classifier.bias"]),
)
def test_a_wrong_weight_is_found(name: str, target: str, recipe: str, tmp_path: Path) -> None:
    model = visible("bert", "sequence-classification")
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.get_parameter(name).mul_(1.1)
    assert WEIGHTS in failed(checked(model, broken, (target, recipe), tmp_path))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("way", "target", "recipe"),
    by_turns(["mask left out of one layer", "a residual beside a layer", "one layer twice"]),
)
def test_a_wrong_graph_is_found(way: str, target: str, recipe: str, tmp_path: Path, wrongs: Any) -> None:
    model = visible("bert", "sequence-classification")
    assert failed(checked(model, model, (target, recipe), tmp_path, wrongs.CODE[way])) == {GRAPH}


def test_a_rewrite_that_changes_the_answer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lower = EXPORTERS["executorch"].lower

    def wrong(*given: Any) -> Model:
        lowered: Model = lower(*given)
        norm: Any = lowered.encoder.get_submodule("layers.0.norm")
        norm.eps = 0.1
        return lowered

    monkeypatch.setattr(EXPORTERS["executorch"], "lower", wrong)
    model = visible("bert", "base")
    assert REWRITES in failed(checked(model, model, ("executorch", "fp32"), tmp_path))
