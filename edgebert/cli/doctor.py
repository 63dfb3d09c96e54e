"""What works here, what is missing and how to get it, from the package's own metadata and from the devices."""

import re
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

from edgebert.quantization.recipes import TARGET_RECIPES

# The extras a user chooses from; each is a target, a file format to read, or what a verb needs.
EXTRAS = (*TARGET_RECIPES, "hub", "tf", "plot", "app", "sweep")
READS = {
    "hub": "checkpoints by their hub names",
    "tf": "TensorFlow checkpoints",
    "plot": "profile --plot",
    "app": "edgebert app",
    "sweep": "edgebert sweep",
}


def packages() -> list[dict[str, Any]]:
    """One row a package: what needs it, the version wanted, the version installed, and how to install it."""
    rows = []
    for line in metadata.requires("edgebert") or []:
        spec, _, marker = line.partition(";")
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        extra = found.group(1) if found else None
        if extra is not None and extra not in EXTRAS:
            continue
        wanted = Requirement(spec.strip())
        installed = _version(wanted.name)
        rows.append({
            "for": extra or "everything",
            "package": wanted.name,
            "wanted": str(wanted.specifier) or "any",
            "installed": installed,
            "fits": installed is not None and wanted.specifier.contains(installed, prereleases=True),
            "install": f'pip install "edgebert[{extra}]"' if extra else "pip install edgebert",
        })
    return rows


def verdicts(installed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each target, for what else there is to install, and for each way to time files: whether it works.

    Args:
        installed: what `packages` tells.
    """
    needs: dict[str, list[dict[str, Any]]] = {}
    for row in installed:
        needs.setdefault(row["for"], []).append(row)
    common = [row for row in needs["everything"] if not row["fits"]]
    told = []
    for name in EXTRAS:
        bad = [*common, *(row for row in needs[name] if not row["fits"])]
        versions = ", ".join(f"{row['package']} {row['installed'] or 'is missing'}" for row in needs[name])
        told.append({
            "what": name if name in TARGET_RECIPES else READS[name],
            "works": not bad,
            "found": versions,
            "to_do": bad[0]["install"] if bad else None,
        })
    return [*told, *_devices()]


def _devices() -> list[dict[str, Any]]:
    """The simulated Pixels, and phones at a cable."""
    from edgebert.runtimes.devices.adb import client
    from edgebert.runtimes.devices.pixel import sandbox

    simulated, adb = sandbox.missing(), client.missing()
    return [
        {
            "what": "simulated Pixels",
            "works": simulated is None,
            "found": str(sandbox.folder()) if simulated is None else "not set up",
            "to_do": simulated,
        },
        {
            "what": "phones at a cable",
            "works": adb is None,
            "found": "no adb" if adb else "adb",
            "to_do": adb,
        },
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
