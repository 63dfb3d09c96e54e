"""Which label, or which of several choices: scores of a whole text."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgebert.answers.reading import Reading, applied

TOP = 5  # labels that are told where one applies


def classify(output: str, values: np.ndarray, labels: Sequence[str], reading: Reading) -> dict[str, Any]:
    """A text's labels.

    Args:
        output: what the values are: `logits`, or what a file makes of them by itself.
        values: (labels,).
        labels: their names.
        reading: tells whether one label applies, or all from a threshold on.

    Returns:
        `label` and `score` of the best, `labels` the best of all; where several may apply `labels` those that do, best
        first, and `scores` of all in the labels' order. `logits` as the model gave them, where it did.
    """
    scores = applied(reading.activation, values)
    given = {output: values.tolist()} if output == "logits" else {}
    ranked = [{"label": labels[i], "score": float(scores[i])} for i in np.argsort(-scores, kind="stable")]
    if reading.threshold is None:
        return {**ranked[0], "labels": ranked[:TOP]} | given
    found = [entry for entry in ranked if float(entry["score"]) >= reading.threshold]
    return {"labels": found, "scores": scores.tolist()} | given


def choose(logits: np.ndarray, choices: Sequence[str], reading: Reading) -> dict[str, Any]:
    """Which of several texts goes best with the first: `choice` its number, `label` itself, `scores` of all.

    Args:
        logits: (choices,), a row's single score each.
        choices: the texts.
        reading: how scores are made.
    """
    scores = applied(reading.activation, logits)
    best = int(scores.argmax())
    return {
        "choice": best,
        "label": choices[best],
        "score": float(scores[best]),
        "scores": scores.tolist(),
        "logits": logits.tolist(),
    }
