"""Rows that were measured elsewhere: those of the app are shown with the label that they bear out, others refused."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from edgebert.cli.main import main
from edgebert.errors import InputError
from edgebert.profiling import rows, told
from edgebert.runtimes.devices.device import HOST, PHONE, SIMULATED

SPEC = {"name": "input_ids", "dtype": "int32", "shape": [1, 32]}
ROW: dict[str, Any] = {
    "file": "assistant", "target": "tflite", "recipe": "w8a8-dynamic", "length": 32, "file_bytes": 4_868_912,
    "delegated": 1, "ratio": None, "layers": None, "device": "Google Pixel 8", "how": PHONE, "runtime": "tflite",
    "threads": 2, "entry": "tokens_32", "inputs": [SPEC], "outputs": [SPEC | {"dtype": "float32"}], "load_ms": 5.6,
    "first_ms": 15.9,
    "latency": {"median_ms": 1.2, "p90_ms": 1.32, "min_ms": 1.16, "max_ms": 1.36, "spread": 0.12, "runs": 20},
    "peak_bytes": 56_012_800, "versions": {"edgebert": "0.1.0", "tensorflow-lite": "2.21.0"},
    "machine": {
        "machine": "aarch64", "system": "Android", "cores": 9, "model": "Pixel 8", "manufacturer": "Google",
        "abi": "arm64-v8a", "fingerprint": "google/shiba/shiba:14/UD1A.230803.041/10808477:user/release-keys",
        "hardware": "shiba", "android": "14", "sdk": 34, "soc": "Tensor G3", "cpu": None, "features": "fp asimd i8mm",
    },
    "notes": [], "estimate": None,
}  # fmt: skip


def save(path: Path, *given: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"rows": given, "operators": [], "calibrations": []}))
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(ROW) | changes


def machine(**changes: Any) -> dict[str, Any]:
    return changed(machine=ROW["machine"] | changes)


def test_a_row_of_the_app_is_a_row(tmp_path: Path) -> None:
    (row,) = told.load(save(tmp_path / "phone.json", ROW))
    assert row.found.how == PHONE
    assert row.to_dict() == json.loads(json.dumps(ROW)) | {
        "sqnr_db": None,
        "delegated": 1.0, "notes": (), "inputs": ({**SPEC, "shape": (1, 32)},),
        "outputs": ({**SPEC, "dtype": "float32", "shape": (1, 32)},),
    }  # fmt: skip
    assert row.median_ms == 1.2
    assert row.band_ms == (pytest.approx(1.176), 1.32)


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": "robolectric"}, {"fingerprint": ""}, {"fingerprint": None}, {"model": ""}, {"abi": "mips"},
        {"fingerprint": "google/sdk_gphone64_arm64/emu64a:14/UE1A/1:userdebug/dev-keys"}, {"hardware": "ranchu"},
        {"fingerprint": "generic/sdk/generic:8.0/OSR1/1:eng/test-keys"}, {"fingerprint": "unknown"},
        {"manufacturer": "Robolectric"}, {"model": "Android SDK built for x86 emulator"},
    ],
)  # fmt: skip
def test_what_is_no_phone_is_not_labelled_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    (row,) = told.load(save(tmp_path / "phone.json", machine(**changes)))
    assert row.found.how == HOST
    assert row.found.notes == ("by the app, not on a phone",)


def test_a_row_that_says_it_is_no_phones_stays_so(tmp_path: Path) -> None:
    other = machine(fingerprint="robolectric") | {"how": HOST}
    (row,) = told.load(save(tmp_path / "phone.json", other))
    assert (row.found.how, row.found.notes) == (HOST, ("by the app, not on a phone",))
    (row,) = told.load(save(tmp_path / "again.json", other | {"notes": list(row.found.notes)}))
    assert (row.found.how, row.found.notes) == (HOST, ("by the app, not on a phone",))
    own = changed(how=HOST, machine={"system": "Linux"}, notes=["a note"])
    (row,) = told.load(save(tmp_path / "host.json", own))
    assert (row.found.how, row.found.notes) == (HOST, ("a note",))


def test_rows_of_adb_stay_a_phones(tmp_path: Path) -> None:
    own = {"serial": "12AB", "model": "Pixel 4", "machine": "aarch64"}
    (row,) = told.load(save(tmp_path / "adb.json", changed(device="adb", machine=own)))
    assert row.found.how == PHONE
    (row,) = told.load(save(tmp_path / "app.json", changed(machine=own)))
    assert row.found.how == HOST


def test_the_app_has_the_same_rule() -> None:
    """The words that tell an emulator stand in the app's source too."""
    sources = ROOT / "android_demo/app/src/main/kotlin/dev/edgebert/app"
    text = "".join(path.read_text(encoding="utf-8") for path in sources.glob("*.kt"))
    found = re.search(r"NOT_HELD = listOf\((.*?)\)", text, re.DOTALL)
    assert found is not None
    assert tuple(re.findall(r'"(\w+)"', found[1])) == told.NO_PHONE


