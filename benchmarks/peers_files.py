"""The files that are compared: one set of random weights a model, each maker's file of it, and edgebert's bundle.

Everything stays in the work folder, so that a run that was ended goes on where it was:

    <work>/<model>/checkpoint/                          transformers' own format
    <work>/<model>/inputs.npz, expected.npz             one row of random ids, and torch's answers in float32
    <work>/<model>/<maker>/model.* int8.* fp16.*        and int8.log, int8.outcome: made, or why not
    <work>/<model>/edgebert-<runtime>-<precision>/      a bundle, made again when edgebert's sources have changed
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from export_speed import LENGTH
from peers_convert import FILES, MAKERS

import edgebert
from edgebert import bundle, exporters
from edgebert.files import sha256
from edgebert.gate import golden
from edgebert.models import Model

# Model to its preset, and what is changed of it: RemBERT's 32 layers are alike, and four of them tell the same. Those
# with two layers or three tell of files that the embeddings have a greater part in.
MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "squeezebert": ("squeezebert-base", {}),
    "bert": ("bert-base", {}),
    "convbert": ("convbert-base", {}),
    "rembert-4": ("rembert-base", {"num_hidden_layers": 4}),
    "roberta-2": ("roberta-base", {"num_hidden_layers": 2}),
    "mpnet-2": ("mpnet-base", {"num_hidden_layers": 2}),
    "albert-2": ("albert-base", {"num_hidden_layers": 2}),
    "mobilebert-2": ("mobilebert-uncased", {"num_hidden_layers": 2}),
    "deberta-2": ("deberta-v3-small", {"num_hidden_layers": 2}),
    "modernbert-3": ("modernbert-base", {"num_hidden_layers": 3}),  # a global one and two local ones
    "nomic-2": ("nomic-embed", {"num_hidden_layers": 2}),
}
RECIPES = {"fp32": "fp32", "int8": "w8a8-dynamic", "fp16": "fp16"}
OURS = "edgebert"
MADE = "made"
CONVERT = Path(__file__).with_name("peers_convert.py")


class Failed(Exception):
    """A file could not be made; the message is the reason for the table."""


def prepare(work: Path, name: str) -> None:
    """Write a model's checkpoint, its inputs and torch's answers, where they are not there yet."""
    folder = work / name
    if (folder / "expected.npz").is_file():
        return
    preset, changes = MODELS[name]
    source = edgebert.load(preset, "base", random_init=True)
    config = dataclasses.replace(source.model.config, **changes)
    source = dataclasses.replace(source, model=Model(source.model.family, config, "base").random_init(0))
    source.save(folder / "checkpoint", force=True)
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (1, LENGTH), dtype=np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
    np.savez(folder / "expected.npz", **golden.answer(source.model, inputs))  # type: ignore[arg-type]


def made(work: Path, name: str, runtime: str, precision: str, maker: str) -> Path:
    """The model file of a maker, made where it is not there yet.

    Raises:
        Failed: it cannot be made; the message says why. A peer's failed conversion is not tried again as long as its
            `.outcome` file is there.
    """
    if maker == OURS:
        return _bundle(work, name, runtime, precision)
    if precision != "fp32" and runtime != "executorch":
        made(work, name, runtime, "fp32", maker)  # which the others are made from
    how = MAKERS[maker]
    path = work / name / maker / f"{FILES[precision]}{how.ending}"
    outcome = path.with_name(f"{precision}.outcome")  # written last, for a file alone may be half of one
    if not outcome.is_file():
        own = work / how.beside if how.beside else None
        if own and not own.is_dir():
            raise Failed(f"not installed: {how.command.format(folder=own)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        call = [str(CONVERT), str(work / name / "checkpoint"), maker, precision, str(path.parent)]
        outcome.write_text(_run(call, path.with_name(f"{precision}.log"), own) or MADE)
    if (said := outcome.read_text()) != MADE:
        raise Failed(said)
    return path


def _bundle(work: Path, name: str, runtime: str, precision: str) -> Path:
    folder = work / name / f"{OURS}-{runtime}-{precision}"
    stamp, now = folder.with_name(f"{folder.name}.sources"), sources()
    if not (stamp.is_file() and stamp.read_text() == now and folder.is_dir()):
        call = ["-m", "edgebert", "export", str(work / name / "checkpoint"), "--target", runtime]
        call += ["--recipe", RECIPES[precision], "--lengths", str(LENGTH), "--out", str(folder), "--force"]
        if reason := _run(call, folder.with_name(f"{folder.name}.log")):
            raise Failed(reason)
        stamp.write_text(now)
    return folder / bundle.read(folder).model_file


def sources() -> str:
    """What edgebert's own files are made with, as one hash."""
    rooms = (Path(edgebert.__file__).parent, Path(exporters.__file__).parent)
    return sha256(*sorted({path for room in rooms for path in room.rglob("*.py")}))


def _run(call: list[str], log: Path, own: Path | None = None) -> str | None:
    """Run Python on one thread with what it says in a log; the last line of that where it fails."""
    seen = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | ({"PYTHONPATH": str(own)} if own else {})
    with log.open("w") as out:
        done = subprocess.run(
            [sys.executable, *call], env=seen, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
        )
    if not done.returncode:
        return None
    last = (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
    return f"exit {done.returncode}: {last[:300]}"
