"""Texts per second of a sentence encoder that is given thousands of short texts, in each way that they can be given.

    python benchmarks/many_texts.py --work DIR [--devices pixel-3 pixel-4 pixel-6] [--texts 2000]

The model is a BERT in MiniLM-L6's shape with random weights, in 8 bits and in float, exported with lengths 32, 64 and
128 for each runtime. The texts are the mix with a mean of 25 tokens of `text_lengths.py`. The ways:

- one: a text a call, at the smallest length that fits, or as long as it is where the file takes any length;
- rows: several texts in a row of 128 where the file has such an entry point, as `Bundle.embed` does;
- alike: texts of about one length in batches of up to 128 tokens where the file takes batches, as `Bundle.embed` does;
- 16 as they come: in batches of 16 texts, padded to the longest, as clients of such files do;
- full rows: reckoned, all tokens at the least that one costs at any length, as if texts stood in full rows.

On a simulated phone each length is counted once and each text pays what its length costs (one thread); a file of any
length is counted at `KNOTS` and pays in between in proportion. On this host everything is run, best of some tries, with
one thread. Needs `pip install -e ".[all]"` and `edgebert device setup pixel`; the work folder keeps the files.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from text_lengths import KNOTS, cost, mix

import edgebert
from edgebert.bundle import many
from edgebert.bundle.opened import Bundle
from edgebert.gate import golden
from edgebert.models.signature import Arrays
from edgebert.profiling.profile import profile
from edgebert.runtimes.packing import lay
from edgebert.runtimes.session import Batching, Packing

MINILM = {
    "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522, "hidden_size": 384,
    "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
}  # fmt: skip
MEAN, LENGTHS, TOKENS, TRIES = 25, (32, 64, 128), 128, 5
CELLS = [(target, recipe) for target in ("tflite", "onnx", "executorch") for recipe in ("w8a8-dynamic", "fp32")]


def made(work: Path, target: str, recipe: str) -> Path:
    """The bundle of a target and recipe, exported where it is not there yet."""
    source, out = work / "minilm", work / f"{target}-{recipe}"
    if not out.exists():
        source.mkdir(parents=True, exist_ok=True)
        (source / "config.json").write_text(json.dumps(MINILM))
        edgebert.export(
            source, task="sentence-embedding", target=target, recipe=recipe, lengths=LENGTHS, out=out, random_init=True
        )
    return out


def simulated(folder: Path, device: str, sizes: np.ndarray) -> dict[str, float]:
    """Milliseconds of a text on a phone, by way."""
    with edgebert.open(folder) as opened:
        dynamic, session = opened.manifest.dynamic, opened.session
        shape = session.packed if isinstance(session, Packing) else None
        file = folder / opened.manifest.model_file
    counted = {row.length: row.median_ms for row in profile([folder], [device], KNOTS if dynamic else LENGTHS).rows}
    told = {"one": cost(sizes, counted, dynamic)}  # type: ignore[arg-type]
    if shape is not None:
        rows = many.shared(list(sizes), LENGTHS, *shape)
        inside = {number for row in rows for number in row}
        given = folder.parent / "rows.npz"
        texts = [np.full(sizes[number], 7, np.int32) for number in rows[len(rows) // 2]]
        np.savez(given, **lay(texts, shape[0]))  # type: ignore[arg-type]
        (row,) = profile([file], [device], inputs=given).rows
        rest = np.array([size for number, size in enumerate(sizes) if number not in inside])
        alone = cost(rest, counted, dynamic) * len(rest) if len(rest) else 0.0  # type: ignore[arg-type]
        told["rows"] = (len(rows) * (row.median_ms or 0.0) + alone) / len(sizes)
    elif dynamic:
        if (folder / file).suffix == ".onnx":
            told["alike"] = cost(sizes, batched(file, device), free=True)
        told["full rows"] = float(sizes.mean()) * min(ms / length for length, ms in counted.items())  # type: ignore
    return told


def batched(file: Path, device: str) -> dict[int, float]:
    """Length to milliseconds of a text among as many as make up a batch, by a copy of the file with a fixed batch."""
    found: dict[int, float] = {}
    copy, given = file.with_name("batched.onnx"), file.with_name("batch.npz")
    for length in KNOTS:
        rows = TOKENS // length
        model = onnx.load(file)
        for entry in model.graph.input:
            entry.type.tensor_type.shape.dim[0].dim_value = rows
        del model.metadata_props[:]  # its seal is another file's
        onnx.save(model, copy)
        np.savez(given, **golden.join(texts_of([length] * rows)))  # type: ignore[arg-type]
        (row,) = profile([copy], [device], inputs=given).rows
        found[length] = (row.median_ms or 0.0) / rows
    return found


def texts_of(sizes: Sequence[int]) -> list[Arrays]:
    """Random texts (1, T) of these sizes."""
    rng = np.random.default_rng(0)
    return [
        {"input_ids": rng.integers(1000, 2000, (1, size), dtype=np.int32),
         "attention_mask": np.ones((1, size), np.int32), "token_type_ids": np.zeros((1, size), np.int32)}
        for size in sizes
    ]  # fmt: skip


def ways(opened: Bundle, texts: Sequence[Arrays]) -> dict[str, Callable[[], None]]:
    """What is run on this host, by way."""
    session, sizes = opened.session, [text["input_ids"].shape[1] for text in texts]

    def one(numbers: Sequence[int] = range(len(texts))) -> None:
        for number in numbers:
            session.run(texts[number])

    found: dict[str, Callable[[], None]] = {"one": one}
    shape = session.packed if isinstance(session, Packing) else None
    if shape is not None:

        def rows() -> None:
            taken = many.shared(sizes, LENGTHS, *shape)
            for row in taken:
                session.run_packed(lay([texts[number]["input_ids"][0] for number in row], shape[0]))  # type: ignore
            one(sorted(set(range(len(texts))) - {number for row in taken for number in row}))

        found["rows"] = rows
    if isinstance(session, Batching) and session.together:

        def batches(groups: Sequence[Sequence[int]]) -> None:
            for group in groups:
                longest = max(sizes[number] for number in group)
                padded = [golden.pad(texts[number], longest) for number in group]
                session.run(golden.join(padded))

        found["alike"] = lambda: batches(many.alike(sizes, TOKENS))
        found["16 as they come"] = lambda: batches([range(len(texts))[at : at + 16] for at in range(0, len(texts), 16)])
    return found


def on_host(folder: Path, sizes: Sequence[int]) -> dict[str, float]:
    """Milliseconds of a text here, by way: the best of some tries, taken in turns."""
    best: dict[str, float] = {}
    with edgebert.open(folder) as opened:
        run = ways(opened, texts_of(sizes))
        for _ in range(TRIES):
            for way, call in run.items():
                start = time.perf_counter()
                call()
                took = (time.perf_counter() - start) * 1e3 / len(sizes)
                best[way] = min(took, best.get(way, took))
    return best


def main() -> int:
    """Measure what is not measured yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of files and results; 1 GB")
    parser.add_argument("--devices", nargs="*", default=["pixel-4"], help="simulated phones")
    parser.add_argument("--targets", nargs="+", default=["tflite", "onnx", "executorch"])
    parser.add_argument("--texts", type=int, default=1000, help="run on this host; 0 for none")
    arguments = parser.parse_args()
    sizes = mix(MEAN)
    print("| target | recipe | on | way | ms a text | texts a second | times |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: |")
    for target, recipe in CELLS:
        if target not in arguments.targets:
            continue
        folder = made(arguments.work, target, recipe)
        told: dict[str, dict[str, Any]] = {device: simulated(folder, device, sizes) for device in arguments.devices}
        if arguments.texts:
            told["host"] = on_host(folder, [int(size) for size in sizes[: arguments.texts]])
        for device, found in told.items():
            for way, ms in found.items():
                figures = f"{ms:.2f} | {1e3 / ms:.1f} | {found['one'] / ms:.2f}"
                print(f"| {target} | {recipe} | {device} | {way} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
