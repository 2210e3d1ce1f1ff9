"""Cuts source code at its statements."""

from __future__ import annotations

import ast
import re
import warnings
from itertools import pairwise

from stepreward.core.catalog import segment
from stepreward.core.segment.spans import cut, fenced, protected
from stepreward.core.segment.text import BLANK_LINES
from stepreward.core.types import Step

_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_SPACE = re.compile(r"\s*+")


@segment.method("code", note="statements by Python's own parser; what does not parse is read as Markdown")
def code(text: str) -> list[Step]:
    """Cuts Python source after each top-level statement.

    Blank lines and indented comments after a statement belong to it; comments at the margin and decorators belong to
    the statement below them. Statements that share a line are one step. Text that is no Python is read as Markdown:
    each block of fenced code is one step, and the text between is cut at blank lines.

    Args:
        text: source, or Markdown with fenced code.
    """
    statements = _parse(text)
    if statements is None:
        blocks = fenced(text)
        behind = [(_SPACE.match(text, end), end) for _, end in blocks]
        edges = [start for start, _ in blocks] + [found.end() if found else end for found, end in behind]
        return cut(text, [*edges, *(m.end() for m in BLANK_LINES.finditer(text))], protected(text))
    starts = [0, *(m.end() for m in _LINE_ENDS.finditer(text)), len(text)]
    cuts = []
    for statement, following in pairwise(statements):
        decorators: list[ast.expr] = getattr(following, "decorator_list", [])
        line = statement.end_lineno or statement.lineno
        first = min([following.lineno, *(one.lineno for one in decorators)])
        # Lines are counted from 1, so `line` is the index of the line below the statement.
        while line < first - 1 and text[starts[line]].isspace():
            line += 1
        if line < first:
            cuts.append(starts[line])
    return cut(text, cuts)


def _parse(text: str) -> list[ast.stmt] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
