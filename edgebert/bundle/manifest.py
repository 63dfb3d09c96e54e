"""The bundle: a folder with a model file and everything an app needs beside it.

`manifest.json` says what is in it and where it comes from, `tokenizer.json` turns text into ids, `golden.npz` holds
inputs with torch's answers, and `golden.json` texts with their ids. The folder appears whole or not at all.
"""

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import fastjsonschema

from edgebert.errors import EdgebertError, InputError
from edgebert.files import ASSETS, JSON_BYTES, check_file, is_file, parse_json, read_json, sha256
from edgebert.files import read as read_file
from edgebert.models import MODELS
from edgebert.models.config import LARGEST

MANIFEST, SCHEMA = "manifest.json", "manifest.schema.json"
GOLDEN = "golden.npz"
SENTENCES = "golden.json"
TOKENIZER = "tokenizer.json"
FORMAT = "edgebert-bundle"
VERSION = 5
SEAL, BLANK = "sha256", "0" * 64
NO_APP = "the Android app refuses this bundle"  # how a note begins that says why


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says; `assets/manifest.schema.json` tells what each field is, and holds manifests to it."""

    format: str
    version: int
    family: str
    source: str
    weights_sha256: str
    config: dict[str, Any]
    parameters: int
    task: str
    target: str
    recipe: str
    floor: str
    lengths: list[int]
    dynamic: bool
    vocab_size: int
    pad_id: int
    padding_invariant: bool
    labels: list[str]
    reading: dict[str, Any]
    model_file: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    files: dict[str, dict[str, Any]]
    graph: dict[str, Any]
    modules: list[dict[str, Any]]
    parts: dict[str, int]
    keep_float: list[str]
    calibration: str
    headroom: float | None
    peak_memory_bytes: int | None
    parity: dict[str, Any] | None
    tools: dict[str, str]
    notes: list[str]

    def __repr__(self) -> str:
        return f"Manifest({self.family} for {self.task}, {self.target} {self.recipe}, {len(self.files)} files)"

    @property
    def model_files(self) -> tuple[str, ...]:
        """The model file's entries in `files`: itself, or what is in it, and its external data."""
        own = (self.model_file, f"{self.model_file}_data")
        return tuple(name for name in self.files if name in own or name.startswith(f"{self.model_file}/"))

    @property
    def model_bytes(self) -> int:
        """How large the model file is, external data included."""
        return sum(self.files[name]["bytes"] for name in self.model_files)

    @property
    def sqnr_db(self) -> float | None:
        """The lowest signal to error of its outputs, dB; None where it was not looked at, or every one is torch's."""
        outputs = (self.parity or {}).get("outputs")
        rows = outputs.values() if isinstance(outputs, dict) else ()  # the schema leaves the report's figures open
        told = [one.get("sqnr_db") for one in rows if isinstance(one, dict)]
        return min((float(one) for one in told if isinstance(one, int | float)), default=None)

    def write(self, folder: Path) -> None:
        """Write `manifest.json`, sealed with its own hash."""
        (folder / MANIFEST).write_bytes(sealed(asdict(self)))


