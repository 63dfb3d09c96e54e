"""ONNX Runtime on the CPU.

A file that edgebert wrote carries a seal, the SHA-256 of its own bytes, in its metadata. It is checked before any
native code reads the file, for ONNX Runtime may crash on a damaged one instead of refusing it.
"""

import importlib.util
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.errors import InputError, MissingDependency
from edgebert.models.signature import INPUTS, Arrays
from edgebert.runtimes import apart
from edgebert.runtimes.onnx import file, native
from edgebert.runtimes.session import WHOLE, Facts, Spec, check_inputs, refuse_edited, run_rows

# What a session of edgebert's files is given on x86 without VNNI, where sums of integer products saturate else.
HOST_OPTIONS = {"session.x64quantprecision": "1"}

# Tokens of rows that are answered at once: weights are read once for them, and what is computed stays in the caches. Of
# texts of 25 tokens, on one core of an x86, 4, 8, 16 and 32 at once are 1.08, 0.94, 0.72 and 0.62 times as many a
# second in 8 bits, and 1.60, 1.70, 1.49 and 1.35 times in float.
TOGETHER = 128


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
        InputError: the file, or its external data, is absent, damaged or something else, or was edited since edgebert
            made it.
        MissingDependency: onnx or onnxruntime is not installed.
    """
    found = _read(path)
    refuse_edited(path, found.seal)
    if found.seal != WHOLE:
        _described_apart(path)
    # Files whose products share a zero point, as quantize_dynamic writes them, fail with these options.
    entries = HOST_OPTIONS if found.seal == WHOLE and _saturates() else {}
    session = _load(path, threads, entries)
    return OnnxSession(session, _facts(path, found, native.describe(session)))


def facts(path: Path) -> Facts:
    """What an ONNX file holds.

    Raises:
        InputError: the file, or its external data, is absent or something else, or ONNX Runtime does not take it.
        MissingDependency: onnx or onnxruntime is not installed.
    """
    found = _read(path)
    described = native.describe(_load(path, 1, {})) if found.seal == WHOLE else _described_apart(path)
    return _facts(path, found, described)


def _read(path: Path) -> file.File:
    if command := missing():
        raise MissingDependency(f"{path.name} needs ONNX Runtime: {command}")
    return file.read(path)


def _load(path: Path, threads: int, entries: Mapping[str, str]) -> Any:
    """Open a file in this process."""
    try:
        return native.load(str(path), threads, entries)
    except Exception as error:  # its exceptions share no base class below Exception
        raise InputError(f"{path} does not open in ONNX Runtime: {file.first_line(error)}") from None


def _described_apart(path: Path) -> native.Described:
    """What ONNX Runtime tells of a file that nobody vouches for; InputError where it does not open it, or crashes."""
    told: native.Described = apart.ask(native.__file__, "ONNX Runtime", path)
    return told


def _facts(path: Path, found: file.File, described: native.Described) -> Facts:
    """What stands in a file, and what ONNX Runtime told of it."""
    release, *sides = described
    inputs, outputs = (tuple(Spec(name, dtype, tuple(shape)) for name, dtype, shape in side) for side in sides)
    nodes = list(file.nodes(found.proto.graph))
    try:
        weights = file.weights(found.proto.graph)
    except ValueError as error:  # a type without a name
        raise InputError(f"{path} breaks the rules of ONNX: {file.first_line(error)}") from None
    return Facts(
        runtime=f"onnxruntime {release}",
        file_bytes=found.file_bytes,
        inputs=inputs,
        outputs=outputs,
        lengths=_lengths(inputs),
        ops=dict(Counter(node.op_type for node in nodes).most_common()),
        nodes=len(nodes),
        weights=weights,
        metadata=file.metadata(found.proto),
        seal=found.seal,
        rows=file.rows(found.proto.graph),
    )


def by_choice(rows: np.ndarray, rank: int) -> np.ndarray:
    """Rows (B, T) for a file that takes choices, (B, C, T), each as the only one."""
    return rows[:, None] if rank == 3 else rows


class OnnxSession:
    """One open ONNX file."""

    def __init__(self, session: Any, facts: Facts) -> None:
        self._session = session
        self._facts = facts
        self._longest = file.whole(facts.metadata.get(file.MAX_TOKENS, ""))
        self._vocabulary = file.whole(facts.metadata.get(file.VOCABULARY, ""))
        # A dynamic quantizer takes its range over the whole batch: an answer would depend on its neighbours.
        dynamic = any("DynamicQuantize" in name for name in facts.ops)
        apart = dynamic or any(spec.shape[:1] != (-1,) for spec in facts.inputs)
        self.together = 0 if apart else TOGETHER

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer a batch, row by row, or a few short ones at once where none depends on the others.

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
        return run_rows(inputs, self._facts.lengths, self._rows, max(1, self.together // ids.shape[1]))

    def facts(self) -> Facts:
        """What the file holds."""
        return self._facts

    def close(self) -> None:
        """Let the file go."""
        self._session = None

    def _rows(self, row: Arrays) -> Arrays:
        given = {
            spec.name: by_choice(row[spec.name].astype(spec.dtype, copy=False), len(spec.shape))
            for spec in self._facts.inputs
        }
        try:
            values = self._session.run(None, given)
        except Exception as error:  # its exceptions share no base class below Exception
            raise InputError(f"ONNX Runtime refuses this input: {file.first_line(error)}") from None
        return {spec.name: value for spec, value in zip(self._facts.outputs, values, strict=True)}

    def _check_signature(self) -> None:
        """Refuse a file that does not take edgebert's three inputs."""
        takes = {spec.name: spec for spec in self._facts.inputs}
        fits = set(takes) == set(INPUTS) and all(
            spec.dtype in ("int32", "int64") and len(spec.shape) in (2, 3) and set(spec.shape[:-1]) <= {-1, 1}
            for spec in takes.values()
        )
        if not fits:
            found = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in self._facts.inputs)
            raise InputError(
                f"the file takes {found}; edgebert runs files that take {', '.join(INPUTS)}, int32 or int64 (batch, "
                "tokens), or (batch, choices, tokens). Only its facts can be read."
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


def _lengths(inputs: Sequence[Spec]) -> tuple[int, ...]:
    """The one fixed length of a file from elsewhere whose token axis is not free."""
    sizes = {spec.shape[-1] for spec in inputs if len(spec.shape) in (2, 3)}
    fixed = sizes.pop() if len(sizes) == 1 else -1
    return (fixed,) if fixed > 0 else ()
