r"""Finds the chains of equations, a = b = c, that a text writes in LaTeX or on lines of their own.

Sides are texts for `tasks.expressions`, which no one evaluates here. What is no chain of plain equations is left out:
inequalities, congruences, plus-minus signs, tables, sides over several commas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from stepreward.tasks.latex_text import tidy

LONGEST = 20_000
"""Characters of a text that are read."""
MOST = 60
"""Chains of a text that are read."""
_LONGEST_SIDE = 300
_SPANS = re.compile(
    r"\$\$(.+?)\$\$|(?<![\\$])\$([^$]+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]"
    r"|\\begin\{((?:align|equation|gather|multline)(?:ed)?\*?)\}(.+?)\\end\{\5\}",
    re.DOTALL,
)
_TABLES = re.compile(
    r"\\begin\{(?!align|equation|gather|multline|split)|\\(?:pm|mp|sum|int|prod|lim|cdots|ldots|dots)\b"
)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{[a-z]+\*?\}(?:\[[a-z]\])?|\\(?:tag|label)\{[^{}]*\}|(?<!\\)&")
_GOES_ON = re.compile(r"\\\\\s*(?:\[[^\]]*\])?\s*(?==|\\approx)")
"""A new line of LaTeX that begins with a sign goes on with the chain."""
_BREAKS = re.compile(
    r"\\\\|\\(?:implies|iff|therefore|because|to|q?quad|land|wedge|lor|vee)(?![A-Za-z])"
    r"|\\(?:Long)?(?:[Ll]eft)?[Rr]ightarrow(?![A-Za-z])|[;⇒→∴]"
)
_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mbox|textrm)\s*\{([^{}]*)\}")
_PLAIN_WORDS = re.compile(
    r"(?<![\\A-Za-z])(?!(?:sqrt|sin|cos|tan|log|ln|pi)\b)[A-Za-z]{2,}(?:['\u2019][a-z]+)?|[:?!\"`#]+(?=\s|$)|\*\*|^\s*[*-]\s"
)
_LINKS = frozenset(("and", "or", "if", "so", "then", "when", "where", "since", "for", "is", "with", "thus", "hence"))
_REFUSED = re.compile(
    r"[<>≤≥≠≡∈∝~]|\\(?:leq?|geq?|neq?|lt|gt|equiv|p?mod|bmod|in|sim|cong|propto|subset|mid|parallel)(?![A-Za-z])|:="
)
_BARE = re.compile(r"\s*(?:\$?\d[\d,.]*%?|[A-Za-z])\s*$")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SIGN = re.compile(r"=|\\approx(?![A-Za-z])|≈")


@dataclass(frozen=True, slots=True)
class Chain:
    """Sides that a text sets equal, one to the next."""

    sides: tuple[str, ...]
    """At least two, as LaTeX in one notation."""
    exact: tuple[bool, ...]
    """Whether the sign between each two says equal and not about equal."""
    lead: str
    """The words before it and in its formula, in lower case."""
    worded: bool
    """Words such as units were left out of it."""


def chains(text: str) -> Iterator[Chain]:
    """Yields the chains of a text in order; work is bounded."""
    made = 0
    for lead, span, cut in _spans(text[:LONGEST]):
        if _TABLES.search(span):
            continue
        span = _GOES_ON.sub(" ", _ENVIRONMENT.sub(" ", span))
        lead = " ".join([lead, *(found[1].lower() for found in _WORDS.finditer(span))])
        span = _WORDS.sub(lambda found: r"\\" if _LINKS & {*found[1].lower().split()} else " \ue000 ", span)
        for piece in _BREAKS.split(span):
            for part in _at_commas(piece):
                chain = _chain(part, lead, cut=cut)
                if chain is not None and made < MOST:
                    made += 1
                    yield chain


def _spans(text: str) -> Iterator[tuple[str, str, bool]]:
    """Yields pieces of mathematics, the words before each, and whether it was cut at a word.

    Where nothing is marked as mathematics they are lines, cut at words.
    """
    end, found_one = 0, False
    for found in _SPANS.finditer(text):
        inside = next(one for one in (found[1], found[2], found[3], found[4], found[6]) if one is not None)
        yield text[max(end, found.start() - 80) : found.start()].lower(), inside, False
        end, found_one = found.end(), True
    if not found_one:
        for line in text.splitlines():
            for number, piece in enumerate(_PLAIN_WORDS.split(line)):
                # An operator behind a word belongs to a side that is not read.
                if piece.strip()[:1] not in ("+", "-", "*", "/", "^", "=", "%"):
                    yield line[: max(0, line.find(piece))].lower(), piece, number > 0


def _at_commas(text: str) -> Iterator[str]:
    """Yields the parts between commas that are in no brackets and no numbers."""
    depth = start = 0
    for at, sign in enumerate(text):
        depth += (sign in "([{") - (sign in ")]}")
        number = text[at - 1 : at].isdigit() and text[at + 1 : at + 4].isdigit()
        if sign == "," and depth == 0 and not number:
            yield text[start:at]
            start = at + 1
    yield text[start:]


def _chain(text: str, lead: str, *, cut: bool) -> Chain | None:
    if _REFUSED.search(text) or ".." in text or ("=" not in text and "approx" not in text and "≈" not in text):
        return None
    signs, depth, cuts = [*_SIGN.finditer(text)], 0, []
    at = 0
    for sign in signs:
        depth += sum((c in "([{") - (c in ")]}") for c in text[at : sign.start()])
        at = sign.start()
        if depth == 0:
            cuts.append(sign)
    ends = [*(one.start() for one in cuts), len(text)]
    if cut and cuts and _BARE.match(text[: cuts[0].start()]):
        # Of `a third of 27 = 9` the number is not the whole side.
        return _chain(text[cuts[0].end() :], lead, cut=False)
    starts = [0, *(one.end() for one in cuts)]
    sides = tuple(_side(text[start:end]) for start, end in zip(starts, ends, strict=True))
    if len(sides) < 2 or max(map(len, sides)) > _LONGEST_SIDE:
        return None
    return Chain(sides, tuple(one[0] == "=" for one in cuts), lead, "\ue000" in text)


def _side(text: str) -> str:
    return _THOUSANDS.sub("", tidy(text.replace("\ue000", " ").strip().strip(".,")))
