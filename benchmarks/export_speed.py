"""How long an export takes beside the ecosystem's own way: SqueezeBERT at base size, one length, side by side.

    python benchmarks/export_speed.py [--target tflite --target executorch --target onnx] [--recipe fp32] [--rounds 1]

The own way is transformers' module, converted with the target's converter as it comes: `torch.onnx.export`,
`litert_torch.convert`, `to_edge_transform_and_lower` with XNNPACK's partitioner (and its quantizer for
`w8a8-dynamic`). Each conversion is a process of its own; making the model is not counted. A ratio above 1 is how many
times faster edgebert is.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LENGTH = 128
PRESET = "squeezebert-base"


def own_way(target: str, recipe: str, folder: Path) -> float:
    """Convert transformers' module; gives seconds."""
    import torch
    import transformers

    model = transformers.SqueezeBertModel(transformers.SqueezeBertConfig(attn_implementation="eager")).eval()
    inputs = tuple(torch.ones(1, LENGTH, dtype=torch.long) for _ in range(3))
    began = time.perf_counter()
    with torch.no_grad():
        OWN_WAYS[target](model, inputs, recipe, folder)
    return time.perf_counter() - began


def _onnx(model: Any, inputs: Any, recipe: str, folder: Path) -> None:
    import torch

    torch.onnx.export(model, inputs, str(folder / "model.onnx"), dynamo=True, verbose=False)
    if recipe == "w8a8-dynamic":
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(folder / "model.onnx", folder / "int8.onnx")


def _tflite(model: Any, inputs: Any, recipe: str, folder: Path) -> None:
    import litert_torch

    litert_torch.convert(model, inputs).export(str(folder / "model.tflite"))
    if recipe == "w8a8-dynamic":
        from ai_edge_quantizer import quantizer
        from ai_edge_quantizer import recipe as recipes

        work = quantizer.Quantizer(str(folder / "model.tflite"), recipes.dynamic_wi8_afp32())
        work.quantize().export_model(str(folder / "int8.tflite"))


def _executorch(model: Any, inputs: Any, recipe: str, folder: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(model, inputs)
    if recipe == "w8a8-dynamic":
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantizer = XNNPACKQuantizer().set_global(
            get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
        )
        prepared = prepare_pt2e(program.module(), quantizer)
        prepared(*inputs)
        program = torch.export.export(convert_pt2e(prepared), inputs)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    (folder / "model.pte").write_bytes(lowered.buffer)


OWN_WAYS = {"onnx": _onnx, "tflite": _tflite, "executorch": _executorch}


def edgebert_way(target: str, recipe: str, folder: Path) -> float:
    """Convert edgebert's module; gives seconds."""
    import edgebert
    from edgebert.exporters import EXPORTERS
    from edgebert.quantization.recipes import RECIPES

    model = edgebert.load(PRESET, "base", random_init=True).model
    EXPORTERS[target].check(model, RECIPES[recipe])
    began = time.perf_counter()
    EXPORTERS[target].export(model, RECIPES[recipe], (LENGTH,), folder / f"model.{target}")
    return time.perf_counter() - began


WAYS = {"own": own_way, "edgebert": edgebert_way}


def run(way: str, target: str, recipe: str) -> float:
    """One conversion in a process of its own; gives seconds."""
    command = [sys.executable, __file__, "--one", way, "--target", target, "--recipe", recipe]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way} {target} {recipe} failed:\n{done.stderr[-2000:]}")
    seconds: float = json.loads(done.stdout.splitlines()[-1])
    return seconds


def main() -> None:
    """Measure what is asked for and print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=sorted(OWN_WAYS), help="give it several times")
    parser.add_argument("--recipe", default="fp32", choices=("fp32", "w8a8-dynamic"))
    parser.add_argument("--rounds", type=int, default=1, help="repeat, the two ways in turn, and take medians")
    parser.add_argument("--one", choices=sorted(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(WAYS[arguments.one](arguments.target[0], arguments.recipe, Path(folder))))
        return
    print(f"{PRESET}, {LENGTH} tokens, {arguments.recipe}: seconds to convert")
    print(f"{'target':12}{'own way':>10}{'edgebert':>10}{'ratio':>8}")
    for target in arguments.target or sorted(OWN_WAYS):
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way in WAYS:
                seconds[way].append(run(way, target, arguments.recipe))
        own, ours = (statistics.median(seconds[way]) for way in ("own", "edgebert"))
        print(f"{target:12}{own:10.1f}{ours:10.1f}{own / ours:8.2f}", flush=True)


if __name__ == "__main__":
    main()
