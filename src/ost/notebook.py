"""HTML tables by which results show themselves in a notebook; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

SHADE = "background:rgba(31,119,180,{:.2f})"


class Shaded(float):
    """A number whose cell is shaded by its `share`, 0 to 1."""

    share: float

    def __new__(cls, value: float, share: float) -> Shaded:
        """Return the number with its share."""
        number = super().__new__(cls, value)
        number.share = share
        return number


def html_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """Return a table; floats are printed with three digits, and shaded where they are `Shaded`."""
    head = "".join(f"<th>{escape(title)}</th>" for title in header)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f"<td style='text-align:left'>{escape(value)}</td>"
    style = f" style='{SHADE.format(value.share)}'" if isinstance(value, Shaded) else ""
    return f"<td{style}>{value:.3g}</td>"
