"""The house rules that a reader counts on: folders and registries agree, and nothing heavy comes in by the door."""

import subprocess
import sys

import pytest
from paths import ROOT

from edgebert.catalog import FAMILIES
from edgebert.exporters import EXPORTERS
from edgebert.models import MODELS
from edgebert.runtimes import RUNTIMES
from edgebert.runtimes.devices import DEVICES

SOURCES = sorted(
    path for room in ("edgebert", "exporters", "runtimes", "tools", "tests") for path in (ROOT / room).rglob("*.py")
)


def rooms(folder: str) -> set[str]:
    """The packages of a folder."""
    return {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}


def test_folders_and_registries_agree() -> None:
    shared = {"__init__", "config", "family", "heads", "layers", "signature"}
    assert {path.stem for path in (ROOT / "edgebert/models").glob("*.py")} - shared == {
        name.replace("-", "_") for name in MODELS
    }
    assert rooms("exporters") == set(EXPORTERS)
    assert rooms("runtimes") - {"devices"} == set(RUNTIMES)
    assert rooms("runtimes/devices") - {"guest"} == set(DEVICES) - {"host"}
    assert all(name == family.name for name, family in MODELS.items())


def test_the_catalog_lists_what_the_modules_define() -> None:
    assert list(FAMILIES) == list(MODELS)
    for name, family in MODELS.items():
        listed = FAMILIES[name]
        assert (listed.paper, listed.presets) == (family.paper, tuple(family.presets))
        assert sorted(listed.tasks) == sorted(family.heads)


def test_no_module_stands_flat_that_has_a_room() -> None:
    flat = {path.stem for path in (ROOT / "edgebert").glob("*.py")}
    assert flat == {
        "__init__", "__main__", "api", "artifact", "catalog", "durations", "errors", "files", "preflight", "report",
        "results",
    }  # fmt: skip


@pytest.mark.parametrize("registry", [EXPORTERS, RUNTIMES], ids=["exporters", "runtimes"])
def test_every_target_has_the_same_functions(registry: dict[str, object]) -> None:
    names = ("missing", "check", "lower", "export") if registry is EXPORTERS else ("missing", "open", "facts")
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


def test_every_module_imports_without_any_extra() -> None:
    """Finders that do not find any package of the extras stand for an environment with the core alone."""
    code = """
import importlib, pkgutil, sys
REFUSED = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer", "onnx", "onnxruntime", "onnxscript", "h5py",
           "transformers", "sentencepiece", "tflite_runtime", "executorch", "coremltools", "cryptography")
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
names += [m.name for m in pkgutil.walk_packages(edgebert.exporters.__path__, "edgebert.exporters.")]
names += [m.name for m in pkgutil.walk_packages(edgebert.runtimes.__path__, "edgebert.runtimes.")]
for name in names:
    importlib.import_module(name)
for target in edgebert.exporters.EXPORTERS:
    print(target, edgebert.exporters.EXPORTERS[target].missing(), edgebert.runtimes.RUNTIMES[target].missing())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    for line in out.stdout.splitlines():
        assert line.count('pip install "edgebert[') == 2, line
