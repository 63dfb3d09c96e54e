"""What is installed against what this version was built with, from the package's own metadata."""

import re
from importlib import metadata
from typing import Any

from edgebert.quantization.recipes import TARGET_RECIPES

# The extras a user chooses from; each is a target, a file format to read, or what signs an app.
EXTRAS = (*TARGET_RECIPES, "hub", "tf", "app")


def examine() -> list[dict[str, Any]]:
    """One row a package: what needs it, the version wanted, the version installed, and how to install it."""
    rows = []
    for line in metadata.requires("edgebert") or []:
        spec, _, marker = line.partition(";")
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        extra = found.group(1) if found else None
        if extra is not None and extra not in EXTRAS:
            continue
        name = re.split(r"[\s<>=!~\[(]", spec.strip(), maxsplit=1)[0]
        rows.append({
            "for": extra or "everything",
            "package": name,
            "wanted": spec.strip().removeprefix(name).strip(" ()") or "any",
            "installed": _version(name),
            "install": f'pip install "edgebert[{extra}]"' if extra else "pip install edgebert",
        })
    return rows


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
