"""The bundle: a folder with a model file and everything an app needs beside it.

`manifest.json` says what is in it and where it comes from, `tokenizer.json` turns text into ids, `golden.npz` holds
inputs with torch's answers. The folder appears whole or not at all.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgebert.checkpoints.read import read_json
from edgebert.errors import InputError
from edgebert.files import sha256

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
TOKENIZER = "tokenizer.json"
FORMAT = "edgebert-bundle"
VERSION = 2
SEAL, BLANK = "sha256", "0" * 64
# Fields that may be null, and their type where they are not.
NULLABLE: dict[str, type] = {"parity": dict, "peak_memory_bytes": int, "headroom": float}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        format: always `edgebert-bundle`.
        version: of this layout; 2.
        family: the architecture, as in Hugging Face's `model_type`.
        source: folder, hub name or preset that the model came from.
        weights_sha256: of the source weights; `random, seed N` for random ones.
        config: the model's sizes.
        parameters: number of weights, shared ones once.
        task: which head.
        target: which runtime's format.
        recipe: what was done to the numbers.
        lengths: sequence lengths, ascending.
        dynamic: whether any length up to the last is taken as it is.
        vocab_size: ids are below it.
        pad_id: fills a sentence up.
        padding_invariant: whether the model answers the same when a sentence is padded further.
        labels: names of the classes; empty where the task has none.
        model_file: name of the model file.
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
    lengths: list[int]
    dynamic: bool
    vocab_size: int
    pad_id: int
    padding_invariant: bool
    labels: list[str]
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
        InputError: the folder is no bundle, a later version's, or damaged; the message says which.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder} is no bundle: it has no {MANIFEST}. Make one with edgebert export --out {folder}.")
    raw = read_json(folder / MANIFEST)
    if raw.get("format") != FORMAT:
        raise InputError(
            f"{folder / MANIFEST}: format={raw.get('format')!r}, not {FORMAT!r}: this is no bundle's manifest."
        )
    if raw.get("version") != VERSION:
        raise InputError(
            f"{folder / MANIFEST}: version {raw.get('version')!r}; this edgebert reads {VERSION}: "
            "export the bundle again."
        )
    said = raw.pop(SEAL, None)
    manifest = _typed(raw, folder / MANIFEST)
    for name, entry in manifest.files.items():
        _verify(folder, name, entry)
    for name in (manifest.model_file, GOLDEN):
        if not any(file == name or file.startswith(f"{name}/") for file in manifest.files):
            raise InputError(f"{folder / MANIFEST} does not list {name}: export the bundle again.")
    content = (folder / MANIFEST).read_bytes()
    blank = content.replace(str(said).encode(), BLANK.encode(), 1)
    if said != hashlib.sha256(blank).hexdigest():
        raise InputError(f"{folder / MANIFEST} is damaged or was edited: export or copy the bundle again.")
    return manifest


def _typed(raw: dict[str, Any], path: Path) -> Manifest:
    """Check that each field is there with its type: a manifest is read by apps too, and may be edited by hand."""
    kinds = dict(Manifest.__annotations__)
    if set(raw) != set(kinds):
        odd = sorted(set(raw) ^ set(kinds))
        raise InputError(f"{path}: {', '.join(odd)} missing or unknown: export the bundle again.")
    for name, kind in kinds.items():
        if name in NULLABLE and raw[name] is None:
            continue
        plain = NULLABLE.get(name) or getattr(kind, "__origin__", None) or kind
        if type(raw[name]) is not plain:
            raise InputError(
                f"{path}: {name} is a {type(raw[name]).__name__}; {plain.__name__} is needed: export again."
            )
    lengths = raw["lengths"]
    if not lengths or any(type(n) is not int or n < 1 for n in lengths) or lengths != sorted(set(lengths)):
        raise InputError(f"{path}: lengths={lengths}; ascending positive integers are needed: export the bundle again.")
    return Manifest(**raw)


def _verify(folder: Path, name: str, said: Any) -> None:
    """Hold one file to its entry in the manifest."""
    path = folder / name
    below = PurePosixPath(name)
    if below.is_absolute() or ".." in below.parts or not isinstance(said, dict):
        raise InputError(f"{folder / MANIFEST}: {name!r} is not a file's entry: export the bundle again.")
    if not path.is_file():
        raise InputError(f"{folder} has no {name}, which its manifest lists: copy the whole folder, or export again.")
    if path.stat().st_size != said.get("bytes") or sha256(path) != said.get("sha256"):
        raise InputError(f"{path} is not the file that was exported (its sha256 differs): export the bundle again.")
