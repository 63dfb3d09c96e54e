"""TFLite (LiteRT): one file with a signature for each length, `tokens_32` and so on, over one copy of the weights.

A signature takes `input_ids`, `attention_mask` and `token_type_ids`, int32 (1, L), and gives the task's outputs by
name, float32. The longest length comes first, so it is what tools that know no signatures run.

In `w8a8-dynamic` every linear layer, convolution and embedding table is stored as int8 with a scale for each output
channel or row. Biases, norms and a causal mask stay float. Depthwise convolutions compute in float from int8 weights.
"""

import hashlib
import importlib.util
import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import torch

from edgebert import lowering
from edgebert.artifact import Artifact
from edgebert.errors import ConversionFailed, InputError, MissingDependency, Unsupported
from edgebert.models import Model
from edgebert.recipes import RECIPES, TARGET_RECIPES, Recipe
from edgebert.runtimes.session import INPUTS

NEEDS = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert", "flatbuffers")

# A flatbuffer addresses itself with signed 32-bit offsets: https://flatbuffers.dev/internals/
FILE_LIMIT = 2**31 - 1
# What a graph adds to its weights: 60 to 100 KB a layer and length were seen, names of tensors for the most part.
GRAPH_BYTES = 2**24

# Operators whose second input is a weight that w8a8-dynamic must have turned into int8.
WEIGHTED = ("BATCH_MATMUL", "CONV_2D", "DEPTHWISE_CONV_2D", "EMBEDDING_LOOKUP", "FULLY_CONNECTED")


def missing() -> str | None:
    """The command that installs what exporting needs, None when it is there."""
    found = all(importlib.util.find_spec(name) for name in NEEDS)
    return None if found else 'pip install "edgebert[tflite]"'


def check(model: Model, recipe: Recipe) -> None:
    """Refuse, before any work, what cannot become a .tflite file.

    Raises:
        Unsupported: the target does not take the recipe, or the file would be larger than the format allows.
        MissingDependency: a package is not installed.
    """
    if recipe.name not in TARGET_RECIPES["tflite"]:
        raise Unsupported(f"tflite does not take {recipe.name}; it takes {', '.join(TARGET_RECIPES['tflite'])}.")
    if command := missing():
        raise MissingDependency(f"exporting {model.family.name} to tflite needs {', '.join(NEEDS)}: {command}")
    size = estimate(model, recipe)
    if size <= FILE_LIMIT:
        return
    fits = [name for name in TARGET_RECIPES["tflite"] if estimate(model, RECIPES[name]) <= FILE_LIMIT]
    advice = f"choose {' or '.join(fits)}" if fits else "no recipe fits: choose a smaller model or vocabulary"
    raise Unsupported(
        f"{model.family.name} for {model.task} in {recipe.name} would be {size / 1e9:.2f} GB; "
        f"a .tflite file ends at {FILE_LIMIT / 1e9:.2f} GB; {advice}."
    )


def estimate(model: Model, recipe: Recipe) -> int:
    """Bytes of the file, from the parameters: matrices by the recipe, 12 bytes of scale a row; vectors in float."""
    total = GRAPH_BYTES
    for tensor in model.parameters():
        matrix = recipe.quantized and tensor.dim() > 1
        total += tensor.numel() * recipe.weight_bits // 8 + 12 * tensor.shape[0] if matrix else 4 * tensor.numel()
    return total


def export(model: Model, recipe: Recipe, lengths: tuple[int, ...], path: Path) -> Artifact:
    """Write the model as one .tflite file.

    While the converter runs, whatever this process writes to standard output and error is captured, for the converter
    talks through both from C++ too; it is kept in a log only if the conversion fails.

    Args:
        model: the torch model; it is not changed.
        recipe: `fp32` or `w8a8-dynamic`.
        lengths: sequence lengths to make signatures for.
        path: the file to write; one that exists is replaced, when all went well.

    Raises:
        InputError: a length is not between 1 and the model's positions.
        Unsupported: see `check`.
        ConversionFailed: the converter gave up; the message names the stage and the log.
    """
    check(model, recipe)
    ascending = _ascending(lengths, model.config.max_position_embeddings)
    lowered = lower(model, recipe, ascending[-1])
    part = path.with_name(path.name + ".part")
    descriptor, log = tempfile.mkstemp(prefix="edgebert-tflite-", suffix=".log")
    stage, failed = "conversion by litert-torch", False
    try:
        with os.fdopen(descriptor, "w", errors="replace") as stream, _captured(stream):
            try:
                _convert(lowered, ascending, part)
                if recipe.quantized:
                    stage = "quantization by ai-edge-quantizer"
                    _quantize(part)
            except Exception:
                traceback.print_exc(file=stream)
                raise
        os.replace(part, path)
    except OSError:  # no room, or no right to write there: not the converter's doing
        raise
    except Exception as error:  # the converter's own errors have no common kind
        failed = True
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ConversionFailed(
            f"{model.family.name} for {model.task} in {recipe.name}: {stage} failed with "
            f"{type(error).__name__}: {reason} The whole log is in {log}."
        ) from error
    finally:
        part.unlink(missing_ok=True)
        if not failed:
            Path(log).unlink()
    names = ("torch", "litert-torch", "ai-edge-litert", *(("ai-edge-quantizer",) if recipe.quantized else ()))
    return Artifact(path, ascending, dynamic=False, tools={name: version(name) for name in names})


def _ascending(lengths: tuple[int, ...], positions: int) -> tuple[int, ...]:
    """The lengths, sorted and checked."""
    if not lengths or not all(1 <= length <= positions for length in lengths):
        raise InputError(f"lengths {lengths}; at least one from 1 to the model's {positions} positions is needed.")
    return tuple(sorted(set(lengths)))


