"""The errors a user can meet, and the exit code each one ends the command line with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgebert.report import Report

# Characters of a message that are kept from its beginning and from its end, where it says what to do.
HEAD, TAIL = 3000, 500


class EdgebertError(Exception):
    """What came, what is allowed, and what to do next, in one line."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def _one_line(message: str) -> str:
    """A message that stays one line of a terminal whatever a file's names and values put into it."""
    if len(message) > HEAD + TAIL:
        message = f"{message[:HEAD]} [...] {message[-TAIL:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


class InputError(EdgebertError):
    """A file, folder, flag or value from outside is not usable as it is."""

    exit_code = 2


class MissingDependency(EdgebertError):
    """A package that this target or file format needs is not installed."""

    exit_code = 3


class Unsupported(EdgebertError):
    """The parts exist, but not in this combination of model, task, target and recipe."""

    exit_code = 4


class ConversionFailed(EdgebertError):
    """A converter gave up, or wrote something that its own runtime does not open."""

    exit_code = 5


class ParityFailed(EdgebertError):
    """The exported file does not say what the torch model says.

    Attributes:
        report: the gate's report (`edgebert.report.Report`), with the figures.
    """

    exit_code = 6

    def __init__(self, message: str, report: "Report") -> None:
        super().__init__(message)
        self.report = report


class BudgetMissed(EdgebertError):
    """The file is right, but not what was asked for: too little of it is delegated."""

    exit_code = 7
