"""A file of texts from a user: what a vocabulary is trimmed to, and what scales are found on."""

from pathlib import Path

from edgebert.errors import InputError


def read_corpus(path: Path) -> list[tuple[str, ...]]:
    """Read a file of texts: UTF-8, a line a text or, parted by a tab, a pair; blank lines are left out.

    Raises:
        InputError: the file is missing, not UTF-8, without any text, or has more than one tab in a line.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8, a text a line.") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a UTF-8 file with a text a line.") from None
    # Not splitlines: it also parts texts at separators of other kinds that may stand inside of one.
    lines = [tuple(line.split("\t")) for line in content.split("\n")]
    for number, line in enumerate(lines, 1):
        if len(line) > 2:
            raise InputError(f"{path}, line {number}: {len(line) - 1} tabs; a line is a text, or a pair with one tab.")
    found = [line for line in lines if any(part.strip() for part in line)]
    if not found:
        raise InputError(f"{path} holds no text: give a UTF-8 file with a text a line.")
    return found
