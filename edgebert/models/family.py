"""What a family declares about itself, and the one module that joins its encoder with a task head."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgebert.errors import InputError, Unsupported
from edgebert.models.config import PARAMETERS
from edgebert.models.heads import MeanClassifier, Outputs, SentenceEmbedding
from edgebert.models.layers import NoNorm


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture as a value; each file in this folder ends with its own.

    What the rest of the project reads of a family, and a test holds each one to:

    - the config: `vocab_size`, `max_position_embeddings`, `type_vocab_size` (1 or 0 where token types are ignored),
      `pad_token_id`, `tie_word_embeddings`, `initializer_range`, `labels`, `pooling`, and the field that `depth` names;
    - the encoder is embeddings, then `project` where it has one, then `layers` under one additive mask, which with
      `causal` (a bool, where the family can be causal) also hides what comes after a token, and where the encoder has a
      module `position_bias`, which makes a term (H, T, T) of a number of tokens, has that added to it once;
    - `encoder.embeddings` has `word` (nn.Embedding), `position` where positions have a table, `token_type` where there
      are token types, and `norm` (nn.LayerNorm or NoNorm); it reads the position table's rows in order, from its
      attribute `first` on where it has one, else from the first;
    - `encoder.project` is nn.Identity or nn.Linear; `encoder.layers` is an nn.ModuleList of layers, each with
      `attention`, `attention_norm`, `up`, `down` and `norm`, which `down` comes before or, in layers that normalize
      their input, after; those may lack the first `attention_norm` (nn.Identity) and end in `encoder.norm`. Norms may
      have no bias. Rewrites know by its type what a layer computes, and leave others alone;
    - each of `encoder.layers` is another: parameters that are shared are there once. They run as `order` says, a tuple
      of their numbers in which one may come again, and where the encoder has none in the order in which they stand.
      `executed` gives them as they run. What changes a layer changes each of its uses; what is for one use alone goes
      into a copy of the layer that is `parted` from the others and has their parameters;
    - rotary positions are `layers.Rotary`, wherever they stand in the encoder;
    - a head for language modelling has `decoder` (nn.Linear over the vocabulary), with `bias` where the config does not
      say otherwise; one for classes has `classifier`;
    - buffers are constants of the config, on the CPU wherever the model is made, and in no checkpoint.

    Attributes:
        name: the family, equal to `model_type` in Hugging Face's `config.json`.
        paper: the arXiv number of the paper it is defined by.
        config: the frozen config class, with `from_hf(dict)`, `tiny()` and Hugging Face's field names.
        encoder: module class; `encoder(config)(input_ids, attention_mask, token_type_ids)` gives (B, T, C).
        heads: task name to a function that makes that task's head from a config.
        architectures: Hugging Face class name to task name; the first name of a task is the one written out.
        prefix: what a Hugging Face task model puts before the encoder's tensor names.
        encoder_weights: {their module: ours}, `{}` for a layer's number, names relative to `prefix`.
        head_weights: task to {their module: ours}, whole names.
        harmless: patterns (fnmatch) of tensors that checkpoints carry and no task here needs.
        unused_by_task: modules that transformers' class holds though the task never calls them.
        presets: published size to the config it stands for, for work without weights.
        parts: types of modules that it is made of and that rewrites of `edgebert/lowering` look for. One that finds no
            module of a type that stands here is an error: leave out what is not to be rewritten.
        padding_invariant: whether the paper's definition gives the same answer when a sentence is padded further.
        depth: the config's field that counts the layers.
        token_cuts: whether layers cut at places that the number of tokens tells: a target which cuts no free axis makes
            a graph for each length.
        first_position: of a config, the row of the position table that the first token reads: as many positions fewer
            than `max_position_embeddings` are left.
        model_types: what `config.json` calls it; empty where that is the name alone.
        layer_numbers: of a config, the numbers that transformers' names have for each of `encoder.layers`; None where
            that is the one under which it stands here.
        period: of a config, after how many layers their kinds come again.
        renamed: a checkpoint's tensors, those of an older release under the names and in the shapes of the newer one.
    """

    name: str
    paper: str
    config: Any
    encoder: Callable[[Any], nn.Module]
    heads: Mapping[str, Callable[[Any], nn.Module]]
    architectures: Mapping[str, str]
    prefix: str
    encoder_weights: Mapping[str, str]
    head_weights: Mapping[str, Mapping[str, str]]
    harmless: tuple[str, ...]
    presets: Mapping[str, Any]
    unused_by_task: Mapping[str, tuple[str, ...]]
    parts: tuple[type[nn.Module], ...] = ()
    padding_invariant: bool = True
    depth: str = "num_hidden_layers"
    first_position: Callable[[Any], int] = lambda config: 0
    token_cuts: bool = False
    model_types: tuple[str, ...] = ()
    layer_numbers: Callable[[Any], tuple[tuple[int, ...], ...]] | None = None
    period: Callable[[Any], int] = lambda config: 1
    renamed: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = lambda tensors: tensors

    def longest(self, config: Any) -> int:
        """The most tokens that a model of this config takes."""
        return int(config.max_position_embeddings) - self.first_position(config)

    def head(self, task: str) -> Callable[[Any], nn.Module]:
        """A task's head, or Unsupported where the family has none for it."""
        if task not in self.heads:
            raise Unsupported(f"{self.name} has no task {task!r}; it has {', '.join(self.heads)}.")
        return self.heads[task]


