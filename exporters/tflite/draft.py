"""A model's float graph as litert-torch draws it, with the names of the parameters that belong to its constants.

What a layer becomes is the same for every layer, and does not depend on the weights. So the converter is given two
or three layers and random stand-ins for all weights: it takes as long for thirty layers as for three, and never holds
the model. Each constant it writes is recognized by its numbers, the last layer is repeated in the graph, and the real
weights, or the integers made of them, are written in afterwards.

Norms and the biases outside of layers enter as inputs of the graph, for the converter multiplies constants into the
linear layers that follow, where nobody could tell whose weights they are; afterwards they become constants. So do
tables of distances, of which it would cut a copy, or make all heads' terms, for each length.
"""

import copy
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgebert.exporters import common
from edgebert.lowering import duplicate
from edgebert.lowering.distances import DISTANCE_KEYS, DISTANCE_QUERIES
from edgebert.lowering.packed import Packed
from edgebert.models import Model
from edgebert.models.signature import PACKED_INPUTS
from edgebert.runtimes.tflite.layout import PACKED

LAYERS = "encoder.layers."
BIASES = "encoder.position_bias.table"


class Irregular(Exception):
    """The last two layers that were converted differ in more than their weights."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a constant's numbers come from.

    Attributes:
        name: a parameter of the lowered model.
        axes: the parameter's axes in the order in which they stand in the file.
        shape: the constant's shape; one with fewer numbers than the parameter holds its first.
    """

    name: str
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    def take(self, parameter: Tensor) -> np.ndarray:
        """The constant's numbers, float32, a view where it can be one."""
        turned = parameter.detach().numpy().transpose(self.axes)
        return turned.reshape(-1)[: int(np.prod(self.shape))].reshape(self.shape)


@dataclass(slots=True)
class Draft:
    """A graph under work.

    Attributes:
        model: the flatbuffer as objects of the runtime's schema.
        sources: number of a buffer to what belongs into it.
        scales: number of a buffer with scales, outside of a tensor's quantization, to the parameter that they are of.
    """

    model: Any
    sources: dict[int, Source] = field(default_factory=dict)
    scales: dict[int, str] = field(default_factory=dict)

    def constant(self, source: Source) -> int:
        """The buffer of a source, the same one for every length."""
        for number, known in self.sources.items():
            if known == source:
                return number
        self.sources[number := self.buffer()] = source
        return number

    def buffer(self, data: np.ndarray | None = None) -> int:
        """A new buffer."""
        from ai_edge_litert import schema_py_generated as schema

        made = schema.BufferT()
        made.data = None if data is None else np.frombuffer(data.tobytes(), np.uint8)
        self.model.buffers.append(made)
        return len(self.model.buffers) - 1


def draw(model: Model, ascending: tuple[int, ...], packed: int = 0) -> Draft:
    """Convert a lowered model's structure, one subgraph for each length and the longest first.

    Args:
        model: the lowered one.
        ascending: lengths.
        packed: tokens of rows with several texts each, of which the last subgraph is; 0 for none.

    Raises:
        Exception: what the converter raises, and RuntimeError where a parameter is not found in what it wrote.
    """
    layers = list(model.encoder.get_submodule("layers").children())
    # A last layer that answers for one token alone, or keeps its norm's bias, is converted as it is; the one before it
    # is repeated.
    differs = _parts(layers[-1]) != _parts(layers[0])
    depth = len(layers) - differs
    if any(_parts(layer) != _parts(layers[0]) for layer in layers[:depth]):
        return _draft(_stand_in(model, depth, differs), ascending, packed)
    # A projection in front gives the first layer an input of another rank than the layers after it have.
    projected = not isinstance(getattr(model.encoder, "project", nn.Identity()), nn.Identity)
    seen = 3 if projected else 2
    if depth > seen:
        try:
            draft = _draft(_stand_in(model, seen, differs), ascending, packed)
            if differs:
                _renumber(draft, seen, depth)
            for graph in draft.model.subgraphs:
                _repeat(draft, graph, range(seen, depth))
            return draft
        except Irregular as reason:
            print(f"converting all {len(layers)} layers: {reason}")
    return _draft(_stand_in(model, depth, differs), ascending, packed)


