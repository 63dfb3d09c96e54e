"""The sources of library and app as a project of Android Studio's: of a checkout, or as the package carries them."""

from collections.abc import Mapping
from pathlib import Path

from edgebert.app import template
from edgebert.errors import MissingDependency
from edgebert.files import ASSETS

PACKED = ASSETS / "app" / "project.zip"
SETTINGS, MODULE = "settings.gradle.kts", "build.gradle.kts"
TOP = (SETTINGS, MODULE, "gradle.properties")  # beside them the folder `gradle`


def find() -> Mapping[str, bytes]:
    """The project's files without a bundle, path to content.

    Raises:
        MissingDependency: there are none.
    """
    if (template.CHECKOUT / SETTINGS).is_file():
        return of(template.CHECKOUT)
    if not PACKED.is_file():
        raise MissingDependency("the app's sources are not here: run make app in a checkout of edgebert")
    with template.opened(PACKED) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def of(folder: Path) -> Mapping[str, bytes]:
    """What of a folder is for Gradle: its own files, and of each module what makes it, without tests."""
    files = [folder / name for name in TOP]
    files += (folder / "gradle").rglob("*")
    for module in (path.parent for path in folder.glob(f"*/{MODULE}")):
        files += [*module.glob("*.kts"), *module.glob("*.pro"), *module.glob("proguard.txt")]
        files += (module / "src" / "main").rglob("*")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(files) if path.is_file()}
