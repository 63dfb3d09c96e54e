"""Is what stands around a model file in a bundle the checkpoint's: its tokenizer, and the names of its labels?

Read back from the folder, for that is what an app reads. The gate's own sentences are encoded again with the tokenizer
as it was saved, and answered by `predict`, whose labels are to be those that torch gives.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from edgebert.bundle.manifest import Manifest
from edgebert.bundle.opened import Bundle
from edgebert.checkpoints.checkpoint import Checkpoint
from edgebert.errors import InputError
from edgebert.gate import golden, parity, rounded
from edgebert.models.signature import Arrays, limit_types
from edgebert.report import Check, Tolerance
from edgebert.tokenizers.tokenizer import Tokenizer

TEXTS = 6  # sentences that are answered
SAME = 1e-5  # of two runs of a file with the same ids
LABELLED = ("sequence-classification", "token-classification")


def check(opened: Bundle, source: Checkpoint, tolerance: Tolerance) -> tuple[Check, ...]:
    """Hold a bundle's tokenizer and labels to the checkpoint's.

    Args:
        opened: the bundle.
        source: what it was exported from.
        tolerance: tells how far torch has to decide for a label to be asked for.
    """
    labels = list(source.model.config.labels) if "classification" in source.model.task else []
    named = opened.manifest.labels == labels
    detail = f"{len(labels)} in the checkpoint's order" if named else f"{opened.manifest.labels} are not {labels}"
    return (
        _ids(opened, source),
        Check("labels are the checkpoint's", named, detail),
        _predicted(opened, source, tolerance),
    )


def _ids(opened: Bundle, source: Checkpoint) -> Check:
    """Whether texts become the ids that the checkpoint's tokenizer makes of them."""
    name = "texts become the checkpoint's ids"
    if source.tokenizer is None:
        passed = opened.tokenizer is None and opened.manifest.pad_id == 0
        return Check(name, passed, "it came without a tokenizer")
    if opened.tokenizer is None or opened.manifest.pad_id != source.tokenizer.pad_id:
        return Check(name, False, f"pad_id {opened.manifest.pad_id}, and {source.tokenizer.pad_id} in the checkpoint")
    texts = golden.texts()
    for text in texts:
        pair = text[1] if len(text) == 2 else None
        one, other = (words.encode(text[0], pair) for words in (source.tokenizer, opened.tokenizer))
        if (one.ids, one.token_type_ids) != (other.ids, other.token_type_ids):
            return Check(name, False, f"{text[0]!r:.60} becomes {other.ids[:8]} and not {one.ids[:8]}")
    return Check(name, True, f"{len(texts)} texts")


def _predicted(opened: Bundle, source: Checkpoint, tolerance: Tolerance) -> Check:
    """Whether `predict` names the label that torch gives, where torch decides."""
    name = "predict says torch's labels"
    if source.tokenizer is not None and source.model.task == "sentence-embedding":
        return _embedded(opened, source, source.tokenizer)
    if source.tokenizer is None or source.model.task not in LABELLED:
        return Check(name, True, "the task has no labels, or the checkpoint no tokenizer")
    asked = 0
    for text in [text for text in golden.texts() if len(text) == 1][:TEXTS]:
        ids = source.tokenizer.encode(text[0], max_length=opened.manifest.lengths[-1]).ids
        fitting = (length for length in opened.manifest.lengths if length >= len(ids))
        length = len(ids) if opened.manifest.dynamic else next(fitting)
        inputs = limit_types(source.tokenizer.batch([text[0]], length=length), source.model.config.type_vocab_size)
        logits = _classes(golden.answer(source.model, inputs))
        try:
            told = opened.predict(text[0])
        except InputError as error:
            return Check(name, False, str(error))
        by_token = source.model.task == "token-classification"
        found = [entry["label"] for entry in told["tokens"]] if by_token else [_first(opened, told)]
        rows = logits[1 : 1 + len(found)] if by_token else logits[None]
        for label, row in zip(found, rows, strict=True):
            first, second = sorted(row)[::-1][:2] if len(row) > 1 else (row[0], -float("inf"))
            if first - second > 2 * float((row**2).mean()) ** 0.5 * 10 ** (-tolerance.min_sqnr_db / 20):
                asked += 1
                wanted = source.model.config.labels[int(row.argmax())]
                if label != wanted:
                    return Check(name, False, f"{text[0]!r:.60} is {label!r}, and {wanted!r} in torch")
    return Check(name, True, f"{asked} that torch decides")


def _embedded(opened: Bundle, source: Checkpoint, words: Tokenizer) -> Check:
    """Whether `predict` gives what the file, held to torch elsewhere, makes of the checkpoint's ids."""
    name = "predict gives the file's vectors"
    prompt = source.model.config.pooling.prompt
    for text in [text for text in golden.texts() if len(text) == 1][:TEXTS]:
        inputs = words.batch([prompt + text[0]], max_length=opened.manifest.lengths[-1])
        needed = inputs["input_ids"].shape[1]
        length = needed if opened.manifest.dynamic else next(n for n in opened.manifest.lengths if n >= needed)
        padded = limit_types(golden.pad(inputs, length, words.pad_id), source.model.config.type_vocab_size)
        wanted = opened.run(padded)[parity.SENTENCE][0]
        try:
            told = np.array(opened.predict(text[0])["embedding"])
        except InputError as error:
            return Check(name, False, str(error))
        if not np.allclose(told, wanted, atol=SAME):
            return Check(name, False, f"{text[0]!r:.60} has another, off by {float(np.abs(told - wanted).max()):.1e}")
    return Check(name, True, f"{TEXTS} texts")


def _classes(outputs: Arrays) -> np.ndarray:
    """The logits of a row, also where the model applies their activation."""
    ((name, value),) = outputs.items()
    logits: np.ndarray = parity.as_logits(name, value)[0]
    return logits


def _first(opened: Bundle, told: dict[str, Any]) -> str:
    """The label with the highest score, also where several may apply."""
    scores = told.get("scores")
    return str(opened.manifest.labels[scores.index(max(scores))] if scores else told["label"])


def due(manifest: Manifest) -> Tolerance:
    """What a bundle's file was held to at export; the table's row where it was not, or the manifest says nonsense."""
    least = parity.TOLERANCES[manifest.target, manifest.recipe]
    held = (manifest.parity or {}).get("tolerance", {})
    found = held.get("min_sqnr_db") if isinstance(held, dict) else None
    if not isinstance(found, int | float) or not found >= rounded.LEAST:
        return least
    return replace(least, min_sqnr_db=float(found), reason=str(held.get("reason", least.reason)))
