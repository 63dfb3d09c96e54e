"""Which recipe is the fastest on a simulated phone, and that an export takes it where it passes the gate."""

from pathlib import Path
from typing import Any

import pytest
from reference import reference

import edgebert
from edgebert import api
from edgebert.cli.main import main
from edgebert.errors import InputError, ParityFailed
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
    with pytest.raises(InputError, match="leave --calibrate, --per-op and --inputs out"):
        edgebert.profile(tmp_path / "model", phone="pixel-4", per_op=True)


@pytest.mark.parametrize("more", [["--for", "pixel-44"], ["--for", "pixel-4", "--recipe", "fp16"]])
def test_what_goes_with_no_phone_is_a_line(more: list[str], capsys: Any, tmp_path: Path) -> None:
    assert main(["export", "--out", str(tmp_path / "bundle"), *more]) == 2
    assert capsys.readouterr().err.startswith("edgebert: ")
    assert not (tmp_path / "bundle").exists()
