"""The house rules that a reader counts on: folders and registries agree, and nothing heavy comes in by the door."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgebert.exporters import EXPORTERS
from edgebert.models import MODELS
from edgebert.recipes import RECIPES, TARGET_RECIPES
from edgebert.runtimes import RUNTIMES, SUFFIXES

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for room in ("edgebert", "exporters", "runtimes", "tools", "tests") for path in (ROOT / room).rglob("*.py")
)


def modules(folder: str, besides: set[str]) -> set[str]:
    """The modules of a room; `tflite_file` and the like are parts of `tflite`."""
    found = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"} - besides
    return {name for name in found if name.partition("_")[0] not in found - {name}}


def test_folders_and_registries_agree() -> None:
    assert modules("edgebert/models", {"config", "family", "heads", "layers"}) == set(MODELS)
    assert modules("exporters", set()) == set(EXPORTERS)
    assert modules("runtimes", {"session", "flat"}) == set(RUNTIMES)
    assert set(EXPORTERS) == set(RUNTIMES) == set(SUFFIXES) == set(TARGET_RECIPES)
    assert {recipe for recipes in TARGET_RECIPES.values() for recipe in recipes} == set(RECIPES)
    assert all(name == family.name for name, family in MODELS.items())


@pytest.mark.parametrize("registry", [EXPORTERS, RUNTIMES], ids=["exporters", "runtimes"])
def test_every_target_has_the_same_functions(registry: dict[str, object]) -> None:
    names = ("missing", "check", "export") if registry is EXPORTERS else ("missing", "open")
    for module in registry.values():
        for name in names:
            assert callable(getattr(module, name))


def test_no_source_imports_the_mapped_folders_by_their_bare_names() -> None:
    for path in SOURCES:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not line.strip().startswith((
                "import exporters",
                "from exporters",
                "import runtimes",
                "from runtimes",
            )), path


def test_files_keep_to_400_lines() -> None:
    long = {str(path.relative_to(ROOT)): n for path in SOURCES if (n := len(path.read_text().splitlines())) > 400}
    assert not long


def test_every_module_imports_without_any_extra() -> None:
    """Finders that do not find any package of the extras stand for an environment with the core alone."""
    code = """
import importlib, pkgutil, sys
REFUSED = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer", "onnx", "onnxruntime", "onnxscript", "h5py",
           "transformers", "sentencepiece", "tflite_runtime", "executorch", "coremltools")
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in REFUSED else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import edgebert
names = [m.name for m in pkgutil.walk_packages(edgebert.__path__, "edgebert.") if not m.name.endswith("__main__")]
import edgebert.exporters, edgebert.runtimes
names += ["edgebert.exporters." + m.name for m in pkgutil.iter_modules(edgebert.exporters.__path__)]
names += ["edgebert.runtimes." + m.name for m in pkgutil.iter_modules(edgebert.runtimes.__path__)]
for name in names:
    importlib.import_module(name)
for target in edgebert.exporters.EXPORTERS:
    print(target, edgebert.exporters.EXPORTERS[target].missing(), edgebert.runtimes.RUNTIMES[target].missing())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    for line in out.stdout.splitlines():
        assert line.count('pip install "edgebert[') == 2, line
