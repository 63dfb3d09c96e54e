"""The bundle: a folder with a model file and everything an app needs beside it.

`manifest.json` says what is in it and where it comes from, `tokenizer.json` turns text into ids, `golden.npz` holds
inputs with torch's answers, and `golden.json` texts with their ids. The folder appears whole or not at all.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path, PurePosixPath
from types import UnionType
from typing import Any, get_args, get_origin

from edgebert.answers.reading import ACTIVATIONS, Reading
from edgebert.errors import EdgebertError, InputError
from edgebert.files import JSON_BYTES, check_file, is_file, parse_json, sha256
from edgebert.files import read as read_file
from edgebert.models import MODELS
from edgebert.models.config import LARGEST
from edgebert.models.heads import MODES, Pooling
from edgebert.quantization.sizes import Touched
from edgebert.runtimes.session import Spec

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
SENTENCES = "golden.json"
TOKENIZER = "tokenizer.json"
FORMAT = "edgebert-bundle"
VERSION = 5
SEAL, BLANK = "sha256", "0" * 64
NO_APP = "the Android app refuses this bundle"  # how a note begins that says why


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        format: always `edgebert-bundle`.
        version: of this layout; 5.
        family: the architecture, as in Hugging Face's `model_type`.
        source: folder, hub name or preset that the model came from.
        weights_sha256: of the source weights; `random, seed N` for random ones.
        config: the model's sizes.
        parameters: number of weights, shared ones once.
        task: which head.
        target: which runtime's format.
        recipe: what was done to the numbers.
        floor: the oldest release of the runtime that answers right, such as `ONNX Runtime 1.17`.
        lengths: sequence lengths, ascending.
        dynamic: whether any length up to the last is taken as it is.
        vocab_size: ids are below it.
        pad_id: fills a sentence up.
        padding_invariant: whether the model answers the same when a sentence is padded further.
        labels: names of the classes; empty where the task has none.
        reading: how logits become an answer, so that every app gives the same; the fields of
            `edgebert.answers.reading.Reading`, where each is explained.
        model_file: path of the model file in the folder, with / between its parts; for Core ML a folder itself.
        inputs: name, dtype and shape of each input at the longest length, -1 for a free axis.
        outputs: the same of each output.
        files: name to bytes and sha256 of every other file in the folder.
        graph: the runtime's facts: nodes, operators, weight bytes by dtype, and what of it a backend takes over.
        modules: for each module with weights its name, type, part, parameters, dtype in the file, bytes before, after.
        parts: part of the model to bytes of its weights in the file.
        keep_float: patterns of modules that were kept in float.
        calibration: the texts that scales or roundings were chosen on, with their sha256; empty where none were.
        headroom: how many times larger activations may be than on sample texts before half precision overflows; null
            where nothing is computed in it.
        peak_memory_bytes: the most memory that the exporting process held; null where the system does not tell.
        parity: the gate's report, or null when it was told not to look.
        tools: versions of everything that had a hand in it.
        notes: what a careful reader wants to know.
    """

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

    @property
    def model_files(self) -> tuple[str, ...]:
        """The model file's entries in `files`: itself, or what is in it, and its external data."""
        own = (self.model_file, f"{self.model_file}.data")
        return tuple(name for name in self.files if name in own or name.startswith(f"{self.model_file}/"))

    @property
    def model_bytes(self) -> int:
        """How large the model file is, external data included."""
        return sum(self.files[name]["bytes"] for name in self.model_files)

    def write(self, folder: Path) -> None:
        """Write `manifest.json`, sealed with its own hash."""
        (folder / MANIFEST).write_bytes(sealed(asdict(self)))


@dataclass(frozen=True, slots=True)
class _File:
    """What is said of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Delegated:
    """What is read of a delegation."""

    share: float
    text: str


@dataclass(frozen=True, slots=True)
class _Graph:
    """What is said of the graph."""

    nodes: int
    ops: dict[str, int]
    weight_bytes: dict[str, int]
    delegation: _Delegated | None


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What is read of the gate's report."""

    passed: bool


