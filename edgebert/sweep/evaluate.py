"""The task's own figure on texts with labels: how often a model is right, or how well it ranks."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgebert.answers.reading import Reading
from edgebert.answers.vectors import similarity
from edgebert.errors import InputError, Unsupported
from edgebert.models.signature import Arrays, limit_types
from edgebert.tokenizers.tokenizer import Tokenizer

BATCH = 32
COLUMNS = {2: ("text", "label"), 3: ("text", "pair", "label")}
ACCURACY, F1, SPEARMAN = "accuracy", "f1", "spearman"


@dataclass(frozen=True, slots=True)
class Example:
    """A text, or a pair of them, and what is right: a label's name or number, or a score."""

    text: str
    pair: str | None
    label: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Of whom the figure is asked.

    Attributes:
        task: `sequence-classification` or `sentence-embedding`.
        labels: of a classifier.
        reading: how its logits become an answer.
        words: its tokenizer.
        prompt: what stands before each text.
        types: token types that it has.
        longest: tokens, to which texts are cut.
        run: answers ids (B, T).
    """

    task: str
    labels: Sequence[str]
    reading: Reading
    words: Tokenizer
    prompt: str
    types: int
    longest: int
    run: Callable[[Arrays], Arrays]


def read(path: Path) -> list[Example]:
    """Texts with labels, from JSON lines (`text`, `pair` where there is one, `label`) or tab-separated columns.

    Columns are text, label or text, pair, label; a first line with just these names is none of the texts. Names of a
    model's labels may stand before the texts as well.

    Raises:
        InputError: a line is neither, or there is none.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    lines = [line for line in content.splitlines() if line.strip()]
    found = _json(path, lines) if lines and lines[0].lstrip().startswith("{") else _columns(path, content)
    if not found:
        raise InputError(f"{path} has no text: lines of text, tab, label are needed, or of JSON.")
    if len({example.pair is None for example in found}) > 1:
        raise InputError(f"{path}: some lines have a pair and others none; all of them or none are needed.")
    return found


def _json(path: Path, lines: Sequence[str]) -> list[Example]:
    found = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        pair = row.get("pair") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str) or "label" not in row:
            raise InputError(f'{path}, line {number}: {line!r:.80}; {{"text": ..., "label": ...}} is needed.')
        if not (pair is None or isinstance(pair, str)) or not isinstance(row["label"], str | int | float):
            raise InputError(f"{path}, line {number}: {line!r:.80}; pair is a text, and label a name or a number.")
        found.append(Example(row["text"], pair, str(row["label"])))
    return found


def _columns(path: Path, content: str) -> list[Example]:
    rows = [row for row in csv.reader(io.StringIO(content), delimiter="\t", quoting=csv.QUOTE_NONE) if any(row)]
    width = len(rows[0]) if rows else 0
    if rows and width not in COLUMNS:
        raise InputError(f"{path}, line 1: {width} columns; text, label or text, pair, label are needed, with tabs.")
    if rows and tuple(rows[0]) == COLUMNS[width]:
        rows = rows[1:]
    found = []
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise InputError(f"{path}, row {number}: {len(row)} columns, and {width} before: {' | '.join(row)!r:.80}")
        found.append(Example(row[0], row[1] if width == 3 else None, row[-1]))
    return found


def check(task: str, labels: Sequence[str], reading: Reading, examples: Sequence[Example]) -> None:
    """Refuse tasks that have no such figure, and labels that a model has not, before a file is made of it.

    Raises:
        InputError: a label is none of the model's, or no number; or pairs are missing.
        Unsupported: it is another task, or several labels may apply at once.
    """
    if task not in ("sequence-classification", "sentence-embedding"):
        raise Unsupported(f"--eval takes classification, regression and pairs, and this model is for {task}.")
    if reading.threshold is not None and len(labels) > 1:
        raise Unsupported("--eval takes one label a text, and of this model's several may apply at once.")
    if task == "sentence-embedding" and examples[0].pair is None:
        raise InputError("a sentence encoder is asked for pairs: text, pair and how alike they are.")
    if task == "sentence-embedding" or len(labels) == 1:
        _numbers(examples)
    else:
        _classes(labels, _turned(labels, examples))


