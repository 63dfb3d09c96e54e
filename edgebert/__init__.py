"""edgebert: put an efficient BERT-family encoder on a phone.

`load` a checkpoint, `export` it to a bundle, `validate` the bundle, `open` it to get answers. Nothing heavy is imported
before one of them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgebert.api import export, load, open, validate

__version__ = "0.1.0"
__all__ = ["export", "load", "open", "validate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("edgebert.api"), name)
    raise AttributeError(f"module 'edgebert' has no attribute {name!r}")
