"""The verb `app` of the command line."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgebert.app import install, make
from edgebert.app.project import project
from edgebert.cli import render
from edgebert.errors import InputError

Stop = Callable[[], bool]


def app(arguments: argparse.Namespace, stop: Stop) -> int:
    """Make an app, or a project, of a bundle."""
    if (arguments.out is None) == (arguments.project is None):
        raise InputError("one of --out APK and --project FOLDER is needed: an app, or the project of one.")
    with render.Steps(0, arguments.json, stop) as steps:
        told, lines = (_apk if arguments.project is None else _project)(arguments, steps)
    if arguments.json:
        print(json.dumps(told, ensure_ascii=False))
    for line in () if arguments.json else lines:
        print(line)
    return 0


def _apk(arguments: argparse.Namespace, steps: render.Steps) -> tuple[dict[str, Any], list[str]]:
    """What came of it, for machines and in lines."""
    phone = install.phone() if arguments.install else None
    made = make.apk(
        arguments.folder, arguments.out, arguments.name, arguments.id, arguments.key, arguments.force, steps
    )
    told = {"apk": str(made.path), "bytes": made.size, "id": made.application_id, "name": made.name, "key": made.key}
    lines = [f"made {made.new_key}, the key of your apps from now on: keep it"] if made.new_key else []
    lines.append(f"wrote {made.path} ({made.size / 1e6:.1f} MB, {made.application_id}, signed by {made.key})")
    if phone is None:
        return told | {"install": made.install, "device": None}, [*lines, f"next: {made.install}"]
    steps(f"install it on {phone.serial}")
    device = install.install(phone, Path(made.path))
    return told | {"install": made.install, "device": device}, [*lines, f"installed {made.name} on {device}"]


def _project(arguments: argparse.Namespace, steps: render.Steps) -> tuple[dict[str, Any], list[str]]:
    if arguments.install or arguments.key:
        raise InputError("--install and --key are for an app: a project is built and signed by Android Studio.")
    made = project(arguments.folder, arguments.project, arguments.name, arguments.id, arguments.force, steps)
    told = {"project": str(made.folder), "id": made.application_id, "name": made.name}
    lines = [f"wrote {made.folder} ({made.application_id}); it was not built here, where there is no Gradle"]
    return told, [*lines, f"next: open {made.folder} in Android Studio, or run gradle :app:assembleDebug in it"]
