"""Tables in HTML for notebooks: short, with every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

_MOST_ROWS = 50
_MOST_CHARACTERS = 300
_NOT_MEASURED = "\u2013"
_STYLE = 'style="text-align: left; white-space: pre-wrap"'


def html_table(head: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "") -> str:
    """An HTML table of the first rows; a last line counts those that are left out.

    Args:
        head: names of the columns.
        rows: cells; texts are cut at 300 characters, floats have three digits, NaN and None are a dash.
        caption: a line above the table.
    """
    left = iter(rows)
    body = [_line("td", row) for row in islice(left, _MOST_ROWS)]
    if more := sum(1 for _ in left):
        body.append(f'<tr><td colspan="{len(head)}">\u2026 {more:,} more</td></tr>')
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{above}<thead>{_line('th', head)}</thead><tbody>{''.join(body)}</tbody></table>"


def _line(tag: str, cells: Iterable[object]) -> str:
    return f"<tr>{''.join(f'<{tag} {_STYLE}>{escape(_shown(cell))}</{tag}>' for cell in cells)}</tr>"


def _shown(cell: object) -> str:
    """A cell as text."""
    if cell is None or cell != cell:  # NaN alone differs from itself.
        return _NOT_MEASURED
    if isinstance(cell, float):
        return f"{cell:.3g}"
    text = str(cell).strip()
    return text if len(text) <= _MOST_CHARACTERS else text[:_MOST_CHARACTERS] + "\u2026"
