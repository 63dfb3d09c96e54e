"""ONNX for ONNX Runtime: one file with a free batch and token axis, so that one graph serves every length.

In `w8a8-dynamic` every linear layer, grouped convolution and embedding table is stored as int8 with a scale for each
output channel or row, and an activation gets its scale anew at each call. The graph is rewritten here, and not by
`onnxruntime.quantization.quantize_dynamic`: that one gives an embedding table or a convolution one scale for all,
stores a tied table twice, and writes files that fail at run time for a grouped weight with a scale a channel. The
operators are ONNX's own, in the patterns that ONNX Runtime fuses.

Weights are symmetric int8 without a zero point. On x86 without VNNI their product with unsigned activations saturates
at 16 bits (seen on an emulated Haswell: 22 dB where 35 are due). On such a machine `runtimes/onnx.py` sets the option
that makes it exact, `session.x64quantprecision` = `1`, and an app has to as well. It fails where two products share a
zero point tensor, hence none. Weights moved up to uint8 need no option, but take half as long again on x86 with VNNI
(122 ms for 79, SqueezeBERT-base at 128 tokens; 90 in fp32). ARM computes both alike, and needs no option.

Float remain biases, norms, the table of token types (two rows) and ConvBERT's depthwise kernels (0.1% of its weights).
"""

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgebert import lowering
from edgebert.artifact import Artifact
from edgebert.errors import ConversionFailed, EdgebertError, InputError, MissingDependency, Unsupported
from edgebert.models import Model
from edgebert.recipes import TARGET_RECIPES, Recipe
from edgebert.runtimes.onnx import BLANK, MAX_TOKENS, PRODUCER, SEAL, seal_of
from edgebert.runtimes.session import INPUTS

NEEDS = ("onnx", "onnxscript", "onnxruntime")

# The first opset with Gelu as one operator: https://onnx.ai/onnx/operators/onnx__Gelu.html
OPSET = 20
# A protobuf message ends at 2 GiB; what a graph adds to its weights, some 100 KB a layer, fits the margin many times.
ONE_FILE = 2**31 - 2**26
# Fewer rows or columns than this are left in float: token types (2 rows), depthwise kernels (9 columns).
FEW = 16


def missing() -> str | None:
    """The command that installs what exporting needs; None when it is there."""
    found = all(importlib.util.find_spec(name) for name in NEEDS)
    return None if found else 'pip install "edgebert[onnx]"'


def check(model: Model, recipe: Recipe) -> None:
    """Refuse, before any work, what cannot become an ONNX file.

    Raises:
        Unsupported: the target does not take the recipe.
        MissingDependency: a package is not installed.
    """
    if recipe.name not in TARGET_RECIPES["onnx"]:
        raise Unsupported(f"onnx does not take {recipe.name}; it takes {', '.join(TARGET_RECIPES['onnx'])}.")
    if command := missing():
        raise MissingDependency(f"exporting {model.family.name} to onnx needs {', '.join(NEEDS)}: {command}")


def export(model: Model, recipe: Recipe, lengths: tuple[int, ...], path: Path) -> Artifact:
    """Write the model as one .onnx file; weights of 2 GiB and more stand beside it in `<name>.onnx.data`.

    Args:
        model: the torch model; it is not changed.
        recipe: `fp32` or `w8a8-dynamic`.
        lengths: the last one bounds the token axis; every length below it is served too.
        path: the file to write; one that exists is replaced, when all went well.

    Raises:
        InputError: a length is not between 1 and the model's positions, or the file cannot be written there.
        Unsupported: see `check`.
        ConversionFailed: the converter gave up; the message names the log.
    """
    check(model, recipe)
    positions = model.config.max_position_embeddings
    if not lengths or not all(1 <= length <= positions for length in lengths):
        raise InputError(f"lengths {lengths}; at least one from 1 to the model's {positions} positions is needed.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a folder; make it first, or choose another place for {path.name}.")
    longest = max(lengths)
    with _contained(f"{model.family.name} for {model.task} in {recipe.name}"):
        # torch takes a dimension of size 1 for a constant, so that the free axis reaches 2 at least.
        converted = _convert(lower(model, recipe, max(longest, 2)), max(longest, 2))
        if recipe.quantized:
            _Quantizer(converted).run()
        _finish(converted, longest)
        _write(converted, path)
    tools = {name: version(name) for name in ("torch", *NEEDS)}
    return Artifact(path, tuple(sorted(set(lengths))), dynamic=True, tools=tools)


def lower(model: Model, recipe: Recipe, longest: int) -> Model:
    """The exact rewrites this target gains from; see edgebert/lowering.py for what each does."""
    # Rows that no length reaches are dead weight: 384 of 512 in a file for 128 tokens.
    lowered = lowering.trim_positions(model, longest)
    if recipe.quantized:
        # A grouped convolution in int8 is 3 times slower than float on x86, and 2 times faster on a phone. Split into
        # linear layers it is quick on both: a Cortex-A76 needs the same instructions (0.672 G for 0.664 G,
        # SqueezeBERT-base at 128 tokens).
        lowered = lowering.tokens_before_channels(lowered, lowering.SlicedLinears)
        # A batched product with a constant would be quantized with a scale for each column of all groups together.
        lowered = lowering.split_grouped_linears(lowered, lowering.SlicedLinears)
        # The pointwise half of a separable convolution is a linear layer, which is quantized by channel.
        lowered = lowering.separate_convolutions(lowered)
    return lowered


