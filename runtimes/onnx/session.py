"""ONNX Runtime on the CPU.

A file that edgebert wrote carries a seal, the SHA-256 of its own bytes, in its metadata. It is checked before any
native code reads the file, for ONNX Runtime may crash on a damaged one instead of refusing it.
"""

import importlib.util
import os
import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError, MissingDependency
from edgebert.models.signature import INPUTS, Arrays
from edgebert.runtimes.onnx import file
from edgebert.runtimes.session import Facts, Spec, check_inputs, run_rows

# What a session of edgebert's files is given on x86 without VNNI, where sums of integer products saturate else.
HOST_OPTIONS = {"session.x64quantprecision": "1"}


def missing() -> str | None:
    """The command that installs what this runtime needs; None when it is there."""
    found = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
    return None if found else 'pip install "edgebert[onnx]"'


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
    proto, file_bytes = file.read(path)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its own thread would send what it counts
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # only what is fatal; failures come back as exceptions
    if proto.producer_name == file.PRODUCER and _saturates():
        # Files whose products share a zero point, as quantize_dynamic writes them, fail with this option.
        for key, value in HOST_OPTIONS.items():
            options.add_session_config_entry(key, value)
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class below Exception
        raise InputError(f"{path} does not open in ONNX Runtime: {file.first_line(error)}") from None
    facts = Facts(
        runtime=f"onnxruntime {onnxruntime.__version__}",
        file_bytes=file_bytes,
        inputs=_specs(session.get_inputs()),
        outputs=_specs(session.get_outputs()),
        lengths=_lengths(session.get_inputs()),
        ops=dict(Counter(node.op_type for node in file.nodes(proto.graph)).most_common()),
        nodes=sum(1 for _ in file.nodes(proto.graph)),
        weights=file.weights(proto.graph),
        metadata=file.metadata(proto),
    )
    return OnnxSession(session, facts)


class OnnxSession:
    """One open ONNX file."""

    def __init__(self, session: Any, facts: Facts) -> None:
        self._session = session
        self._facts = facts
        self._longest = file.whole(facts.metadata.get(file.MAX_TOKENS, ""))
        self._vocabulary = file.whole(facts.metadata.get(file.VOCABULARY, ""))

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
            raise InputError(f"ONNX Runtime refuses this input: {file.first_line(error)}") from None
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