WRONG: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("missing or unknown fields: ratio", lambda row: row.pop("ratio")),
    ("missing or unknown fields: more", lambda row: row.update(more=1)),
    ("length is True", lambda row: row.update(length=True)),
    ("length is 32.0", lambda row: row.update(length=32.0)),
    ("a size, a count or a share", lambda row: row.update(length=0)),
    ("a size, a count or a share", lambda row: row.update(file_bytes=-1)),
    ("a size, a count or a share", lambda row: row.update(delegated=1.5)),
    ("a size, a count or a share", lambda row: row.update(threads=0)),
    ("is none that was measured", lambda row: row.update(file_bytes=10**30)),
    ("is none that was measured", lambda row: row["latency"].update(max_ms=1e300)),
    ("a time is below 0", lambda row: row.update(load_ms=-1.0)),
    ("file has 0 characters", lambda row: row.update(file="")),
    ("device has 201 characters", lambda row: row.update(device="x" * 201)),
    ("target and runtime", lambda row: row.update(target="coreml")),
    ("target and runtime", lambda row: row.update(runtime="onnx")),
    ("how is 'guessed'", lambda row: row.update(how="guessed")),
    ("no latency", lambda row: row.update(latency=None)),
    ("latency does not ascend", lambda row: row["latency"].update(median_ms=1.4)),
    ("latency does not ascend", lambda row: row["latency"].update(spread=5.0)),
    ("latency does not ascend", lambda row: row["latency"].update(min_ms=-1.0)),
    ("latency does not ascend", lambda row: row["latency"].update(runs=0)),
    ("latency has other fields", lambda row: row["latency"].pop("runs")),
    ("estimate has other fields", lambda row: row.update(how=SIMULATED, estimate={})),
    ("inputs is 3", lambda row: row.update(inputs=[3])),
    (r"shape is \[1\]", lambda row: row["inputs"][0].update(shape=[[1]])),
    ("versions is 1", lambda row: row.update(versions={"a": 1})),
    ("notes is None", lambda row: row.update(notes=None)),
    ("where a line of text belongs", lambda row: row.update(notes=["\x1b[31mred"])),
    ("where a line of text belongs", lambda row: row["machine"].update({"a\nb": 1})),
    ("where a line of text belongs", lambda row: row["machine"].update(soc=["x" * 2001])),
]


@pytest.mark.parametrize(("text", "change"), WRONG, ids=[f"{i} {text[:30]}" for i, (text, _) in enumerate(WRONG)])
def test_a_wrong_row_is_refused_by_its_number(
    tmp_path: Path, text: str, change: Callable[[dict[str, Any]], object]
) -> None:
    wrong = copy.deepcopy(ROW)
    change(wrong)
    with pytest.raises(InputError, match=f"row 2:? ?.*{text}"):
        told.load(save(tmp_path / "phone.json", ROW, wrong))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"rows": []}', '{"rows": {}}', '{"rows": [1]}', '{"rows": [{}], "more": 1}', '{"rows": [NaN]}'],
)
def test_what_is_no_file_of_rows_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "phone.json").write_text(content)
    with pytest.raises(InputError, match=r"phone\.json"):
        told.load(tmp_path / "phone.json")


def test_more_rows_than_anyone_measures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="up to 1,000 rows"):
        told.load(save(tmp_path / "phone.json", *[ROW] * 1001))
    with pytest.raises(InputError, match="has no absent"):
        told.load(tmp_path / "absent.json")


def test_rows_are_shown_beside_each_other_with_their_threads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    slow = {"median_ms": 2.4, "p90_ms": 2.6, "min_ms": 2.2, "max_ms": 3.0, "spread": 0.1, "runs": 20}
    path = save(tmp_path / "phone.json", ROW, changed(threads=1, latency=slow))
    elsewhere = save(tmp_path / "robolectric.json", machine(fingerprint="robolectric"))
    assert main(["profile", "--from", str(path), "--from", str(elsewhere)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Google Pixel 8, 2 threads .* 1\.00 .* 1\.20 .* measured on phone", out)
    assert re.search(r"Google Pixel 8, 2 threads .* 1\.00 .* 1\.20 .* measured on host", out)
    assert re.search(r"Google Pixel 8, 1 thread .* 2\.00 .* 2\.40 .* measured on phone", out)
    assert "model Pixel 8, android 14, soc Tensor G3, machine aarch64" in out
    assert "by the app, not on a phone" in out
    assert main(["profile", "--from", str(path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["ratio"] for row in printed["rows"]] == [1.0, 2.0]
    (tmp_path / "again.json").write_text(json.dumps(printed))
    again = told.load(tmp_path / "again.json")
    assert rows.ranked(again) == rows.ranked(told.load(path))


def test_a_file_that_is_none_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--from", str(save(tmp_path / "phone.json", changed(how="x")))]) == 2
    assert "row 1: how is 'x'" in capsys.readouterr().err


def test_one_number_of_threads_changes_no_name(tmp_path: Path) -> None:
    one, other = told.load(save(tmp_path / "phone.json", ROW, changed(threads=1)))
    assert rows.apart([one, one]) == [one, one]
    assert [row.found.device for row in rows.apart([one, other])] == [
        "Google Pixel 8, 2 threads", "Google Pixel 8, 1 thread",
    ]  # fmt: skip
