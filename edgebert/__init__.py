"""edgebert: put an efficient BERT-family encoder on a phone.

`list_models` says what there is; `load` a checkpoint, `export` it to a bundle, `validate` the bundle, `open` it to get
answers; `inspect`, `diff` and `profile` look at bundles and files. Nothing heavy is imported before one is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgebert.api import diff, export, inspect, list_models, load, open, profile, validate

__version__ = "0.1.0"
__all__ = ["diff", "export", "inspect", "list_models", "load", "open", "profile", "validate"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("edgebert.api"), name)
    raise AttributeError(f"module 'edgebert' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
