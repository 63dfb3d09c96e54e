"""What goes through a model's layers on sample inputs: the one place that runs a model to look at its activations."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgebert.errors import InputError
from edgebert.models import Model
from edgebert.models.signature import INPUTS

Samples = Sequence[Mapping[str, np.ndarray]]

# A layer's name, the layer, its input and its output.
Note = Callable[[str, nn.Module, Tensor, Tensor], None]


@torch.no_grad()
def observe(
    model: Model, layers: Mapping[str, nn.Module], samples: Samples, note: Note, longest: int | None = None
) -> None:
    """Run a model on samples, and give what enters and leaves some of its layers to `note`, one sample at a time.

    Args:
        model: any model in float; it is not changed.
        layers: those to watch, by whatever name `note` is to be told.
        samples: inputs of one row each, int32 (1, T), unpadded, so that no range is widened by what padding becomes.
        note: is told each watched layer's input and output.
        longest: tokens that a sample is cut to.

    Raises:
        InputError: there are no samples, one lacks an input, or one makes the model's numbers infinite.
    """
    if not samples:
        raise InputError(
            "static scales and 4-bit weights are chosen on sample texts, and none came: give some with --calibration."
        )

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not bool(torch.isfinite(inputs[0]).all()):
                raise FloatingPointError
            note(name, module, inputs[0], output)

        return look

    with ExitStack() as stack:
        for name, layer in layers.items():
            stack.callback(layer.register_forward_hook(watch(name)).remove)
        for i, sample in enumerate(samples):
            if not set(INPUTS) <= set(sample):
                raise InputError(f"sample {i} holds {sorted(sample)}; {', '.join(INPUTS)} are needed.")
            try:
                model(*(torch.from_numpy(np.ascontiguousarray(sample[name][:, :longest], np.int32)) for name in INPUTS))
            except FloatingPointError:
                raise InputError(f"sample {i} makes the model's numbers infinite: the model is broken.") from None
