"""The built app that bundles are put into, and its sources; `make app` makes both."""

import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgebert.errors import InputError, MissingDependency, Unsupported
from edgebert.files import ASSETS, is_file

# In a checkout they stand where they are built, and in an installed package among its own files.
CHECKOUT = ASSETS.parents[1] / "android_demo"
BUILT, PACKED = CHECKOUT / "build" / "app-template.apk", ASSETS / "app" / "template.apk"

# What the name of a library has in it that runs a target's files.
LIBRARIES = {"tflite": re.compile("tensorflow-?lite|tflite"), "onnx": re.compile("onnxruntime")}


def find() -> Path:
    """The template.

    Raises:
        MissingDependency: it is not built.
    """
    for path in (BUILT, PACKED):
        if is_file(path):
            return path
    raise MissingDependency(
        "the app that bundles are put into is not built: run make app in a checkout of edgebert (Java 17 and Maven)"
    )


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The template as a zip.

    Raises:
        InputError: it is none, also while the block reads it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InputError(f"{path} is no APK ({error}): run make app again.") from None


def carries(target: str) -> bool:
    """Whether apps can be made of this target's bundles: the template has the library, or will have it once built."""
    if target not in LIBRARIES:
        return False
    try:
        with opened(find()) as archive:
            return _has(archive, target)
    except MissingDependency:
        return target == "tflite"  # what every template carries
    except InputError:
        return False


def check(archive: zipfile.ZipFile, target: str) -> None:
    """Raise Unsupported unless a template has the library for a target's files."""
    if not _has(archive, target):
        raise Unsupported(
            f"this app has no library that runs {target} files: export with --target tflite, or make an app with the "
            "library in Android Studio (edgebert app --project)."
        )


def _has(archive: zipfile.ZipFile, target: str) -> bool:
    names = (name for name in archive.namelist() if name.startswith("lib/"))
    return any(LIBRARIES[target].search(name.rpartition("/")[2].lower()) for name in names)