class Model(nn.Module):
    """An encoder with a task head, ready for inference in float32.

    `forward` takes `input_ids`, `attention_mask` and `token_type_ids`, int32 or int64, shape (B, T), and returns the
    task's outputs by name. For multiple choice it takes (B, N, T) too and gives `logits` (B, N); rank 2 gives one score
    a row, (B, 1).

    Attributes:
        parts: the family's, or those that a rewrite put in their place.
        lowerings: rewrite to the modules that it matched, of a copy that was lowered (see `edgebert/lowering`).
        notes: what a rewrite left as it was, and why.
    """

    def __init__(self, family: Family, config: Any, task: str) -> None:
        super().__init__()
        head = family.head(task)
        self.family = family
        self.config = config
        self.task = task
        self.encoder = family.encoder(config)
        self.head = head(config)
        self.parts = family.parts
        self.lowerings: dict[str, tuple[str, ...]] = {}
        self.notes: list[str] = []
        self.tied = task in ("masked-lm", "causal-lm") and config.tie_word_embeddings
        self.tie()
        self.eval()

    def tie(self) -> None:
        """Make the output embedding the word embedding's own tensor, where the config says so."""
        if self.tied:
            decoder, words = self.head.get_submodule("decoder"), self.encoder.get_submodule("embeddings.word")
            decoder.weight = words.get_parameter("weight")

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Outputs:
        """Run a batch; a missing mask means no padding, missing types mean all 0."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        if input_ids.dim() == 3 and self.task == "multiple-choice":
            choices, tokens = input_ids.shape[1:]
            flat = (part.reshape(-1, tokens) for part in (input_ids, mask, types))
            ids, mask, types = flat
            return {"logits": self.answered(self.encoder(ids, mask, types), mask)["logits"].reshape(-1, choices)}
        hidden = self.encoder(input_ids, mask, types)
        return self.answered(hidden, mask)

    def answered(self, hidden: Tensor, mask: Tensor) -> Outputs:
        """What the head makes of hidden states (B, T, C), with the mask (B, T) where it pools."""
        pools = isinstance(self.head, SentenceEmbedding | MeanClassifier)
        out: Outputs = self.head(hidden, mask) if pools else self.head(hidden)
        return out

    def in_memory(self) -> "Model":
        """Memory on the CPU for what stands on the `meta` device; what has numbers, as constants have, keeps them."""
        held = {name: buffer for name, buffer in self.named_buffers() if not buffer.is_meta}
        self.to_empty(device="cpu")
        for name, buffer in held.items():
            self.get_buffer(name).copy_(buffer)
        self.tie()
        return self

    @torch.no_grad()
    def random_init(self, seed: int = 0) -> "Model":
        """Draw weights as the papers initialize them: normal of `initializer_range`, norms 1, biases 0."""
        generator = torch.Generator().manual_seed(seed)
        norms = {id(m.weight) for m in self.modules() if isinstance(m, nn.LayerNorm | NoNorm)}
        for name, parameter in self.named_parameters():
            if id(parameter) in norms:
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(0.0, self.config.initializer_range, generator=generator)
        return self


def executed(encoder: nn.Module) -> list[Any]:
    """An encoder's layers in the order in which they run; one that is shared comes several times."""
    layers = list(encoder.get_submodule("layers").children())
    return [layers[number] for number in getattr(encoder, "order", range(len(layers)))]


def parted(encoder: Any) -> nn.Module:
    """The layer that runs last, for a change to this use alone: a copy with the same parameters where it is shared."""
    uses = executed(encoder)
    last: nn.Module = uses[-1]
    if uses.count(last) == 1:
        return last
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*last.parameters(), *last.buffers())}
    encoder.order = (*encoder.order[:-1], len(encoder.layers))
    last = copy.deepcopy(last, memo)
    encoder.layers.append(last)
    return last


def outline(family: Family, config: Any, task: str) -> Model:
    """The model on torch's `meta` device: sizes, without memory or random numbers for weights.

    Raises:
        InputError: it has more parameters than any encoder of these families.
        Unsupported: the family has no such task.
    """
    with torch.device("meta"):
        model = Model(family, config, task)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > PARAMETERS:
        fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        sizes = ", ".join(f"{name}={value}" for name, value in fields.items() if type(value) is int)
        raise InputError(
            f"config.json: {sizes} and {len(config.labels):,} labels make {count:,} parameters; at most {PARAMETERS:,} "
            "are taken."
        )
    return model
