"""What an app is called: its application id, of which a phone has one app at a time, and the name under its picture."""

import re
import unicodedata
from importlib import metadata
from pathlib import Path

from edgebert.app.resources import LONGEST
from edgebert.bundle.manifest import Manifest
from edgebert.errors import InputError

TEMPLATE = "dev.edgebert.app"
SEGMENT = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
NAME = 100  # characters; a phone shows a dozen or two
# Categories of characters that no name has: controls, halves of a surrogate pair, line and paragraph separators.
REFUSED = ("Cc", "Cs", "Zl", "Zp")


def application_id(given: str | None, folder: Path, manifest: Manifest) -> str:
    """The application id: the one that was given, or one that only this bundle has.

    Raises:
        InputError: Android takes no such id.
    """
    if given is None:
        letters = re.sub(r"[^a-z0-9]+", "_", folder.resolve().name.lower()).strip("_")[:40].strip("_")
        own = letters if SEGMENT.fullmatch(letters) else f"bundle_{letters}".rstrip("_")
        return f"{TEMPLATE}.{own}_{manifest.files[_model(manifest)]['sha256'][:8]}"
    segments = given.split(".")
    if len(segments) < 2 or not all(SEGMENT.fullmatch(part) for part in segments) or len(given) > LONGEST:
        raise InputError(
            f"--id {given!r:.150}: an application id has two parts or more with dots between, each of letters, digits "
            f"and _ and beginning with a letter, and up to {LONGEST} characters, such as com.example.assistant."
        )
    return given


def _model(manifest: Manifest) -> str:
    """The model's file, or the first of several."""
    return manifest.model_files[0]


def name(given: str | None, folder: Path) -> str:
    """The name that a phone shows: the one that was given, or the folder's.

    Raises:
        InputError: it is empty, too long, or has what no line of text has.
    """
    text = (folder.resolve().name if given is None else given).strip()
    odd = [c for c in text if unicodedata.category(c) in REFUSED]
    if not text or len(text) > NAME or odd:
        raise InputError(
            f"--name {text!r:.150}: a name has 1 to {NAME} characters, on one line: give another with --name."
        )
    return text


def version(manifest: Manifest) -> str:
    """The version that a phone shows: edgebert's, and the beginning of the model's SHA-256."""
    return f"{metadata.version('edgebert')} {manifest.files[_model(manifest)]['sha256'][:8]}"