def _convert(model: Model, longest: int) -> Any:
    """The model as an onnx_ir.Model."""
    # Two rows and more than one token, for torch.export makes constants of sizes 0 and 1; and three tensors, for it
    # takes one tensor that is given three times for one input.
    examples = tuple(torch.ones(2, min(longest, 8), dtype=torch.int32) for _ in INPUTS)
    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1, max=longest)
    with torch.no_grad():
        names = list(model(*examples))
        program = torch.export.export(
            model, examples, dynamic_shapes=({0: batch, 1: tokens},) * len(INPUTS), strict=False
        )
        exported = torch.onnx.export(
            program, (), dynamo=True, verbose=False, opset_version=OPSET, input_names=list(INPUTS), output_names=names
        )
    if exported is None:
        raise ConversionFailed("torch.onnx.export gave nothing back.")
    if model.tied:
        _share_table(exported.model.graph)
    return exported.model


def _share_table(graph: Any) -> None:
    """Store a tied table once: torch.onnx folds a small one's transpose into a second constant."""
    import onnx_ir

    constants = [value for value in graph.initializers.values() if len(value.shape) == 2]
    tables = [node.inputs[0] for node in graph if node.op_type == "Gather" and node.inputs[0] in constants]
    for table in tables:
        for other in constants:
            if other.shape[::-1] == table.shape and np.array_equal(
                other.const_value.numpy().T, table.const_value.numpy()
            ):
                turned = onnx_ir.node("Transpose", [table], {"perm": [1, 0]})
                graph.insert_before(other.uses()[0].node, turned)
                other.replace_all_uses_with(turned.outputs[0])
                del graph.initializers[other.name]


