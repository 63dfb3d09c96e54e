"""What is said of the time that steps take; how near it is, `benchmarks/durations.py` measures."""

from pathlib import Path

import pytest
from answering import save

from edgebert import durations
from edgebert.catalog import check_pair
from edgebert.cli.main import main
from edgebert.gate.half import WHERE
from edgebert.models import MODELS, outline
from edgebert.quantization.recipes import TARGET_RECIPES

SAID = [
    (0.0, ""),
    (9.9, ""),
    (10.0, ", about 10 s"),
    (44.0, ", about 40 s"),
    (97.0, ", about 2 min"),
    (600, ", about 10 min"),
]


@pytest.mark.parametrize(("seconds", "said"), SAID)
def test_what_is_long_is_told_to_one_digit(seconds: float, said: str) -> None:
    assert durations.told(seconds) == said


@pytest.mark.parametrize("target", TARGET_RECIPES)
def test_a_published_size_takes_a_while_with_every_target_and_recipe(target: str) -> None:
    model = outline(MODELS["bert"], MODELS["bert"].presets["bert-base"], "base")
    for recipe in TARGET_RECIPES[target]:
        takes = durations.export(model, target, check_pair(target, recipe), (32, 64, 128))
        assert 10 < takes.gate < 100
        assert takes.convert < 300
        longer = durations.export(model, target, check_pair(target, recipe), (512,))
        assert longer.gate > 2 * takes.gate
    assert {one for one, _ in WHERE} == set(durations.HALF)


def test_a_simulation_of_a_large_file_is_long_and_of_a_small_one_not() -> None:
    assert durations.told(durations.simulation(5_000_000, 128)) == ""
    assert durations.told(durations.simulation(110_000_000, 128)) == ", about 30 s"


@pytest.mark.parity
def test_the_steps_tell_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durations, "SHORT", 1.0)
    monkeypatch.setattr(durations, "GATE", dict.fromkeys(durations.GATE, 10_000.0))
    made, source = str(tmp_path / "made"), str(save(tmp_path / "source", "sequence-classification"))
    assert main(["export", source, "--target", "onnx", "--recipe", "fp32", "--lengths", "32", "-o", made]) == 0
    told = capsys.readouterr().err
    assert "convert to onnx fp32, about " in told
    assert "compare with torch in the onnx runtime, about " in told
    assert main(["validate", made]) == 0
    assert "compare with torch's answers, about " in capsys.readouterr().err
