"""What long inputs take: export with its gate, memory, and time of ModernBERT and Nomic BERT at 512 to 2,048 tokens.

    python benchmarks/long_inputs.py --work DIR [--models modernbert-base ...] [--targets tflite ...] [--lengths 512]

Each file is a sentence encoder with random weights in `w8a8-dynamic`, exported in a process of its own with the gate
on, whose greatest memory is told, and answers in another. Phones are simulated from one and two rounds of layers.
The work folder keeps what a run that was ended goes on from, and gets the table. Needs
`pip install -e ".[all]"` and `edgebert device setup pixel`.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import edgebert
from edgebert.checkpoints import checkpoint
from edgebert.models import Model
from edgebert.profiling import extrapolate
from edgebert.profiling.subject import devices

TASK, RECIPE, PHONE = "sentence-embedding", "w8a8-dynamic", "pixel-6"
PRESETS = ("modernbert-base", "nomic-embed")
TARGETS = ("tflite", "onnx", "executorch")
LENGTHS = (128, 512, 1024, 2048)


def export(model: str, target: str, length: int, out: Path) -> dict[str, Any]:
    """Make a bundle, and tell what it took."""
    made = edgebert.export(
        model, task=TASK, target=target, recipe=RECIPE, lengths=(length,), out=out, random_init=True, force=True
    )
    assert made.report is not None
    (errors,) = (one for name, one in made.report.outputs.items() if name == "sentence_embedding")
    return {
        "export_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "sqnr_db": errors.sqnr_db, "bytes": sum(part.stat().st_size for part in out.rglob("model*") if part.is_file()),
    }  # fmt: skip


def answer(out: Path) -> dict[str, Any]:
    """Let a bundle answer on this host, and tell the memory that it took."""
    edgebert.profile([out], runs=1)
    return {"answer_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def simulate(model: str, target: str, length: int) -> dict[str, Any]:
    """What a phone takes."""
    outline = checkpoint.outline(model)
    with torch.device("meta"):
        encoder = Model(outline.family, outline.config, TASK)
    whole = extrapolate.Whole(model, encoder, None, target, RECIPE, (), (length,), None)
    (row,) = extrapolate.count(whole, devices([PHONE]))
    return {"phone_ms": row.median_ms, "instructions": row.instructions}


def apart(step: str, *arguments: str) -> dict[str, Any]:
    """Run a step of this script in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--step", step, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        return {f"{step}_failed": done.returncode}
    return dict(json.loads(done.stdout.splitlines()[-1]))


STEPS = {
    "export": lambda model, target, length, out: export(model, target, int(length), Path(out)),
    "answer": lambda model, target, length, out: answer(Path(out)),
    "simulate": lambda model, target, length, out: simulate(model, target, int(length)),
}


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    heads = ["model", "target", "tokens", "MB", "SQNR dB", "export GB", "answer GB", f"{PHONE} ms"]
    lines = [heads, ["---", "---", *["---:"] * 6]]
    for row in rows:
        figures = [(row.get(key), scale) for key, scale in (
            ("bytes", 1e6), ("sqnr_db", 1), ("export_mb", 1e3), ("answer_mb", 1e3), ("phone_ms", 1)
        )]  # fmt: skip
        told = ["" if value is None else f"{value / scale:.1f}" for value, scale in figures]
        lines.append([row["model"], row["target"], f"{row['length']:,}", *told])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def main() -> int:
    """Measure what is not measured yet, and write the table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of files and results; 1 GB")
    parser.add_argument("--models", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--step", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        name, *given = arguments.step
        print(json.dumps(STEPS[name](*given)))
        return 0
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "long.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.is_file() else []
    for length in arguments.lengths:
        for model in arguments.models:
            for target in arguments.targets:
                place = {"model": model, "target": target, "length": length}
                if any(place.items() <= row.items() for row in rows):
                    continue
                print(f"{model}, {target}, {length} tokens", flush=True)
                given = (model, target, str(length), str(work / "bundle"))
                rows.append(place | apart("export", *given) | apart("answer", *given) | apart("simulate", *given))
                kept.write_text(json.dumps(rows, indent=1) + "\n")
                (work / "long.md").write_text(markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
