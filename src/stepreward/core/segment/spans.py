r"""Where text may be cut: spans that stay whole, and steps from positions.

Fenced code follows CommonMark: a fence closes at a line of as many or more of its own characters and nothing else, and
one that is never closed runs to the end. Display mathematics is ``$$..$$``, ``\[..\]`` and the environments of
mathematics (``\begin{align}..\end{align}``, but not ``\begin{proof}``, which holds steps), none of them across a fence;
a delimiter without a partner protects nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from stepreward.core.types import Step

Span = tuple[int, int]

_FENCE = re.compile(r"^[ \t]*+(?P<marks>`{3,}+|~{3,}+)(?P<info>[^`\n]*)$", re.MULTILINE)
_DISPLAY = re.compile(
    r"\\[\\$]"  # a line break of LaTeX or an escaped dollar: consumed, so that "\\[2pt]" opens nothing
    r"|(?P<dollars>\$\$)|(?P<bracket>\\[\[\]])"
    r"|\\(?P<way>begin|end)\{(?P<name>(?:align(?:ed|at|edat)?|flalign|equation|gather(?:ed)?|multline|eqnarray|split"
    r"|cases|array|tabular|(?:[bBpvV]|small)?matrix|displaymath|math|verbatim|lstlisting|tikzpicture|asy)\*?)\}"
)
# As Pandoc reads dollars: no white space just inside, no digit just after, so "$5 and $6" is money. Every alternative
# stops at its own opening mark, so a text of nothing but opening marks is still read in linear time.
_INLINE = re.compile(
    r"(?<![\\$])\$(?![\s$])[^$\\\n]*+(?:\\[^\n][^$\\\n]*+)*+(?<!\s)\$(?!\d)"
    r"|\\\([^\\\n]*+(?:\\[^()\n][^\\\n]*+)*+\\\)"
    r"|`[^`\n]*+`"
)


def protected(text: str) -> list[Span]:
    """Finds fenced code and display mathematics, which no method cuts unless an argument says so.

    Returns:
        Spans (start, end) in order, without overlap.
    """
    found = []
    at = 0
    for start, end in [*fenced(text), (len(text), len(text))]:
        found += [*_displays(text, at, start), (start, end)]
        at = end
    return found[:-1]


def fenced(text: str) -> list[Span]:
    """Finds fenced code, from the start of the line that opens it to the end of the line that closes it."""
    found = []
    start, opening = 0, ""
    for fence in _FENCE.finditer(text):
        marks = fence["marks"]
        if not opening:
            start, opening = fence.start(), marks
        elif marks.startswith(opening) and not fence["info"].strip():
            found.append((start, fence.end()))
            opening = ""
    return [*found, (start, len(text))] if opening else found


def inline(text: str) -> list[Span]:
    r"""Finds ``$..$``, ``\(..\)`` and code between single backticks, each within one line."""
    return [found.span() for found in _INLINE.finditer(text)]


def exposed(cuts: Iterable[int], spans: Iterable[Span]) -> Iterator[int]:
    """The cuts, sorted and distinct, that are not strictly inside a span."""
    covers = sorted(spans)
    at = covered = 0
    for cut in sorted(set(cuts)):
        while at < len(covers) and covers[at][0] < cut:
            covered = max(covered, covers[at][1])
            at += 1
        if cut >= covered:
            yield cut


def cut(text: str, cuts: Iterable[int], spans: Iterable[Span] = ()) -> list[Step]:
    """Makes the steps that end at `cuts`, leaving `spans` whole.

    Args:
        text: the text.
        cuts: positions at which one step ends and the next begins.
        spans: what must stay whole.

    Returns:
        Steps whose texts, joined, are `text`; none is blank unless `text` is.
    """
    edges = (0, *exposed(cuts, spans), len(text))
    return settle(Step(text[start:end]) for start, end in pairwise(edges))


def settle(steps: Iterable[Step], hollow: Callable[[str], bool] = str.isspace) -> list[Step]:
    """Joins each hollow step to the step before, or at the start to the step after; the text stays the same.

    A text that is all hollow is one step, or none if it is empty.

    Args:
        steps: the steps.
        hollow: whether a text, not empty, is too little for a step of its own.
    """
    lead: list[Step] = []
    groups: list[tuple[Step, list[str]]] = []
    for step in steps:
        if step.text and not hollow(step.text):
            groups.append((step, [*(one.text for one in lead), step.text]))
            lead = []
        elif groups:
            groups[-1][1].append(step.text)
        elif step.text:
            lead.append(step)
    if lead:
        groups = [(lead[0], [one.text for one in lead])]
    return [step if len(texts) == 1 else replace(step, text="".join(texts)) for step, texts in groups]


def _displays(text: str, start: int, end: int) -> Iterator[Span]:
    """Outermost displays of a part of the text: a closing delimiter pairs with the last open one of its kind."""
    found: list[Span] = []
    stack: list[tuple[str, int]] = []
    waiting: Counter[str] = Counter()
    for mark in _DISPLAY.finditer(text, start, end):
        kind, closes = _delimiter(mark)
        if closes and waiting[kind]:
            # Delimiters opened after the partner and not closed before this one have no partner themselves.
            while True:
                last, opened = stack.pop()
                waiting[last] -= 1
                if last == kind:
                    break
            while found and found[-1][0] > opened:
                found.pop()
            found.append((opened, mark.end()))
        elif kind == "$$" or not closes:
            stack.append((kind, mark.start()))
            waiting[kind] += 1
    yield from found


def _delimiter(mark: re.Match[str]) -> tuple[str, bool]:
    """The kind of a delimiter, and whether it may close; the kind "" is an escape, which closes nothing."""
    if mark["dollars"]:
        return "$$", True
    if mark["bracket"]:
        return "\\[", mark["bracket"] == "\\]"
    return mark["name"] or "", mark["way"] != "begin"
