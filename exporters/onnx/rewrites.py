"""Rewrites of a float ONNX graph into operators that ONNX Runtime computes with fewer instructions.

The figures are instructions of one Cortex-A76 (Pixel 4) at 128 tokens, counted with ONNX Runtime 1.31. Together the
rewrites take SqueezeBERT-base in `w8a8-dynamic` from 667 M to 551 M, and from 121 to 92 modelled milliseconds. Where a
processor has no half precision, ONNX Runtime computes what is half here in float: seen on x86 and on a Cortex-A72.

Of the 551 M, integer products take 296 M (212 M of them are the dot products themselves), their packing, scales and
biases 44 M, and the rounding of activations 30 M; attention's products in half take 53 M, softmax 20 M, casts 28 M,
Gelu 25 M, norms and sums 28 M. Queries and keys in int8 are 5.4 M fewer, but a modelled millisecond more.
"""

from typing import Any

import numpy as np

from edgebert.exporters.onnx.rewriter import Rewriter
from edgebert.quantization.recipes import Recipe

FLOAT, HALF = 1, 10  # onnx.TensorProto.DataType


def lower_graph(model: Any, recipe: Recipe, half: bool) -> None:
    """Apply the rewrites that a recipe gains from to an onnx_ir.Model, in place; `half` says whether half holds it."""
    graph = Rewriter(model)
    if recipe.weight_bits > 16 or recipe.quantized or not half:  # InstanceNormalization has no kernel in half precision
        norms_by_instance(graph)
    if recipe.weight_bits == 16 and not half:
        weights_in_half(graph)
    if recipe.activation_bits == 8:
        keep_groups_apart(graph)
        masks_for_all_tokens(graph)
    if recipe.activation_bits == 8 and half:
        gelus_in_half(graph)
        products_in_half(graph)


def norms_by_instance(graph: Rewriter) -> None:
    """Normalize each token by InstanceNormalization, whose channels are the tokens, and scale it by Mul and Add.

    LayerNormalization's kernel works number by number and divides each; this one's are vectors: 0.74 M instructions
    over 768 channels, the sum before it included, 1.50 M without it, and an eighth of the cycles.
    """
    for node in list(graph.graph):
        rank3 = node.op_type == "LayerNormalization" and len(node.inputs[0].shape) == 3
        if not rank3 or node.attributes["axis"].value != -1:
            continue
        x, weight, bias = (*node.inputs, None)[:3]
        ones, zeros = _ones_and_zeros(graph, node, single=x.shape[1] == 1)
        epsilon = node.attributes["epsilon"].value
        normal = graph.emit(node, "InstanceNormalization", x, ones, zeros, epsilon=epsilon)
        scaled = graph.emit(node, "Mul", normal, weight)
        graph.replace(node, scaled if bias is None else graph.emit(node, "Add", scaled, bias))


def _ones_and_zeros(graph: Rewriter, node: Any, single: bool) -> tuple[Any, Any]:
    """A 1 and a 0 for each token; `single` where only the first token is left."""
    found = [graph.constant(name, np.array([value], np.float32)) for name, value in (("one", 1.0), ("zero", 0.0))]
    if single:
        return found[0], found[1]
    tokens = graph.emit(node, "Shape", graph.graph.inputs[0], start=1, end=2)
    return graph.emit(node, "Expand", found[0], tokens), graph.emit(node, "Expand", found[1], tokens)


def keep_groups_apart(graph: Rewriter) -> None:
    """Let the groups of a feed-forward stay apart between its projections: no Concat before Gelu, and no Split after.

    4.5 M instructions in SqueezeBERT-base's classifier, all of them copies.
    """
    for split in list(graph.graph):
        act = split.inputs[0].producer() if split.op_type == "Split" else None
        if act is None or act.op_type != "Gelu" or len(act.outputs[0].uses()) != 1:
            continue
        join = act.inputs[0].producer()
        if join is None or join.op_type != "Concat" or len(join.outputs[0].uses()) != 1:
            continue
        if len({part.shape[-1] for part in join.inputs}) != 1 or len(join.inputs) != len(split.outputs):
            continue
        how = {name: attribute.value for name, attribute in act.attributes.items()}
        graph.replace(split, *(graph.emit(split, "Gelu", part, **how) for part in join.inputs))


