"""What the package offers as functions, and how their results are read: in a line, as a table, as plain values."""

import inspect as python_inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas
import pytest
from answering import save
from paths import ROOT
from shared import shared

import edgebert
from edgebert.errors import MissingDependency
from edgebert.models import MODELS

FUNCTIONS = {"list_models", "export", "load", "open", "validate", "inspect", "diff", "profile"}


def test_they_are_there_and_explained() -> None:
    assert set(edgebert.__all__) == FUNCTIONS
    assert set(dir(edgebert)) >= FUNCTIONS
    for name in FUNCTIONS:
        function = getattr(edgebert, name)
        assert python_inspect.isfunction(function)
        assert len(python_inspect.getdoc(function) or "") > 40, name


def test_the_reference_lists_them() -> None:
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    section = page.partition("## Functions\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^::: edgebert\.[\w.]+\.(\w+)$", section, re.M)) == FUNCTIONS


def test_no_module_takes_a_functions_place() -> None:
    code = (
        "import importlib, pkgutil, sys\nimport edgebert\n"
        "for found in pkgutil.walk_packages(edgebert.__path__, 'edgebert.'):\n"
        "    if '__main__' not in found.name and '.guest' not in found.name:\n"
        "        importlib.import_module(found.name)\n"
        "import types\n"
        "assert not [name for name in edgebert.__all__ if isinstance(getattr(edgebert, name), types.ModuleType)]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_nothing_heavy_comes_with_the_package() -> None:
    code = "import sys, edgebert; dir(edgebert); assert not {'torch', 'numpy', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def make(place: Path) -> Any:
        source = save(place / "kinds", "sequence-classification")
        return edgebert.export(source, target="executorch", recipe="w8a8-dynamic", lengths=(16,), out=place / "kind")

    return shared(tmp_path_factory, "api", make)


@pytest.fixture(scope="module")
def results(made: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of each that the functions give back."""
    return {
        "list_models": edgebert.list_models(),
        "export": made,
        "validate": edgebert.validate(made.folder),
        "inspect": edgebert.inspect(made.folder),
        "inspect a file": edgebert.inspect(made.folder / made.manifest.model_file),
        "diff": edgebert.diff(made.folder, made.folder),
        "profile": edgebert.profile(made.folder, "host", runs=2),
    }


@pytest.mark.parity
def test_each_is_read_in_a_line(results: dict[str, Any], made: Any) -> None:
    told = {name: repr(result) for name, result in results.items()}
    for name, line in told.items():
        assert "\n" not in line, name
        assert len(line) < 200, name
    assert told["list_models"] == f"Models({', '.join(MODELS)})"
    assert "bert for sequence-classification, executorch w8a8-dynamic, 0.1 MB" in told["export"]
    assert told["validate"].startswith("Report(logits ")
    assert told["validate"].endswith("checks passed)")
    assert told["profile"].startswith("Profile(1 rows on host, ")
    with edgebert.open(made.folder) as opened:
        assert (
            repr(opened) == f"Bundle({str(made.folder)!r}, bert for sequence-classification, executorch w8a8-dynamic)"
        )
    loaded = edgebert.load(made.manifest.source)
    assert repr(loaded) == f"Checkpoint({made.manifest.source!r}, bert for sequence-classification, 24,325 parameters)"


@pytest.mark.parity
def test_each_is_a_table_with_units(results: dict[str, Any]) -> None:
    for name, result in results.items():
        rows = result.flat()
        assert all(row.keys() == rows[0].keys() for row in rows), name
        for value in (value for row in rows for value in row.values()):
            assert value is None or isinstance(value, (str, int, float)) or name == "diff", (name, value)
        frame = result.to_frame()
        assert isinstance(frame, pandas.DataFrame)
        assert len(frame) == len(rows)
        assert result._repr_html_().count("<tr>") == len(rows) + 1
        json.dumps(result.to_dict())
    assert {"median_ms", "size_mb", "load_ms"} <= set(results["profile"].to_frame().columns)
    assert {"sqnr_db", "size_mb"} <= set(results["export"].to_frame().columns)
    assert "sqnr_db" in results["validate"].to_frame().columns


def test_a_frame_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match="run pip install pandas"):
        edgebert.list_models().to_frame()


def test_names_in_a_table_are_no_markup() -> None:
    from edgebert.results import Table

    class Odd(Table):
        def flat(self) -> list[dict[str, Any]]:
            return [{"<b>": "<script>", "n": None, "x": 0.123456}]

        def __repr__(self) -> str:
            return "Odd(<i>)"

    told = Odd()._repr_html_()
    assert told == (
        "<p>Odd(&lt;i&gt;)</p><table><tr><th>&lt;b&gt;</th><th>n</th><th>x</th></tr>"
        "<tr><td>&lt;script&gt;</td><td></td><td>0.1235</td></tr></table>"
    )
