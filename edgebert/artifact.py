"""What an exporter hands back: the file it wrote, how it is to be fed, and what became of each weight."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stored:
    """How one tensor of the torch model stands in a file.

    Attributes:
        dtype: `float32`, `float16`, `int8`, `int4`.
        bytes: what it takes in the file, scales and zero points included.
    """

    dtype: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """One exported model file.

    Attributes:
        path: the file.
        lengths: sequence lengths it takes, ascending. With `dynamic`, any length from 1 to the last.
        dynamic: whether the token axis is free.
        tools: name and version of everything that had a hand in it.
        weights: parameter of the torch model (`encoder.layers.0.up.weight`) to how it is stored; one that several
            modules share stands under its first name.
        lowerings: rewrite of the torch model (see `edgebert/lowering`) to the modules that it matched.
        notes: what a rewrite left as it was, and why.
    """

    path: Path
    lengths: tuple[int, ...]
    dynamic: bool
    tools: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Stored] = field(default_factory=dict)
    lowerings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