def weights_in_half(graph: Rewriter) -> None:
    """Store matrices and tables in half precision and widen them, or the rows that are looked up, for use in float.

    ONNX Runtime widens a matrix once, when it opens the file.
    """
    for value in list(graph.graph.initializers.values()):
        if len(value.shape) < 2 or value.const_value.dtype != FLOAT:
            continue
        uses = list(value.uses())
        value.const_value = graph.ir.tensor(value.const_value.numpy().astype(np.float16), name=value.name)
        value.type = graph.ir.TensorType(graph.ir.DataType.FLOAT16)
        products = [use for use in uses if use.node.op_type != "Gather"]
        if products:
            wide = graph.emit(graph.first(use.node for use in products), "Cast", value, to=FLOAT)
            for use in products:
                use.node.replace_input_with(use.idx, wide)
        for rows in (use.node for use in uses if use.node.op_type == "Gather"):
            found = graph.emit(rows, "Gather", *rows.inputs)
            graph.replace(rows, graph.emit(rows, "Cast", found, to=FLOAT))


def gelus_in_half(graph: Rewriter) -> None:
    """Compute Gelu in half precision by its tanh form.

    3.2 M instructions over 128 times 3072 numbers, the casts included, 8.7 M without it. The two forms differ by 5e-4
    at most, where the numbers that Gelu makes are rounded to 8 bits next: steps of 8e-3 and more where they differ so
    much.
    """
    for node in list(graph.graph):
        if node.op_type == "Gelu":
            half = graph.emit(node, "Cast", node.inputs[0], to=HALF)
            graph.replace(node, graph.emit(node, "Cast", graph.emit(node, "Gelu", half, approximate="tanh"), to=FLOAT))


def products_in_half(graph: Rewriter) -> None:
    """Multiply attention's activations in half precision, 8 numbers at a time; masks and softmax stay in float.

    5.2 M instructions a layer, the casts included, 8.3 M without it.
    """
    for node in list(graph.graph):
        if node.op_type == "MatMul" and not any(_is_weight(value) for value in node.inputs):
            halves = [graph.emit(node, "Cast", value, to=HALF) for value in node.inputs]
            graph.replace(node, graph.emit(node, "Cast", graph.emit(node, "MatMul", *halves), to=FLOAT))


def masks_for_all_tokens(graph: Rewriter) -> None:
    """Make of the mask (B, 1, 1, T) one for each token, (B, 1, T, T), that all layers add to their scores.

    Add sets out anew for each stretch of numbers, which is a head's scores then, not a token's: 0.43 M instructions
    over the scores of 12 heads, 0.66 M without it; 2.5 M less in SqueezeBERT-base's classifier. A mask that hides what
    comes after a token has that shape already.
    """
    wide: dict[Any, Any] = {}
    for node in list(graph.graph):
        if node.op_type != "Add" or any(len(value.shape or ()) != 4 for value in node.inputs):
            continue
        scores, mask = node.inputs
        tokens = mask.shape[3]
        if mask.shape[1] != 1 or mask.shape[2] != 1 or scores.shape[2] != tokens:
            continue
        if mask not in wide:
            size = graph.emit(node, "Shape", mask, start=3, end=4)
            one = graph.constant("single", np.array([1]))
            wide[mask] = graph.emit(node, "Expand", mask, graph.emit(node, "Concat", one, one, size, one, axis=0))
        node.replace_input_with(1, wide[mask])


def _is_weight(value: Any) -> bool:
    """Whether this is a constant, or the transpose of one."""
    producer = value.producer()
    if producer is not None and producer.op_type == "Transpose":
        value = producer.inputs[0]
    return value.const_value is not None
