"""README, CONTRIBUTING, docstrings and comments name no module, path or file that does not exist."""

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

TOPS = ("edgebert", "exporters", "runtimes", "tests", "tools", "benchmarks", "docs", "examples")
SOURCES = sorted(path for top in TOPS for path in (ROOT / top).rglob("*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "edgebert").rglob("*.md")])
FILES = {path.name for path in ROOT.glob("*")} | {path.name for top in TOPS for path in (ROOT / top).rglob("*")}
FILES |= {"SOURCE_CARD.md", "report.md"}  # of a bundle, and of a sweep

DOTTED = re.compile(r"(?<![\w./-])edgebert(?:\.[A-Za-z_]\w*)+")
BELOW = re.compile(rf"(?<![\w./-])(?:{'|'.join(TOPS)})/[\w./-]*\w")
# A name in backticks; `modeling_bert.py` and its like are transformers' own.
NAMED = re.compile(r"`(?!modeling_)([\w.-]+\.(?:py|md|toml|c))`")
# CHANGELOG tells where modules stood.
FORMER = {"edgebert.checkpoint", "edgebert.recipes", "edgebert.parity"}


def told(path: Path) -> Iterator[str]:
    """The docstrings and comments of a source; the whole of a page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield text
        return
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def exists(dotted: str) -> bool:
    """Whether a dotted name leads to a module, or to something in one."""
    parts = dotted.split(".")
    for size in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:size]))
        except ImportError:
            continue
        for part in parts[size:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def absent(text: str) -> list[str]:
    """Names in a text that lead nowhere."""
    dotted = {name for name in DOTTED.findall(text) if name not in FORMER and not exists(name)}
    paths = {name for name in BELOW.findall(text) if not (ROOT / name).exists() and "NAME" not in name}
    files = {name for name in NAMED.findall(text) if name not in FILES}
    return sorted(dotted | paths | files)


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_named_exists(path: Path) -> None:
    assert [name for text in told(path) for name in absent(text)] == []


def test_a_name_that_leads_nowhere_is_found() -> None:
    text = "see `edgebert.gate.nothing`, edgebert/parity.py and `onnx_names.py`, not edgebert.gate.parity"
    assert absent(text) == ["edgebert.gate.nothing", "edgebert/parity.py", "onnx_names.py"]