def sealed(raw: Mapping[str, Any]) -> bytes:
    """The manifest's JSON, led by the sha256 of itself with zeros in that place: it vouches for all other files."""
    content = json.dumps({SEAL: BLANK, **raw}, indent=2, ensure_ascii=False).encode() + b"\n"
    return content.replace(BLANK.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Bytes and sha256 of every file in a bundle but the manifest."""
    # Some model files are folders themselves, so names are paths below the bundle.
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }


def read(folder: str | Path) -> Manifest:
    """Read and check a bundle's manifest, and that each file is there with the bytes it was written with.

    Raises:
        InputError: the folder is no bundle, a later version's, edited or damaged; the message says which.
    """
    manifest, changed = look(folder)
    if changed is not None:
        raise changed
    return manifest


def look(folder: str | Path) -> tuple[Manifest, InputError | None]:
    """Read a bundle as `read` does, also one whose model file is not the one it was written with.

    Returns:
        The manifest, and what is wrong with the model file, if anything is.

    Raises:
        InputError: as `read`, for everything but the model file's contents.
    """
    folder = Path(folder)
    if not is_file(folder / MANIFEST):
        raise InputError(_no_bundle(folder))
    content = read_file(folder / MANIFEST, JSON_BYTES)
    raw = parse_json(content, folder / MANIFEST)
    if raw.get("format") != FORMAT:
        raise InputError(
            f"{folder / MANIFEST}: format={raw.get('format')!r:.80}, not {FORMAT!r}: this is no bundle's manifest."
        )
    if raw.get("version") != VERSION:
        raise InputError(
            f"{folder / MANIFEST}: version {raw.get('version')!r:.80}; this edgebert reads {VERSION}: "
            "export the bundle again."
        )
    said = raw.get(SEAL)
    manifest = _typed(raw, folder / MANIFEST)
    changed = None
    for name, entry in manifest.files.items():
        try:
            _verify(folder, name, entry)
        except InputError as error:
            if name not in manifest.model_files:
                raise
            changed = changed or error
    for name, listed in ((manifest.model_file, manifest.model_files), (GOLDEN, GOLDEN in manifest.files)):
        if not listed:
            raise InputError(f"{folder / MANIFEST} does not list {name}: export the bundle again.")
    blank = content.replace(str(said).encode(), BLANK.encode(), 1)
    if said != hashlib.sha256(blank).hexdigest():
        raise InputError(f"{folder / MANIFEST} is damaged or was edited: export or copy the bundle again.")
    return manifest, changed


def _no_bundle(folder: Path) -> str:
    """What a folder is that is no bundle, and what to do."""
    name = shlex.quote(str(folder))
    if is_file(folder / "config.json"):
        return f"{folder} is no bundle: it is a checkpoint, of which edgebert export {name} makes one"
    if not folder.exists():
        return f"{folder} is no bundle: nothing is there. Make one with edgebert export --out {name}"
    return f"{folder} is no bundle: it has no {MANIFEST}. Make one with edgebert export --out BUNDLE"


def said_source(folder: Path) -> str | None:
    """What a folder, if it is a bundle of any version, says that it was exported from; None if it is none."""
    if not is_file(folder / MANIFEST):
        return None
    try:
        raw = read_json(folder / MANIFEST)
    except InputError:
        return None
    return str(raw.get("source", "its checkpoint")) if raw.get("format") == FORMAT else None


@cache
def _schema() -> Callable[[Any], Any]:
    """The check of a manifest's JSON by the schema."""
    found: Callable[[Any], Any] = fastjsonschema.compile(json.loads((ASSETS / SCHEMA).read_bytes()))
    return found


def _typed(raw: dict[str, Any], path: Path) -> Manifest:
    """Hold a manifest to the schema and to what a schema cannot say: it is read by apps too, and may be edited."""
    try:
        _schema()(raw)
    except fastjsonschema.JsonSchemaValueException as error:
        said = re.sub(r"^data(\.?)", lambda found: "" if found[1] else "it", " ".join(error.message.split()))
        raise InputError(f"{path}: {said:.300}: export the bundle again.") from None
    manifest = Manifest(**{name: value for name, value in raw.items() if name != SEAL})
    lengths = manifest.lengths
    if lengths != sorted(set(lengths)) or lengths[-1] > LARGEST:
        raise InputError(f"{path}: lengths={lengths!r:.100}; ascending numbers of tokens are needed: export again.")
    _check_model(manifest, path)
    return manifest


def _check_model(manifest: Manifest, path: Path) -> None:
    """Raise InputError unless the manifest speaks of a model that this edgebert has."""
    family, labels = MODELS.get(manifest.family), manifest.config.get("labels", [])
    if family is None or manifest.task not in family.heads:
        raise InputError(f"{path}: no {manifest.family} for {manifest.task} is known here: export the bundle again.")
    if set(manifest.config) != {field.name for field in fields(family.config)}:
        raise InputError(f"{path}: config does not hold what a {manifest.family}'s does: export the bundle again.")
    stated = manifest.config | {"id2label": {str(i): label for i, label in enumerate(labels)}}
    try:
        config = family.config.from_hf({
            key: value for key, value in stated.items() if key not in ("labels", "pooling")
        })
    except EdgebertError as error:
        raise InputError(f"{path}: {error}") from None
    own = list(config.labels) if "classification" in manifest.task else []
    if manifest.vocab_size != config.vocab_size or manifest.labels != own or not 0 <= manifest.pad_id < LARGEST:
        raise InputError(f"{path}: vocab_size, pad_id or labels are not its config's: export the bundle again.")


def _verify(folder: Path, name: str, said: dict[str, Any]) -> None:
    """Hold one file to its entry in the manifest."""
    path = folder / name
    below = PurePosixPath(name)
    # Written in its one way: a file with a thousand names would be hashed a thousand times.
    if below.is_absolute() or ".." in below.parts or below.as_posix() != name:
        raise InputError(f"{folder / MANIFEST}: {name!r} is not a file's entry: export the bundle again.")
    if not is_file(path):
        raise InputError(f"{folder} has no {name}, which its manifest lists: copy the whole folder, or export again.")
    if check_file(path, sys.maxsize) != said["bytes"] or sha256(path) != said["sha256"]:
        raise InputError(f"{path} is not the file that was exported (its sha256 differs): export the bundle again.")