# Fields whose objects have to have more than their type says.
INSIDE: Mapping[str, Any] = {
    "inputs": list[Spec],
    "outputs": list[Spec],
    "modules": list[Touched],
    "files": dict[str, _File],
    "graph": _Graph,
    "parity": _Verdict | None,
    "reading": Reading,
}


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
        raise InputError(f"{folder} is no bundle: it has no {MANIFEST}. Make one with edgebert export --out {folder}.")
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
    said = raw.pop(SEAL, None)
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


def _typed(raw: dict[str, Any], path: Path) -> Manifest:
    """Check that each field is there with its type: a manifest is read by apps too, and may be edited by hand."""
    kinds = dict(Manifest.__annotations__)
    if set(raw) != set(kinds):
        odd = sorted(set(raw) ^ set(kinds))
        raise InputError(f"{path}: {', '.join(odd)} missing or unknown: export the bundle again.")
    for name, kind in kinds.items():
        if not _fits(raw[name], kind):
            wanted = str(getattr(kind, "__name__", kind)) if kind in (str, int, bool) else str(kind)
            raise InputError(f"{path}: {name} is a {type(raw[name]).__name__}; {wanted} is needed: export again.")
    for name, kind in INSIDE.items():
        if not _fits(raw[name], kind):
            raise InputError(f"{path}: {name} does not hold what belongs there: export the bundle again.")
    lengths = raw["lengths"]
    if not lengths or lengths != sorted(set(lengths)) or not 0 < lengths[0] <= lengths[-1] <= LARGEST:
        raise InputError(f"{path}: lengths={lengths}; ascending positive integers are needed: export the bundle again.")
    manifest = Manifest(**raw)
    _check_model(manifest, path)
    _check_reading(manifest, path)
    return manifest


def _fits(value: object, kind: Any) -> bool:
    """Whether a value from JSON is of a type; an object is of a dataclass when it has the fields of one."""
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        return any(_fits(value, each) for each in inner)
    if is_dataclass(kind):
        return isinstance(value, dict) and all(
            field.name in value and _fits(value[field.name], field.type) for field in fields(kind)
        )
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in value.values())
    if get_origin(kind) in (list, tuple):
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    return kind is Any or type(value) is kind


def _check_model(manifest: Manifest, path: Path) -> None:
    """Raise InputError unless the manifest speaks of a model that this edgebert has."""
    family, labels = MODELS.get(manifest.family), manifest.config.get("labels", [])
    if family is None or manifest.task not in family.heads:
        raise InputError(f"{path}: no {manifest.family} for {manifest.task} is known here: export the bundle again.")
    if set(manifest.config) != {field.name for field in fields(family.config)} or not _fits(labels, list[str]):
        raise InputError(f"{path}: config does not hold what a {manifest.family}'s does: export the bundle again.")
    stated = manifest.config | {"id2label": {str(i): label for i, label in enumerate(labels)}}
    try:
        config = family.config.from_hf({
            key: value for key, value in stated.items() if key not in ("labels", "pooling")
        })
    except EdgebertError as error:
        raise InputError(f"{path}: {error}") from None
    pooling = manifest.config["pooling"]
    if not _fits(pooling, Pooling) or not pooling["modes"] or set(pooling["modes"]) - set(MODES):
        raise InputError(f"{path}: config's pooling is none that is known here: export the bundle again.")
    named = list(config.labels) if "classification" in manifest.task else []
    if manifest.vocab_size != config.vocab_size or manifest.labels != named or not 0 <= manifest.pad_id < LARGEST:
        raise InputError(f"{path}: vocab_size, pad_id or labels are not its config's: export the bundle again.")


def _check_reading(manifest: Manifest, path: Path) -> None:
    """Raise InputError unless answers can be read as the manifest says."""
    names = {field.name for field in fields(Reading)}
    if set(manifest.reading) != names or manifest.reading["activation"] not in ACTIVATIONS:
        raise InputError(f"{path}: reading does not say how logits become an answer: export the bundle again.")


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
