"""The last step to a .tflite file: names that say whose weights they are, metadata, a seal, and the flatbuffer."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from edgebert.artifact import Stored
from edgebert.errors import InputError
from edgebert.exporters.tflite.draft import Draft
from edgebert.models import Model
from edgebert.runtimes.tflite.layout import ITEM_NAMES, PRODUCER, SEAL, scale_bytes, seal_of

# Metadata of the converter's that says something to a reader; the rest are notes to itself.
KEPT = (b"min_runtime_version",)
# XNNPACK computes a graph in half precision where the file allows it and the processor can:
# https://ai.google.dev/edge/litert/models/post_training_float16_quant and the runtime's own metadata schema
HALF = {"reduced_precision_support": b"fp16accfp16"}


def origins(model: Model, lowered: Model) -> dict[str, tuple[str, ...]]:
    """Each parameter of a lowered model to those of the original that its numbers are from, as many of each.

    A rewrite hands on the very numbers or a part of them, so that their place in memory tells; where it had to copy
    them, the new module stands under the old one's name, or under the names of several.
    """
    places = {}
    for name, parameter in model.named_parameters():
        start = parameter.data_ptr()
        places[start, start + parameter.numel() * parameter.element_size()] = name
    found = {}
    for name, parameter in lowered.named_parameters():
        inside = [origin for (start, end), origin in places.items() if start <= parameter.data_ptr() < end]
        found[name] = (inside[0],) if inside else _by_name(name, set(places.values()))
    return found


def _by_name(name: str, originals: set[str]) -> tuple[str, ...]:
    """The originals whose modules' paths begin a lowered parameter's."""
    several = next((part for part in name.split(".") if "+" in part), None)
    if several is not None:
        return tuple(_by_name(name.replace(several, one), originals)[0] for one in several.split("+"))
    path, _, leaf = name.rpartition(".")
    while path:
        # SqueezeBERT's projection after attention belongs to the layer, BERT's, which takes its place, to attention.
        for there in (f"{path}.{leaf}", f"{path}.{leaf}".replace(".attention.out.", ".out.")):
            if there in originals:
                return (there,)
        path = path.rpartition(".")[0]
    raise InputError(f"{name} is a parameter that no module of the model given has.")


def name_constants(draft: Draft, origin: Mapping[str, tuple[str, ...]]) -> None:
    """Call every weight after the model's parameters; parts of one are numbered."""
    parts: Counter[str] = Counter()
    names = {}
    shared = Counter("+".join(origin[source.name]) for source in draft.sources.values())
    for number, source in draft.sources.items():
        own = "+".join(origin[source.name])
        names[number] = f"{own}/{parts[own]}" if shared[own] > 1 else own
        parts[own] += 1
    names |= {number: f"{'+'.join(origin[name])}/scales" for number, name in draft.scales.items()}
    for graph in draft.model.subgraphs:
        for tensor in graph.tensors:
            tensor.name = (names.get(tensor.buffer) or _short(tensor.name.decode())).encode()


def _short(name: str) -> str:
    """`edgebert.models.family.Model/edgebert.models.bert.BertEncoder_encoder;2` as `encoder;2`.

    Names come as paths of Python classes, more bytes than the rest of the graph; attribute names say the same.
    """
    parts = [part.rsplit(".", 1)[-1].partition("_") for part in name.split("/")]
    return "/".join(attribute or head for head, _, attribute in parts) if "." in name else name


def stored(draft: Draft, origin: Mapping[str, tuple[str, ...]]) -> dict[str, Stored]:
    """What stands in the file of each parameter of the original model; several in one tensor have equal shares."""
    scales: Counter[int] = Counter()
    types: dict[str, set[str]] = {}
    for graph in draft.model.subgraphs:
        for tensor in graph.tensors:
            if tensor.buffer in draft.sources:
                # A table that is an output layer's weight too has a scale for each row there alone.
                scales[tensor.buffer] = max(scales[tensor.buffer], scale_bytes(tensor.quantization))
                for own in origin[draft.sources[tensor.buffer].name]:
                    types.setdefault(own, set()).add(ITEM_NAMES[tensor.type].lower())
    bytes_of: Counter[str] = Counter()
    for number, extra in scales.items():
        owners = origin[draft.sources[number].name]
        for own in owners:
            bytes_of[own] += (len(draft.model.buffers[number].data) + extra) // len(owners)
    for number, name in draft.scales.items():
        for own in origin[name]:
            bytes_of[own] += len(draft.model.buffers[number].data) // len(origin[name])
    # Parts of one tensor differ where some rows are too short for blocks of int4: the widest stands for all.
    return {name: Stored(max(types[name]), count) for name, count in bytes_of.items()}


def pack(model: Any, half: bool) -> bytes:
    """Serialize a model with its weights in line, equal vectors stored once, and a seal over all of it.

    Scales and zero points are the same for every length, and would be stored for each. In line, weights are aligned to
    16 bytes as the format's schema asks.

    Args:
        model: the flatbuffer as objects of the runtime's schema.
        half: whether the runtime may compute in half precision.
    """
    import flatbuffers  # type: ignore[import-untyped]

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

    model.description = f"{PRODUCER} {version('edgebert')}".encode()
    model.metadata = [entry for entry in model.metadata or () if entry.name in KEPT]
    for name, text in ((HALF if half else {}) | {SEAL.name: SEAL.blank}).items():
        _describe(model, name, text)
    _drop_unused(model)
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(buffer.data, np.uint8)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.shape = None if tensor.shape is None else np.array(tensor.shape, np.int32)
            if (
                tensor.quantization is not None
                and tensor.quantization.scale is None
                and not tensor.quantization.details
            ):
                tensor.quantization = None  # an empty table
        graph.inputs, graph.outputs = np.array(graph.inputs, np.int32), np.array(graph.outputs, np.int32)
        for operator in graph.operators:
            operator.inputs = np.array(operator.inputs, np.int32)
            operator.outputs = np.array(operator.outputs, np.int32)
    builder = Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return _sealed(builder.Output())


def _describe(model: Any, name: str, text: bytes) -> None:
    """Add an entry to the metadata."""
    from ai_edge_litert import schema_py_generated as schema

    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(text, np.uint8)
    entry.name, entry.buffer = name.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata.append(entry)


def _drop_unused(model: Any) -> None:
    """Empty the buffers that nothing refers to any more: stand-ins, in whose place weights have been written."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None


def _sealed(content: bytearray) -> bytes:
    """The file's bytes with their hash in the place kept for it."""
    found = seal_of(content)
    if found is None:
        raise RuntimeError("the seal's place is not in the file")
    place, _, right = found
    content[place : place + len(right)] = right
    return bytes(content)
