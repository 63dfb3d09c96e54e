"""What goes through an encoder from norm to norm: who reads it, what is added to it, and biases that pass along it."""

import itertools
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgebert.lowering.distances import ConstantDistances
from edgebert.lowering.rewrite import NORMS, derived, duplicate, matched, projections, understood
from edgebert.models import bert, convbert, deberta_v2, mobilebert, nomic_bert
from edgebert.models.family import Model, executed
from edgebert.models.layers import NoNorm


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

    source: nn.LayerNorm | NoNorm | nn.Linear
    readers: tuple[nn.Module, ...]
    joined: nn.Module
    norm: nn.LayerNorm | NoNorm
    by_token: bool = True


READERS = ("query", "key", "value", "span_key", "span_value")


def _of_two_halves(layer: Any, source: Any) -> Iterator[Stage]:
    """The stages of a layer that is attention and then a feed-forward, with a gate or without."""
    attention = layer.attention
    found = {name: getattr(attention, name) for name in READERS if hasattr(attention, name)}
    span = found.pop("span_key", None)
    readers = (*found.values(), *([] if span is None else [span.pointwise]))
    yield Stage(source, readers, attention.out, layer.attention_norm, span is None)
    gate = (layer.gate,) if isinstance(layer, nomic_bert.Layer) else ()
    yield Stage(layer.attention_norm, (layer.up, *gate), layer.down, layer.norm)


def _of_mobilebert(layer: Any, source: Any) -> Iterator[Stage]:
    """The stages of a layer of MobileBERT, whose feed-forwards stand in a stream of their own where it is narrowed."""
    attention, narrow, asking = layer.attention, layer.narrow, layer.narrow_attention
    keys = (attention.query, attention.key) if asking is None else ()
    wide = [part.dense for part in (narrow, asking) if part is not None]
    inner = source
    if narrow is None:
        yield Stage(source, (*keys, attention.value), attention.out, layer.attention_norm)
    else:
        of_values = (*keys, attention.value)
        yield Stage(source, (*wide, *(() if layer.values_narrow else of_values)), layer.widen, layer.wide_norm)
        yield Stage(narrow.norm, of_values if layer.values_narrow else (), attention.out, layer.attention_norm)
    inner = layer.attention_norm
    for network in layer.before:
        yield Stage(inner, (network.up,), network.down, network.norm)
        inner = network.norm
    yield Stage(inner, (layer.up,), layer.down, layer.narrow_norm)


# What is known to add to the stream and to normalize it as `Stage` says, and where it does.
LAYERS: dict[type[nn.Module], Callable[[Any, Any], Iterator[Stage]]] = {
    bert.Layer: _of_two_halves,
    convbert.Layer: _of_two_halves,
    deberta_v2.Layer: _of_two_halves,
    mobilebert.Layer: _of_mobilebert,
    nomic_bert.Layer: _of_two_halves,
}
# DeBERTa's keys are distances' too, until those are constants.
ATTENTIONS = (bert.Attention, convbert.MixedAttention, ConstantDistances, mobilebert.Attention, nomic_bert.Attention)


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
    known = [understood(layer, tuple(LAYERS)) and understood(layer.attention, ATTENTIONS) for layer in uses]
    if len(set(uses)) < len(uses) and not all(known):
        return
    convolution = getattr(encoder, "convolution", None)
    for number, layer in enumerate(itertools.compress(uses, itertools.accumulate(known, operator.and_))):
        kind = next(kind for kind in LAYERS if isinstance(layer, kind))
        for stage in LAYERS[kind](layer, source):
            # A convolution reads the embeddings too, and padding among them as zeros.
            if convolution is None or stage.source is not encoder.embeddings.norm:
                yield stage
        source = convolution.norm if convolution is not None and number == 0 else layer.norm


def tell_stages(lowered: Model, rewrite: str) -> None:
    """Report the layers that a rewrite of the residual stream finds; see `rewrite.matched` for what it raises."""
    dict(matched(lowered, rewrite, (*LAYERS, *ATTENTIONS)))


def fold_norm_biases(model: Model, kinds: tuple[type[nn.Module], ...] = NORMS) -> Model:
    """Leave out the biases of norms between layers: what they add goes into the biases of those that read them.

    A stream without its norm's bias reaches a projection as if its bias lacked what the projection makes of it, and
    the sum after that as if the projection added to it lacked it. SqueezeBERT-base's classifier in int8 at 128 tokens
    takes 1.2 M of 361.1 M instructions less in LiteRT.

    Args:
        model: one whose layers work on (B, T, C). Where neighbours are read with zeros beyond the ends, biases stay.
        kinds: of norms: to some targets a LayerNorm's bias costs nothing, and a NoNorm's does.
    """
    lowered = duplicate(model)
    tell_stages(lowered, "fold_norm_biases")
    for stage in stages(lowered):
        if isinstance(stage.source, kinds) and stage.by_token:
            bias = stage.source.bias
            _add_bias(stage.joined, bias.detach(), bias)
            pass_on(stage.source, *stage.readers)
    return lowered.eval()


def pass_on(source: Any, *readers: nn.Module) -> None:
    """Leave out the bias of a norm or linear layer, for what reads it to have."""
    bias = source.bias
    for reader in readers:
        _add_bias(reader, _answer(reader, bias.detach()), bias)
    source.register_parameter("bias", None)


@torch.no_grad()
def _answer(layer: nn.Module, constant: Tensor) -> Tensor:
    """What a projection makes of one vector, without its bias."""
    nothing: Tensor = layer(torch.zeros_like(constant)[None, None])
    answer: Tensor = layer(constant[None, None])
    return (answer - nothing)[0, 0]


def _add_bias(layer: nn.Module, more: Tensor, *made_of: Tensor) -> None:
    """Give a projection new biases: the old ones, where there are, plus more, which is made of other parameters."""
    parts = projections(layer)
    pieces = torch.split(more, [len(part.weight) for part in parts])
    for part, piece in zip(parts, pieces, strict=True):
        # Known by the bias that it was, or where there was none by what it is made of.
        new = derived(piece, *made_of) if part.bias is None else derived(part.bias.detach() + piece, part.bias)
        part.register_parameter("bias", new)
