"""What differs between two bundles: what they say of themselves, their files and sizes, and their answers."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgebert import bundle
from edgebert.bundle.manifest import Manifest
from edgebert.bundle.opened import open_bundle
from edgebert.errors import InputError
from edgebert.gate import golden, parity
from edgebert.report import ErrorStats, Tolerance
from edgebert.results import Table

# Told in a table of their own, or different between any two bundles.
APART = ("files", "parity", "graph", "modules", "parts", "peak_memory_bytes")
# Labels count as decided by torch's lead over twice the error of this; nothing is judged by it.
PLAIN = Tolerance(40.0, 0.0, "two files side by side")


@dataclass(frozen=True, slots=True)
class Difference(Table):
    """What differs between bundles A and B.

    Attributes:
        fields: manifest field to its two values, those that differ.
        files: file name to bytes in A and in B, None where it is absent, those whose contents differ.
        parts: part of the model to bytes of weights in A and in B, those that differ.
        answers: output to how far B's is from A's on A's golden inputs; None where the two cannot be compared.
        why: the reason for that.
    """

    fields: dict[str, tuple[Any, Any]]
    files: dict[str, tuple[int | None, int | None]]
    parts: dict[str, tuple[int, int]]
    answers: dict[str, ErrorStats] | None
    why: str = ""

    def __repr__(self) -> str:
        told = [f"{len(self.fields)} fields", f"{len(self.files)} files"]
        told += [f"{name} {stats.sqnr_db:.1f} dB apart" for name, stats in (self.answers or {}).items()]
        return f"Difference({', '.join(told)})"

    def flat(self) -> list[dict[str, Any]]:
        """A row for each field, file, part and output."""
        told = [("field", name, *pair) for name, pair in self.fields.items()]
        told += [("file_bytes", name, *pair) for name, pair in self.files.items()]
        told += [("weight_bytes", name, *pair) for name, pair in self.parts.items()]
        told += [("sqnr_db", name, None, stats.sqnr_db) for name, stats in (self.answers or {}).items()]
        return [{"what": what, "name": name, "a": a, "b": b} for what, name, a, b in told]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def compare(a: Path, b: Path) -> Difference:
    """Compare two bundles; both models are run.

    Raises:
        InputError: one of them is no bundle, or damaged.
        MissingDependency: a runtime is not installed.
    """
    ours, theirs = bundle.read(a), bundle.read(b)
    left, right = asdict(ours), asdict(theirs)
    fields = {key: (left[key], right[key]) for key in left if key not in APART and left[key] != right[key]}
    files = {}
    for name in sorted({*ours.files, *theirs.files}):
        one, other = ours.files.get(name), theirs.files.get(name)
        if one is None or other is None or one["sha256"] != other["sha256"]:
            files[name] = (one["bytes"] if one else None, other["bytes"] if other else None)
    names = {**ours.parts, **theirs.parts}
    sizes = {name: (ours.parts.get(name, 0), theirs.parts.get(name, 0)) for name in names}
    answers, why = _answers(a, b, ours, theirs)
    return Difference(fields, files, {name: pair for name, pair in sizes.items() if pair[0] != pair[1]}, answers, why)


def _answers(a: Path, b: Path, ours: Manifest, theirs: Manifest) -> tuple[dict[str, ErrorStats] | None, str]:
    """B's answers against A's, on A's golden inputs."""
    if ours.task != theirs.task:
        return None, f"A is for {ours.task}, B for {theirs.task}"
    if ours.vocab_size != theirs.vocab_size:
        return None, f"A has {ours.vocab_size} ids, B {theirs.vocab_size}"
    longest = theirs.lengths[-1]
    batches = [b for b in golden.load(a / bundle.GOLDEN).batches if b.inputs["input_ids"].shape[1] <= longest]
    if not batches:
        return None, f"A's shortest length is {ours.lengths[0]}, B's longest {longest}"
    with open_bundle(a) as first, open_bundle(b) as second:
        try:
            pairs = [(first.run(batch.inputs), second.run(batch.inputs)) for batch in batches]
        except InputError as error:
            return None, str(error)
    masks = [batch.inputs["attention_mask"] for batch in batches]
    stats = {}
    for name in pairs[0][0]:
        if any(one[name].shape != other[name].shape for one, other in pairs):
            return None, f"{name} has shape {pairs[0][0][name].shape} in A and {pairs[0][1][name].shape} in B"
        sides = [[golden.cut(pair[side][name]) for pair in pairs] for side in (0, 1)]
        stats[name] = parity.compare(sides[0], sides[1], masks, name, PLAIN)
    return stats, ""
