"""How long each step of an export takes, beside what `edgebert/durations.py` tells of it.

    python benchmarks/durations.py > durations.jsonl

A process for each model, target and recipe, one line of JSON each: seconds a step, and those told for the longer ones.
Leave the machine alone meanwhile.
"""

import json
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import edgebert
from edgebert import durations
from edgebert.catalog import asked_recipe, check_pair

TARGETS = ("tflite", "onnx", "executorch", "coreml")
CASES = [
    (preset, target, "int8") for preset in ("electra-small", "squeezebert-base", "bert-base") for target in TARGETS
]
CASES += [("bert-base", target, "fp32") for target in TARGETS]
CASES += [("bert-base", "tflite", "w4a8-dynamic"), ("bert-base", "tflite", "w8a8-static")]
LENGTHS = (32, 64, 128)
LONG = ("ask", "convert", "compare")  # the first words of the steps that something is told of


def measure(preset: str, target: str, recipe: str) -> dict[str, object]:
    """Export a model of random weights, and tell each step's seconds by its first word."""
    began: list[tuple[str, float]] = []
    model = edgebert.load(preset, "sequence-classification", random_init=True)
    with tempfile.TemporaryDirectory() as made:
        edgebert.export(
            model, target=target, recipe=recipe, lengths=LENGTHS, out=Path(made, "made"),
            progress=lambda step: began.append((step, time.perf_counter())),
        )  # fmt: skip
        began.append(("", time.perf_counter()))
    seconds = {step.split(" ")[0]: round(after - at, 1) for (step, at), (_, after) in pairwise(began)}
    told = durations.export(model.model, target, check_pair(target, recipe), LENGTHS)
    expected = dict(zip(LONG, (round(one, 1) for one in (told.answers, told.convert, told.gate)), strict=True))
    return {"model": preset, "target": target, "recipe": recipe, "seconds": seconds, "told": expected}


def main() -> None:
    """Measure one case, or each in a process of its own: converters keep what they made."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(*sys.argv[1:])))
        return
    for preset, target, recipe in CASES:
        command = [sys.executable, __file__, preset, target, asked_recipe(target, recipe)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
