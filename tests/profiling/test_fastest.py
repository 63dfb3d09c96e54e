"""Which recipe is the fastest on a simulated phone, and that an export takes it where it passes the gate."""

from pathlib import Path
from typing import Any

import pytest
from reference import reference

import edgebert
from edgebert import api
from edgebert.cli.main import main
from edgebert.errors import ParityFailed
from edgebert.profiling import fastest
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices.pixel import sandbox

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs the sandbox: {sandbox.SETUP}"),
    pytest.mark.skipif(RUNTIMES["tflite"].missing() is not None, reason="needs tflite"),
]


@pytest.mark.slow
def test_8_bits_lead_by_far_less_without_dot_products() -> None:
    lead = {}
    for phone in ("pixel-3", "pixel-4"):
        ranked = fastest.rank(fastest.count("default", "tflite", (32,), phone, 1, lambda step: None))
        assert {choice.recipe for choice in ranked} == {"fp32", "fp16", "w8a8-dynamic"}
        assert [choice.ms for choice in ranked] == sorted(choice.ms for choice in ranked)
        assert all(choice.low_ms < choice.ms < choice.high_ms for choice in ranked)
        took = {choice.recipe: choice.ms for choice in ranked}
        lead[phone] = took["fp16"] / took["w8a8-dynamic"]
    assert lead["pixel-3"] < 1.25 < 1.5 < lead["pixel-4"]


def test_an_export_for_a_phone_takes_the_next_recipe_where_the_first_is_not_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, told, whole = [], list[str](), api.export

    def export(*given: Any, **more: Any) -> api.Exported:
        """The first recipe stands for one that fails the gate: no model here does so in the fastest one."""
        asked.append(more["recipe"])
        if len(asked) == 1:
            raise ParityFailed("not the model", None)  # type: ignore[arg-type]
        return whole(*given, **more)

    monkeypatch.setattr(api, "export", export)
    reference("bert", "sequence-classification").save_pretrained(tmp_path / "model")
    made = whole(tmp_path / "model", lengths=(8,), out=tmp_path / "bundle", phone="pixel-4", progress=told.append)
    assert asked == [choice.recipe for choice in made.choices[:2]]
    assert made.manifest.recipe == asked[1]
    assert made.report is not None
    assert made.report.passed
    assert sum("the fastest on pixel-4, for 8 tokens, simulated" in line for line in told) == 2
    assert [choice["recipe"] for choice in made.to_dict()["choices"]] == [choice.recipe for choice in made.choices]


def test_a_profile_for_a_phone_counts_each_recipe_and_says_which_is_fastest(capsys: Any, tmp_path: Path) -> None:
    reference("bert", "sequence-classification").save_pretrained(tmp_path / "model")
    assert main(["profile", str(tmp_path / "model"), "--for", "pixel-4", "--target", "onnx", "--lengths", "8"]) == 0
    out = capsys.readouterr().out
    assert "the fastest on pixel-4, for 8 tokens, simulated" in out
    assert "--target onnx --for pixel-4" in out
    rows = edgebert.profile(tmp_path / "model", lengths=(8,), target="onnx", phone="pixel-4").flat()
    assert {row["recipe"] for row in rows} == {"fp32", "fp16", "w8a8-dynamic"}


REFUSED = {
    "no such phone": (["export", "default", "--for", "pixel-44"], "pixel-44"),
    "a recipe to export": (["export", "default", "--for", "pixel-4", "--recipe", "fp16"], "leave --recipe out"),
    "a length": (["export", "default", "--for", "pixel-4", "--lengths", "9999"], "9999"),
    "a place that is taken": (["export", "default", "--for", "pixel-4", "--out", "taken"], "holds no manifest.json"),
    "another device": (["profile", "default", "--for", "pixel-4", "--device", "host"], "leave --device out"),
    "a recipe to profile": (["profile", "default", "--for", "pixel-4", "--recipe", "fp16"], "leave --recipe out"),
    "operators, and layers": (
        ["profile", "default", "--for", "pixel-4", "--per-op", "--extrapolate-layers"],
        "leave --per-op and --extrapolate-layers out",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_goes_with_no_phone_is_refused_before_anything_is_counted(
    what: str, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")

    def counted(*given: Any, **more: Any) -> None:
        raise AssertionError("a layer was counted")

    monkeypatch.setattr(fastest.extrapolate, "count", counted)
    arguments, said = REFUSED[what]
    assert main(arguments) == 2
    err = capsys.readouterr().err.strip()
    assert err.splitlines()[-1].startswith("edgebert: ")
    assert said in err
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine.txt"]