def _parts(layer: nn.Module) -> tuple[type[nn.Module], set[str], dict[str, Any]]:
    """What tells a layer from others that are converted differently: its type, its parameters, its settings."""
    settings = {name: value for name, value in vars(layer).items() if isinstance(value, bool | int | float | str)}
    return type(layer), {name for name, _ in layer.named_parameters()}, settings


def _stand_in(model: Model, depth: int, differs: bool) -> Model:
    """The model's first layers, and its last where that differs, with random weights; shared tensors stay shared."""
    generator = torch.Generator().manual_seed(0)
    copied = duplicate(model)
    layers = list(copied.encoder.get_submodule("layers").children())
    copied.encoder.layers = nn.ModuleList([*layers[:depth], *([layers[-1]] if differs else [])])
    made: dict[int, nn.Parameter] = {}
    for module in copied.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                if id(tensor) not in made:
                    numbers = torch.rand(tensor.shape, generator=generator) - 0.5
                    made[id(tensor)] = nn.Parameter(numbers, requires_grad=False)
                module._parameters[name] = made[id(tensor)]
    return copied.eval()


class _Entered(nn.Module):
    """A model that is given some of its parameters as inputs."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, vectors: list[Tensor], **inputs: Tensor) -> Any:
        """Answer as the model with these vectors."""
        given = dict(zip(self.names, vectors, strict=True))
        return torch.func.functional_call(self.model, given, (), inputs)


def _draft(model: Model, ascending: tuple[int, ...], packed: int) -> Draft:
    """Convert a stand-in, and find its parameters."""
    import litert_torch
    from ai_edge_litert import schema_py_generated as schema

    parameters = dict(model.named_parameters())
    entering = [
        f"{path}.{name}"
        for path, module in model.named_modules()
        for name in module._parameters
        if f"{path}.{name}" in parameters
        and (
            isinstance(module, nn.LayerNorm)
            or (name == "bias" and not path.startswith(LAYERS))
            or path == BIASES
            or name in (DISTANCE_KEYS, DISTANCE_QUERIES)
        )
    ]
    wrapped = _Entered(model, entering).eval()
    work: Any = litert_torch
    for length in reversed(ascending):
        sample: dict[str, Any] = {**common.examples(1, length), "vectors": [parameters[name] for name in entering]}
        work = work.signature(f"tokens_{length}", wrapped, sample_kwargs=sample)
    if packed:
        rows = {name: torch.ones(1, packed, dtype=torch.int32) for name in PACKED_INPUTS}
        texts = _Entered(Packed(model, packed), entering).eval()
        sample = {**rows, "vectors": [parameters[name] for name in entering]}
        work = work.signature(f"{PACKED}{packed}", texts, sample_kwargs=sample)
    # Through memory: where a disk is full, the converter's own way to a file ends the whole process.
    content = work.convert().model_content()
    draft = Draft(schema.ModelT.InitFromPackedBuf(content, 0))
    _settle_inputs(draft, entering, parameters)
    _recognize(draft, parameters)
    found = {source.name for source in draft.sources.values()}
    if lost := parameters.keys() - found:
        raise RuntimeError(f"{len(lost)} parameters are not in the converted graph: {', '.join(sorted(lost)[:5])}")
    return draft


def _settle_inputs(draft: Draft, entering: list[str], parameters: dict[str, nn.Parameter]) -> None:
    """Make constants of the inputs that are parameters."""
    for signature in draft.model.signatureDefs:
        graph = draft.model.subgraphs[signature.subgraphIndex]
        settled = set()
        for entry in signature.inputs:
            name = entry.name.decode()
            if name.startswith("vectors_"):
                parameter = entering[int(name.removeprefix("vectors_"))]
                shape = tuple(parameters[parameter].shape)
                axes = tuple(range(len(shape)))
                graph.tensors[entry.tensorIndex].buffer = draft.constant(Source(parameter, axes, shape))
                settled.add(entry.tensorIndex)
        signature.inputs = [entry for entry in signature.inputs if entry.tensorIndex not in settled]
        graph.inputs = [tensor for tensor in graph.inputs if tensor not in settled]


def _recognize(draft: Draft, parameters: dict[str, nn.Parameter]) -> None:
    """Find the parameters among the constants, and let equal ones share a buffer."""
    from ai_edge_litert import schema_py_generated as schema

    arrays = {name: parameter.detach().numpy() for name, parameter in parameters.items()}
    known: dict[int, Source | None] = {}
    for graph in draft.model.subgraphs:
        for tensor in graph.tensors:
            data = draft.model.buffers[tensor.buffer].data
            if data is None or tensor.type != schema.TensorType.FLOAT32 or tensor.buffer in draft.sources:
                continue
            if tensor.buffer not in known:
                shape = tuple(int(size) for size in tensor.shape) if tensor.shape is not None else ()
                known[tensor.buffer] = _source(np.frombuffer(data, np.float32), shape, arrays)
            if source := known[tensor.buffer]:
                tensor.buffer = draft.constant(source)


def _source(numbers: np.ndarray, shape: tuple[int, ...], arrays: dict[str, np.ndarray]) -> Source | None:
    """The parameter that has these numbers, in whatever order of axes."""
    for name, array in arrays.items():
        if array.size == numbers.size:
            for axes in itertools.permutations(range(array.ndim)):
                turned = array.transpose(axes)
                if turned.flat[0] == numbers[0] and np.array_equal(turned.reshape(-1), numbers):
                    return Source(name, axes, shape)
        elif array.size > numbers.size > 1 and np.array_equal(array.reshape(-1)[: numbers.size], numbers):
            return Source(name, tuple(range(array.ndim)), shape)  # a table's first rows
    return None


def _renumber(draft: Draft, old: int, new: int) -> None:
    """Give a layer's weights the number that the layer has in the model."""
    rename = _renamed(old, new)
    draft.sources = {number: replace(source, name=rename(source.name)) for number, source in draft.sources.items()}


