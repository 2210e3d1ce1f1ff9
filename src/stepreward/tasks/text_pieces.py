"""Splits tidied answers at commas, signs and brackets, and tells names from values."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stepreward.tasks.latex_text import CLOSE, OPEN

WORD = rf"{OPEN}[^{CLOSE}]*{CLOSE}"
VARIABLE = re.compile(r"^\\?[A-Za-z]+'*(?:_\s*(?:\{\w+\}|\w))?$")
"""One or more letters: the name of a value."""
FUNCTION = re.compile(r"^[A-Za-z](?:_\w)?'*(?:\^\{-1\})?\s*\([^()]*\)$")
"""A function with its argument: `f(x)`."""
POINTS = re.compile(r"^[A-Z]{2,4}$")
"""A segment or an angle named by its points, or a product of capitals."""
LABEL = re.compile(
    r"^(?:\\?[A-Za-z]+'*(?:\s*_\s*(?:\{[^{}]*\}|\w))?(?:\s*\^\s*\{-1\})?(?:\s*\([^()]*\))?|m?\\angle\s*\w+|"
    r"\\(?:triangle|overline|vec)\s*\{?\w+\}?|[A-Z]\s*\([^()]*\)|\|\s*[A-Z]+\s*\||"
    rf"(?:{WORD}\s*)+|[A-Z]{{2,4}}|\(\s*[a-zA-Z](?:_\w)?(?:\s*,\s*[a-zA-Z](?:_\w)?)+\s*\))$"
)
"""The name of a value, or a tuple of such names."""
_BRACKETS = re.compile(r"\\[{}]|[()\[\]{}]|\\(?:begin|end)\{")
_AND = re.compile(rf"\s*,?\s*{OPEN}\s*,?\s*(?:and|or)\s*,?\s*{CLOSE}\s*|\s*,?\s+(?:and|or)\s+")
_DEPTH = {
    **dict.fromkeys((r"\{", "(", "[", "{", OPEN), 1),
    **dict.fromkeys((r"\}", ")", "]", "}", CLOSE), -1),
    r"\begin{": 2,
    r"\end{": 0,
}


def split(text: str, signs: str, *, keep: bool = False) -> list[str]:
    """Pieces between signs outside all brackets; with `keep` the signs too."""
    if not any(sign in text for sign in signs):
        return [text]
    made, depth, start = [], 0, 0
    for found in re.finditer(rf"\\(?:begin|end)\{{|\\[{{}}]|{OPEN}|{CLOSE}|[()\[\]{{}}]|[{re.escape(signs)}]", text):
        sign = found[0]
        if sign in signs:
            if depth == 0:
                made += [text[start : found.start()]] + ([sign] if keep else [])
                start = found.end()
        else:
            # The brace after \begin and \end closes again: what remains is the environment itself.
            depth += _DEPTH[sign]
    return [*made, text[start:]]


def parts(text: str) -> list[str]:
    """The parts between commas, semicolons, "and" and "or" outside brackets."""
    # In a sentence without numbers, "and" joins words and not answers.
    is_phrase = re.search(rf"{OPEN}[^{CLOSE}]*\w\s+(?:and|or)\s+\w", text) and not re.search(r"\d", text)
    bare = text if is_phrase else _AND.sub(" ; ", text)
    return [part.strip() for part in split(bare, ",;") if part.strip()]


def whole(text: str) -> bool:
    """Whether the bracket that opens a text closes at its end."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        sign = found[0]
        depth += 1 if sign[-1] in "([{" and not sign.startswith("\\end") else -1 if sign[-1] in ")]}" else 0
        if depth == 0:
            return found.end() == len(text)
    return False


def row(text: str) -> list[str]:
    """Entries of a tuple or an interval; none where a text is none as a whole."""
    if not (text[:1] in ("(", "[") and text[-1:] in (")", "]") and whole(text)):
        return []
    entries = split(text[1:-1], ",;")
    return [entry.strip() for entry in entries] if len(entries) > 1 else []


def labels(pieces: Sequence[str]) -> tuple[str, ...]:
    """The distinct names that get values; none where a piece is no value of a name."""
    sides = [[side.strip() for side in split(piece, "=")] for piece in pieces]
    named = [two[0] for two in sides if len(two) == 2 and (VARIABLE.match(two[0]) or FUNCTION.match(two[0]))]
    # "x = 1, x = 2" are two values of one name: a set, and not values of several names.
    return tuple(named) if len(named) == len(pieces) == len(set(named)) > 1 else ()
