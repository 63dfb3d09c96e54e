"""Weights under transformers' names and under ours: the strict way in, and the way out.

The tables from their names to ours stand beside each architecture, in its Family.
"""

import dataclasses
import fnmatch
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgebert.errors import InputError
from edgebert.models import Family, Model, outline

# Types of numbers that are computed with here, in float32.
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def our_name(family: Family, task: str, theirs: str) -> str | None:
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
        return f"encoder.{family.encoder_weights[pattern].format(*numbers)}.{leaf}"
    if pattern in head:
        return f"head.{head[pattern]}.{leaf}"
    return None


def assemble(family: Family, config: Any, task: str, tensors: Mapping[str, Tensor]) -> tuple[Model, tuple[str, ...]]:
    """Build the model and put every tensor in its place.

    Raises:
        InputError: a tensor is missing, left over, of another shape, or none of numbers; all of a kind are named.
        Unsupported: the family has no such task.
    """
    wanted = {name: tensor.shape for name, tensor in outline(family, config, task).state_dict().items()}
    names = {theirs: our_name(family, task, theirs) for theirs in sorted(tensors)}
    placed = {theirs: ours for theirs, ours in names.items() if ours in wanted}
    unplaced = sorted(set(names) - set(placed))
    dropped = [name for name in unplaced if any(fnmatch.fnmatch(name, pattern) for pattern in family.harmless)]
    notes = [f"not needed for {task}: {', '.join(dropped)}"] if dropped else []

    given = _numbers(tensors, placed)
    config, note = _ties(config, task, given)
    notes += note
    model = outline(family, config, task)
    _compare(wanted, given, sorted(set(unplaced) - set(dropped)), model)
    _check_finite(given, model)
    model.load_state_dict(given, assign=True)
    model.tie()
    return model.requires_grad_(False), tuple(notes)


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
        f"{what} {len(names)}: {', '.join(names)}"
        for what, names in (("missing", missing), ("left over", leftover), ("wrong shape", shapes))
        if names
    ]
    if problems:
        raise InputError(
            f"the weights do not fit a {model.family.name} for {model.task}: {'; '.join(problems)}. "
            "Give the checkpoint's own config.json, or another --task."
        )


def hf_names(model: Model) -> dict[str, str]:
    """{name in transformers: name here} of every tensor of a model; the decoder's bias under its own name."""
    family = model.family
    prefix = "" if model.task == "base" else family.prefix
    tables = {f"encoder.{ours}": prefix + theirs for theirs, ours in family.encoder_weights.items()}
    for theirs, ours in family.head_weights[model.task].items():
        tables.setdefault(f"head.{ours}", theirs)
    names = {}
    for name in model.state_dict():
        module, _, leaf = name.rpartition(".")
        numbers = re.findall(r"\.(\d+)(?=\.)", module)
        pattern = re.sub(r"\.\d+(?=\.)", ".{}", module)
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
    width = len(state["encoder.layers.0.norm.weight"])
    for module in model.family.unused_by_task.get(model.task, ()):
        # Never read, but without it transformers would warn and draw random numbers.
        tensors |= {f"{module}.weight": torch.zeros(width, width), f"{module}.bias": torch.zeros(width)}
    return tensors
