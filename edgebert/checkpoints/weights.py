"""Weights under transformers' names and under ours: the strict way in, and the way out.

The tables from their names to ours stand beside each architecture, in its Family.
"""

import dataclasses
import fnmatch
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgebert.errors import InputError
from edgebert.models import Family, Model, outline

BARE = ("base", "sentence-embedding")  # tasks that transformers' class without a head is for
# Types of numbers that are computed with here, in float32.
SHOWN = 10  # names in a message
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def our_name(family: Family, config: Any, task: str, theirs: str) -> str | None:
    """The name in our model of a tensor in a checkpoint; None where no part of the task has it."""
    bare = theirs.removeprefix(family.prefix)
    module, _, leaf = bare.rpartition(".")
    leaf = {"gamma": "weight", "beta": "bias"}.get(leaf, leaf)  # the names of the first BERT releases
    numbers = re.findall(r"\.(\d+)(?=\.)", module)
    pattern = re.sub(r"\.\d+(?=\.)", ".{}", module)
    head = {name.removeprefix(family.prefix): ours for name, ours in family.head_weights[task].items()}
    if pattern.count("{}") != len(numbers):  # braces of the file's own
        return None
    if pattern in family.encoder_weights:
        if numbers and family.layer_numbers is not None:
            known = family.layer_numbers(config)
            theirs_here = tuple(map(int, numbers))
            if theirs_here not in known:
                return None
            numbers = [str(known.index(theirs_here))]
        return f"encoder.{family.encoder_weights[pattern].format(*numbers)}.{leaf}"
    if pattern in head:
        return f"head.{head[pattern].format(*numbers)}.{leaf}"
    return None


def assemble(
    family: Family, config: Any, task: str, tensors: Mapping[str, Tensor], random_head: int | None = None
) -> tuple[Model, tuple[str, ...]]:
    """Build the model and put every tensor in its place.

    Args:
        family: the architecture.
        config: its sizes.
        task: the head.
        tensors: by the checkpoint's names; what wrappers have put before all of them is taken off.
        random_head: the seed to draw a head with, where the checkpoint has none for the task; None refuses that.

    Raises:
        InputError: a tensor is missing, left over in the encoder, of another shape, or none of numbers; up to ten of a
            kind are named.
        Unsupported: the family has no such task.
    """
    tensors, notes = _unwrapped(family, config, task, family.renamed(tensors))
    wanted = {name: tensor.shape for name, tensor in outline(family, config, task).state_dict().items()}
    names = {theirs: our_name(family, config, task, theirs) for theirs in sorted(tensors)}
    placed = {theirs: ours for theirs, ours in names.items() if ours in wanted}
    unplaced = sorted(set(names) - set(placed))
    dropped = [name for name in unplaced if not _of_encoder(family, name)]
    notes += [f"not needed for {task}: {_shown(dropped)}"] if dropped else []

    given = _numbers(tensors, placed)
    config, note = _ties(config, task, given)
    notes += note
    model = outline(family, config, task)
    learned = any(name.startswith("head.") for name in wanted)
    if task == "base" and learned and not any(name.startswith("head.") for name in given):
        model.head.register_module("pooler", None)
        notes.append("no pooler: last_hidden_state alone")
        wanted = {name: shape for name, shape in wanted.items() if not name.startswith("head.")}
    if random_head is not None:
        given |= _drawn(model, set(wanted) - set(given), random_head)
        notes.append(f"the head's weights are random, seed {random_head}: train it before its answers mean anything")
    _compare(wanted, given, sorted(set(unplaced) - set(dropped)), model)
    _check_finite(given, model)
    model.load_state_dict(given, assign=True)
    model.tie()
    return model.requires_grad_(False), tuple(notes)


def _unwrapped(
    family: Family, config: Any, task: str, tensors: Mapping[str, Tensor]
) -> tuple[Mapping[str, Tensor], list[str]]:
    """Tensors without what compilers, wrappers and trainers have put before their names, such as `module.`."""
    word = "encoder.embeddings.word.weight"
    # The longest rest of a name that is the word table's: what is before it is a wrapper's, or nothing.
    found = {}
    for name in tensors:
        parts = name.split(".")
        rests = (".".join(parts[i:]) for i in range(len(parts)))
        rest = next((rest for rest in rests if our_name(family, config, task, rest) == word), None)
        if rest is not None:
            found[name] = name.removesuffix(rest)
    befores = set(found.values())
    if len(befores) != 1 or befores == {""}:
        return tensors, []  # with two word tables nobody knows which is meant; the message below names both
    (before,) = befores
    bare = {name.removeprefix(before): tensor for name, tensor in tensors.items()}
    if len(bare) < len(tensors):
        return tensors, []
    return bare, [f"names without {before}, which a wrapper put before them"]


def _of_encoder(family: Family, name: str) -> bool:
    """Whether a tensor that has no place looks like a part of the encoder, which then is not what the config says."""
    if any(fnmatch.fnmatch(name, pattern) for pattern in family.harmless):
        return False
    if family.prefix and name.startswith(family.prefix):
        return True
    first = {pattern.partition(".")[0] for pattern in family.encoder_weights}
    return name.partition(".")[0] in first


def _drawn(model: Model, missing: set[str], seed: int) -> dict[str, Tensor]:
    """Random tensors for those of a head that are missing, drawn as the papers do."""
    other = outline(model.family, model.config, model.task).in_memory().random_init(seed)
    return {name: tensor for name, tensor in other.state_dict().items() if name in missing and name.startswith("head.")}


