"""A file of texts from a user: what a vocabulary is trimmed to, and what scales are found on."""

import io
from pathlib import Path

from edgebert import files
from edgebert.errors import InputError

LARGEST = 64 << 20  # bytes of a file
# Of a file, and characters of each: what is split into pieces takes a hundred times its own memory.
TEXTS, LONGEST = 1_000_000, 100_000


def read_corpus(path: Path, most: int = TEXTS) -> list[tuple[str, ...]]:
    """Read a file of texts: UTF-8, a line a text or, parted by a tab, a pair; blank lines are left out.

    Args:
        path: the file, of up to LARGEST bytes, with lines of up to LONGEST characters.
        most: the most texts and pairs that are of use.

    Raises:
        InputError: the file is missing, not UTF-8, too large, without any text, or has more than one tab in a line.
    """
    if not files.is_file(path):
        raise InputError(f"cannot read {path}: No such file; give a UTF-8 file with a text a line.")
    try:
        content = files.read(path, LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8, a text a line.") from None
    found: list[tuple[str, ...]] = []
    # Not splitlines: it also parts texts at separators of other kinds that may stand inside of one.
    for number, line in enumerate(io.StringIO(content, newline=None), 1):
        if not line.strip():
            continue
        if len(line) > LONGEST:
            raise InputError(f"{path}, line {number}: {len(line):,} characters; a text has up to {LONGEST:,}.")
        texts = tuple(line.removesuffix("\n").split("\t"))
        if len(texts) > 2:
            raise InputError(f"{path}, line {number}: {len(texts) - 1} tabs; a line is a text, or a pair with one tab.")
        if len(found) == most:
            raise InputError(f"{path} has more than {most:,} texts: give a sample of them.")
        found.append(texts)
    if not found:
        raise InputError(f"{path} holds no text: give a UTF-8 file with a text a line.")
    return found
