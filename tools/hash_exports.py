"""The net under a change that is to change no file: what every exporter writes, as hashes to hold a later run against.

    python tools/hash_exports.py before.json            # at the state that is known to be right
    python tools/hash_exports.py after.json             # after the change; then compare the two
    python tools/hash_exports.py --compare before.json after.json

A cell is a family with a task's head at tiny size, a target and a recipe: the SHA-256 of each file that the exporter
writes, and of what it says of each weight. The embedded default's bundles are hashed file by file, the manifest without
what a run alone decides (the peak of memory). Weights and sample inputs are drawn here from fixed seeds. Two to 25
minutes on one core a target; `--target` and `--family` choose, so that two runs can share the work.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import edgebert
from edgebert.exporters import EXPORTERS
from edgebert.models import MODELS, Model
from edgebert.quantization.recipes import RECIPES, TARGET_RECIPES
from edgebert.runtimes import SUFFIXES

LENGTHS = (8, 16)
UNSTABLE = ("peak_memory_bytes", "sha256")  # the latter is a hash over the former too


def tiny(family: str, task: str) -> Model:
    """A model of the family's tiny size in which no tensor is zero or one throughout."""
    config = dataclasses.replace(MODELS[family].config.tiny(), labels=tuple(f"kind_{i}" for i in range(5)))
    model = Model(MODELS[family], config, task)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 0.1, generator=generator)
            if parameter.dim() == 1 and name.endswith("norm.weight"):
                parameter.add_(1.0)
    return model


def samples(vocabulary: int) -> list[dict[str, np.ndarray]]:
    """Random inputs of one row, int32 (1, T)."""
    random = np.random.default_rng(3)
    rows = []
    for tokens in random.integers(2, LENGTHS[-1] + 1, 12):
        ids = random.integers(0, vocabulary, (1, tokens), dtype=np.int32)
        types = (np.arange(tokens) * 2 >= tokens).astype(np.int32)[None]
        rows.append({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types})
    return rows


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file below a folder, a manifest's without what a run decides."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path == folder / "manifest.json":
            said = json.loads(content)
            content = json.dumps({k: v for k, v in said.items() if k not in UNSTABLE}, sort_keys=True).encode()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def cells(targets: list[str], families: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every tiny cell's name and hashes."""
    for target in targets:
        for family in families:
            for task in MODELS[family].heads:
                for name in TARGET_RECIPES[target]:
                    model, recipe = tiny(family, task), RECIPES[name]
                    rows = samples(model.config.vocab_size) if recipe.calibrated else []
                    with tempfile.TemporaryDirectory() as folder:
                        path = Path(folder) / f"model{SUFFIXES[target]}"
                        artifact = EXPORTERS[target].export(model, recipe, LENGTHS, path, (), rows)
                        said = {key: dataclasses.asdict(one) for key, one in sorted(artifact.weights.items())}
                        found: dict[str, Any] = hashes(Path(folder))
                        found["weights"] = hashlib.sha256(json.dumps(said).encode()).hexdigest()
                    yield f"{family} {task} {target} {name}", found


def bundles(targets: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The embedded default's bundles."""
    for target in targets:
        for recipe in TARGET_RECIPES[target]:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "bundle"
                edgebert.export("default", target=target, recipe=recipe, out=out, validate=False)
                yield f"default {target} {recipe}", hashes(out)


def compare(before: Path, after: Path) -> int:
    """Print the cells that differ; the exit code is 1 where one does."""
    old, new = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    both = old.keys() & new.keys()
    changed = {name: [f for f in {*old[name], *new[name]} if old[name].get(f) != new[name].get(f)] for name in both}
    changed = {name: files for name, files in changed.items() if files}
    for name in sorted(changed):
        print(f"{name}: {', '.join(sorted(changed[name]))} changed")
    print(f"{len(both)} cells in both, {len(changed)} changed, {len(old) - len(both)} gone, {len(new) - len(both)} new")
    return 1 if changed else 0


def main() -> int:
    """Hash, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="where to write, or the two to compare")
    parser.add_argument("--compare", action="store_true", help="compare two files instead of writing one")
    parser.add_argument("--target", action="append", choices=TARGET_RECIPES, help="these targets alone")
    parser.add_argument("--family", action="append", choices=(*MODELS, "default"), help="these alone")
    asked = parser.parse_args()
    if asked.compare:
        return compare(*asked.files)
    targets = asked.target or list(TARGET_RECIPES)
    found: dict[str, dict[str, str]] = {}
    families = asked.family or [*MODELS, "default"]
    chosen = bundles(targets) if "default" in families else iter(())
    for part in (chosen, cells(targets, [name for name in families if name != "default"])):
        for name, files in part:
            found[name] = files
            print(name, file=sys.stderr, flush=True)
    asked.files[0].write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
