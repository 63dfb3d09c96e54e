"""What every runtime offers: a Session over one model file, and the facts it reads from that file.

Inputs are `input_ids`, `attention_mask`, `token_type_ids`, int32 or int64, (B, T). A file may be fixed to some lengths
and to batch 1; a session takes any batch and any T up to the longest, pads on the right to the smallest length that
fits, and cuts the outputs back to T.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from edgebert.errors import InputError
from edgebert.models.signature import INPUTS, Arrays, has_token_axis

# What the seal says that edgebert puts into each file, the SHA-256 of the file's own bytes. It proves that they are the
# bytes that were sealed, and not who sealed them.
WHOLE, EDITED = "whole", "edited"
SEALS: dict[str | None, str] = {
    WHOLE: "whole: these are the bytes that were sealed, which does not prove who made them",
    EDITED: "edited since edgebert made it, or damaged: these are not the bytes that were sealed",
    None: "none: not a file of edgebert's",
}


@dataclass(frozen=True, slots=True)
class Spec:
    """Name, dtype and shape of one input or output; -1 stands for a free axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Weight:
    """One constant tensor of a file: its name there, dtype, shape and bytes; shared ones stand once."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Constant:
    """The numbers of one stored tensor.

    Attributes:
        name: as the exporter named it.
        values: what the stored numbers stand for, float32.
        step: how far apart neighbouring numbers are, of a shape that broadcasts against `values`; 0 for float32. It is
            float16 where the file's scales are, and what was rounded to integers was half precision already.
        bits: of a stored number.
    """

    name: str
    values: np.ndarray
    step: np.ndarray
    bits: int


@dataclass(frozen=True, slots=True)
class Unrounded:
    """A file's graph, or one of them, that computes in float32 whatever the file rounds.

    Attributes:
        run: answers a batch (B, T) as `Session.run` does.
        exact: whether its scalars are float32's own; where a file is made for half precision they are rounded to it.
        by_tanh: whether GELUs are computed by their tanh form, which is quicker in half precision, all of them.
    """

    run: Callable[[Arrays], Arrays]
    exact: bool = True
    by_tanh: bool = False


@dataclass(frozen=True, slots=True)
class Delegation:
    """What an accelerated backend takes over of a graph, and what it leaves to plain kernels.

    Attributes:
        backend: its name, such as `XNNPACK`.
        nodes: operators in the graph before delegation.
        taken: how many of them the backend runs.
        macs: multiply-accumulates of the whole graph for one row at the longest length.
        taken_macs: how many of them the backend does.
        rest: operator left to plain kernels to how often it stands in the graph.
        reasons: each of those operators to why it was left.
    """

    backend: str
    nodes: int
    taken: int
    macs: int
    taken_macs: int
    rest: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Share of the arithmetic that the backend does; 1.0 for a graph without any."""
        return self.taken_macs / self.macs if self.macs else 1.0

    def __str__(self) -> str:
        """One line: `97% of nodes, 99.8% of the arithmetic in XNNPACK; the rest: EMBEDDING_LOOKUP 3, because ...`."""
        head = f"{self.taken / max(self.nodes, 1):.0%} of nodes, {self.share:.1%} of the arithmetic in {self.backend}"
        rest = [f"{op} {count}, because {self.reasons.get(op, 'no kernel there')}" for op, count in self.rest.items()]
        return f"{head}; the rest: {'; '.join(rest)}" if rest else head


