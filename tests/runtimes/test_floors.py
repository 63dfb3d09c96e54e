"""Runtimes that users still have: every recipe's files answer right in them, or are refused, and the docs say which."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import floors
import numpy as np
import pytest
from floors import RUNTIMES, Runtime
from paths import ROOT
from shared import shared
from tiny import batch, expected, samples, sqnr, visible

from edgebert.exporters import EXPORTERS
from edgebert.gate.parity import TOLERANCES
from edgebert.models.signature import Arrays
from edgebert.quantization.recipes import FLOORS, RECIPES, TARGET_RECIPES
from edgebert.runtimes import SUFFIXES

DOCS = ROOT / "docs" / "floors.md"
TARGETS = ("tflite", "onnx")
LENGTHS = (8, 16)
# Grouped projections and a head of one token; blocks of four-bit weights and a tied output layer for every token; a
# scale for each token and what pools them.
MODELS = (("squeezebert", "sequence-classification"), ("bert", "masked-lm"), ("bert", "sentence-embedding"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A file, its recipe, what it is asked, and what torch says."""

    file: Path
    recipe: str
    inputs: Arrays
    wanted: Arrays


def make(target: str, folder: Path) -> list[Asked]:
    """A file of each model in each recipe."""
    asked = []
    for family, task in MODELS:
        model, inputs = visible(family, task), batch(LENGTHS[-1])
        for recipe in TARGET_RECIPES[target]:
            path = folder / f"{family}-{task}-{recipe}{SUFFIXES[target]}"
            EXPORTERS[target].export(model, RECIPES[recipe], LENGTHS, path, (), samples())
            asked.append(Asked(path, recipe, inputs, expected(model, inputs)))
    return asked


def word(runtime: Runtime, recipe: str, answer: Arrays | str, wanted: Mapping[str, np.ndarray]) -> str:
    """`right` or `refuses`; anything else fails."""
    if isinstance(answer, str):
        assert answer, f"{runtime.name} refuses {recipe} and does not say why"
        return "refuses"
    assert answer.keys() == wanted.keys()
    near = min(sqnr(wanted[name], answer[name]) for name in wanted)
    assert near >= TOLERANCES[runtime.target, recipe].min_sqnr_db, f"{runtime.name} {recipe}: {near:.1f} dB from torch"
    return "right"


def row(runtime: Runtime, words: Mapping[str, str]) -> str:
    """A line of the table in the docs."""
    return f"| {runtime.name} | {' | '.join(words[recipe] for recipe in TARGET_RECIPES[runtime.target])} |"


def told() -> dict[str, dict[str, str]]:
    """The docs' tables: a runtime to what it does with each recipe of its target."""
    lines = [line.strip("| ").split(" | ") for line in DOCS.read_text(encoding="utf-8").splitlines() if "|" in line]
    found = {cells[0]: cells[1:] for cells in lines}
    return {
        runtime.name: dict(zip(TARGET_RECIPES[runtime.target], found[runtime.name], strict=True))
        for runtime in RUNTIMES
        if runtime.name in found
    }


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.folder.name)
def test_an_older_runtime_is_right_or_refuses_as_the_docs_say(
    runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not (runtime.folder / "done").exists():
        pytest.skip(f"needs an environment with {runtime.name}: make floors")
    files = shared(tmp_path_factory, f"floors-{runtime.target}", lambda folder: make(runtime.target, folder))
    words: dict[str, set[str]] = {}
    for one in files:
        answer = floors.ask(runtime, one.file, one.inputs)
        words.setdefault(one.recipe, set()).add(word(runtime, one.recipe, answer, one.wanted))
    seen = row(runtime, {recipe: " or ".join(sorted(found)) for recipe, found in words.items()})
    print(seen)
    assert seen in DOCS.read_text(encoding="utf-8").splitlines()


def test_the_docs_have_every_runtime_and_every_floor_with_the_release_below_it() -> None:
    docs = told()
    assert docs.keys() == {runtime.name for runtime in RUNTIMES}
    for target in TARGETS:
        names = [runtime.name for runtime in RUNTIMES if runtime.target == target]
        for recipe in TARGET_RECIPES[target]:
            least = next(i for i, name in enumerate(names) if name.startswith(f"{FLOORS[target, recipe]}."))
            assert least > 0, f"no runtime below the floor of {target} {recipe} is run"
            assert {docs[name][recipe] for name in names[least:]} == {"right"}, (target, recipe)
            assert {docs[name][recipe] for name in names[:least]} <= {"right", "refuses"}


def test_wrong_numbers_and_a_process_that_dies_are_no_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, wanted = RUNTIMES[0], {"logits": np.ones((1, 3), np.float32)}
    assert word(runtime, "fp32", "Didn't find op", wanted) == "refuses"
    assert word(runtime, "fp32", {"logits": wanted["logits"] + np.float32(1e-6)}, wanted) == "right"
    with pytest.raises(AssertionError, match="dB from torch"):
        word(runtime, "fp32", {"logits": np.zeros((1, 3), np.float32)}, wanted)
    monkeypatch.setattr(floors, "FOLDER", tmp_path)
    python = runtime.folder / "bin/python"
    python.parent.mkdir(parents=True)
    for ends, code in (("kill -SEGV $$", -11), ("exit 1", 1)):
        python.write_text(f"#!/bin/sh\n{ends}\n")
        python.chmod(0o755)
        with pytest.raises(AssertionError, match=f"ended with {code} on"):
            floors.ask(runtime, tmp_path / "m.tflite", batch(8))
