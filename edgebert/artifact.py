"""What an exporter hands back: the file it wrote and how it is to be fed."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Artifact:
    """One exported model file.

    Attributes:
        path: the file.
        lengths: sequence lengths it takes, ascending. With `dynamic`, any length from 1 to the last.
        dynamic: whether the token axis is free.
        tools: name and version of everything that had a hand in it.
    """

    path: Path
    lengths: tuple[int, ...]
    dynamic: bool
    tools: dict[str, str] = field(default_factory=dict)
