"""ONNX Runtime on the CPU.

A file that edgebert wrote carries a seal, the SHA-256 of its own bytes, in its metadata. It is checked before any
native code reads the file, for ONNX Runtime may crash on a damaged one instead of refusing it.
"""

import hashlib
import importlib.util
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError, MissingDependency
from edgebert.runtimes.session import INPUTS, Arrays, Facts, Spec, Weight, check_inputs, run_rows

PRODUCER = "edgebert"
MAX_TOKENS = "edgebert.max_tokens"
VOCABULARY = "edgebert.vocabulary"
SEAL = "edgebert.sha256"
BLANK = b"0" * 64  # what stands in the seal's place while the hash is taken


def missing() -> str | None:
    """The command that installs what this runtime needs; None when it is there."""
    found = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
    return None if found else 'pip install "edgebert[onnx]"'


def seal_of(data: bytes) -> tuple[int, str, str] | None:
    """Where the seal stands in a file's bytes, what it says and what it should say; None where there is none."""
    # A protobuf string field: its tag 0x12, its length 64, its bytes. The metadata is the last thing in the file.
    marker = SEAL.encode() + b"\x12\x40"
    start = data.rfind(marker, max(0, len(data) - 4096)) + len(marker)
    if start < len(marker) or start + len(BLANK) > len(data):
        return None
    end = start + len(BLANK)
    view = memoryview(data)  # a slice of it is no copy of a large model
    digest = hashlib.sha256(view[:start])
    digest.update(BLANK)
    digest.update(view[end:])
    return start, data[start:end].decode("ascii", "replace"), digest.hexdigest()


def open(path: Path, threads: int = 1) -> "OnnxSession":
    """Open an ONNX file, by edgebert or not.

    Args:
        path: the file; external data is looked for beside it.
        threads: threads that one operator may use.

    Raises:
        InputError: the file, or its external data, is absent, damaged or something else.
        MissingDependency: onnx or onnxruntime is not installed.
    """
    if command := missing():
        raise MissingDependency(f"{path.name} needs ONNX Runtime: {command}")
    proto, file_bytes = _read(path)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its own thread would send what it counts
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # only what is fatal; failures come back as exceptions
    if proto.producer_name == PRODUCER and _saturates():
        # Files whose products share a zero point, as quantize_dynamic writes them, fail with this option.
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class below Exception
        raise InputError(f"{path} does not open in ONNX Runtime: {_line(error)}") from None
    facts = Facts(
        runtime=f"onnxruntime {onnxruntime.__version__}",
        file_bytes=file_bytes,
        inputs=_specs(session.get_inputs()),
        outputs=_specs(session.get_outputs()),
        lengths=_lengths(session.get_inputs()),
        ops=dict(Counter(node.op_type for node in _nodes(proto.graph)).most_common()),
        nodes=sum(1 for _ in _nodes(proto.graph)),
        weights=_weights(proto.graph),
        metadata=_metadata(proto),
    )
    return OnnxSession(session, facts)


class OnnxSession:
    """One open ONNX file."""

    def __init__(self, session: Any, facts: Facts) -> None:
        self._session = session
        self._facts = facts
        self._longest, self._vocabulary = (_whole(facts.metadata.get(key, "")) for key in (MAX_TOKENS, VOCABULARY))

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer a batch, row by row.

        Raises:
            InputError: the file takes other inputs than edgebert's, or these do not suit it.
        """
        if self._session is None:
            raise InputError("this ONNX session is closed; open the file again.")
        self._check_signature()
        check_inputs(inputs, self._longest)
        ids = inputs["input_ids"]
        if self._vocabulary is not None and not 0 <= int(ids.min()) <= int(ids.max()) < self._vocabulary:
            # The operator that reads 4-bit tables gives zeros for them.
            raise InputError(f"input_ids from {ids.min()} to {ids.max()}; the file takes 0 to {self._vocabulary - 1}.")
        return run_rows(inputs, self._facts.lengths, self._row)

    def facts(self) -> Facts:
        """What the file holds."""
        return self._facts

    def close(self) -> None:
        """Let the file go."""
        self._session = None

    def _row(self, row: Arrays) -> Arrays:
        try:
            values = self._session.run(None, row)
        except Exception as error:  # its exceptions share no base class below Exception
            raise InputError(f"ONNX Runtime refuses this input: {_line(error)}") from None
        return {spec.name: value for spec, value in zip(self._facts.outputs, values, strict=True)}

    def _check_signature(self) -> None:
        """Refuse a file that does not take edgebert's three inputs."""
        takes = {spec.name: spec for spec in self._facts.inputs}
        fits = set(takes) == set(INPUTS) and all(
            spec.dtype == "int32" and len(spec.shape) == 2 and spec.shape[0] in (-1, 1) for spec in takes.values()
        )
        if not fits:
            found = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in self._facts.inputs)
            raise InputError(
                f"the file takes {found}; edgebert runs files that take {', '.join(INPUTS)}, int32 (batch, tokens). "
                "Only its facts can be read."
            )


def _saturates() -> bool:
    """Whether this processor adds products of unsigned and signed bytes in 16 bits: x86 without VNNI, or not known."""
    # Where VNNI is there the exact mode is not needed, and takes half as long again.
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return True
    return not {"avx_vnni", "avx512_vnni"} & set(flags)


def _line(error: Exception) -> str:
    """The first line of a native error, without the code that leads it."""
    text = " ".join(str(error).split())
    return text.rpartition(" : ")[2][:300] if " : " in text else text[:300]


