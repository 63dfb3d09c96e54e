"""The gate: does an exported file, in its own runtime, say what the torch model says?

It returns numbers. They are held to one table, and the gate is shown a damaged model each time: one that it cannot tell
from the good one would make its "passed" worth nothing.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from edgebert.errors import InputError
from edgebert.gate.golden import REPEATED, Batch, Golden, cut
from edgebert.models.heads import ACTIVATED
from edgebert.models.signature import Arrays
from edgebert.report import Check, ErrorStats, Report, Tolerance

Run = Callable[[Mapping[str, np.ndarray]], Arrays]

SENTENCE = "sentence_embedding"
TINY = 1e-12
SURE = 1e-4  # of a probability or a score
CLASSES = ("logits", *ACTIVATED.values())


FLOAT = Tolerance(80.0, 1.0, "float32 in another order of summation; seen 105 to 140 dB, so 80 is a real difference")

# Trained weights are harder than random ones, for a few of their channels are far larger than the rest. Seen on
# all-MiniLM-L6-v2, a trained BERT, over all its hidden states: 24.1 dB in LiteRT and 16.9 dB in ONNX Runtime.
PER_TOKEN = Tolerance(
    18.0, 0.97, "8 bits with an activation scale for each token or four; trained models 21 to 36 dB, random 30 to 40"
)
PER_TENSOR = Tolerance(
    14.0, 0.97, "8 bits with one activation scale for all tokens; trained models 17 dB, random 30 to 40"
)

HALF = Tolerance(45.0, 0.99, "half precision has 11 bits; seen 57 to 70 dB")
WEIGHTS_8 = Tolerance(28.0, 0.97, "8-bit weights alone; the embedded model 35 to 37 dB, random 37 to 46")
WEIGHTS_4 = Tolerance(10.0, 0.9, "4-bit weights in groups; the embedded model 23 to 26 dB, random 13 to 27")

TOLERANCES: dict[tuple[str, str], Tolerance] = {
    ("executorch", "fp32"): FLOAT,
    ("executorch", "w8a8-dynamic"): PER_TOKEN,
    ("executorch", "w8a8-static"): PER_TENSOR,
    ("executorch", "w4a8-dynamic"): WEIGHTS_4,
    ("tflite", "fp32"): FLOAT,
    ("tflite", "fp16"): HALF,
    ("tflite", "w8"): WEIGHTS_8,
    ("tflite", "w8a8-dynamic"): PER_TOKEN,
    ("tflite", "w8a8-static"): PER_TENSOR,
    ("tflite", "w4a8-dynamic"): WEIGHTS_4,
    ("coreml", "fp32"): FLOAT,
    ("coreml", "fp16"): HALF,
    ("coreml", "w8"): WEIGHTS_8,
    ("coreml", "w4"): WEIGHTS_4,
    ("coreml", "w8a8-static"): PER_TENSOR,
    ("onnx", "fp32"): FLOAT,
    ("onnx", "fp16"): HALF,
    ("onnx", "w4"): WEIGHTS_4,
    ("onnx", "w8a8-dynamic"): PER_TENSOR,
    ("onnx", "w8a8-static"): PER_TENSOR,
}


def gate(golden: Golden, run: Run, tolerance: Tolerance, padding_invariant: bool, vocabulary: int) -> Report:
    """Hold a file to torch's golden answers.

    Args:
        golden: inputs with torch's answers.
        run: runs the file; it is to refuse ids outside the vocabulary with InputError.
        tolerance: what is due from this model in this recipe, or the table's row.
        padding_invariant: whether the model's definition answers the same when a sentence is padded further.
        vocabulary: size of the vocabulary.
    """
    actual = [_keep(run(batch.inputs)) for batch in golden.batches]
    outputs = {
        name: compare(
            [batch.expected[name] for batch in golden.batches],
            [answer[name] for answer in actual],
            [batch.inputs["attention_mask"] for batch in golden.batches],
            name,
            tolerance,
        )
        for name in golden.batches[0].expected
    }
    checks = [
        Check("equals torch", all(stats.within(tolerance) for stats in outputs.values()), _worst(outputs, tolerance)),
        _check_padding(golden, actual, tolerance, padding_invariant),
        _check_types(golden, _keep(run(golden.types.inputs)), tolerance),
        _check_empty_rows(golden.batches[0], run),
        _check_vocabulary(golden.batches[0], run, vocabulary),
        _check_itself(golden, actual[0], tolerance),
    ]
    if SENTENCE in outputs:
        checks.insert(1, _check_ranking(golden, actual, tolerance))
    return Report(outputs, tuple(checks), tolerance)


def questions(golden: Golden) -> list[Arrays]:
    """All inputs that the gate gives a file, but those outside the vocabulary: a device answers them at once."""
    return [*(batch.inputs for batch in golden.batches), golden.types.inputs, _empty_row(golden.batches[0])]


def compare(
    expected: list[np.ndarray], actual: list[np.ndarray], masks: list[np.ndarray], name: str, tolerance: Tolerance
) -> ErrorStats:
    """Measure an output over several batches, where the attention mask says that there is a token.

    Args:
        expected: torch's answers, each (B, ...) or (B, T, ...).
        actual: the file's, of the same shapes.
        masks: attention masks (B, T).
        name: the output's name, which tells whether axis 1 runs over tokens.
        tolerance: decides which labels count as decided.

    Raises:
        InputError: the shapes differ.
    """
    want, got, labelled = [], [], []
    for e, a, mask in zip(expected, actual, masks, strict=True):
        if e.shape != a.shape:
            raise InputError(f"the file's {name} has shape {a.shape}, torch's {e.shape}: not the same model.")
        e, a = as_logits(name, e), as_logits(name, a)
        span = name in ("start_logits", "end_logits")
        keep = mask[:, : e.shape[1]].astype(bool) if e.ndim == 3 or span else np.ones(len(e), bool)
        want.append(e[keep].ravel())
        got.append(a[keep].ravel())
        if span:  # a span's label is the token with the largest logit of its row
            labelled += [(e[i : i + 1, : k.sum()], a[i : i + 1, : k.sum()]) for i, k in enumerate(keep) if k.sum() > 1]
        elif name in CLASSES and e.shape[-1] > 1:
            labelled.append((e[keep], a[keep]))
    x, y = (np.concatenate(parts).astype(np.float64) for parts in (want, got))
    rows = [_labels(one, other, math.sqrt((x**2).mean()), tolerance) for one, other in labelled]
    agree, decided = [same for same, _ in rows], [same[clear] for same, clear in rows]
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.abs(x - y)
        noise, signal = float((error**2).sum()), float((x**2).sum())
        norms = math.sqrt(signal) * float(np.linalg.norm(y))
    labels = np.concatenate(agree) if agree else np.zeros(0)
    clear = np.concatenate(decided) if decided else np.zeros(0)
    return ErrorStats(
        max_abs=float(error.max()),
        mean_abs=float(error.mean()),
        cosine=float(x @ y) / norms if norms > 0 else float(noise == 0),
        sqnr_db=_decibel(signal, noise),
        label_agreement=float(labels.mean()) if agree else None,
        decided_agreement=float(clear.mean()) if len(clear) else None,
        labels=len(labels),
        decided=len(clear),
    )


def as_logits(name: str, output: np.ndarray) -> np.ndarray:
    """What tells models apart evenly: of a classifier's probabilities or scores the logits that give them.

    Of those of a softmax a constant is lost, so that they are told from their mean. What is nearer to 0 or 1 than SURE
    counts as that near: half precision has no numbers far below.
    """
    if name == ACTIVATED["softmax"]:
        logs: np.ndarray = np.log(np.maximum(output.astype(np.float64), SURE))
        logs -= logs.mean(-1, keepdims=True)
        return logs
    if name == ACTIVATED["sigmoid"]:
        sure = np.clip(output.astype(np.float64), SURE, 1 - SURE)
        logits: np.ndarray = np.log(sure / (1 - sure))
        return logits
    return output


def _decibel(signal: float, noise: float) -> float:
    if not math.isfinite(noise):
        return -math.inf
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _labels(
    expected: np.ndarray, actual: np.ndarray, whole: float, tolerance: Tolerance
) -> tuple[np.ndarray, np.ndarray]:
    """For logits (N, labels): which labels are equal, and which of them torch decides clearly.

    The error that the table allows is a share of the `whole` output's strength, and a row of larger logits has more.
    """
    top = np.sort(expected, axis=-1)
    allowed = np.maximum(np.sqrt((expected**2).mean(-1)), whole) * 10 ** (-tolerance.min_sqnr_db / 20)
    return expected.argmax(-1) == actual.argmax(-1), top[..., -1] - top[..., -2] > 2 * allowed


def _keep(outputs: Arrays) -> Arrays:
    return {name: cut(value) for name, value in outputs.items()}


def _sqnr(expected: Arrays, actual: Arrays, mask: np.ndarray, tolerance: Tolerance) -> float:
    """The lowest signal to error among the outputs of one batch."""
    return min(compare([expected[name]], [actual[name]], [mask], name, tolerance).sqnr_db for name in expected)


def _worst(outputs: dict[str, ErrorStats], tolerance: Tolerance) -> str:
    name, stats = min(outputs.items(), key=lambda item: item[1].sqnr_db)
    clear = [s for s in outputs.values() if s.decided_agreement is not None]
    worst = min(clear, key=lambda s: s.decided_agreement or 0.0, default=None)
    labels = f", {worst.agreeing} of {worst.decided} decided labels agree" if worst else ""
    labels += f" (at least {tolerance.min_label_agreement})" if worst else ""
    return (
        f"{name}: {stats.sqnr_db:.1f} dB (at least {tolerance.min_sqnr_db:.0f}), "
        f"max |d| {stats.max_abs:.2e}, cosine {stats.cosine:.6f}{labels}"
    )


def padded(golden: Golden, actual: list[Arrays], invariant: bool) -> float:
    """How far, in decibel, the first rows' answers are from what they were where a batch has them padded further.

    Args:
        golden: inputs with torch's answers; the first rows stand in every batch, padded to its length.
        actual: another's answers to the batches.
        invariant: whether the model's definition answers the same when a sentence is padded further.
    """
    first = golden.batches[0]
    mask = first.inputs["attention_mask"][:REPEATED]
    tokens = mask.shape[1]
    lowest = math.inf
    for batch, answer in zip(golden.batches[1:], actual[1:], strict=True):
        # Against torch's answer at that length where the model itself minds padding, against the short answer else.
        reference = {name: value[:REPEATED] for name, value in (batch.expected if not invariant else actual[0]).items()}
        later = {name: value[:REPEATED] for name, value in answer.items()}
        cuts = [{n: v[:, :tokens] if _over_tokens(n, v) else v for n, v in side.items()} for side in (reference, later)]
        lowest = min(lowest, *(_relative(name, batch, cuts[0][name], cuts[1][name], mask) for name in cuts[0]))
    return lowest


def _check_padding(golden: Golden, actual: list[Arrays], tolerance: Tolerance, invariant: bool) -> Check:
    """Whether answers stay what they were when a sentence is padded further."""
    if len(golden.batches) == 1:
        return Check("padding", True, "one length, so a sentence is never padded further")
    lowest = padded(golden, actual, invariant)
    against = (
        "the answer without it" if invariant else "torch's (this model's convolutions see padding, as its paper's)"
    )
    return Check("padding", lowest >= tolerance.min_sqnr_db, f"padded further, {lowest:.1f} dB from {against}")


def _relative(name: str, batch: Batch, reference: np.ndarray, later: np.ndarray, mask: np.ndarray) -> float:
    """The difference of a few rows in decibel below the output's strength over the whole batch.

    Not below those rows' own: three scores that happen to lie near zero say nothing of the error beside them.
    """
    whole = _valid(name, as_logits(name, batch.expected[name]), batch.inputs["attention_mask"]).astype(np.float64)
    difference = _valid(name, as_logits(name, later) - as_logits(name, reference), mask).astype(np.float64)
    return _decibel(float((whole**2).mean()), float((difference**2).mean()))


def _check_ranking(golden: Golden, actual: list[Arrays], tolerance: Tolerance) -> Check:
    """Of two pairs of texts, those are to be more alike that are so in torch, where it is not a matter of rounding."""
    expected = np.concatenate([batch.expected[SENTENCE] for batch in golden.batches])
    given = np.concatenate([answer[SENTENCE] for answer in actual])
    ones, others = (side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), TINY) for side in (expected, given))
    first, second = np.triu_indices(len(ones), 1)
    alike, told = ((side[first] * side[second]).sum(1) for side in (ones, others))
    # A vector that is off by a share of its length moves a cosine by as much, and there are four in two pairs.
    room = 4 * 10 ** (-tolerance.min_sqnr_db / 20)
    more = alike[:, None] - alike[None, :] > room
    right = float((told[:, None] > told[None, :])[more].mean()) if more.any() else 1.0
    ranked = f"{100 * right:.2f}% of {int(more.sum()):,}" if more.any() else "there are no"
    cosine = float((ones * others).sum(1).min())
    detail = f"{ranked} pairs of pairs that differ by {room:.2g} and more in torch; cosine at least {cosine:.5f}"
    return Check("pairs rank as in torch", right == 1.0, detail)


def _valid(name: str, output: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Where the attention mask says that there is a token, or every row of an output without a token axis."""
    return output[mask[:, : output.shape[1]].astype(bool)] if _over_tokens(name, output) else output


