"""Tiny models whose every weight shows in the answer, inputs for them, and how far answers are apart."""

import dataclasses

import numpy as np
import torch

from edgebert.models import MODELS, Model
from edgebert.models.signature import INPUTS, has_token_axis


def visible(family: str, task: str, seed: int = 0, noise: int | None = None, **changes: object) -> Model:
    """A tiny model with random weights large enough for every layer to show; `noise` seeds what is added to them."""
    if task == "causal-lm":
        changes["is_decoder"] = True
    config = dataclasses.replace(MODELS[family].config.tiny(), **changes)
    model = Model(MODELS[family], config, task).random_init(seed)
    generator = torch.Generator().manual_seed(seed if noise is None else noise)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model.requires_grad_(False)


def batch(tokens: int, seed: int = 0, shortest: int = 1) -> dict[str, np.ndarray]:
    """Four rows of random ids: whole, padded, padded from `shortest` on, and of two types."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 120, (4, tokens)).astype(np.int32)
    mask, types = np.ones_like(ids), np.zeros_like(ids)
    mask[1, tokens // 2 + 1 :], mask[2, shortest:] = 0, 0
    types[3, tokens // 2 :] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def samples() -> list[dict[str, np.ndarray]]:
    """Inputs for static scales: single rows of several lengths."""
    rows = [batch(tokens, seed) for seed, tokens in enumerate((3, 6, 9, 12, 16, 16))]
    return [{k: v[i : i + 1] for k, v in row.items()} for row in rows for i in (0, 3)]


def expected_at(model: Model, inputs: dict[str, np.ndarray], length: int) -> dict[str, np.ndarray]:
    """What torch says of the rows padded to `length`, cut back, as a session does."""
    tokens = inputs["input_ids"].shape[1]
    padded = [torch.from_numpy(np.pad(inputs[name], ((0, 0), (0, length - tokens)))) for name in INPUTS]
    with torch.no_grad():
        out = {name: value.numpy() for name, value in model(*padded).items()}
    return {name: value[:, :tokens] if has_token_axis(name, value.ndim) else value for name, value in out.items()}


def expected(model: Model, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What torch says."""
    with torch.no_grad():
        return {k: v.numpy() for k, v in model(*(torch.from_numpy(inputs[name]) for name in INPUTS)).items()}


def sqnr(reference: np.ndarray, value: np.ndarray) -> float:
    """Signal to quantization noise, dB."""
    reference = reference.astype(np.float64)
    return float(10 * np.log10((reference**2).sum() / ((reference - value) ** 2).sum()))


NORMS = ("embeddings", "attention", "feed-forward", "constant")


def loud(family: str, task: str, norm: str, times: float, **changes: object) -> Model:
    """A tiny model in which one channel of what norms of a kind are given is larger, as trained models have it.

    With `constant` it is the feed-forward's norms, and the channel is nearly the same for every token: the norm makes
    up for it, so that the other channels count.
    """
    model = visible(family, task, **changes)
    encoder, width = model.encoder, model.encoder.layers[0].norm.weight.numel()
    with torch.no_grad():
        if norm == "embeddings":
            encoder.embeddings.word.weight[:, 0].mul_(times)
        for layer in encoder.layers:
            if norm == "attention":
                (layer.out if family == "squeezebert" else layer.attention.out).weight[0].mul_(times)
            if norm == "feed-forward":
                layer.down.weight[0].mul_(times)
            if norm == "constant":
                layer.down.bias[0] += times
                layer.norm.bias[1:] += layer.norm.weight[1:] * times / width  # the mean
                layer.norm.weight[1:] *= max(times * (width - 1) ** 0.5 / width, 1.0)  # the deviation
    return model