@dataclass(frozen=True, slots=True)
class Facts:
    """What a runtime knows about a file it opened.

    Attributes:
        runtime: name and version of the runtime.
        file_bytes: size of the model file, external data included.
        inputs: specs of the inputs, at the longest length.
        outputs: specs of the outputs, at the longest length.
        lengths: fixed lengths, ascending; for a free axis the empty tuple.
        ops: operator name to how often it stands in the graph (of the longest length).
        nodes: operators in that graph before delegation.
        weights: constant tensors other than shapes and axes, shared ones once.
        metadata: what the file says of itself, key to text.
        delegation: None where the runtime has no delegates, or cannot tell.
        seal: `whole` where the bytes are those that edgebert sealed, `edited` where they are not, None without a seal.
        rows: input whose numbers are rows of a table to how many the smallest such table has; of a .pte file, whose
            inputs have no names, `input_0` and so on.
        packed: tokens of a row that takes several texts, and how many it has room for; None where the file has no such
            entry point.
    """

    runtime: str
    file_bytes: int
    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    lengths: tuple[int, ...]
    ops: dict[str, int] = field(default_factory=dict)
    nodes: int = 0
    weights: tuple[Weight, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    delegation: Delegation | None = None
    seal: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    packed: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"Facts({self.runtime}, {self.file_bytes / 1e6:.1f} MB, {self.nodes} nodes)"

    @property
    def weight_bytes(self) -> dict[str, int]:
        """Bytes of the weights by dtype, largest first."""
        totals = Counter[str]()
        for weight in self.weights:
            totals[weight.dtype] += weight.bytes
        return dict(totals.most_common())


class Session(Protocol):
    """One open model file."""

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Answer a batch; outputs by the task's names, float32."""
        ...

    def facts(self) -> Facts:
        """What the file holds."""
        ...

    def close(self) -> None:
        """Let the file go; the session is not to be used afterwards."""
        ...


@runtime_checkable
class Batching(Session, Protocol):
    """An open file which may answer rows of a batch together."""

    together: int  # tokens of rows that are answered at once; 0 where each row is


@runtime_checkable
class Packing(Session, Protocol):
    """An open file which may take rows of several texts."""

    packed: tuple[int, int] | None  # as in `Facts`

    def run_packed(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Answer rows (R, T) of ids and of texts' numbers, int32, with vectors (R, S, D) float32."""
        ...


def refuse_edited(path: Path, seal: str | None) -> None:
    """Raise InputError for a file that is not what edgebert sealed."""
    if seal == EDITED:
        raise InputError(
            f"{path} was edited or damaged since edgebert made it: its bytes are not those that were sealed. Export or "
            "copy it again; edgebert inspect tells what is in it."
        )


def check_inputs(inputs: Mapping[str, np.ndarray], longest: int | None) -> tuple[int, int]:
    """Check names, dtypes and shapes of a batch.

    Returns:
        B and T.

    Raises:
        InputError: a name is missing or unknown, a dtype is neither int32 nor int64, shapes are not one (B, T), T is
            too long, or an int64 holds what no int32 does.
    """
    if set(inputs) != set(INPUTS):
        raise InputError(f"inputs {sorted(inputs)}; exactly {', '.join(INPUTS)} are needed.")
    shapes = {name: np.shape(value) for name, value in inputs.items()}
    if len(set(shapes.values())) != 1 or len(shapes["input_ids"]) != 2 or 0 in shapes["input_ids"]:
        raise InputError(f"input shapes {shapes}; one shape (batch, tokens) is needed for all three.")
    wrong = {name: str(value.dtype) for name, value in inputs.items() if value.dtype not in (np.int32, np.int64)}
    if wrong:
        raise InputError(f"input dtypes {wrong}; int32 or int64 is needed: call .astype('int32') on ids that fit.")
    held = np.iinfo(np.int32)
    for name, value in inputs.items():
        if value.dtype != np.int32 and not held.min <= value.min() <= value.max() <= held.max:
            odd = value.max() if value.max() > held.max else value.min()
            raise InputError(f"{name} has {odd}, which no int32 holds: give ids of the vocabulary.")
    batch, tokens = shapes["input_ids"]
    if longest is not None and tokens > longest:
        raise InputError(
            f"{tokens} tokens, but the file takes at most {longest}: truncate, or export with a longer length."
        )
    return batch, tokens


def run_rows(
    inputs: Mapping[str, np.ndarray], lengths: tuple[int, ...], run: Callable[[Arrays], Arrays], at_once: int = 1
) -> Arrays:
    """Run a batch row by row at the smallest fixed length that fits, and join what comes back.

    Args:
        inputs: int32 or int64 arrays (B, T).
        lengths: the file's fixed lengths, ascending; empty when T is free.
        run: runs rows, int32 arrays of shape (1, L), at one of the lengths; or (R, L), R up to `at_once`.
        at_once: rows that are run together.
    """
    batch, tokens = check_inputs(inputs, lengths[-1] if lengths else None)
    length = next((fixed for fixed in lengths if fixed >= tokens), tokens)
    padded = {
        name: np.pad(value, ((0, 0), (0, length - tokens))).astype(np.int32, copy=False)
        for name, value in inputs.items()
    }
    rows = [run({name: value[i : i + at_once] for name, value in padded.items()}) for i in range(0, batch, at_once)]
    joined = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {name: out[:, :tokens] if has_token_axis(name, out.ndim) else out for name, out in joined.items()}
