"""How a checkpoint's logits are to be read: what its config says, in the few words that every app can follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgebert.errors import InputError, Unsupported

ACTIVATIONS = SOFTMAX, SIGMOID, TANH, PLAIN = "softmax", "sigmoid", "tanh", "none"

# What sentence-transformers writes into the config of a cross-encoder, by the last part of the class's name.
WRITTEN = {"Sigmoid": SIGMOID, "Identity": PLAIN, "Softmax": SOFTMAX, "Tanh": TANH}
# transformers' own `problem_type` and `function_to_apply`.
PROBLEMS = {
    "regression": PLAIN,
    "multi_label_classification": SIGMOID,
    "single_label_classification": SOFTMAX,
}

THRESHOLD = 0.5  # from which on a label of several applies
STRIDE = 128  # tokens that windows over a context have in common, as transformers' pipeline has it
LONGEST_ANSWER = 15  # tokens, likewise


@dataclass(frozen=True, slots=True)
class Reading:
    """How logits become an answer; stands in the manifest, for apps to do the same.

    Attributes:
        activation: what is applied to logits: `softmax` over the labels, or over choices, vocabulary or tokens;
            `sigmoid` or `tanh` of each; `none`.
        threshold: several labels may apply, those from this score on; null where one does.
        aggregation: of tokens to words, `first`: a word has its first piece's label; null where tokens have none.
        stride: tokens that windows over a long context have in common; null where texts are cut.
        longest_answer: tokens that an answer found in a context has at most; null likewise.
        similarity: of two texts' vectors, `cosine`, `dot`, `euclidean` or `manhattan`; null where there are none.
    """

    activation: str
    threshold: float | None = None
    aggregation: str | None = None
    stride: int | None = None
    longest_answer: int | None = None
    similarity: str | None = None


# Of tasks whose answers are always read the same way.
READINGS = {
    "base": Reading(PLAIN),
    "masked-lm": Reading(SOFTMAX),
    "causal-lm": Reading(SOFTMAX),
    "multiple-choice": Reading(SOFTMAX),
    "token-classification": Reading(SOFTMAX, aggregation="first"),
    "replaced-token-detection": Reading(SIGMOID),
    "question-answering": Reading(SOFTMAX, stride=STRIDE, longest_answer=LONGEST_ANSWER),
}


def of(task: str, labels: int, raw: Mapping[str, Any], similarity: str) -> Reading:
    """How a checkpoint's logits are read, as transformers' pipelines and sentence-transformers do.

    Args:
        task: the head.
        labels: how many there are.
        raw: the checkpoint's `config.json`.
        similarity: of a sentence encoder's vectors.

    Raises:
        InputError: the config names a kind of problem that there is not.
        Unsupported: it names an activation that is not known here.
    """
    if task == "sentence-embedding":
        return Reading(PLAIN, similarity=similarity)
    if task in READINGS:
        return READINGS[task]
    problem = raw.get("problem_type")
    if problem is not None and problem not in PROBLEMS:
        raise InputError(f"config.json: problem_type={problem!r:.80}; {', '.join(PROBLEMS)} are known.")
    if written := _written(raw):
        return Reading(written)
    activation = PROBLEMS[problem] if problem else SIGMOID if labels == 1 else SOFTMAX
    return Reading(activation, THRESHOLD if activation == SIGMOID and labels > 1 else None)


def _written(raw: Mapping[str, Any]) -> str | None:
    """The activation that sentence-transformers wrote into a cross-encoder's config; None where it wrote none."""
    later = raw.get("sentence_transformers")
    named = later.get("activation_fn") if isinstance(later, dict) else None
    named = named or raw.get("sbert_ce_default_activation_function")
    if named is None:
        return None
    known = WRITTEN.get(str(named).rpartition(".")[2])
    if known is None:
        raise Unsupported(f"config.json: activation {named!r:.80} is not known here; {', '.join(WRITTEN)} are.")
    return known


def applied(activation: str, logits: np.ndarray) -> np.ndarray:
    """An activation of logits (..., labels), float64."""
    x = logits.astype(np.float64)
    if activation == SOFTMAX:
        shifted = np.exp(x - x.max(-1, keepdims=True))
        scores: np.ndarray = shifted / shifted.sum(-1, keepdims=True)
        return scores
    if activation == SIGMOID:
        with np.errstate(over="ignore"):
            x = 1 / (1 + np.exp(-x))
    return np.tanh(x) if activation == TANH else x