def _shown(names: Sequence[str]) -> str:
    """Up to ten names, and what is common to them once."""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False) if len(names) > 1 else ()
    common = "".join(f"{same[0]}." for same in itertools.takewhile(lambda same: len(set(same)) == 1, parts))
    rests = [name.removeprefix(common) for name in names[:SHOWN]]
    listed = ", ".join(rests) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{common}({listed})" if common else listed


def _numbers(tensors: Mapping[str, Tensor], placed: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors in float32 under our names.

    Raises:
        InputError: one is not dense and of floats, or two that are one weight here have two values.
    """
    given: dict[str, Tensor] = {}
    of: dict[str, str] = {}
    for theirs, ours in placed.items():
        if odd := _odd(tensors[theirs]):
            raise InputError(f"{theirs} is {odd}: a dense tensor of float32, float16, bfloat16 or float64 is needed.")
        tensor = tensors[theirs].float()
        # A decoder's bias stands under an older name as well; transformers computes with the newer one.
        newer = theirs == of.get(ours, "").removesuffix("bias") + "decoder.bias"
        if ours in given and not newer and not torch.equal(given[ours], tensor):
            raise InputError(
                f"{of[ours]} and {theirs} are names of one weight and have two values: leave one of them out."
            )
        given[ours], of[ours] = tensor, theirs
    return given


def _odd(tensor: Tensor) -> str:
    """What makes a tensor none that a weight can be; empty for one that can."""
    if tensor.is_quantized:
        return "quantized"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "sparse or nested"
    if tensor.device.type != "cpu":
        return f"on {tensor.device.type}, without values"
    if tensor.dtype not in FLOATS:
        return f"of {str(tensor.dtype).removeprefix('torch.')}"
    # A view that repeats one number may stand for more of them than there is memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "larger than its data"
    return ""


def _check_finite(given: Mapping[str, Tensor], model: Model) -> None:
    """Raise InputError where a weight is no number: nothing that is computed with it could be compared."""
    theirs = {ours: name for name, ours in hf_names(model).items()}
    for ours, tensor in given.items():
        if not all(math.isfinite(bound) for bound in map(float, torch.aminmax(tensor))):
            raise InputError(f"{theirs[ours]} holds NaN or infinity: no answer comes of it; take a sound checkpoint.")


def _ties(config: Any, task: str, given: dict[str, Tensor]) -> tuple[Any, list[str]]:
    """Settle whether the output embedding is the word embedding; fills it in where the file leaves it out."""
    if task not in ("masked-lm", "causal-lm") or not config.tie_word_embeddings:
        return config, []
    words = given.get("encoder.embeddings.word.weight")
    decoder = given.get("head.decoder.weight")
    if decoder is None and words is not None:
        given["head.decoder.weight"] = words
    elif decoder is not None and words is not None and not torch.equal(decoder, words):
        # As transformers 5 does: two different matrices in the file count for more than the config's word.
        apart = dataclasses.replace(config, tie_word_embeddings=False)
        return apart, ["config.json ties the embeddings, but the file's two differ: loaded apart"]
    return config, ["tied: the output embedding is the word embedding"]


def _compare(wanted: Mapping[str, torch.Size], given: Mapping[str, Tensor], leftover: list[str], model: Model) -> None:
    """Raise InputError unless the tensors given are just those wanted; name every one that differs."""
    theirs = {ours: name for name, ours in hf_names(model).items()}
    missing = sorted(theirs[name] for name in set(wanted) - set(given))
    shapes = [
        f"{theirs[name]} is {tuple(given[name].shape)}, not {tuple(shape)}"
        for name, shape in sorted(wanted.items())
        if name in given and given[name].shape != shape
    ]
    problems = [
        f"{what} {len(names)}: {_shown(names)}"
        for what, names in (("missing", missing), ("left over", leftover), ("wrong shape", shapes))
        if names
    ]
    if problems:
        raise InputError(
            f"the weights do not fit a {model.family.name} for {model.task}: {'; '.join(problems)}. "
            "Give the checkpoint's own config.json, another --task, or --random-head for a head that is to be trained."
        )


def hf_names(model: Model) -> dict[str, str]:
    """{name in transformers: name here} of every tensor of a model; the decoder's bias under its own name."""
    family = model.family
    prefix = "" if model.task in BARE else family.prefix
    tables = {f"encoder.{ours}": prefix + theirs for theirs, ours in family.encoder_weights.items()}
    for theirs, ours in family.head_weights[model.task].items():
        tables.setdefault(f"head.{ours}", theirs)
    names = {}
    for name in model.state_dict():
        module, _, leaf = name.rpartition(".")
        numbers = re.findall(r"\.(\d+)(?=\.)", module)
        pattern = re.sub(r"\.\d+(?=\.)", ".{}", module)
        if numbers and family.layer_numbers is not None and name.startswith("encoder."):
            numbers = list(map(str, family.layer_numbers(model.config)[int(numbers[0])]))
        names[f"{tables[pattern].format(*numbers)}.{leaf}"] = name
    return names


def hf_tensors(model: Model) -> dict[str, Tensor]:
    """A model's weights under transformers' names; a tied output embedding is left out, as transformers does."""
    state = model.state_dict()
    tensors = {
        theirs: state[ours].contiguous()
        for theirs, ours in hf_names(model).items()
        if not (model.tied and ours == "head.decoder.weight")
    }
    width = len(model.encoder.get_submodule("layers.0").get_parameter("norm.weight"))
    for module in model.family.unused_by_task.get(model.task, ()):
        # Never read, but without it transformers would warn and draw random numbers.
        tensors |= {f"{module}.weight": torch.zeros(width, width), f"{module}.bias": torch.zeros(width)}
    return tensors