def _read(path: Path) -> tuple[Any, int]:
    """Parse the file and vouch for it; gives the model without external data, and the bytes on disk in all."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise InputError(f"{path} is not a file; an .onnx file is needed.")
    try:
        data = path.read_bytes()
        proto = onnx.ModelProto.FromString(data)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except DecodeError:
        raise InputError(f"{path} is not an ONNX file, or is cut short: export it again.") from None
    if not proto.ir_version or not proto.opset_import or not proto.graph.output:
        raise InputError(f"{path} is not an ONNX model: it names no version or no outputs.")
    seal = seal_of(data)
    if (seal is None and proto.producer_name == PRODUCER) or (seal and seal[1] != seal[2]):
        raise InputError(f"{path} is damaged: its bytes are not those that were exported. Export or copy it again.")
    outside = _external_bytes(path, proto.graph)
    if seal is None:  # from elsewhere: nothing vouches for it but the format's own rules
        try:
            onnx.checker.check_model(str(path))
        except (onnx.checker.ValidationError, ValueError, RuntimeError, MemoryError) as error:
            raise InputError(f"{path} breaks the rules of ONNX: {_line(error)}") from None
    return proto, len(data) + outside


def _external_bytes(path: Path, graph: Any) -> int:
    """The size of the external data, once each file of it proves to be there, complete and inside the folder."""
    from onnx import TensorProto

    folder, needed = path.parent.resolve(), Counter[str]()
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            entry = {e.key: e.value for e in tensor.external_data}
            numbers = [entry.get("offset", "0"), entry.get("length", "0")]
            if not entry.get("location") or not all(number.isdecimal() for number in numbers):
                raise InputError(f"{path}: tensor {tensor.name!r} does not say where its external data is.")
            needed[entry["location"]] = max(needed[entry["location"]], sum(int(number) for number in numbers))
    total = 0
    for location, end in needed.items():
        file = folder / location
        if Path(location).is_absolute() or not file.resolve().is_relative_to(folder):
            raise InputError(f"{path} leads to external data outside its folder, {location!r}; that is never read.")
        if not file.is_file():
            raise InputError(f"{path} needs its external data {location!r} beside it: copy the two together.")
        if file.stat().st_size < end:
            raise InputError(f"{file} is cut short: {file.stat().st_size} bytes of {end}. Copy or export it again.")
        total += file.stat().st_size
    return total


def _nodes(graph: Any) -> Iterator[Any]:
    """Every node, those of nested graphs too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for nested in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _nodes(nested)


def _tensors(graph: Any) -> Iterator[Any]:
    """Every constant tensor: initializers, sparse ones and those that nodes hold; nested graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            for nested in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(nested)


def _weights(graph: Any) -> tuple[Weight, ...]:
    """The constants that are no shapes, axes or other whole numbers; scales count with the weight they belong to.

    A scale or zero point belongs to a weight `x` when it is named `x.scale` or `x.zero`, as in edgebert's files. Bytes
    that hold two numbers, as MatMulNBits takes them, are told by that operator's attribute.
    """
    from onnx import TensorProto

    # The two operators take a table in different shapes, so that one of them may see it through a Reshape.
    shaped = {node.output[0]: node.input[0] for node in _nodes(graph) if node.op_type == "Reshape" and node.input}
    packed = {
        shaped.get(node.input[place], node.input[place]): attribute.i
        for node in _nodes(graph)
        for op, place in (("MatMulNBits", 1), ("GatherBlockQuantized", 0))
        if node.op_type == op and len(node.input) > place
        for attribute in node.attribute
        if attribute.name == "bits" and attribute.i in (2, 4, 8)
    }
    sizes: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for i, tensor in enumerate(_tensors(graph)):
        dtype, shape = TensorProto.DataType.Name(tensor.data_type).lower(), tuple(tensor.dims)
        if dtype == "int64" and len(shape) < 2:
            continue
        dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
        digits = "".join(filter(str.isdigit, dtype.partition("e")[0])) or "8"  # float8e4m3 has 8 bits, bool a byte
        size = (int(np.prod(shape, dtype=np.int64)) * int(digits) + 7) // 8
        if dtype == "uint8" and (bits := packed.get(tensor.name)):
            dtype, shape = f"int{bits}", (*shape[:-1], shape[-1] * 8 // bits)
        sizes.setdefault(tensor.name or f"constant {i}", (dtype, shape, size))
    extra = Counter[str]()
    for name in list(sizes):
        base, _, role = name.rpartition(".")
        if role in ("scale", "zero") and base in sizes:
            extra[base] += sizes.pop(name)[2]
    return tuple(Weight(name, dtype, shape, size + extra[name]) for name, (dtype, shape, size) in sizes.items())


def _metadata(proto: Any) -> dict[str, str]:
    """What the file says of itself: who made it, versions, and its own entries."""
    said = {
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "ir_version": str(proto.ir_version),
        "opset": ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in proto.opset_import),
        "domain": proto.domain,
        "description": proto.doc_string or proto.graph.doc_string,
    }
    return {key: text for key, text in said.items() if text} | {e.key: e.value for e in proto.metadata_props}


def _whole(text: str) -> int | None:
    """The number that a metadata entry holds; None where it holds none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _specs(values: Any) -> tuple[Spec, ...]:
    """ONNX Runtime's inputs or outputs as Specs."""
    dtypes = {"float": "float32", "double": "float64"}
    specs = []
    for value in values:
        dtype = value.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
        specs.append(Spec(value.name, dtypes.get(dtype, dtype), shape))
    return tuple(specs)


def _lengths(inputs: Any) -> tuple[int, ...]:
    """The one fixed length of a file from elsewhere whose token axis is not free."""
    sizes = {value.shape[1] for value in inputs if len(value.shape) == 2}
    fixed = sizes.pop() if len(sizes) == 1 else None
    return (fixed,) if isinstance(fixed, int) and fixed > 0 else ()