def lower(model: Model, recipe: Recipe, longest: int) -> Model:
    """The exact rewrites this target gains from; see edgebert/lowering.py for what each does."""
    # In int8 the runtime's convolution has one activation scale for all tokens, padding included, and its linear layer
    # one for each token: 27.7 dB against 35.6 on the embedded default. That is worth 7% more instructions on a
    # Cortex-A76 (0.583 G for 0.544 G, SqueezeBERT-base at 128 tokens). In float the convolution is the quicker one.
    grouped = lowering.SlicedLinears if recipe.quantized else lowering.GroupedPointwise
    # A quarter of the transposes.
    lowered = lowering.tokens_before_channels(model, grouped)
    lowered = lowering.separate_convolutions(lowered)
    # A scale for each output, where the batched product would get one for each column of all groups together.
    lowered = lowering.split_grouped_linears(lowered, grouped)
    # XNNPACK takes no concatenation of nine tensors, and every one it leaves out cuts its graph in two.
    lowered = lowering.add_windows(lowered)
    # Else a tied table is stored twice: 94 MB of a BERT-base in float.
    lowered = lowering.keep_tied_table(lowered)
    # Position rows are constants of every length otherwise, and stay float.
    return lowering.look_positions_up(lowered, longest) if recipe.quantized else lowered


def _convert(model: Model, ascending: tuple[int, ...], path: Path) -> None:
    """Convert into a float file."""
    import litert_torch

    work: Any = litert_torch
    for length in reversed(ascending):
        sample = {name: torch.ones(1, length, dtype=torch.int32) for name in INPUTS}
        work = work.signature(f"tokens_{length}", model, sample_kwargs=sample)
    # Through memory: where a disk is full, the converter's own way to a file ends the whole process.
    path.write_bytes(work.convert().model_content())


def _quantize(path: Path) -> None:
    """Turn a float file into a dynamically quantized one, in place; raises if a weight was left in float."""
    from ai_edge_litert.tools import flatbuffer_utils
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(str(path), recipe.dynamic_wi8_afp32())
    # XNNPACK has no depthwise kernel for int8 weights and float inputs, and leaves such an operator to a slow one. It
    # does unpack int8 weights for its float kernel, once, on load.
    work.add_weight_only_config(".*", recipe.TFLOperationName.DEPTHWISE_CONV_2D, 8)
    model = flatbuffer_utils.read_model_from_bytearray(work.quantize().quantized_model)
    left = _float_weights(model)
    if left:
        raise RuntimeError(f"{len(left)} weights were left in float: {', '.join(left[:5])}.")
    path.write_bytes(_pack(model))


def _float_weights(model: Any) -> list[str]:
    """Names of constants in float that an operator of WEIGHTED multiplies with or looks up."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools.flatbuffer_utils import get_builtin_code_from_operator_code as code

    weighted = {getattr(schema.BuiltinOperator, name) for name in WEIGHTED}
    left = set()
    for graph in model.subgraphs:
        for operator in graph.operators:
            if code(model.operatorCodes[operator.opcodeIndex]) in weighted:
                weight = graph.tensors[operator.inputs[1]]
                if weight.type == schema.TensorType.FLOAT32 and model.buffers[weight.buffer].data is not None:
                    left.add(weight.name.decode())
    return sorted(left)


def _pack(model: Any) -> bytes:
    """Serialize a model with its weights in line, equal vectors stored once and short names.

    The quantizer writes weights behind the flatbuffer, and each tensor's scales and zero points anew for each length:
    12 bytes a row of the word table. In line, weights are aligned to 16 bytes as the format's schema asks. Tensor names
    come as paths of Python classes, more bytes than the rest of the graph; attribute names say the same.
    """
    import flatbuffers  # type: ignore[import-untyped]
    import numpy as np

    class Builder(flatbuffers.Builder):  # type: ignore[misc]  # flatbuffers has no types
        def __init__(self) -> None:
            super().__init__(1024)
            self.stored: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: Any) -> int:
            key = (x.dtype.str, hashlib.sha256(x).digest())
            if key not in self.stored:
                if x.dtype == np.uint8:
                    self.Prep(16, x.nbytes)
                self.stored[key] = super().CreateNumpyVector(x)
            return self.stored[key]

    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = _short(tensor.name.decode()).encode()
            tensor.shape = None if tensor.shape is None else np.array(tensor.shape, np.int32)
            if tensor.quantization is not None and tensor.quantization.scale is None:
                tensor.quantization = None  # an empty table
        for operator in graph.operators:
            operator.inputs, operator.outputs = (
                np.array(operator.inputs, np.int32),
                np.array(operator.outputs, np.int32),
            )
    builder = Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _short(name: str) -> str:
    """`edgebert.models.family.Model/edgebert.models.bert.BertEncoder_encoder;2` as `encoder;2`."""
    parts = [part.rsplit(".", 1)[-1].partition("_") for part in name.split("/")]
    return "/".join(attribute or head for head, _, attribute in parts).removeprefix("Model/") if "/" in name else name


@contextmanager
def _captured(stream: TextIO) -> Iterator[None]:
    """Send what Python and C++ write to standard output and error into a file."""
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with redirect_stdout(stream), redirect_stderr(stream):
            for number in kept:
                os.dup2(stream.fileno(), number)
            yield
            stream.flush()
    finally:
        for number, old in kept.items():
            os.dup2(old, number)
            os.close(old)
