"""An Android Studio project with a bundle in its app: the sources of library and app, to go on from."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from edgebert.app import identity, make, sources
from edgebert.app.make import Progress
from edgebert.bundle.manifest import MANIFEST
from edgebert.errors import MissingDependency
from edgebert.files import new_folder

GRADLE, XML = f"app/{sources.MODULE}", "app/src/main/AndroidManifest.xml"
PLACE = "app/src/main/assets/bundle"
# What a project of another name has something else for, the first in each file.
ID = re.compile(rf'(?<=applicationId = "){re.escape(identity.TEMPLATE)}(?=")')
LABEL = re.compile(r'(?<=:label=)"[^"]*"')
# A label that begins with one of these would be a reference to a resource; a backslash begins an escape.
ESCAPED = re.compile(r"^[@?]|[\\'\"]")


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it: the folder, and what the app is called."""

    folder: Path
    application_id: str
    name: str


def project(
    folder: str | Path,
    out: str | Path,
    name: str | None = None,
    application_id: str | None = None,
    force: bool = False,
    progress: Progress = lambda step: None,
) -> Made:
    """Write a project for Android Studio, whose app has a bundle in its assets; nothing is built here.

    Args:
        folder: the bundle.
        out: the project's folder, which appears whole or not at all.
        name: under the app's picture; None takes the bundle's folder's name.
        application_id: None takes one that only this bundle has.
        force: replace a project that is there already.
        progress: is told each step.

    Raises:
        InputError: the folder is no bundle, something given is not usable, or something stands at `out`.
        MissingDependency: the sources are not there.
        Unsupported: the app does not run the bundle's target.
    """
    folder, out = Path(folder), Path(out)
    progress("look at the bundle")
    told = make.read(folder)
    own, shown = identity.application_id(application_id, folder, told), identity.name(name, folder)
    files = dict(sources.find())
    files[GRADLE] = _changed(files, GRADLE, ID, own)
    files[XML] = _changed(files, XML, LABEL, quoteattr(ESCAPED.sub(r"\\\g<0>", shown)))
    progress("write the project")
    with new_folder(out, force, sources.SETTINGS) as made:
        for path, content in files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(content)
        for path in (MANIFEST, *told.files):
            (made / PLACE / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, made / PLACE / path)
    return Made(out, own, shown)


def _changed(files: Mapping[str, bytes], path: str, what: re.Pattern[str], new: str) -> bytes:
    """A source whose first match says something else."""
    text, count = what.subn(lambda match: new, files.get(path, b"").decode(), count=1)
    if not count:
        raise MissingDependency(f"the app's sources have no {what.pattern} in {path}: run make app again")
    return text.encode()
