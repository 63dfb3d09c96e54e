"""transformers' own models as the reference: made at random here, for every family, task and size."""

import dataclasses
import inspect
from typing import Any

import torch
import transformers

from edgebert.models import MODELS

# Values that a config must carry on both sides; the labels are five to tell them from the default two.
LABELS = {"id2label": {i: f"kind_{i}" for i in range(5)}, "label2id": {f"kind_{i}": i for i in range(5)}}


def cells() -> list[tuple[str, str]]:
    """Every family with every task it has."""
    return [(name, task) for name, family in MODELS.items() for task in family.heads]


def shared() -> list[tuple[str, str]]:
    """Those that transformers has a class for; sentence-transformers' own are asked in tests/answers."""
    return [(name, task) for name, task in cells() if task in MODELS[name].architectures.values()]


def reference(name: str, task: str, config: Any = None, seed: int = 0, **changes: Any) -> Any:
    """A transformers model of a family with a task's head, random weights of a size that makes every tensor count."""
    family = MODELS[name]
    values = dataclasses.asdict(config or family.config.tiny())
    values = {key: list(value) if type(value) is tuple else value for key, value in values.items() if value != ()}
    values.pop("labels")
    values.pop("pooling")
    if values.get("summary_activation") == "":
        values = {key: value for key, value in values.items() if not key.startswith("summary_")}
    saved = "base" if task == "sentence-embedding" else task  # which is what is made of the encoder's output
    architecture = next(cls for cls, of in family.architectures.items() if of == saved)
    model_class = getattr(transformers, architecture)
    if task != "question-answering":  # there transformers takes the two labels for start and end
        values |= LABELS
    torch.manual_seed(seed)
    model = model_class(model_class.config_class(**(values | changes))).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1 and "norm" in key.lower() and key.endswith("weight"):
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif parameter.dim() == 1 or key.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter) * 0.1)
            elif model.config.hidden_size <= 64:
                parameter.mul_(4)
    return model


def batch(
    vocab: int, rows: int = 3, tokens: int = 11, seed: int = 0, pad: int | None = None
) -> dict[str, torch.Tensor]:
    """Random ids with a full row, a padded row and one of a single token, and both token types; int32 (B, T).

    With `pad` that id stands where the mask is 0, and nowhere else.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab, (rows, tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[1:, max(tokens // 2, 1) :] = 0
    mask[2:, 1:] = 0
    if pad is not None:
        ids = torch.where(mask == 0, pad, torch.where(ids == pad, (pad + 1) % vocab, ids))
    types = (torch.arange(tokens) >= tokens // 3).long().expand(rows, tokens) * mask
    return {
        "input_ids": ids.int(),
        "attention_mask": mask.int(),
        "token_type_ids": types.int(),
    }


def given(theirs: Any, **how: int) -> dict[str, torch.Tensor]:
    """Inputs as transformers takes them: padding's id is padding's alone, and token types are those that there are."""
    # MPNet's counts positions by id 1, whatever its config says.
    pad = 1 if theirs.config.model_type == "mpnet" else theirs.config.pad_token_id
    inputs = batch(theirs.config.vocab_size, pad=pad, **how)
    types = max(getattr(theirs.config, "type_vocab_size", 1), 1)
    return inputs | {"token_type_ids": inputs["token_type_ids"].clamp(max=types - 1)}


def outputs(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Run a transformers model and keep what the task is about."""
    with torch.no_grad():
        takes = inspect.signature(model.forward).parameters  # DistilBERT's takes no token types
        out = model(**{key: value.long() for key, value in inputs.items() if key in takes})
    names = ("logits", "start_logits", "end_logits", "last_hidden_state", "pooler_output")
    found = {name: out[name] for name in names if name in out}
    if isinstance(model, transformers.ElectraForPreTraining):  # which squeezes the axis that scores keep here
        found["logits"] = found["logits"][..., None]
    return found