def _repeat(draft: Draft, graph: Any, layers: range) -> None:
    """Repeat the last layer's operators for each of `layers`, those that are to follow it, with their own weights.

    Raises:
        Irregular: it and the one before differ in more than their weights.
    """
    start, period = _period(draft, graph, layers.start - 2)
    first, second = (graph.operators[at : at + period] for at in (start, start + period))
    pairs = dict(
        pair
        for a, b in zip(first, second, strict=True)
        for pair in zip(map(int, a.outputs), map(int, b.outputs), strict=True)
    )
    latest = {b: b for b in pairs.values()}  # a tensor of the template to the same one of the last layer so far
    added: list[Any] = []
    for layer in layers:
        rename = _renamed(layers.start - 1, layer)
        made: dict[int, int] = {}
        for template in second:
            operator = copy.copy(template)
            operator.outputs = [_clone(graph, int(tensor), rename) for tensor in template.outputs]
            operator.inputs = [_input(draft, graph, int(t), pairs, latest, made, rename) for t in template.inputs]
            made |= dict(zip(map(int, template.outputs), operator.outputs, strict=True))
            added.append(operator)
        latest = made
    after = graph.operators[start + 2 * period :]
    for operator in after:
        operator.inputs = [latest.get(int(tensor), int(tensor)) for tensor in operator.inputs]
    graph.operators = [*graph.operators[: start + 2 * period], *added, *after]
    graph.outputs = [latest.get(int(tensor), int(tensor)) for tensor in graph.outputs]
    for signature in draft.model.signatureDefs:
        if draft.model.subgraphs[signature.subgraphIndex] is graph:
            for entry in signature.outputs:
                entry.tensorIndex = latest.get(entry.tensorIndex, entry.tensorIndex)


def _input(
    draft: Draft,
    graph: Any,
    tensor: int,
    pairs: dict[int, int],
    latest: dict[int, int],
    made: dict[int, int],
    rename: Callable[[str], str],
) -> int:
    """What stands at a layer's operator where the template's has `tensor`."""
    if tensor in made:  # from this layer
        return made[tensor]
    if tensor in pairs:  # from the layer before
        return latest[pairs[tensor]]
    source = draft.sources.get(graph.tensors[tensor].buffer) if tensor >= 0 else None
    if source is None or rename(source.name) == source.name:  # from outside of the layer
        return tensor
    made[tensor] = _clone(graph, tensor, rename)
    graph.tensors[made[tensor]].buffer = draft.constant(replace(source, name=rename(source.name)))
    return made[tensor]


