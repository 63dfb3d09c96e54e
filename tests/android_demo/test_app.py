"""The tests that run on the JVM, by Maven: the library's, and the app's on Robolectric, also as R8 shrinks it.

They ask bundles that are exported here, and draw the pictures of README.
"""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jvm
import pytest
from answering import save, save_sentence_encoder
from shared import default_bundle, shared

import edgebert
from edgebert.app.template import CHECKOUT as DEMO
from edgebert.cli.main import main

BUILT = DEMO / "build"
PICTURES = DEMO / "screenshots"

# API levels that Robolectric stands in for on Java 17, and how far Maven goes: at last it has R8 shrink the app, too.
LATEST, ALL = ("34", "package"), ("26,34", "verify")
NOT_YET = {"TasksTest", "ByHandTest"}  # that the latest alone is not asked, nor are the zips made for it
CLASSES = "sequence-classification"
# Every task that a bundle can have, and what is asked of labels: name, task, family, what the config says.
ASKED = [
    ("base", "base", "bert", {}),
    ("masked-lm", "masked-lm", "bert", {}),
    ("multiple-choice", "multiple-choice", "bert", {}),
    ("question-answering", "question-answering", "bert", {}),
    ("token-classification", "token-classification", "bert", {}),
    ("replaced-token-detection", "replaced-token-detection", "electra", {}),
    ("causal-lm", "causal-lm", "electra", {"is_decoder": True}),
    ("several-labels", CLASSES, "bert", {"problem_type": "multi_label_classification"}),
    ("regression", CLASSES, "bert", {"problem_type": "regression", "num_labels": 1}),
]

pytestmark = [pytest.mark.parity, pytest.mark.slow]


def exported(source: Path, task: str, out: Path) -> None:
    """A zip of a checkpoint's bundle, beside where the bundle would stand; the gate is asked elsewhere."""
    edgebert.export(source, task=task, recipe="fp32", lengths=(32,), out=out, zip=True, validate=False)
    shutil.rmtree(out)


def export_zips(place: Path) -> Path:
    """A folder with a zip for each task."""
    zips = place / "zips"
    zips.mkdir()
    for name, task, family, changes in ASKED:
        exported(save(place / name, task, family, num_hidden_layers=1, **changes), task, zips / name)
    exported(save_sentence_encoder(place / "sentence-embedding"), "sentence-embedding", zips / "sentence-embedding")
    return zips


def run_all(place: Path, default: Path, levels: str, phase: str) -> dict[str, str]:
    """What became of each test at API levels, run by Maven on a copy of the sources, which other tests build too."""
    copy = place / "android_demo"
    made = ("build", "screenshots", "androids", "test-classes", "surefire-reports")
    shutil.copytree(DEMO, copy, ignore=shutil.ignore_patterns(*made))
    asked = [*jvm.options(), f"-Drobolectric.enabledSdks={levels}", "-Dapk.skip", f"-Dbundle={default}"]
    if (levels, phase) == ALL:
        asked.append(f"-Dedgebert.bundles={export_zips(place)}")
    maven = ["mvn", "--quiet", "--batch-mode", "--projects", "app", "--also-make", phase, *asked]
    told = subprocess.run(maven, cwd=copy, capture_output=True, text=True, check=False)
    found = {}
    for report in copy.glob("*/target/surefire-reports/TEST-*.xml"):
        for case in ElementTree.parse(report).iter("testcase"):
            bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
            found[f"{case.get('classname')}.{case.get('name')}"] = bad[0] if bad else "passed"
    assert found, told.stdout[-4000:] + told.stderr[-2000:]
    if told.returncode == 0 and (levels, phase) == LATEST:  # two workers may run both at a time
        shutil.rmtree(BUILT / "screenshots", ignore_errors=True)
        shutil.copytree(copy / "build" / "screenshots", BUILT / "screenshots")
        shutil.copy(copy / "build" / "measure.json", BUILT)
    return found


def run(tmp_path_factory: pytest.TempPathFactory, how: tuple[str, str]) -> dict[str, str]:
    if why := jvm.missing():
        pytest.skip(why)
    default = default_bundle(tmp_path_factory)
    found: dict[str, str] = shared(tmp_path_factory, f"app-{how[1]}", lambda place: run_all(place, default, *how))
    return found


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return run(tmp_path_factory, LATEST)


@pytest.mark.parametrize("how", [LATEST, ALL], ids=["latest", "all"])
def test_every_test_of_library_and_app_passes(tmp_path_factory: pytest.TempPathFactory, how: tuple[str, str]) -> None:
    ran = run(tmp_path_factory, how)
    skipped = {"dev.edgebert.app.TasksTest.every task answers": "skipped"} if how == LATEST else {}
    assert {name: what for name, what in ran.items() if what != "passed"} == skipped
    classes = {name.rpartition(".")[0].rpartition(".")[2].replace("(shrunk)", "") for name in ran}
    modules = [DEMO / module / "src" / "test" for module in ("edgebert", "app")]
    assert classes | NOT_YET == {path.stem for module in modules for path in module.rglob("*Test.kt")}
    assert how == LATEST or classes >= NOT_YET
    assert how == LATEST or [name for name in ran if name.endswith("[26]")]


def test_what_the_app_measured_is_read(
    ran: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # a table is as wide as it needs to be
    rows = json.loads((BUILT / "measure.json").read_text())["rows"]
    assert main(["profile", "--from", str(BUILT / "measure.json"), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)["rows"]
    assert len(read) == len(rows) >= 2
    assert {row["how"] for row in read} == {"measured-on-host"}, "a JVM was taken for a phone"
    assert {row["length"] for row in read} == {32, 64}
    assert {row["latency"]["median_ms"] for row in read} == {row["latency"]["median_ms"] for row in rows}
    assert main(["profile", "--from", str(BUILT / "measure.json")]) == 0
    assert "default-tflite-w8a8-dynamic" in capsys.readouterr().out


def test_pictures_of_every_screen_are_drawn(ran: dict[str, str]) -> None:
    drawn = {path.stem for path in (BUILT / "screenshots").glob("*.png")}
    screens = ("ask", "measure", "check", "about")
    wanted = {f"{screen}-{place}" for screen in screens for place in ("phone", "phone-dark", "tablet")}
    assert wanted | {"ask-landscape", "ask-large-letters", "ask-right-to-left"} <= drawn


def test_the_pictures_of_the_readme_are_there() -> None:
    shown = set(re.findall(r"screenshots/([\w-]+\.png)", (DEMO / "README.md").read_text()))
    kept = {path.name: path.stat().st_size for path in PICTURES.glob("*.png")}
    assert shown == set(kept)
    assert sum(kept.values()) < 1_000_000
    wanted = ("ask-phone", "measure-phone", "check-phone-dark", "ask-tablet", "ask-landscape")
    assert {f"{name}.png" for name in wanted} <= shown