def _over_tokens(name: str, output: np.ndarray) -> bool:
    return output.ndim == 3 or name in ("start_logits", "end_logits")


def _check_types(golden: Golden, actual: Arrays, tolerance: Tolerance) -> Check:
    """With token types exchanged the file is to follow torch to the other answer."""
    mask = golden.types.inputs["attention_mask"]
    change = _sqnr(golden.batches[0].expected, golden.types.expected, mask, tolerance)
    near = _sqnr(golden.types.expected, actual, mask, tolerance)
    detail = f"exchanged, the file is {near:.1f} dB from torch"
    if change >= tolerance.min_sqnr_db:
        detail += " (they change torch's own answer too little to tell more)"
    return Check("token_type_ids matter", near >= tolerance.min_sqnr_db, detail)


def _check_empty_rows(batch: Batch, run: Run) -> Check:
    """A row that is all padding has no answer, but must not spoil anything either."""
    outputs = run(_empty_row(batch))
    finite = all(bool(np.isfinite(value).all()) for value in outputs.values())
    return Check("a fully padded row is finite", finite, "all finite" if finite else "NaN or infinity in the output")


def _empty_row(batch: Batch) -> Arrays:
    row = {name: value[:1] for name, value in batch.inputs.items()}
    return row | {"attention_mask": np.zeros_like(row["attention_mask"])}


