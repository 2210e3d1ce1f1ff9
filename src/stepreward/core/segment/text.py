"""Cuts at characters: blank lines, lines, a marker, numbered headings."""

from __future__ import annotations

import re

from stepreward.core.catalog import segment
from stepreward.core.segment.spans import cut, protected
from stepreward.core.types import Step

# Possessive where a run of spaces could otherwise be split in many ways: no text may take more than linear time.
BLANK_LINES = re.compile(r"\n(?:[^\S\n]*+\n)++")
_MARKUP = r"(?:#{1,6}+[ \t]*+[*_]{0,3}+|[*_]{1,3}+|\\(?:textbf|textit|(?:sub){0,2}section|paragraph)\*?\{)[ \t]*+"
_NUMERAL = r"[ \t]*+[\d\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d\u5341]{1,4}[ \t]*+"
_STEP_HEADING = re.compile(
    rf"^[ \t]{{0,3}}(?:[-+>][ \t]++)?(?:{_MARKUP}step[ \t]*+#?\d++\b"
    r"|step[ \t]*+#?\d++(?:/\d++|[ \t]++of[ \t]++\d++)?[ \t]*+(?:[:)\u2013\u2014\uff1a-]|\.(?!\d)|\r?$)"
    rf"|(?:{_MARKUP})?(?:\u6b65\u9aa4{_NUMERAL}|\u7b2c{_NUMERAL}\u6b65))",
    re.MULTILINE | re.IGNORECASE,
)
_NUMBER = re.compile(
    rf"^[ \t]{{0,2}}(?:{_MARKUP})?(?:\d{{1,3}}[.)]|\(\d{{1,3}}\))(?=[*_]{{1,3}}\S|\}}|[ \t]++\S)", re.MULTILINE
)


@segment.method(
    "blank-lines",
    paper="arXiv:2412.06559",
    note="its solutions have a step a paragraph; a run of blank lines is one cut, not several",
)
def blank_lines(text: str, *, protect: bool = True) -> list[Step]:
    r"""Cuts after every run of blank lines: the convention of most process reward models.

    A line of white space is blank. The blank lines belong to the step before.

    Args:
        text: the text.
        protect: leave fenced code and display mathematics whole.
    """
    return cut(text, (m.end() for m in BLANK_LINES.finditer(text)), protected(text) if protect else ())


@segment.method("lines", paper="arXiv:2312.08935", note="each step of its data is one line, 'Step i: ...'")
def lines(text: str, *, protect: bool = True) -> list[Step]:
    r"""Cuts after every line break, as data in the manner of Math-Shepherd and the built-in world have their steps.

    A line ends in "\n" or "\r\n", which belongs to it; blank lines belong to the step before.

    Args:
        text: the text.
        protect: leave fenced code and display mathematics whole.
    """
    return cut(text, (m.end() for m in re.finditer("\n", text)), protected(text) if protect else ())


@segment.method("marker", paper="arXiv:2312.08935", note="the default is the step tag of its data")
def marker(text: str, *, marker: str = "\u043a\u0438", protect: bool = True) -> list[Step]:
    r"""Cuts after every run of a marker, for text whose author marked its steps.

    The markers and the white space after them belong to the step before.

    Args:
        text: the text.
        marker: the string, at least one character; "\u043a\u0438" in Math-Shepherd's data, "\n\n" in others.
        protect: leave fenced code and display mathematics whole.

    Raises:
        ValueError: `marker` is empty.
    """
    if not marker:
        raise ValueError("marker must have at least one character, got ''")
    found = re.finditer(rf"(?:{re.escape(marker)}\s*+)++", text)
    return cut(text, (m.end() for m in found), protected(text) if protect else ())


@segment.method("numbered", note="the form that most prompts for step-by-step solutions ask for")
def numbered(text: str, *, protect: bool = True) -> list[Step]:
    r"""Cuts before numbered headings: "Step 2:", "## Step 2", "**Step 2**", "2.", "2)", "(2)".

    There is no separator: a heading begins its step, and text before the first one is a step of its own. Where
    there is any heading with the word "step" (or its Chinese words), plain numbers are lists inside the steps and not
    cut at. Numbers indented by more than two characters are nested lists and not cut at either.

    Args:
        text: the text.
        protect: leave fenced code and display mathematics whole.
    """
    found = list(_STEP_HEADING.finditer(text)) or _NUMBER.finditer(text)
    return cut(text, (m.start() for m in found), protected(text) if protect else ())
