"""Cuts at sentences, and at the sentences where a long chain of thought turns."""

from __future__ import annotations

import re

from stepreward.core.catalog import segment
from stepreward.core.segment.spans import cut, inline, protected
from stepreward.core.types import Step

# The look-behind lets a run of stops be read once, not once for each of its characters.
_STOPS = re.compile(
    r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019\u00bb)\]}*_`]*+(?:\s+|\Z)"
    r"|[\u3002\uff01\uff1f\uff61]++[\"'\u201d\u2019\u300d\u300f\uff09\u3011)]*+\s*"
    r"|\n\s*"
)
_CJK_STOPS = "\u3002\uff01\uff1f\uff61"
_ABBREVIATIONS = frozenset((
    "e.g", "i.e", "etc", "cf", "vs", "dr", "mr", "mrs", "ms", "prof", "st", "approx", "resp", "viz", "al", "w.l.o.g",
    "wlog", "a.k.a", "w.r.t", "s.t", "i.i.d",
))  # fmt: skip
_BEFORE_NUMBERS = frozenset(("no", "nos", "p", "pp", "vol", "ch", "ex", "def"))
_BEFORE_REFERENCES = frozenset(("fig", "figs", "eq", "eqs", "eqn", "sec", "thm", "lem", "prop", "cor"))
_BEFORE_ITEM = re.compile(r"[ \t*_#>(-]*(?:step[ \t]*#?)?", re.IGNORECASE)
_NO_BEGINNING = frozenset("=+/<>,;:)]}^%&|\u00d7\u00b7\u00f7\u2264\u2265\u2260\u2248")
_TURN = re.compile(
    r"[*_\"\u201c(>]*+(?:(?:but|so|and|or|oh|no|ok|okay|ah)[, ]++)?"
    r"(?:wait(?! (?:for|until)\b)|hmm++|hold on|alternatively|actually|on second thought"
    r"|let(?: me|'s|\u2019s) (?:just |quickly )?(?:(?:double|re)?[- ]?check|verify|confirm|re-?consider|re-?think"
    r"|re-?examine|think again|try (?:again|another|a different))"
    r"|(?:another|a different) (?:approach|way|angle|method|idea|thought|possibility))\b",
    re.IGNORECASE,
)


@segment.method("sentences", note="rules of our own for mathematics in English, and for CJK full stops; no model")
def sentences(text: str, *, protect: bool = True) -> list[Step]:
    r"""Cuts after sentences and line breaks, but not inside 3.14, after "e.g." or in inline mathematics.

    A sentence ends at ".", "!", "?" or an ellipsis, closing quotes and brackets, and white space, which belongs to it;
    at CJK full stops white space is not needed. No sentence ends where the next word begins in lower case (except
    after "?"), before an operator ("5! = 120"), after an abbreviation, or after the number of a list item. A single
    capital ends one: "the centre is O." is commoner in solutions than initials of people.

    Args:
        text: the text.
        protect: leave fenced code, display and inline mathematics whole.
    """
    ends = (
        stop.end()
        for stop in _STOPS.finditer(text)
        if "\n" in stop[0] or stop[0][0] in _CJK_STOPS or _ends_sentence(text, stop)
    )
    return cut(text, ends, _whole_spans(text, protect))


@segment.method(
    "transitions", paper="arXiv:2504.20708", note="its subthoughts begin at linguistic cues; the list of words is ours"
)
def transitions(text: str, *, protect: bool = True) -> list[Step]:
    """Cuts before sentences at which a long chain of thought turns: "Wait", "Alternatively", "But let me check".

    The words count at the start of a sentence or line only, in any case. There is no separator: a turn begins its step,
    and the white space before it belongs to the step before.

    Args:
        text: the text.
        protect: leave fenced code, display and inline mathematics whole.
    """
    stops = (stop.end() for stop in _STOPS.finditer(text))
    return cut(text, (at for at in stops if _TURN.match(text, at)), _whole_spans(text, protect))


def _whole_spans(text: str, protect: bool) -> list[tuple[int, int]]:
    return [*protected(text), *inline(text)] if protect else []


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    following = text[stop.end() : stop.end() + 2]
    if following[:1] in _NO_BEGINNING or following in ("* ", "- "):
        return False
    marks = stop[0].rstrip()
    if "?" in marks:
        return True
    if following[:1].islower():
        return False
    return (
        not marks.startswith(".") or marks.startswith("..") or not _is_abbreviation(text, stop.start(), following[:1])
    )


def _is_abbreviation(text: str, stop: int, following: str) -> bool:
    """Whether the full stop at `stop` belongs to the word before it; only a few characters are looked at."""
    words = text[max(0, stop - 24) : stop].split()
    bare = words[-1].lstrip("([{\"'\u201c\u2018*_#").lower() if words else ""
    if bare in _ABBREVIATIONS:
        return True
    if bare in _BEFORE_NUMBERS:
        return following.isdigit()
    if bare in _BEFORE_REFERENCES:
        return following.isdigit() or following in ("(", "$", "\\")
    return bare.isdigit() and _begins_line(text, stop - len(bare))


def _begins_line(text: str, at: int) -> bool:
    """Whether only marks of headings and lists, and the word "step", stand before `at` in its line."""
    line = text.rfind("\n", max(0, at - 32), at) + 1
    return (line > 0 or at <= 32) and _BEFORE_ITEM.fullmatch(text, line, at) is not None
