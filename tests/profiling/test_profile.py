"""`edgebert profile` and `edgebert device`: tables and ratios, errors, and the gate on other devices.

Runs on an emulated core are skipped where the sandbox is not set up: `edgebert device setup pixel` makes it.
"""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import endless_onnx, onnx_file, pte_file, tflite_file
from reference import reference

import edgebert
from edgebert import api, bundle
from edgebert.cli.main import main
from edgebert.errors import InputError, MissingDependency
from edgebert.gate import parity
from edgebert.gate.golden import load as load_golden
from edgebert.models import MODELS, Model
from edgebert.profiling import extrapolate, gate, plot, profile, rows
from edgebert.profiling.operators import summed
from edgebert.profiling.rows import Row, ranked
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import device_names, open_device
from edgebert.runtimes.devices.device import HOST, SIMULATED, Estimate, Job, Latency, Measurement
from edgebert.runtimes.devices.pixel import sandbox
from edgebert.runtimes.devices.pixel import setup as pixel_setup

simulated = pytest.mark.skipif(sandbox.missing() is not None, reason=f"needs the sandbox: {sandbox.missing()}")
draws = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason=f"needs {plot.NEEDED}")
needs = {
    name: pytest.mark.skipif(RUNTIMES[name].missing() is not None, reason=f"needs {RUNTIMES[name].missing()}")
    for name in ("tflite", "onnx", "executorch")
}
TARGETS = [pytest.param(name, marks=[needs[name], pytest.mark.parity]) for name in needs]
LENGTHS = (8, 16)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A bundle of a tiny SqueezeBERT classifier for each runtime that is here, each made when it is first asked for."""
    folder = tmp_path_factory.mktemp("bundles")
    reference("squeezebert", "sequence-classification").save_pretrained(folder / "checkpoint")

    class Made(dict[str, Path]):
        def __missing__(self, target: str) -> Path:
            out = folder / target
            edgebert.export(folder / "checkpoint", target=target, recipe="w8a8-dynamic", lengths=LENGTHS, out=out)
            self[target] = out
            return out

    return Made()


def told(device: str, median: float | None, length: int | None = 8, estimate: Estimate | None = None) -> Row:
    """A row without a run."""
    latency = Latency(median, median * 1.2, median * 0.9, median * 2, 0.3, 5) if median else None
    how = SIMULATED if device.startswith("pixel") else HOST
    found = Measurement(
        device, how, "onnx", 1, None, (), (), 1.0, 2.0, latency, 10**8, {"onnxruntime": "1"}, {"cpu": "x"},
        ("a note",), estimate,
    )  # fmt: skip
    return Row(f"{device}.onnx", "onnx", "fp32", length, 5_000_000, None, found)


def modelled(ms: float, instructions: int = 1000) -> Estimate:
    return Estimate(
        instructions, ms * 1e6, ms, ms * 0.8, ms * 1.25, "cortex-a76", 1.0, "load", {"load": 0.75, "vector": 0.25},
        None, {"fma32": instructions}, {"arithmetic": 0.5, "data movement": 0.25, "everything else": 0.25}, (),
    )  # fmt: skip


def test_rows_are_sorted_by_latency_with_ratios_to_the_fastest_of_their_length() -> None:
    rows = ranked([
        told("host", 6.0, 16), told("a", 9.0), told("b", None), told("c", 3.0), told("d", 2.0, 16),
        told("pixel-4", None, 8, modelled(6.0)),
    ])  # fmt: skip
    assert [(row.found.device, row.ratio) for row in rows] == [
        ("c", 1.0), ("pixel-4", 2.0), ("a", 3.0), ("b", None), ("d", 1.0), ("host", 3.0),
    ]  # fmt: skip
    assert rows[1].band_ms == pytest.approx((4.8, 7.5))
    assert rows[0].band_ms == pytest.approx((3.6 - 0.9, 3.6))


def test_the_tables_name_every_number_and_what_kind_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    from edgebert.cli import render

    render.profile(ranked([told("host", 1.5), told("pixel-4", None, 8, modelled(3.0)), told("pixel-3", None)]))
    out = capsys.readouterr().out
    for words in ("measured on host", "simulated", "2.00", "2.40 to 3.75", "load", "a note", "onnxruntime 1", "5.0 MB"):
        assert words in out
    assert max(map(len, out.splitlines()[:8])) > 80  # not folded to a terminal that is not there
    assert "SQNR" not in out, "a column without a number"
    assert "busy" not in out


def test_one_table_has_ratio_and_quality_and_a_busy_host_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    from edgebert.cli import render

    slow = replace(told("host", 3.0), file="float.onnx", sqnr_db=123.4)
    steady = replace(told("host", 1.5), sqnr_db=23.4)
    busy = replace(steady.found, latency=Latency(1.5, 3.0, 1.0, 4.0, 0.8, 5))
    render.profile(ranked([slow, replace(steady, found=busy)]))
    out = capsys.readouterr().out
    first = out[: out.index("p90")]
    for words in ("float.onnx", "123.4", "23.4", "2.00", "1.00", "SQNR dB"):
        assert words in first
    (warning,) = (line for line in out.splitlines() if line.startswith("warning:"))
    assert "host was busy: runs of host.onnx at 8 tokens differ by 80%" in warning


@pytest.mark.parametrize(
    "target", [TARGETS[0], *(pytest.param(*one.values, marks=[*one.marks, pytest.mark.slow]) for one in TARGETS[1:])]
)
def test_a_bundle_is_profiled_at_its_lengths_or_those_asked_for(bundles: dict[str, Path], target: str) -> None:
    found = api.profile([bundles[target]], runs=3)
    assert [row.length for row in found.rows] == list(LENGTHS)
    for row in found.rows:
        assert (row.target, row.recipe, row.found.how, row.ratio) == (target, "w8a8-dynamic", HOST, 1.0)
        assert row.found.latency is not None
        assert row.found.latency.runs == 3
        assert row.file_bytes == bundle.read(bundles[target]).model_bytes
        assert row.delegated is None if target == "onnx" else row.delegated is not None and row.delegated > 0.9
    # Between two lengths a file with a free axis takes it as it is, and any other its next.
    (row,) = api.profile([bundles[target]], lengths=[11], runs=1).rows
    assert row.length == (16 if target == "tflite" else 11)
    with pytest.raises(InputError, match="at most 16 tokens"):
        api.profile([bundles[target]], lengths=[17])


@needs["onnx"]
@pytest.mark.parity
def test_json_and_picture_of_two_files(bundles: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    foreign = onnx_file(tmp_path / "foreign.onnx")
    assert main(["profile", str(bundles["onnx"]), str(foreign), "--lengths", "8,16", "--runs", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["length"], row["ratio"] == 1.0) for row in rows] == [(8, True), (8, False), (16, True), (16, False)]
    assert {row["how"] for row in rows} == {HOST}
    assert all(row["latency"]["median_ms"] > 0 and row["versions"]["onnxruntime"] for row in rows)
    assert rows[0]["file"] == str(foreign)  # a lookup and a product are quicker than an encoder


@pytest.mark.parity
def test_any_file_is_profiled(tmp_path: Path) -> None:
    makers: dict[str, Any] = {
        "tflite": lambda path: tflite_file(path / "a.tflite", False)[0],
        "onnx": lambda path: onnx_file(path / "a.onnx"),
        "executorch": lambda path: pte_file(path / "a.pte", "encode"),
    }
    files = [make(tmp_path) for name, make in makers.items() if RUNTIMES[name].missing() is None]
    rows = api.profile(files, runs=2).rows
    assert {row.file for row in rows} == set(map(str, files))
    assert {row.found.runtime: row.length for row in rows}.items() <= {
        "tflite": None, "onnx": 128, "executorch": 16,
    }.items()  # fmt: skip


@needs["onnx"]
@pytest.mark.parity
def test_a_graph_that_never_ends_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PATIENCE", 4)
    with pytest.raises(InputError, match=r"endless\.onnx: its first run was not done in time"):
        api.profile([endless_onnx(tmp_path / "endless.onnx")], lengths=[4], runs=1)


@needs["onnx"]
@pytest.mark.parity
def test_operators_come_from_the_runtimes_own_profiler(bundles: dict[str, Path], capsys: Any) -> None:
    assert main(["profile", str(bundles["onnx"]), "--per-op", "--runs", "3", "--lengths", "8", "--json"]) == 0
    (operators,) = json.loads(capsys.readouterr().out)["operators"]
    kinds = {row["kind"]: row for row in operators["rows"]}
    assert kinds["Softmax"]["count"] == MODELS["squeezebert"].config.tiny().num_hidden_layers
    assert sum(row["share"] for row in kinds.values()) == pytest.approx(1.0)
    assert operators["how"] == HOST


@needs["tflite"]
@pytest.mark.parity
def test_a_runtime_without_a_profiler_says_so_and_counts(bundles: dict[str, Path], capsys: Any) -> None:
    assert main(["profile", str(bundles["tflite"]), "--per-op", "--runs", "1", "--seq-len", "8"]) == 0
    out = capsys.readouterr().out
    assert "has no profiler of operators" in out
    assert "CONV_2D" in out


def test_a_trace_is_summed_over_the_runs_that_count() -> None:
    def node(kind: str, start: int, took: int) -> dict[str, Any]:
        return {"cat": "Node", "name": f"{kind}_1_kernel_time", "ts": start, "dur": took, "args": {"op_name": kind}}

    def run(start: int) -> dict[str, Any]:
        return {"cat": "Session", "name": "model_run", "ts": start, "dur": 99, "args": {}}

    events = [run(0), node("Add", 1, 5000), run(100), node("Add", 101, 1000), node("Mul", 103, 3000)]
    events += [run(200), node("Add", 201, 3000), node("Mul", 203, 1000), {"name": "nothing", "cat": "Node", "ts": 204}]
    rows = summed(events, 2)
    assert {(row.kind, row.count, row.ms, row.share) for row in rows} == {("Add", 1, 2.0, 0.5), ("Mul", 1, 2.0, 0.5)}


def test_the_devices_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for arguments in (["profile", "--list-devices"], ["device", "list"]):
        assert main([*arguments, "--json"]) == 0
        listed = {row["device"]: row for row in json.loads(capsys.readouterr().out)}
        assert set(listed) == set(device_names())
        assert listed["host"] == {"device": "host", "how": HOST, "missing": None}
        assert listed["pixel-4"] == {"device": "pixel-4", "how": SIMULATED, "missing": sandbox.SETUP}
        assert main(arguments) == 0
        assert "ready" in capsys.readouterr().out


BAD = [
    (["profile"], 2, "no file to profile"),
    (["profile", "nothing.onnx"], 2, "nothing.onnx is not a file"),
    (["profile", "broken.tflite"], 2, "broken.tflite"),
    (["profile", "broken.onnx"], 2, "broken.onnx"),
    (["profile", "broken.pte"], 2, "broken.pte"),
    (["profile", "folder"], 2, "folder is no bundle"),
    (["profile", "broken.txt"], 2, "none of .tflite, .onnx, .pte"),
    (["profile", "model.mlpackage"], 4, "Apple"),
    (["profile", "broken.onnx", "--device", "pixle-4"], 2, "did you mean pixel-4?"),
    (["profile", "broken.onnx", "--device", "pixel-4"], 3, "run edgebert device setup pixel"),
    (["profile", "broken.onnx", "--runs", "0"], 2, "--runs 0; at least 1"),
    (["profile", "broken.onnx", "--threads", "0"], 2, "--threads 0; at least 1"),
    (["profile", "broken.onnx", "--seq-len", "16,0"], 2, "--lengths 0; at least 1"),
    (["profile", "broken.onnx", "--extrapolate-layers"], 2, "a bundle or a preset, not a file"),
    (["profile", "bert-base", "--extrapolate-layers", "--recipe", "w4"], 4, "tflite does not take w4"),
    (["profile", "bert-base", "--extrapolate-layers", "--per-op"], 2, "ask for one of them"),
    (["profile", "broken.onnx", "--plot", "picture.txt"], 2, "must end in one of .png"),
    (["profile", "broken.onnx", "--plot", "absent/picture.png"], 2, "absent is no folder"),
    (["device", "setup", "pixle"], 2, "did you mean pixel?"),
    (["device", "setup"], 2, "there are pixel"),
    (["device", "setup", "pixel", "--sysroot", "folder"], 2, "usr/bin/python3"),
    (["validate", "folder", "--device", "pixel-4"], 2, "folder is no bundle"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD, ids=[" ".join(arguments) for arguments, *_ in BAD])
def test_bad_usage_is_one_line_and_its_exit_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    if "--sysroot" in arguments and sandbox.missing() is not None:
        pytest.skip("the parts before it would be fetched")
    if "--sysroot" in arguments:
        monkeypatch.setattr(sandbox, "current", lambda *_: True)
        monkeypatch.setattr(pixel_setup, "_whole", lambda *_: True)
    if "--plot" in arguments and importlib.util.find_spec("matplotlib") is None:
        pytest.skip(f"needs {plot.NEEDED}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for suffix in (".tflite", ".onnx", ".pte", ".txt"):
        Path(f"broken{suffix}").write_bytes(b"\x18\0\0\0ET12" + bytes(range(256)))
    for folder in ("folder", "model.mlpackage"):
        Path(folder).mkdir()
    assert main(arguments) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("edgebert: ")]
    assert len(lines) == 1
    assert words in lines[0]
    assert captured.out == ""
    assert main([*arguments, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["exit_code"] == code


def test_setting_up_tells_its_steps_and_where_it_is(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    box = sandbox.Sandbox(
        tmp_path / "qemu", None, tmp_path / "system", "usr/bin/python3.11", (), tmp_path / "counter.so"
    )
    asked = []

    def setup(tell: Callable[[str], None], sysroot: Path | None = None) -> sandbox.Sandbox:
        asked.append(sysroot)
        tell("qemu: fetching")
        return box

    monkeypatch.setattr(pixel_setup, "setup", setup)
    assert main(["device", "setup", "pixel"]) == 0
    captured = capsys.readouterr()
    assert "qemu: fetching\n" in captured.err
    assert captured.out == "next: edgebert profile FILE --device pixel-4\n"
    assert main(["device", "setup", "pixel", "--sysroot", "there", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["qemu"] == str(box.qemu)
    assert asked == [None, Path("there")]


def test_a_picture_needs_matplotlib(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"edgebert\[plot\]"):
        plot.check(tmp_path / "a.png")


@draws
def test_a_picture_is_drawn_whole_with_a_series_for_each_file_and_device(tmp_path: Path) -> None:
    rows = [told("host", 1.0), told("host", 2.0, 16), told("pixel-4", None, 8, modelled(3.0)), told("pixel-3", None)]
    rows.append(replace(told("pixel-4", None, 16, modelled(5.0)), file="pixel-4.onnx"))
    rows = ranked(rows)
    (tmp_path / "a.png").write_bytes(b"older")
    plot.draw(rows, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "a.png").stat().st_size > 20_000
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    timed = [row for row in rows if row.median_ms is not None]
    assert list(plot.series(timed)) == ["pixel-4.onnx, onnx fp32, on pixel-4", "host.onnx, onnx fp32, on host"]
    figure = plot._figure(timed)
    over_length, over_size = figure.axes
    assert [list(line.get_xdata()) for line in over_length.get_lines()] == [[8, 16], [8, 16]]
    assert [list(line.get_ydata()) for line in over_length.get_lines()] == [[3.0, 5.0], [1.0, 2.0]]
    assert over_size.get_xlim()[1] > 5
    # Two files of one name are told apart by where they stand.
    twice = [replace(rows[0], file="x/a"), replace(rows[0], file="y/a")]
    assert set(plot.series(twice)) == {"x/a, on host", "y/a, on host"}
    with pytest.raises(InputError, match="no device told a time"):
        plot.draw([told("pixel-3", None)], tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_gate_on_a_device_sees_what_it_sees_here(bundles: dict[str, Path], target: str) -> None:
    here, there = api.validate(bundles[target]), api.validate(bundles[target], "host")
    assert there.passed
    assert [check.name for check in there.checks] == [check.name for check in here.checks]
    for name, stats in here.outputs.items():
        assert there.outputs[name].sqnr_db == pytest.approx(stats.sqnr_db, abs=0.01)


@needs["onnx"]
@pytest.mark.parity
def test_the_gate_on_a_device_fails_a_file_that_says_something_else(
    bundles: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    """A device that answers with the outputs of other rows."""
    answers = load_golden(bundles["onnx"] / bundle.GOLDEN)
    host = open_device("host")

    class Twisted:
        name, how = "host", HOST

        def missing(self) -> None:
            return None

        def measure(self, job: Job) -> Measurement:
            found = host.measure(job)
            assert job.outputs is not None
            with np.load(job.outputs) as file:
                turned = {key: -value for key, value in file.items()}
            np.savez(job.outputs, **turned)  # type: ignore[arg-type]
            return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "devices", lambda names: [Twisted()])
        report = api.validate(bundles["onnx"], "host")
        assert not report.passed
        assert main(["validate", str(bundles["onnx"]), "--device", "host"]) == 6
    assert len(parity.questions(answers)) == len(LENGTHS) + 2
    assert "[FAILED] equals torch" in capsys.readouterr().out


@simulated
@pytest.mark.parametrize(
    "target",
    [pytest.param(name, marks=[needs[name], *([] if name == "tflite" else [pytest.mark.slow])]) for name in needs],
)
@pytest.mark.parity
def test_a_simulated_phone_is_profiled_and_validated(bundles: dict[str, Path], target: str, capsys: Any) -> None:
    if command := sandbox.missing(target):
        pytest.skip(f"needs {command}")
    asked = ["profile", str(bundles[target]), "--device", "pixel-4", "--device", "host", "--lengths", "8", "--json"]
    assert main(asked) == 0
    rows = {row["device"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {name: row["how"] for name, row in rows.items()} == {"host": HOST, "pixel-4": SIMULATED}
    assert rows["pixel-4"]["inputs"] == rows["host"]["inputs"]
    assert (rows["pixel-4"]["estimate"] or rows["pixel-4"]["machine"])["instructions"] > 10**5
    assert main(["validate", str(bundles[target]), "--device", "pixel-4", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert report["device"] == "pixel-4"


def test_layers_extend_the_line_and_weigh_the_shares() -> None:
    model = Model(MODELS["bert"], replace(MODELS["bert"].config.tiny(), num_hidden_layers=5), "base")
    source = extrapolate.Whole("m", model, None, "onnx", "fp32", (), (8,), None)
    one, two = told("pixel-4", None, 8, modelled(3.0, 1000)), told("pixel-4", None, 8, modelled(5.0, 1600))
    two = replace(two, file_bytes=6_000_000)
    found = two.found.estimate
    assert found is not None
    two = replace(two, found=replace(two.found, estimate=replace(found, shares={"arithmetic": 1.0})))
    row = extrapolate.extend([one, two], source)
    assert row.layers == 5
    assert (row.instructions, row.median_ms, row.file_bytes) == (1000 + 4 * 600, 3.0 + 4 * 2.0, 9_000_000)
    assert row.found.estimate is not None
    assert row.found.estimate.kinds == {"fma32": 3400}
    # 1.5 of 3 ms with one layer, all of 5 with two: 3.5 more each.
    assert row.found.estimate.shares["arithmetic"] == pytest.approx((1.5 + 4 * 3.5) / 11.0)
    assert "counted with 1 and 2 layers, and extended to 5" in row.found.notes


def test_layers_of_several_kinds_are_extended_by_whole_rounds() -> None:
    def few(layers: int, kinds: tuple[str, ...] = ()) -> tuple[int, ...]:
        config = replace(MODELS["modernbert"].config.tiny(), num_hidden_layers=layers, layer_types=kinds)
        with torch.device("meta"):
            model = Model(MODELS["modernbert"], config, "base")
        return extrapolate.Whole("m", model, None, "onnx", "fp32", (), (8,), None).few

    assert [few(layers) for layers in (22, 21, 5, 3, 1)] == [(4, 7), (3, 6), (5,), (3,), (1,)]
    whole, local = "full_attention", "sliding_attention"
    assert few(4, (whole, local, whole, local)) == (2, 4)
    assert few(4, (whole, local, local, local)) == (4,)


def test_layers_that_are_shared_make_no_file_larger() -> None:
    for family, layers, larger in (("albert", 5, False), ("bert", 5, True)):
        config = replace(MODELS[family].config.tiny(), num_hidden_layers=layers)
        source = extrapolate.Whole("m", Model(MODELS[family], config, "base"), None, "onnx", "fp32", (), (8,), None)
        one = told("pixel-4", None, 8, modelled(3.0, 1000))
        two = replace(one, file_bytes=one.file_bytes + 1_000)
        assert extrapolate.extend([one, two], source).file_bytes == two.file_bytes + (3_000 if larger else 0)


def test_fewer_layers_have_the_same_weights() -> None:
    whole = Model(MODELS["rembert"], MODELS["rembert"].config.tiny(), "masked-lm").random_init(3)
    small = extrapolate.cut(whole, 1)
    state = whole.state_dict()
    assert all((state[name] == value).all() for name, value in small.state_dict().items())
    assert len(small.state_dict()) < len(state)
    assert small.config.num_hidden_layers == 1


@needs["onnx"]
@pytest.mark.parity
def test_layers_are_not_extrapolated_where_the_whole_is_quicker(bundles: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="host runs the whole file quicker"):
        profile.profile([bundles["onnx"]], extrapolate_layers=True)


@simulated
@needs["onnx"]
@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize(("family", "layers"), [("squeezebert", 4), ("modernbert", 11)])
def test_extrapolated_counts_are_those_of_the_whole_file(tmp_path: Path, family: str, layers: int) -> None:
    config = replace(MODELS[family].config.tiny(), num_hidden_layers=layers)
    reference(family, "base", config).save_pretrained(tmp_path / "checkpoint")
    edgebert.export(tmp_path / "checkpoint", target="onnx", lengths=(16,), out=tmp_path / "out")
    (whole,) = api.profile([tmp_path / "out"], ["pixel-4"]).rows
    (line,) = api.profile([tmp_path / "out"], ["pixel-4"], extrapolate_layers=True).rows
    assert whole.instructions is not None
    assert line.instructions is not None
    assert line.layers == layers
    assert line.file_bytes == whole.file_bytes
    # Python and the runtime's own share is greater in a tiny model than in one worth extrapolating.
    assert abs(line.instructions - whole.instructions) < 0.02 * whole.instructions