def _check_vocabulary(batch: Batch, run: Run, vocabulary: int) -> Check:
    """Ids below 0 or above the vocabulary must be refused before they reach the embedding table."""
    refused = 0
    for wrong in (-1, vocabulary):
        ids = batch.inputs["input_ids"][:1].copy()
        ids[0, 0] = wrong
        try:
            run({name: value[:1] for name, value in batch.inputs.items()} | {"input_ids": ids})
        except InputError:
            refused += 1
    return Check("ids outside the vocabulary are refused", refused == 2, f"{refused} of 2 refused")


def _check_itself(golden: Golden, actual: Arrays, tolerance: Tolerance) -> Check:
    """The gate must tell the file from damaged models, or its word is worth nothing."""
    mask = golden.batches[0].inputs["attention_mask"]
    caught, seen = [], []
    for what, outputs in golden.damaged.items():
        # Asked only of damage twice as large as the error the table allows: a smaller one and the file's own error can
        # cancel out, and then the table cannot tell.
        if _sqnr(golden.batches[0].expected, outputs, mask, tolerance) < tolerance.min_sqnr_db - 20 * math.log10(2):
            seen.append(what)
            if _sqnr(outputs, actual, mask, tolerance) < tolerance.min_sqnr_db:
                caught.append(what)
    detail = f"caught: {', '.join(caught) or 'none'}"
    small = [what for what in golden.damaged if what not in seen]
    if small:
        detail += f"; too small to see at this tolerance: {', '.join(small)}"
    return Check("a damaged model is caught", bool(seen) and caught == seen, detail)
