"""Texts that share a row are to get the vectors that torch gives each of them alone."""

from collections.abc import Callable

import numpy as np

from edgebert.errors import InputError
from edgebert.gate.golden import Golden
from edgebert.gate.parity import SENTENCE, compare
from edgebert.models.signature import Arrays
from edgebert.report import Check, Tolerance
from edgebert.runtimes.packing import fill, lay


def questions(golden: Golden, tokens: int, texts: int, skipped: int) -> tuple[Arrays, np.ndarray]:
    """The gate's texts in rows of several.

    Args:
        golden: inputs with torch's answers; those of one token type that fit are taken.
        skipped: tokens at a text's start that its vector leaves out; one of no more has no vector of its own.
        tokens: of a row, T.
        texts: that a row has room for, S.

    Returns:
        Rows (R, T) of ids and of texts' numbers, and torch's vectors (R, S, D), NaN where a row has no further text.

    Raises:
        InputError: there is no such text.
    """
    alone, expected = [], []
    for batch in golden.batches:
        given = (batch.inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids"))
        for ids, mask, types, vector in zip(*given, batch.expected[SENTENCE], strict=True):
            size = int(mask.sum())
            if skipped < size <= tokens and mask[:size].all() and not types.any():
                alone.append(ids[:size])
                expected.append(vector)
    if not alone:
        raise InputError("the golden inputs have no text of one token type: export the bundle again.")
    rows = fill([len(ids) for ids in alone], tokens, texts)
    laid = [lay([alone[number] for number in row], tokens) for row in rows]
    wanted = np.full((len(rows), texts, expected[0].shape[-1]), np.nan, np.float32)
    for place, row in enumerate(rows):
        wanted[place, : len(row)] = [expected[number] for number in row]
    return {name: np.concatenate([row[name] for row in laid]) for name in laid[0]}, wanted


def check(
    golden: Golden, shape: tuple[int, int], skipped: int, run: Callable[[Arrays], np.ndarray], tolerance: Tolerance
) -> Check:
    """Hold a file's rows of several texts to torch.

    Args:
        golden: inputs with torch's answers.
        shape: tokens of a row and the texts that it has room for.
        skipped: as of `questions`.
        run: answers rows (R, T) with vectors (R, S, D).
        tolerance: what is due.
    """
    asked, wanted = questions(golden, *shape, skipped)
    told, there = run(asked), ~np.isnan(wanted).any(-1)
    ones = np.ones((int(there.sum()), 1), np.int32)
    found = compare([wanted[there]], [told[there]], [ones], SENTENCE, tolerance).sqnr_db
    finite = bool(np.isfinite(told).all())
    far = f"{found:.1f} dB from torch's answers to each alone (at least {tolerance.min_sqnr_db:.0f})"
    detail = f"{len(ones)} texts in {len(wanted)} rows, {far}"
    return Check("texts that share a row", finite and found >= tolerance.min_sqnr_db, detail)
