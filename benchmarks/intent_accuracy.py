"""Accuracy of the embedded default on CLINC150's in-scope test queries, in torch and in each target's own runtime.

    python benchmarks/intent_accuracy.py --data PATH/TO/data_full.json

The data set (Larson et al., EMNLP 2019, CC BY 3.0) is not part of this project: without it there is nothing to measure.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import edgebert
from edgebert.gate import golden
from edgebert.models.signature import Arrays
from edgebert.quantization.recipes import TARGET_RECIPES

BATCH = 64


def main() -> int:
    """Measure every target and recipe, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CLINC150's data_full.json")
    parser.add_argument(
        "--target", action="append", choices=TARGET_RECIPES, help="only this one (give it several times)"
    )
    arguments = parser.parse_args()
    data = arguments.data
    if not data.is_file():
        print(f"skipped: {data} is not there, and the data set is not part of this project", file=sys.stderr)
        return 0
    queries = json.loads(data.read_text(encoding="utf-8"))["test"]
    source = edgebert.load()
    assert source.tokenizer is not None
    inputs = source.tokenizer.batch([text for text, _ in queries], max_length=32)
    names = np.array(source.model.config.labels)
    intents = np.array([intent for _, intent in queries])
    reference = labels_of(partial(golden.answer, source.model), inputs, "torch")
    table = Table("runtime", "recipe", "accuracy", "equal to torch", "MB")
    table.add_row("torch", "fp32", f"{(names[reference] == intents).mean():.4f}", "1.0000", "-")
    with tempfile.TemporaryDirectory() as folder:
        cells = [(name, recipe) for name in arguments.target or TARGET_RECIPES for recipe in TARGET_RECIPES[name]]
        for target, recipe in cells:
            out = Path(folder, f"{target}-{recipe}")
            manifest = edgebert.export(source, target=target, recipe=recipe, lengths=(32,), out=out).manifest
            with edgebert.open(out) as opened:
                labels = labels_of(opened.run, inputs, f"{target} {recipe}")
            accuracy, agreement = (names[labels] == intents).mean(), (labels == reference).mean()
            # Core ML's file is a folder.
            size = manifest.model_bytes / 1e6
            table.add_row(target, recipe, f"{accuracy:.4f}", f"{agreement:.4f}", f"{size:.2f}")
    Console().print(table)
    return 0


def labels_of(run: Callable[[Arrays], Arrays], inputs: Arrays, what: str) -> np.ndarray:
    """The number of the likeliest label of each row, (N,)."""
    starts = track(range(0, len(inputs["input_ids"]), BATCH), what)
    parts = ({key: value[i : i + BATCH] for key, value in inputs.items()} for i in starts)
    return np.concatenate([run(part)["logits"].argmax(-1) for part in parts])


if __name__ == "__main__":
    sys.exit(main())
