"""Many texts from a file, an answer for each as a line of JSON, in order."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from edgebert.errors import EdgebertError, InputError
from edgebert.files import check_file, parse_json

LINE = 1 << 20  # bytes of a line
TOGETHER = 256  # lines that are answered at once
EVERY = 1.0  # seconds between two tellings of how far it is

# What a line of `.jsonl` may have: the first text under one of these, and what goes with it.
FIRST, SECOND = ("text", "question"), ("pair", "context", "choices")


def answer_file(
    name: str, answered: Callable[..., dict[str, Any]], together: Callable[[list[str]], list[dict[str, Any]]] | None
) -> int:
    """Print an answer for each line of a file; one that cannot be answered has `error`, and the others go on.

    Args:
        name: a file with a text a line, or one that ends in `.jsonl`, whose lines are objects; `-` is standard input,
            whose lines are objects where they begin as such.
        answered: from a line's texts to its answer.
        together: from lines of one text each to their answers, where that is quicker than one by one. Lines of
            standard input are answered as they come.

    Returns:
        The lines that could not be answered.

    Raises:
        InputError: the file cannot be read.
    """
    failed = count = 0
    told = time.perf_counter()
    lines = _lines(name)
    while some := list(islice(lines, 1 if together is None or name == "-" else TOGETHER)):
        for answer in _answers(some, name, answered, together):
            failed += "error" in answer
            print(json.dumps(answer, ensure_ascii=False), flush=True)
        count += len(some)
        if time.perf_counter() - told > EVERY:
            print(f"{count} answered", file=sys.stderr, flush=True)
            told = time.perf_counter()
    print(f"{count} answered, {failed} of them with an error", file=sys.stderr)
    return failed


def _answers(
    lines: Sequence[bytes], name: str, answered: Callable[..., dict[str, Any]],
    together: Callable[[list[str]], list[dict[str, Any]]] | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """An answer to each line; all at once where all can be."""
    if together is not None:
        try:
            asked = [_asked(line, name) for line in lines]
            if all(len(texts) == 1 for texts in asked):
                yield from together([text for (text,) in asked])
                return
        except EdgebertError:
            pass  # each tells for itself
    for line in lines:
        try:
            yield answered(*_asked(line, name))
        except EdgebertError as error:
            yield {"error": str(error)}


def _lines(name: str) -> Iterator[bytes]:
    """The lines of a file, without their ends."""
    if name == "-":
        yield from _split(sys.stdin.buffer)
        return
    check_file(Path(name), sys.maxsize)
    with open(name, "rb") as file:
        yield from _split(file)


def _split(file: BinaryIO) -> Iterator[bytes]:
    while line := file.readline(LINE):
        if not line.endswith(b"\n") and len(line) == LINE:
            while (rest := file.readline(LINE)) and not rest.endswith(b"\n"):
                pass  # what is too long is not kept, but told as one line
        yield line.removesuffix(b"\n").removesuffix(b"\r") if len(line) < LINE else line


def _asked(line: bytes, name: str) -> list[str]:
    """A line's texts.

    Raises:
        InputError: it is no text or no such object.
    """
    if len(line) >= LINE:
        raise InputError(f"the line has {LINE:,} bytes or more: split the text.")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the line is not UTF-8 (byte {error.start}): save the file as UTF-8.") from None
    if not name.endswith(".jsonl") and not (name == "-" and text.lstrip().startswith("{")):
        return [text]
    raw = parse_json(line, Path("the line"))
    firsts, seconds = ([key for key in keys if key in raw] for keys in (FIRST, SECOND))
    if len(firsts) != 1 or len(seconds) > 1 or set(raw) - {*FIRST, *SECOND, "id"}:
        raise InputError(f"the line has {', '.join(raw)}: text or question, and pair, context or choices are taken.")
    value: Any = raw[seconds[0]] if seconds else []
    rest = value if isinstance(value, list) else [value]
    texts = [raw[firsts[0]], *rest]
    if not all(isinstance(each, str) for each in texts):
        raise InputError("the line's texts are to be strings, and choices a list of them.")
    return texts
