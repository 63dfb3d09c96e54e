"""How many wrong models pass the gate: tiny models broken in one way each, exported as if they were the right one.

    python benchmarks/wrong_models.py [--family bert] [--target tflite ...] [--recipe fp32 w8a8-dynamic] [--only NAME]

The converter is given a broken copy of a model, or broken code, and the gate the right one, as when a converter breaks
it. A model that passes is listed with its true error: how far the broken model is from the right one, both in float.
Needs `pip install -e ".[all,test]"`; a model takes 2 to 15 seconds a target and recipe.
"""

import argparse
import contextlib
import copy
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import edgebert
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import EdgebertError, ParityFailed
from edgebert.exporters import EXPORTERS
from edgebert.gate import golden
from edgebert.gate.parity import FLOAT, compare
from edgebert.lowering import channels_first
from edgebert.models import MODELS, Model, bert, convbert, layers
from edgebert.quantization.recipes import TARGET_RECIPES

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from tiny import visible

LENGTHS = (16,)  # TFLite converts lengths one by one, and a second one takes as long again
AT = 1  # the layer that is broken

Break = Callable[[Model], None]


@dataclass(frozen=True, slots=True)
class Wrong:
    """One way to be wrong.

    Attributes:
        name: what is wrong.
        weights: changes the model that is converted.
        code: changes what the model computes while it is converted.
    """

    name: str
    weights: Break = lambda model: None
    code: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


def wrongs(model: Model) -> Iterator[Wrong]:
    """Every way: each tensor in several, and the structure."""
    for name, parameter in model.named_parameters():
        yield Wrong(f"{name} negated", _change(name, lambda p: p.neg_()))
        yield Wrong(f"{name} times 1.1", _change(name, lambda p: p.mul_(1.1)))
        yield Wrong(f"{name} with one number negated", _change(name, _one))
        yield Wrong(f"{name} zero", _change(name, lambda p: p.zero_()))
        if parameter.dim() > 1:
            yield Wrong(f"{name} with its last two rows swapped", _change(name, _swap))
            yield Wrong(f"{name} turned by a row", _change(name, lambda p: p.copy_(p.roll(1, 0))))
    position = "encoder.embeddings.position.weight"
    yield Wrong("positions off by one from 8 on", _change(position, lambda p: p[8:].copy_(p[8:].roll(1, 0))))
    yield Wrong("layers swapped", _reversed)
    yield Wrong("query and key swapped", _exchange("query", "key"))
    yield Wrong("key and value swapped", _exchange("key", "value"))
    yield Wrong("norms' epsilon 0.01", _epsilon)
    yield Wrong("GELU by tanh", _tanh)
    for name, code in CODE.items():
        yield Wrong(name, code=code)


def _change(name: str, what: Callable[[torch.Tensor], object]) -> Break:
    def change(model: Model) -> None:
        what(model.get_parameter(name))

    return change


def _one(parameter: torch.Tensor) -> None:
    flat = parameter.view(-1)
    flat[flat.abs().argmax()].neg_()


def _swap(parameter: torch.Tensor) -> None:
    parameter[-2:] = parameter[-2:].flip(0).clone()


def _exchange(one: str, other: str) -> Break:
    def change(model: Model) -> None:
        attention: Any = model.encoder.get_submodule(f"layers.{AT}.attention")
        first, second = getattr(attention, one), getattr(attention, other)
        setattr(attention, one, second)
        setattr(attention, other, first)

    return change


def _reversed(model: Model) -> None:
    model.encoder.layers = nn.ModuleList(list(model.encoder.get_submodule("layers").children())[::-1])


def _tanh(model: Model) -> None:
    for layer in model.encoder.get_submodule("layers").children():
        layer.act = layers.ACTIVATIONS["gelu_new"]


def _epsilon(model: Model) -> None:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 0.01