def _clone(graph: Any, tensor: int, rename: Callable[[str], str]) -> int:
    """A tensor like another."""
    cloned = copy.copy(graph.tensors[tensor])
    cloned.name = rename(cloned.name.decode()).encode()
    graph.tensors.append(cloned)
    return len(graph.tensors) - 1


def _renamed(old: int, new: int) -> Callable[[str], str]:
    """Names of one layer to names of another, in torch's manner and in the converter's."""
    return lambda name: re.sub(rf"(encoder\.layers\.|\.Layer_){old}\b", rf"\g<1>{new}", name)


def _period(draft: Draft, graph: Any, layer: int) -> tuple[int, int]:
    """Where a layer's operators start, the last but one, and how many they are.

    A layer begins somewhere before the operator that reads its first weight; the end of the last one tells where.
    """
    weighted = []
    for number in (layer, layer + 1):
        reads = (
            place
            for place, operator in enumerate(graph.operators)
            if any(_layer(draft, graph, tensor) == number for tensor in operator.inputs)
        )
        weighted.append(next(reads))
    first, second = weighted
    period = second - first
    for start in range(first, max(first - period, -1), -1):
        if start + 2 * period <= len(graph.operators) and _alike(draft, graph, start, period, layer):
            return start, period
    raise Irregular(f"layers {layer} and {layer + 1} were converted differently")


def _layer(draft: Draft, graph: Any, tensor: int) -> int | None:
    """The layer whose weight a tensor is."""
    source = draft.sources.get(graph.tensors[tensor].buffer) if tensor >= 0 else None
    return int(source.name.split(".")[2]) if source is not None and source.name.startswith(LAYERS) else None


def _alike(draft: Draft, graph: Any, start: int, period: int, layer: int) -> bool:
    """Whether `period` operators from `start` on, and as many after them, do the same with other weights."""
    first, second = (graph.operators[at : at + period] for at in (start, start + period))
    pairs: dict[int, int] = {}
    carried: dict[int, int] = {}
    theirs, ours = ({int(t) for operator in part for t in operator.outputs} for part in (first, second))
    for a, b in zip(first, second, strict=True):
        same = (a.opcodeIndex, len(a.inputs), len(a.outputs)) == (b.opcodeIndex, len(b.inputs), len(b.outputs))
        if not same or _options(a) != _options(b):
            return False
        for ta, tb in zip(map(int, a.inputs), map(int, b.inputs), strict=True):
            if ta in theirs:
                fits = pairs.get(ta) == tb
            elif tb in theirs:  # the first layer's result, where the first layer takes what comes before it
                fits = carried.setdefault(ta, tb) == tb
            else:
                fits = tb not in ours and _same_constant(draft, graph, ta, tb, layer)
            if not fits:
                return False
        pairs |= dict(zip(map(int, a.outputs), map(int, b.outputs), strict=True))
    read = {int(t) for operator in graph.operators[start + 2 * period :] for t in operator.inputs}
    return not (read | {int(t) for t in graph.outputs}) & pairs.keys()


def _same_constant(draft: Draft, graph: Any, a: int, b: int, layer: int) -> bool:
    """Whether two tensors are one, hold equal constants, or the same weight of a layer and of the one after it."""
    if a == b:
        return True
    if min(a, b) < 0:
        return False
    one, other = (draft.sources.get(graph.tensors[tensor].buffer) for tensor in (a, b))
    if one is not None and other is not None:
        return replace(one, name=_renamed(layer, layer + 1)(one.name)) == other
    data = [draft.model.buffers[graph.tensors[tensor].buffer].data for tensor in (a, b)]
    if one is not None or other is not None or data[0] is None or data[1] is None:
        return False
    return bytes(data[0]) == bytes(data[1])


def _options(operator: Any) -> dict[str, Any]:
    """An operator's options as values."""
    options = operator.builtinOptions
    return {} if options is None else {key: str(value) for key, value in vars(options).items()}
