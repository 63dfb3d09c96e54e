"""What the public functions give back is read in a line, as a table in a notebook, as plain values, as a data frame."""

import html
from typing import TYPE_CHECKING, Any, Protocol

from edgebert.errors import MissingDependency

if TYPE_CHECKING:
    import pandas


class _Flat(Protocol):
    def flat(self) -> list[dict[str, Any]]: ...


class Table:
    """Shows what is `flat`: rows as dicts of plain values, with the same keys that end in their units (`median_ms`)."""

    __slots__ = ()

    def to_frame(self: _Flat) -> "pandas.DataFrame":
        """The rows as a pandas data frame.

        Raises:
            MissingDependency: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingDependency("to_frame needs pandas: run pip install pandas") from None
        return pandas.DataFrame(self.flat())

    def _repr_html_(self: _Flat) -> str:
        """For notebooks."""
        rows = self.flat()
        head = "".join(f"<th>{html.escape(name)}</th>" for name in (rows[0] if rows else ()))
        body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row.values())}</tr>" for row in rows)
        return f"<p>{html.escape(repr(self))}</p><table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    return html.escape(f"{value:.4g}" if isinstance(value, float) else str(value))


def megabytes(size: int) -> float:
    """Bytes in MB, to the kilobyte."""
    return round(size / 1e6, 3)