@contextlib.contextmanager
def _layers(change: Callable[[int, Any, torch.Tensor, torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let every encoder's loop over its layers do something else: number, layer, x and mask to x."""

    def called(encoder: Any) -> None:
        for number, layer in enumerate(encoder.layers):
            plain = type(layer).forward
            layer.forward = lambda x, mask, n=number, own=layer, run=plain: change(
                n, lambda a, b: run(own, a, b), x, mask
            )

    kinds = (bert.BertEncoder, convbert.ConvBertEncoder, channels_first.ChannelEncoder)
    with contextlib.ExitStack() as stack:
        for kind in kinds:
            forward = kind.forward

            def wrong(self: Any, *given: Any, forward: Any = forward) -> Any:
                called(self)
                try:
                    return forward(self, *given)
                finally:
                    for layer in self.layers:
                        vars(layer).pop("forward", None)

            stack.enter_context(mock.patch.object(kind, "forward", wrong))
        yield


CODE: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "mask left out of one layer": lambda: _layers(lambda n, run, x, mask: run(x, mask * 0 if n == AT else mask)),
    "mask left out of all layers": lambda: _layers(lambda n, run, x, mask: run(x, mask * 0)),
    "mask a tenth": lambda: _layers(lambda n, run, x, mask: run(x, mask * 1e-4)),
    "one layer left out": lambda: _layers(lambda n, run, x, mask: x if n == 0 else run(x, mask)),
    "one layer twice": lambda: _layers(lambda n, run, x, mask: run(run(x, mask), mask) if n == 0 else run(x, mask)),
    "a residual beside a layer": lambda: _layers(lambda n, run, x, mask: run(x, mask) + (0.1 if n == 0 else 0.0) * x),
    "no token types": lambda: mock.patch.object(layers.Embeddings, "forward", _without_types),
}


def _without_types(self: Any, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
    position = self.position.weight[: input_ids.shape[1]]
    out: torch.Tensor = self.norm(self.word(input_ids) + position + self.token_type(token_type_ids * 0))
    return out


def true_error(model: Model, wrong: Wrong, broken: Model) -> tuple[float, float]:
    """Decibel between the right and the broken model in float, and the share of equal labels."""
    batch = golden.make(model, None, LENGTHS).batches[-1]
    with wrong.code():
        other = golden.answer(broken, batch.inputs)
    found = [compare([batch.expected[n]], [other[n]], [batch.inputs["attention_mask"]], n, FLOAT) for n in other]
    labels = [one.label_agreement for one in found if one.label_agreement is not None]
    return min(one.sqnr_db for one in found), min(labels, default=1.0)


def passes(model: Model, wrong: Wrong, broken: Model, target: str, recipe: str, work: Path) -> str | None:
    """What refused a broken model; None where it passed."""
    real = EXPORTERS[target]

    def export(given: Model, *rest: Any) -> Any:
        with wrong.code():
            return real.export(broken, *rest)

    checkpoint = Checkpoint(model, None, "tiny", {}, "random: tiny", ())
    with mock.patch.dict(EXPORTERS, {target: SimpleNamespace(**vars(real) | {"export": export})}):
        try:
            edgebert.export(checkpoint, target=target, recipe=recipe, lengths=LENGTHS, out=work / "out", force=True)
        except ParityFailed as error:
            return next(check.name for check in error.report.checks if not check.passed)
        except EdgebertError as error:
            return f"refused: {str(error)[:60]}"
    return None


def main() -> None:
    """Break, export, and print what passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", default="bert", choices=list(MODELS))
    parser.add_argument("--task", default="sequence-classification")
    parser.add_argument("--target", nargs="+", default=list(TARGET_RECIPES))
    parser.add_argument("--recipe", nargs="+", default=["fp32", "w8a8-dynamic", "w8a8-static"])
    parser.add_argument("--only", default="", help="ways whose name holds this text")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = visible(asked.family, asked.task)
    table = Table("target", "recipe", "wrong models", "pass", "by which check the others fell", "right ones refused")
    left = Table("passed", "in", "true error, dB", "equal labels")
    for target in asked.target:
        for recipe in [name for name in asked.recipe if name in TARGET_RECIPES[target]]:
            fell: dict[str, int] = {}
            count = passed = 0
            with tempfile.TemporaryDirectory() as made:
                right = passes(model, Wrong("nothing"), model, target, recipe, Path(made))
                for wrong in [one for one in wrongs(model) if asked.only in one.name]:
                    broken = copy.deepcopy(model)
                    with torch.no_grad():
                        wrong.weights(broken)
                    error, labels = true_error(model, wrong, broken)
                    check = passes(model, wrong, broken, target, recipe, Path(made))
                    count += 1
                    if check is None:
                        passed += 1
                        left.add_row(
                            wrong.name,
                            f"{target} {recipe}",
                            "equal" if np.isinf(error) else f"{error:.0f}",
                            f"{labels:.3f}",
                        )
                    else:
                        fell[check] = fell.get(check, 0) + 1
                    print(
                        f"{target} {recipe} {wrong.name}: {check or 'PASSED'} ({error:.0f} dB)",
                        file=sys.stderr,
                        flush=True,
                    )
            reasons = ", ".join(f"{name} {n}" for name, n in sorted(fell.items(), key=lambda item: -item[1]))
            table.add_row(target, recipe, str(count), str(passed), reasons, right or "no")
    Console().print(table, left)


if __name__ == "__main__":
    main()