def figures(asked: Asked, examples: Sequence[Example]) -> dict[str, float]:
    """The figures of a model, from 0 (or -1) to 1, the one that counts first.

    Accuracy and macro F1 of a classifier; Spearman's rank correlation of a regression, and of the similarity of pairs.

    Raises:
        InputError, Unsupported: see `check`.
    """
    check(asked.task, asked.labels, asked.reading, examples)
    if asked.task == "sentence-embedding":
        return {SPEARMAN: spearman(_alike(asked, examples), _numbers(examples))}
    examples = _turned(asked.labels, examples)
    logits = np.concatenate(list(_answers(asked, _pairs(examples), "logits")))
    if logits.shape[1] == 1:
        return {SPEARMAN: spearman(logits[:, 0], _numbers(examples))}
    right, found = _classes(asked.labels, examples), logits.argmax(1)
    return {ACCURACY: float((right == found).mean()), F1: macro_f1(right, found)}


def _answers(asked: Asked, texts: Sequence[tuple[str, str | None]], output: str) -> Any:
    """An output's rows for texts and pairs, some at a time."""
    for i in range(0, len(texts), BATCH):
        some = [text if pair is None else (text, pair) for text, pair in texts[i : i + BATCH]]
        given = asked.words.batch(some, max_length=asked.longest)
        yield asked.run(limit_types(given, asked.types))[output]


def _alike(asked: Asked, examples: Sequence[Example]) -> np.ndarray:
    """How alike the texts of each pair are, by the model's own measure."""
    sides = [[(asked.prompt + (text or ""), None) for text in side] for side in zip(*_pairs(examples), strict=True)]
    first, second = (np.concatenate(list(_answers(asked, side, "sentence_embedding"))) for side in sides)
    kind = asked.reading.similarity or "cosine"
    return np.array([similarity(a, b, kind) for a, b in zip(first, second, strict=True)])


def _pairs(examples: Sequence[Example]) -> list[tuple[str, str | None]]:
    return [(one.text, one.pair) for one in examples]


def _numbers(examples: Sequence[Example]) -> np.ndarray:
    """Labels that are scores."""
    try:
        return np.array([float(one.label) for one in examples])
    except ValueError as error:
        raise InputError(f"labels are scores for this model, and one is none: {error}") from None


def _places(labels: Sequence[str]) -> dict[str, int]:
    """A label's number by its name, or by the number."""
    return {str(number): number for number in range(len(labels))} | {name: i for i, name in enumerate(labels)}


def _turned(labels: Sequence[str], examples: Sequence[Example]) -> Sequence[Example]:
    """The examples; of two columns whose first has the model's labels and whose last has not, the other way round."""
    places = _places(labels)
    as_told = all(one.label in places for one in examples)
    if as_told or examples[0].pair is not None or not all(one.text in places for one in examples):
        return examples
    return [Example(one.label, None, one.text) for one in examples]


def _classes(labels: Sequence[str], examples: Sequence[Example]) -> np.ndarray:
    """The numbers of labels."""
    places = _places(labels)
    strange = sorted({one.label for one in examples} - places.keys())
    if strange:
        raise InputError(f"label {strange[0]!r:.80} is none of the model's, which are {', '.join(labels)}.")
    return np.array([places[one.label] for one in examples])


def macro_f1(right: np.ndarray, found: np.ndarray) -> float:
    """The mean over all classes that occur of 2 TP / (2 TP + FP + FN)."""
    scores = []
    for kind in np.union1d(right, found):
        both = int(((right == kind) & (found == kind)).sum())
        scores.append(2 * both / int((right == kind).sum() + (found == kind).sum()))
    return float(np.mean(scores))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation, equal numbers sharing the mean of their ranks; 0 where either has one number alone."""
    x, y = (ranks - ranks.mean() for ranks in map(_ranks, (a, b)))
    length = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / length) if length else 0.0


def _ranks(numbers: np.ndarray) -> np.ndarray:
    _, place, count = np.unique(numbers, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return (ends - (count - 1) / 2)[place]
