"""What each rewrite of a target's exporter is worth: the same model exported without it, counted on a simulated phone.

    python benchmarks/lowerings.py --work DIR [--target onnx ...] [--recipe w8a8-dynamic] [--model squeezebert-base]
                                   [--task sequence-classification] [--device pixel-4]

Each row leaves out one rewrite and keeps all others. A rewrite that others are built on cannot be left out alone: such
a row says why. Answers on the phone are held to torch's in float32. Counts stay in the work folder, see `peers.py`.
Needs `pip install -e ".[all]"` and `edgebert device setup pixel`; a row takes a minute.
"""

import argparse
import contextlib
import importlib
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from export_speed import LENGTH, PRESET
from peers_count import count
from rich.console import Console
from rich.table import Table

import edgebert
from edgebert.errors import ConversionFailed, EdgebertError
from edgebert.exporters import EXPORTERS
from edgebert.gate import golden
from edgebert.models import Model
from edgebert.models.signature import Arrays
from edgebert.profiling.subject import devices
from edgebert.quantization.recipes import RECIPES
from edgebert.runtimes import SUFFIXES

# Target to its rewrites, each the module and the name that the exporter calls it by.
LOWERINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "tflite": (
        ("edgebert.lowering", "tokens_before_channels"),
        ("edgebert.lowering", "separate_convolutions"),
        ("edgebert.lowering", "split_grouped_linears"),
        ("edgebert.lowering", "fold_no_norms"),
        ("edgebert.lowering", "fold_norm_biases"),
        ("edgebert.lowering", "norms_in_half"),
        ("edgebert.lowering", "linears_in_blocks"),
        ("edgebert.lowering", "scale_keys"),
        ("edgebert.lowering", "first_token_only"),
        ("edgebert.lowering", "query_inputs"),
        ("edgebert.lowering", "fuse_qkv"),
        ("edgebert.lowering", "trim_positions"),
    ),
    "onnx": (
        ("edgebert.lowering", "trim_positions"),
        ("edgebert.lowering", "fold_no_norms"),
        ("edgebert.lowering", "fold_norm_biases"),
        ("edgebert.lowering", "tokens_before_channels"),
        ("edgebert.lowering", "split_grouped_linears"),
        ("edgebert.lowering", "separate_convolutions"),
        ("edgebert.lowering", "scale_keys"),
        ("edgebert.lowering", "first_token_only"),
        ("edgebert.lowering", "query_inputs"),
        ("edgebert.exporters.onnx.rewrites", "norms_by_instance"),
        ("edgebert.exporters.onnx.rewrites", "keep_groups_apart"),
        ("edgebert.exporters.onnx.rewrites", "masks_for_all_tokens"),
        ("edgebert.exporters.onnx.rewrites", "gelus_in_half"),
        ("edgebert.exporters.onnx.rewrites", "products_in_half"),
    ),
    "executorch": (
        ("edgebert.lowering", "trim_positions"),
        ("edgebert.lowering", "fold_no_norms"),
        ("edgebert.lowering", "tokens_before_channels"),
        ("edgebert.lowering", "separate_convolutions"),
        ("edgebert.lowering", "split_grouped_linears"),
        ("edgebert.lowering.token_shifts", "scale_keys"),
        ("edgebert.lowering", "first_token_only"),
        ("edgebert.lowering", "query_inputs"),
        ("edgebert.exporters.executorch.export", "keep_groups_apart"),
    ),
}


def files(work: Path, model: Model, target: str, recipe: str, length: int = LENGTH) -> dict[str, Path | str]:
    """Export a model as it comes, and once without each rewrite.

    Returns:
        Name of the rewrite left out ("" for none) to the file, or to the reason why there is none.
    """
    made: dict[str, Path | str] = {}
    whole = contextlib.nullcontext()
    for module, name in (("", ""), *LOWERINGS[target]):
        print(f"{target}: export without {name or 'leaving anything out'}", flush=True)
        path = work / f"{target}-{recipe}-{name or 'whole'}{SUFFIXES[target]}"
        try:
            with mock.patch.object(importlib.import_module(module), name, lambda given, *_: given) if name else whole:
                EXPORTERS[target].export(model, RECIPES[recipe], (length,), path)
            made[name] = path
        except (EdgebertError, AssertionError, RuntimeError) as error:
            made[name] = f"does not export: {str(error).splitlines()[0][:100]}"
    return made


def main() -> int:
    """Export, count, and print a table for each target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the files and counts; 1 GB")
    parser.add_argument("--target", action="append", choices=LOWERINGS, help="several times for several; default: all")
    parser.add_argument("--recipe", default="w8a8-dynamic", choices=RECIPES)
    parser.add_argument("--model", default=PRESET, help="a preset or checkpoint")
    parser.add_argument("--task", default="sequence-classification")
    parser.add_argument("--device", default="pixel-4", help="a simulated phone")
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    (phone,) = devices([arguments.device])
    model = edgebert.load(arguments.model, arguments.task, random_init=True).model
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, LENGTH), dtype=np.int32)
    row: Arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    inputs, expected = work / "inputs.npz", work / "expected.npz"
    np.savez(inputs, **row)  # type: ignore[arg-type]
    np.savez(expected, **golden.answer(model, row))  # type: ignore[arg-type]
    for target in arguments.target or LOWERINGS:
        table = Table(
            "left out", "M instructions", "more", "M cycles", "SQNR dB", "MB", title=f"{target} {arguments.recipe}"
        )
        whole = 0
        for name, path in files(work, model, target, arguments.recipe).items():
            try:
                if isinstance(path, str):
                    raise ConversionFailed(path)
                told = count(path, phone, inputs, expected)
            except EdgebertError as error:
                table.add_row(name, "-", "-", "-", "-", str(error))
                continue
            whole = whole or told["instructions"]
            table.add_row(
                name or "nothing", f"{told['instructions'] / 1e6:.1f}", f"{(told['instructions'] - whole) / 1e6:+.1f}",
                f"{told['cycles'] / 1e6:.1f}", f"{told['sqnr_db']:.1f}", f"{path.stat().st_size / 1e6:.2f}",
            )  # fmt: skip
        Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
