"""Numbers that are written in ways of their own: thousands, mixed numbers, bases and times of day."""

from __future__ import annotations

import re

from stepreward.tasks.latex_text import CLOSE, OPEN

_BASE = re.compile(rf"^[({OPEN}]?(-?[0-9A-Z]+)[){CLOSE}]?\s*_\s*\{{?\s*(?:{OPEN})?(\d+|[a-z]+)(?:{CLOSE})?\s*\}}?$")
_BASES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen",
)  # fmt: skip
_TIME = re.compile(r"^0?(\d{1,2}):([0-5]\d)(:[0-5]\d)?$")
# Not at the start of brackets, where commas separate coordinates: (1,234) is a point.
_COMMAS = re.compile(r"(?<![\d.,(\[{])(\d{1,3}(?:,\d{3})+)(?![\d])(?!,)")
_SPACED = re.compile(r"(?<=\d),\s+(?=\d{3}(?!\d))")
_MIXED = re.compile(r"^(-?)(\d+)\s*(?:\\frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?|(?<=\s)(\d+)\s*/\s*(\d+))$")


def joined(text: str, *, spaced: bool = False) -> str:
    """Without commas between thousands; with `spaced` also where a space follows them."""
    return _COMMAS.sub(lambda found: found[1].replace(",", ""), _SPACED.sub(",", text) if spaced else text)


def mixed(text: str) -> str:
    """A mixed number as a sum."""
    found = _MIXED.match(text)
    if found is None:
        return text
    above, below = (found[3], found[4]) if found[3] else (found[5], found[6])
    return f"{found[1]}({found[2]}+\\frac{{{above}}}{{{below}}})"


def in_base(text: str) -> str | None:
    """Digits in a base; None where a text is none."""
    found = _BASE.match(text)
    if found is None or not (found[2].isdigit() or found[2] in _BASES):
        return None
    base = found[2] if found[2].isdigit() else str(_BASES.index(found[2]))
    return f"{found[1].lstrip('0') or '0'} base {base}"


def time_of_day(text: str) -> str | None:
    """Hours and minutes; None where a text is none."""
    found = _TIME.match(text)
    return None if found is None else f"{int(found[1])}:{found[2]}{found[3] or ''}"
