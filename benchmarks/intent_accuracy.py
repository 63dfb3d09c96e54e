"""Accuracy of the embedded default on CLINC150's in-scope test queries, in torch and in each target's own runtime.

    python benchmarks/intent_accuracy.py --data PATH/TO/data_full.json

The data set (Larson et al., EMNLP 2019, CC BY 3.0) is not part of this project: without it there is nothing to measure.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

import edgebert
from edgebert.recipes import TARGET_RECIPES

BATCH = 64


def main() -> int:
    """Measure every target and recipe, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CLINC150's data_full.json")
    data = parser.parse_args().data
    if not data.is_file():
        print(f"skipped: {data} is not there, and the data set is not part of this project", file=sys.stderr)
        return 0
    queries = json.loads(data.read_text(encoding="utf-8"))["test"]
    source = edgebert.load()
    assert source.tokenizer is not None
    texts, intents = [text for text, _ in queries], np.array([intent for _, intent in queries])
    names = np.array(source.model.config.labels)
    inputs = source.tokenizer.batch(texts, max_length=32)
    reference = np.concatenate([
        source.model(**{key: torch.from_numpy(value[i : i + BATCH]) for key, value in inputs.items()})["logits"].argmax(
            -1
        )
        for i in track(range(0, len(texts), BATCH), "torch")
    ])
    rows = [("torch", "fp32", float((names[reference] == intents).mean()), 1.0, 0.0)]
    with tempfile.TemporaryDirectory() as folder:
        for target, recipes in TARGET_RECIPES.items():
            for recipe in recipes:
                made = edgebert.export(
                    source, target=target, recipe=recipe, lengths=(32,), out=f"{folder}/{target}-{recipe}"
                )
                with edgebert.open(made.folder) as opened:
                    labels = np.concatenate([
                        opened.run({key: value[i : i + BATCH] for key, value in inputs.items()})["logits"].argmax(-1)
                        for i in track(range(0, len(texts), BATCH), f"{target} {recipe}")
                    ])
                size = (
                    sum(said["bytes"] for name, said in made.manifest.files.items() if name.startswith("model")) / 1e6
                )
                rows.append((
                    target,
                    recipe,
                    float((names[labels] == intents).mean()),
                    float((labels == reference).mean()),
                    size,
                ))
    table = Table("runtime", "recipe", "accuracy", "equal to torch", "MB")
    for target, recipe, accuracy, agreement, size in rows:
        table.add_row(target, recipe, f"{accuracy:.4f}", f"{agreement:.4f}", f"{size:.2f}" if size else "-")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