class _Quantizer:
    """Rewrites a model's float graph into one with 8-bit weights and dynamically quantized activations."""

    def __init__(self, model: Any) -> None:
        import onnx_ir

        self.ir = onnx_ir
        self.model = model
        self.graph = model.graph
        self.tables = {node.inputs[0] for node in self.graph if self.looks_up(node)}
        self.activations: dict[Any, tuple[Any, Any, Any]] = {}
        self.weights: dict[Any, tuple[Any, Any]] = {}

    def run(self) -> None:
        """Rewrite every linear layer and table.

        Raises:
            ConversionFailed: a weight is left in float.
        """
        import onnx_ir.passes.common as passes

        # Parts of a split that several layers read become one value, which is then quantized once.
        passes.CommonSubexpressionEliminationPass()(self.model)
        for node in list(self.graph):
            if self.looks_up(node):
                self.table(node)
            elif node.op_type in ("MatMul", "Gemm"):
                self.linear(node)
        passes.RemoveUnusedNodesPass()(self.model)
        left = [
            name for name, value in self.graph.initializers.items() if self.is_float(value) and self.is_large(value)
        ]
        if left or not self.weights:
            raise ConversionFailed(f"w8a8-dynamic left {len(left)} weights in float: {', '.join(left[:5])}.")

    def is_float(self, value: Any) -> bool:
        """Whether this is a constant matrix, or an array of more dimensions, in float."""
        constant = value is not None and value.const_value is not None and value.dtype == self.ir.DataType.FLOAT
        return constant and len(value.shape) > 1

    def is_large(self, value: Any) -> bool:
        """Whether 8 bits save anything that counts."""
        return bool(min(value.shape[0], np.prod(value.shape.numpy()[1:])) >= FEW)

    def looks_up(self, node: Any) -> bool:
        """Whether the node takes rows of a large constant table: words by id, positions by a slice."""
        if node.op_type not in ("Gather", "Slice") or not self.is_float(node.inputs[0]):
            return False
        axis = node.attributes["axis"].value if node.op_type == "Gather" else node.inputs[3].const_value.numpy().item()
        return axis == 0 and self.is_large(node.inputs[0])

    def constant(self, name: str, array: np.ndarray) -> Any:
        """A new initializer."""
        tensor = self.ir.tensor(array, name=name)
        kind, shape = self.ir.TensorType(tensor.dtype), self.ir.Shape(array.shape)
        value = self.ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def weight(self, source: Any, by_row: bool, turn: bool) -> tuple[Any, Any]:
        """The 8-bit form of a constant matrix and its scales, one a row or one a column; `turn` transposes both."""
        if (source, by_row) not in self.weights:
            floats = source.const_value.numpy().T if turn else source.const_value.numpy()
            axis = 1 if by_row != turn else 0
            scale = np.maximum(np.abs(floats).max(axis, keepdims=True) / 127, np.finfo(np.float32).tiny)
            self.weights[source, by_row] = (
                self.constant(f"{source.name}.int8", np.rint(floats / scale).astype(np.int8)),
                self.constant(f"{source.name}.scale", scale.astype(np.float32)),
            )
        return self.weights[source, by_row]

    def emit(self, before: Any, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Put a node into the graph; gives its output, or all of them."""
        node = self.ir.node(op, inputs, attributes, num_outputs=outputs)
        self.graph.insert_before(before, node)
        return node.outputs[0] if outputs == 1 else tuple(node.outputs)

    def replace(self, node: Any, value: Any) -> None:
        """Let `value` stand where the node's output stood, under its name."""
        self.ir.convenience.replace_nodes_and_values(self.graph, node, [node], [], node.outputs, [value])

    def table(self, node: Any) -> None:
        """Take rows of 8-bit numbers and their scales, and make floats of those alone."""
        rows, scales = self.weight(node.inputs[0], by_row=True, turn=False)
        axis = {"axis": 0} if node.op_type == "Gather" else {}
        taken = self.emit(node, "Cast", self.emit(node, node.op_type, rows, *node.inputs[1:], **axis), to=1)
        scale = self.emit(node, node.op_type, scales, *node.inputs[1:], **axis)
        self.replace(node, self.emit(node, "Mul", taken, scale))

    def linear(self, node: Any) -> None:
        """Multiply whole numbers; a product of two activations is left alone."""
        source, turned = node.inputs[1], "transB" in node.attributes and node.attributes["transB"].value == 1
        producer = source.producer()
        if producer is not None and producer.op_type == "Transpose":
            source, turned = producer.inputs[0], True
        if not self.is_float(source) or len(source.shape) != 2:
            return
        # A table that is the output layer too is stored once, and turned when the file is loaded.
        shared = source in self.tables
        weight, scale = self.weight(source, by_row=turned, turn=turned and not shared)
        if shared:
            weight, scale = (self.emit(node, "Transpose", part, perm=[1, 0]) for part in (weight, scale))
        entry = node.inputs[0]
        if entry not in self.activations:
            self.activations[entry] = self.emit(node, "DynamicQuantizeLinear", entry, outputs=3)
        numbers, entry_scale, entry_zero = self.activations[entry]
        product = self.emit(node, "MatMulInteger", numbers, weight, entry_zero)
        both = self.emit(node, "Mul", entry_scale, scale)
        out = self.emit(node, "Mul", self.emit(node, "Cast", product, to=1), both)
        if node.op_type == "Gemm" and len(node.inputs) > 2:
            out = self.emit(node, "Add", out, node.inputs[2])
        self.replace(node, out)


def _finish(model: Any, longest: int) -> None:
    """Take out what tells of this machine, and write in what the runtime asks for."""
    import onnx_ir.passes.common as passes

    passes.ClearMetadataAndDocStringPass()(model)  # stack traces with this machine's paths
    model.graph.name, model.producer_name, model.producer_version = "edgebert", PRODUCER, version("edgebert")
    model.metadata_props.clear()
    model.metadata_props.update({MAX_TOKENS: str(longest), SEAL: BLANK.decode()})


def _write(model: Any, path: Path) -> None:
    """Write the file beside its place, seal it, and move it there.

    Raises:
        InputError: the folder is not there or cannot be written to.
    """
    import onnx_ir

    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            size = sum(value.const_value.nbytes for value in model.graph.initializers.values())
            data = f"{path.name}.data" if size > ONE_FILE else None
            onnx_ir.save(model, scratch / path.name, external_data=data)
            _seal(scratch / path.name)
            for file in sorted(scratch.iterdir(), reverse=True):  # the data before the file that names it
                os.replace(file, path.parent / file.name)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}.") from None


def _seal(file: Path) -> None:
    """Write the hash of the file's bytes into its metadata."""
    found = seal_of(file.read_bytes())
    if found is None:
        raise ConversionFailed("the metadata is not where a protobuf writer puts it, at the end of the file.")
    start, _, wanted = found
    with file.open("r+b") as stream:
        stream.seek(start)
        stream.write(wanted.encode())


@contextlib.contextmanager
def _contained(what: str) -> Iterator[None]:
    """Keep the converter's talk from the terminal, and make of its failure one line and a log."""
    talk, quiet = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(talk), contextlib.redirect_stderr(talk):
            warnings.simplefilter("ignore")
            yield
    except EdgebertError:
        raise
    except Exception as error:  # the converter's own errors have no common kind
        descriptor, log = tempfile.mkstemp(prefix="edgebert-onnx-", suffix=".log")
        with os.fdopen(descriptor, "w", errors="replace") as stream:
            stream.write(talk.getvalue())
            traceback.print_exc(file=stream)
        reason = next(iter(str(error).strip().splitlines()), "")[:200]
        raise ConversionFailed(
            f"{what}: conversion failed with {type(error).__name__}: {reason} The whole log is in {log}."
        ) from error
    finally:
        logging.disable(quiet)
