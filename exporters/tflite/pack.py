"""The last step to a .tflite file: names that say whose weights they are, metadata, a seal, and the flatbuffer."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import numpy as np

from edgebert.artifact import Stored
from edgebert.exporters.tflite import mediapipe
from edgebert.exporters.tflite.draft import Draft
from edgebert.runtimes.tflite.layout import ITEM_NAMES, PRODUCER, SEAL, scale_bytes, seal_of

# Metadata of the converter's that says something to a reader; the rest are notes to itself.
KEPT = (b"min_runtime_version",)
# XNNPACK computes a graph in half precision where the file allows it and the processor can:
# https://ai.google.dev/edge/litert/models/post_training_float16_quant and the runtime's own metadata schema
NONE: Mapping[str, bytes] = MappingProxyType({})
HALF = {"reduced_precision_support": b"fp16accfp16"}


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


def stored(draft: Draft) -> Iterator[tuple[str, Stored]]:
    """How each parameter of the lowered model, or a part of it, stands in the file, its scales included."""
    # A table that is an output layer's weight too has a scale for each row there alone.
    scales: Counter[int] = Counter()
    dtypes: dict[int, str] = {}
    for graph in draft.model.subgraphs:
        for tensor in graph.tensors:
            if tensor.buffer in draft.sources:
                scales[tensor.buffer] = max(scales[tensor.buffer], scale_bytes(tensor.quantization))
                kind = ITEM_NAMES[tensor.type].lower()
                dtypes[tensor.buffer] = max(dtypes.get(tensor.buffer, kind), kind)
    own = Counter[str]()
    for number, name in draft.scales.items():
        own[name] += len(draft.model.buffers[number].data)
    for number, extra in scales.items():
        name = draft.sources[number].name
        yield name, Stored(dtypes[number], len(draft.model.buffers[number].data) + extra + own.pop(name, 0))


def pack(
    model: Any, half: bool, told: Mapping[str, str], entry: bytes = b"", files: Mapping[str, bytes] = NONE
) -> bytes:
    """Serialize a model with its weights in line, equal vectors stored once, and a seal over all of it.

    Scales and zero points are the same for every length, and would be stored for each. In line, weights are aligned to
    16 bytes as the format's schema asks.

    Args:
        model: the flatbuffer as objects of the runtime's schema.
        half: whether the runtime may compute in half precision.
        told: what the file says of itself, see `edgebert.exporters.common.said`.
        entry: MediaPipe's entry in the metadata, see `mediapipe.py`; empty where there is none.
        files: what MediaPipe reads behind the model, by name.
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
    entries = {f"{PRODUCER}.{key}": text.encode() for key, text in told.items() if text}
    entries |= {mediapipe.ENTRY: entry} if entry else {}
    for name, text in ((HALF if half else {}) | entries | {SEAL.name: SEAL.blank}).items():
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
    return _sealed(bytearray(mediapipe.behind(builder.Output(), files)))


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
