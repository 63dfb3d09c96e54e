"""Is a file the model, weight by weight and operator by operator? Asked at export, with the torch model at hand.

Rounding to 8 bits hides errors that are as small as it: a bias that was left out, a mask that one layer lacks. So the
file's graph is also run as it stands but without rounding, and held to torch with the file's own numbers for weights:
what is left between the two is the order of sums. Three steps lead from the model to the file, each held alone:

1. rewrites: torch's rewritten model answers what the model answers;
2. numbers: every stored number is the rewritten model's, within half a step of its scale;
3. graph: the file without rounding answers what the rewritten model with these numbers answers.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgebert.errors import EdgebertError
from edgebert.gate import stored
from edgebert.gate.golden import answer_rows, cut
from edgebert.gate.parity import FLOAT, compare
from edgebert.lowering import duplicate
from edgebert.models import Model
from edgebert.models.layers import ACTIVATIONS
from edgebert.models.signature import Arrays, limit_types
from edgebert.quantization.observers import observe
from edgebert.report import Check, Tolerance
from edgebert.runtimes import UNROUNDED
from edgebert.runtimes.session import Unrounded

# Where a file is made for half precision, attention's one over a root is a half.
FOR_HALF = Tolerance(60.0, 1.0, "scalars of half precision; seen 82 to 115 dB, float32 115 to 139")
# What a layer of 4-bit weights may make of its inputs, times what the model's makes; seen 0.945 to 1.02.
LESS, MORE = 0.92, 1.05
# Lengths below the shortest that a file is exported for: odd ones, and one token alone.
SHORT = (1, 2, 3, 7, 13, 29)
ROWS = 3
# Targets whose lowered models take one row at a time.
ALONE = ("coreml",)


@dataclass(frozen=True, slots=True)
class Made:
    """A file with all that is known of how it was made.

    Attributes:
        path: the file.
        model: the torch model that it was made of.
        lowered: the same in the form that the file computes, float32.
        origin: each parameter of that form to those of the model that it is made of.
        lengths: of the file, ascending.
        dynamic: whether every length below is served as it comes.
        target: of the file.
    """

    path: Path
    model: Model
    lowered: Model
    origin: Mapping[str, tuple[str, ...]]
    lengths: tuple[int, ...]
    dynamic: bool
    target: str

    @property
    def fixed(self) -> tuple[int, ...]:
        """The lengths that rows are padded to."""
        return () if self.dynamic else self.lengths

    def answers(self, model: Model, inputs: Arrays) -> Arrays:
        """What a form of the model answers to rows (B, T) that come to the file."""
        return answer_rows(model, inputs, self.fixed, self.target in ALONE)


def check(made: Made) -> tuple[tuple[Check, ...], Model, set[str]]:
    """Hold a file to the model that it was made of.

    Returns:
        The checks, the lowered model with the file's numbers for its weights, and the names of those weights that the
        file has in 8 bits or fewer.
    """
    held = stored.hold(made.lowered, made.origin, UNROUNDED[made.target].constants(made.path))
    carrying = stored.carrying(made.lowered, held.values)
    probes = list(_probes(made.model.config, made.lengths))
    plain, rewritten, wanted = (
        [made.answers(model, probe) for probe in probes] for model in (made.model, made.lowered, carrying)
    )
    held.wrong += _outputs(made.lowered, carrying, held.chosen, probes)
    checks = [_same("rewrites are exact", probes, plain, rewritten, FLOAT), held.check()]
    for form in UNROUNDED[made.target].open_unrounded(made.path):
        if form.by_tanh:
            by_tanh = _by_tanh(carrying)
            wanted = [made.answers(by_tanh, probe) for probe in probes]
        checks.append(_graph(form, probes, wanted, FLOAT if form.exact else FOR_HALF))
    return tuple(checks), carrying, held.packed


def _outputs(lowered: Model, carrying: Model, names: Set[str], probes: list[Arrays]) -> list[str]:
    """Layers whose 4-bit weights make more or less of their inputs than the model's, a line each.

    The weights themselves may be a tenth smaller: integers that are chosen together make up for each other.
    """
    layers = {
        name: module
        for name, module in lowered.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and f"{name}.weight" in names
    }
    twins = dict(carrying.named_modules())
    squares, products = defaultdict[str, float](float), defaultdict[str, float](float)

    def note(name: str, layer: nn.Module, entering: Tensor, leaving: Tensor) -> None:
        plain, other = (
            made.forward(entering) - made.forward(torch.zeros_like(entering)) for made in (layer, twins[name])
        )
        squares[name] += float((plain * plain).sum())
        products[name] += float((plain * other).sum())

    rows = [{key: value[i : i + 1] for key, value in probe.items()} for probe in probes for i in range(ROWS)]
    if layers:
        observe(lowered, layers, rows, note)
    sizes = {name: products[name] / squares[name] for name in layers if squares[name]}
    return [
        f"{name} makes {size:.3f} times what it should of its inputs"
        for name, size in sizes.items()
        if not LESS <= size <= MORE
    ]


def _by_tanh(model: Model) -> Model:
    """A copy whose exact GELUs are their tanh form."""
    copied = duplicate(model)
    modules: Iterator[Any] = copied.modules()
    for module in modules:
        if getattr(module, "act", None) is ACTIVATIONS["gelu"]:
            module.act = ACTIVATIONS["gelu_new"]
    return copied


def _graph(form: Unrounded, probes: list[Arrays], wanted: list[Arrays], tolerance: Tolerance) -> Check:
    """Whether the file's graph, without rounding, is the model's."""
    name = "the graph without rounding is torch's"
    try:
        got = [{key: cut(value) for key, value in form.run(probe).items()} for probe in probes]
    except EdgebertError as error:
        return Check(name, False, str(error))
    return _same(name, probes, wanted, got, tolerance)


def _same(name: str, probes: list[Arrays], wanted: list[Arrays], got: list[Arrays], tolerance: Tolerance) -> Check:
    """Whether answers are the same but for the order of sums, at each length for itself."""
    worst, where = math.inf, "every output"
    for probe, one, other in zip(probes, wanted, got, strict=True):
        tokens = probe["input_ids"].shape[1]
        if set(one) != set(other) or any(one[key].shape != other[key].shape for key in one):
            return Check(name, False, f"at {tokens} tokens its outputs are others")
        for key in one:
            found = compare([one[key]], [other[key]], [probe["attention_mask"]], key, tolerance).sqnr_db
            if not found >= worst:
                worst, where = found, f"{key} at {tokens} tokens"
    least = "equal" if math.isinf(worst) else f"{worst:.0f} dB at least"
    detail = f"{least}, {where} (at least {tolerance.min_sqnr_db:.0f}), at {len(probes)} lengths"
    return Check(name, worst >= tolerance.min_sqnr_db, detail)


def _probes(config: object, lengths: Sequence[int]) -> Iterator[Arrays]:
    """For each length a full row, one that is padded from some place on, and one of two types."""
    vocabulary, types = int(config.vocab_size), int(config.type_vocab_size)  # type: ignore[attr-defined]
    rng = np.random.default_rng(1)
    for length in (*(short for short in SHORT if short < lengths[0]), *lengths):
        ids = rng.integers(0, vocabulary, (ROWS, length), dtype=np.int32)
        mask, kinds = np.ones_like(ids), np.zeros_like(ids)
        mask[1, length // 2 + 1 :] = 0
        kinds[2, length // 2 :] = 1
        yield limit_types({"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}, types)
