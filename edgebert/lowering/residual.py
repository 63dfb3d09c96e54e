"""What goes through an encoder from norm to norm: who reads it, what is added to it, and biases that pass along it."""

import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgebert.lowering.rewrite import derived, duplicate, matched, understood
from edgebert.models import bert, convbert
from edgebert.models.family import Model, executed


@dataclass(frozen=True, slots=True)
class Stage:
    """Half a layer: a stream of hidden states, and what attention or feed-forward makes of it, added and normalized.

    Attributes:
        source: what gives the stream: the norm before, or the projection of the embeddings.
        readers: the projections that read it; their weights are linear in it.
        joined: the projection whose output is added to it.
        norm: of the sum.
        by_token: whether each reader sees a token alone; ConvBERT's span sees its neighbours, and zeros at the ends.
    """

    source: nn.LayerNorm | nn.Linear
    readers: tuple[nn.Module, ...]
    joined: nn.Module
    norm: nn.LayerNorm
    by_token: bool = True


# What is known to add to the stream and to normalize it as `Stage` says.
LAYERS = (bert.Layer, convbert.Layer)
ATTENTIONS = (bert.Attention, convbert.MixedAttention)
READERS = ("query", "key", "value", "span_key", "span_value")


def stages(model: Model) -> Iterator[Stage]:
    """The halves of a model's layers in order; none where layers do not work on (B, T, C).

    Of a layer that runs several times there is what stands between the same parts each time: its second half, and not
    its first, into which more than one norm or projection gives its stream.
    """
    found = list(_halves(model.encoder))
    ends = {layer.norm for layer in executed(model.encoder)[-1:]}
    for stage in dict.fromkeys(found):
        rivals = [other for other in found if other.norm is stage.norm or other.source is stage.source]
        if stage.source not in ends and all(other == stage for other in rivals):
            yield stage


def _halves(encoder: Any) -> Iterator[Stage]:
    """The halves of layers as they run, up to one that is not known; none where that one may stand between others."""
    project = getattr(encoder, "project", nn.Identity())
    source = encoder.embeddings.norm if isinstance(project, nn.Identity) else project
    uses = executed(encoder)
    known = [understood(layer, LAYERS) and understood(layer.attention, ATTENTIONS) for layer in uses]
    if len(set(uses)) < len(uses) and not all(known):
        return
    for layer in itertools.compress(uses, itertools.accumulate(known, operator.and_)):
        attention = layer.attention
        found = {name: getattr(attention, name) for name in READERS if hasattr(attention, name)}
        span = found.pop("span_key", None)
        readers = (*found.values(), *([] if span is None else [span.pointwise]))
        yield Stage(source, readers, attention.out, layer.attention_norm, span is None)
        yield Stage(layer.attention_norm, (layer.up,), layer.down, layer.norm)
        source = layer.norm


def tell_stages(lowered: Model, rewrite: str) -> None:
    """Report the layers that a rewrite of the residual stream finds; see `rewrite.matched` for what it raises."""
    dict(matched(lowered, rewrite, (*LAYERS, *ATTENTIONS)))


def projections(module: nn.Module) -> list[Any]:
    """The linear layers and 1x1 convolutions, in the order of their outputs, that make up a projection."""
    return [part for part in module.modules() if isinstance(part, nn.Linear | nn.Conv2d)]


def dense(layer: nn.Module) -> tuple[Tensor, Tensor, int]:
    """Weight (outputs, inputs of a group), bias and groups of a projection in any of its forms."""
    parts = projections(layer)
    groups = parts[0].groups if isinstance(parts[0], nn.Conv2d) else len(parts)
    weights, biases = ([getattr(part, name) for part in parts] for name in ("weight", "bias"))
    weight = torch.cat([part.detach() for part in weights]).flatten(1)
    return derived(weight, *weights), derived(torch.cat([part.detach() for part in biases]), *biases), groups


def multiply(module: nn.Module, factor: float, *names: str) -> None:
    """Give a module's parts new parameters, the old ones times a factor."""
    for part in [module] if isinstance(module, nn.LayerNorm) else projections(module):
        for name in names:
            if (old := getattr(part, name)) is not None:
                part.register_parameter(name, derived(old.detach() * factor, old))


def fold_norm_biases(model: Model) -> Model:
    """Leave out the biases of norms between layers: what they add goes into the biases of those that read them.

    A stream without its norm's bias reaches a projection as if its bias lacked what the projection makes of it, and
    the sum after that as if the projection added to it lacked it. SqueezeBERT-base's classifier in int8 at 128 tokens
    takes 1.2 M of 361.1 M instructions less in LiteRT.

    Args:
        model: one whose layers work on (B, T, C). Where neighbours are read with zeros beyond the ends, biases stay.
    """
    lowered = duplicate(model)
    tell_stages(lowered, "fold_norm_biases")
    for stage in stages(lowered):
        if isinstance(stage.source, nn.LayerNorm) and stage.by_token:
            constant = stage.source.bias.detach()
            for reader in stage.readers:
                _add_bias(reader, _answer(reader, constant))
            _add_bias(stage.joined, constant)
            stage.source.register_parameter("bias", None)
    return lowered.eval()


@torch.no_grad()
def _answer(layer: nn.Module, constant: Tensor) -> Tensor:
    """What a projection makes of one vector, without its bias."""
    nothing: Tensor = layer(torch.zeros_like(constant)[None, None])
    answer: Tensor = layer(constant[None, None])
    return (answer - nothing)[0, 0]


def _add_bias(layer: nn.Module, more: Tensor) -> None:
    """Give a projection new biases, the old ones plus more."""
    parts = projections(layer)
    pieces = torch.split(more, [len(part.weight) for part in parts])
    for part, piece in zip(parts, pieces, strict=True):
        part.register_parameter("bias", derived(part.bias.detach() + piece, part.bias))
