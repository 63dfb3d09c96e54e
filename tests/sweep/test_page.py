"""The report of a sweep: in a real browser, as a table, and as text."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgebert.sweep import page
from edgebert.sweep.plan import Plan
from edgebert.sweep.records import DONE, REFUSED, Record

pytest.importorskip("plotly")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PLAN = Plan(model=("my model",), device=("pixel-4", "host"), eval="dev.tsv", lengths=(32, 128), budget=("loss=1%",))
EVIL = "<script>window.bad = true</script> & | other"


def rows(fast: float) -> list[dict[str, Any]]:
    return [
        {"device": device, "how": how, "tokens": tokens, "threads": 1, "median_ms": ms, "low_ms": 0.9 * ms,
         "high_ms": 1.2 * ms, "instructions": None}
        for device, how, factor in (("pixel-4", "simulated", 1.0), ("host", "measured-on-host", 0.3))
        for tokens in (32, 128)
        for ms in [fast * factor * tokens / 128]
    ]  # fmt: skip


def made(target: str, recipe: str, ms: float, accuracy: float, size: float) -> Record:
    gate = {"checks": [{"name": "labels", "passed": True, "detail": f"{target} {recipe} says what torch says"}]}
    return Record(
        f"{target}-{recipe}", "my model", target, recipe, DONE, family="bert", task="sequence-classification",
        lengths=[32, 128], size_mb=size, sqnr_db=40.0, figures={"accuracy": accuracy}, rows=rows(ms), gate=gate,
        machine="here",
    )  # fmt: skip


RECORDS = [
    Record("torch", "my model", "torch", "fp32", DONE, task="sequence-classification", figures={"accuracy": 0.9}),
    made("tflite", "fp32", 40.0, 0.9, 100.0),
    made("tflite", "w8a8-dynamic", 12.5, 0.895, 25.0),
    made("onnx", "w8a8-dynamic", 15.0, 0.899, 25.5),
    made("onnx", "w4", 11.0, 0.7, 14.0),
    Record("refused", "my model", "onnx", "w4a8-dynamic", REFUSED, EVIL),
]
RECORDS[0].task = "sequence-classification"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("sweep")
    page.write(folder, PLAN, RECORDS, 2)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with api.sync_playwright() as run:
        opened = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def shown(browser: Any, written: Path) -> Iterator[Any]:
    """The page without a network, and without an error of its scripts."""
    context = browser.new_context(offline=True, color_scheme="light", viewport={"width": 1200, "height": 900})
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda asked: errors.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None)
    tab.goto((written / page.PAGE).as_uri())
    yield tab
    assert errors == []
    context.close()


def visible_cells(tab: Any, column: str) -> list[str]:
    place = tab.eval_on_selector_all(
        "#numbers th", "(heads, name) => heads.findIndex(head => head.textContent.trim() === name)", column
    )
    found: list[str] = tab.eval_on_selector_all(
        "#numbers tbody tr:not([hidden])", "(rows, i) => rows.map(row => row.cells[i].textContent.trim())", place
    )
    return found


def test_the_answer_comes_first(shown: Any) -> None:
    first = shown.locator("[data-device='pixel-4']").inner_text()
    # One hundredth may be lost: w4 is faster, and loses more.
    assert "12.5 ms" in first
    assert "tflite w8a8-dynamic, 25 MB, accuracy 89.5% (torch 90.0%)" in first
    assert "edgebert export 'my model' --target tflite --recipe w8a8-dynamic --lengths 32,128" in first
    assert "simulated" in first
    assert "measured-on-host" in shown.locator("[data-device='host']").inner_text()
    assert "2 cells are not done as yet" in shown.locator("body").inner_text()


def test_rows_are_sorted_and_filtered(shown: Any) -> None:
    head = shown.get_by_role("button", name="median_ms")
    head.click()
    times = [float(text) for text in visible_cells(shown, "median_ms") if text]
    assert times == sorted(times)
    assert visible_cells(shown, "median_ms")[-1] == ""  # what has none stands last
    head.click()
    times = [float(text) for text in visible_cells(shown, "median_ms") if text]
    assert times == sorted(times, reverse=True)
    shown.get_by_label("filter rows").fill("onnx w8a8")
    assert set(visible_cells(shown, "target")) == {"onnx"}
    shown.get_by_label("device", exact=True).select_option("host")
    assert visible_cells(shown, "device") == ["host", "host"]
    shown.get_by_label("filter rows").fill("")
    shown.get_by_label("device", exact=True).select_option("")
    assert len(visible_cells(shown, "target")) == 1 + 4 * 4 + 1


def test_a_point_tells_what_it_is(shown: Any) -> None:
    plot = shown.locator(".js-plotly-plot").first
    plot.scroll_into_view_if_needed()
    plot.locator(".scatterlayer .trace .points path").first.hover(force=True)
    shown.wait_for_selector(".hoverlayer .hovertext")
    assert "onnx w411.0 ms, 70" in plot.locator(".hoverlayer").text_content()  # in two lines
    assert "Pareto front" in plot.locator(".legend").text_content()
    titles = shown.locator("h2").all_inner_texts()
    assert "Quality and latency on pixel-4 (simulated)" in titles
    assert "Quality and latency on host (measured-on-host)" in titles


def test_dark_is_dark(shown: Any) -> None:
    def ink() -> str:
        color: str = shown.locator(".js-plotly-plot .xtick text").first.evaluate("e => getComputedStyle(e).fill")
        return color

    light = ink()
    shown.emulate_media(color_scheme="dark")
    shown.wait_for_timeout(300)
    assert ink() != light
    assert shown.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"


def test_a_phone_shows_it_without_moving_sideways(browser: Any, written: Path) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    tab.goto((written / page.PAGE).as_uri())
    tab.wait_for_selector(".js-plotly-plot .main-svg")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.close()


def test_what_others_wrote_is_text(shown: Any, written: Path) -> None:
    assert shown.evaluate("window.bad") is None
    assert EVIL in visible_cells(shown, "reason")
    assert EVIL.replace("|", "\\|") in (written / page.TEXT).read_text(encoding="utf-8")


def test_a_files_gate_is_told(shown: Any) -> None:
    shown.get_by_text("my model onnx w4: done").click()
    assert shown.get_by_text("onnx w4 says what torch says").is_visible()


def test_the_same_as_a_table_and_as_text(written: Path) -> None:
    with (written / page.TABLE).open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 1 + 4 * 4 + 1
    (best,) = (
        row for row in table if (row["recipe"], row["device"], row["tokens"]) == ("w4", "pixel-4", "128")
    )  # fmt: skip
    assert float(best["median_ms"]) == 11.0
    assert float(best["loss_percent"]) == pytest.approx(20.0)
    text = (written / page.TEXT).read_text(encoding="utf-8")
    assert "| pixel-4 (simulated) | my model tflite w8a8-dynamic | 12.5 | accuracy 89.5% (torch 90.0%) | 25 |" in text
    json.dumps(table)


def test_nothing_done_is_a_report_too(tmp_path: Path) -> None:
    page.write(tmp_path, PLAN, [], 6)
    assert "No file of this sweep runs there" in (tmp_path / page.PAGE).read_text(encoding="utf-8")
    assert "6 cells are not done as yet" in (tmp_path / page.TEXT).read_text(encoding="utf-8")
