r"""Final answers in a normal form, compared whole: lists, sets, tuples, intervals, matrices, relations, units, words.

Equal answers to a problem have equal forms. A form is read blindly but for the kind of answer that the problem's
reference is (`Kind`): whether a unit, a percent sign or the left side of an equation may be left out, whether a letter
is an option, and whether a comma may separate thousands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from stepreward.tasks.expressions import NotAnExpression, TooCostly
from stepreward.tasks.latex_text import CLOSE, OPEN, tidy
from stepreward.tasks.units import split_unit
from stepreward.tasks.values import letters, names, order_name, relation_name

_WORD = rf"{OPEN}[^{CLOSE}]*{CLOSE}"
_OPTION = re.compile(rf"^[{OPEN}(\[]*([A-J])(?:[)\].:{CLOSE}]+|\s*$)(?!\s*=)", re.IGNORECASE)
_SET_OF = re.compile(r"^\\\{\s*([A-Za-z])\s*(?:∈\s*[^|:]+?)?(?:\\mid|\||:)\s*(.*?)\s*\\\}$")
_MATRIX = re.compile(
    r"^\\begin\{([pbvBV]?matrix|smallmatrix|array|cases|aligned)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}$", re.DOTALL
)
_BASE = re.compile(rf"^\(?(-?[0-9A-Z]+)\)?_\s*\{{?\s*(?:{OPEN})?(\d+|[a-z]+)(?:{CLOSE})?\s*\}}?$")
_BASES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
]
_TIME = re.compile(r"^0?(\d{1,2}):([0-5]\d)(:[0-5]\d)?$")
_THOUSANDS = re.compile(r"(?<![\d.,(\[{])(\d{1,3}(?:,\d{3})+)(?![\d])(?!,)")
_MIXED = re.compile(r"^(-?)(\d+)[\s-]+(?:\\frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?|(\d+)\s*/\s*(\d+))$")
_LABEL = re.compile(
    r"^(?:\\?[A-Za-z]+'*(?:\s*_\s*(?:\{[^{}]*\}|\w))?(?:\s*\^\s*\{-1\})?(?:\s*\([^()]*\))?|m?\\angle\s*\w+|\\(?:triangle|overline|vec)\s*\{?\w+\}?|"
    rf"[A-Z]\s*\([^()]*\)|\|\s*[A-Z]+\s*\||(?:{_WORD}\s*)+|[A-Z]{{2,4}})$"
)
_VARIABLE = re.compile(r"^\\?[A-Za-z]+(?:_\s*(?:\{\w+\}|\w))?$")
_FUNCTION = re.compile(r"^[A-Za-z](?:\^\{-1\})?\s*\([^()]*\)$")
_POINTS = re.compile(r"^[A-Z]{2,4}$")
_CALCULUS = re.compile(r"\\(?:int|iint|oint|sum|prod|lim|limsup|liminf|frac\{d)(?![A-Za-z])")
_BRACKETS = re.compile(r"\\[{}]|[()\[\]{}]|\\(?:begin|end)\{")
_AND = re.compile(rf"\s*,?\s*{OPEN}\s*,?\s*(?:and|or)\s*,?\s*{CLOSE}\s*|\s*,?\s+(?:and|or)\s+")
_ALGEBRA = re.compile(r"^(?:[b-df-hj-np-tv-z]{2,3}|[a-d]{2,3}|a[b-df-hj-np-tv-z]|[b-df-hj-np-tv-z]a)$")
_PLAIN_WORDS = re.compile(rf"^[\s.,'’\"!?:;()&/-]*(?:(?:{_WORD}|[A-Za-z]{{2,}})[\s.,'’\"!?:;()&/-]*)+$")
_DEPTH = {
    **dict.fromkeys((r"\{", "(", "[", "{", OPEN), 1),
    **dict.fromkeys((r"\}", ")", "]", "}", CLOSE), -1),
    r"\begin{": 2,
    r"\end{": 0,
}
_TURNED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}


@dataclass(frozen=True)
class Kind:
    """What kind of answer a reference is: how others are read beside it."""

    unit: str = ""
    """Its unit; answers may leave it out."""
    option: bool = False
    """It is the letter of an option."""
    listed: bool = False
    """It has several parts, so that commas separate them and not thousands."""
    labels: bool = False
    """It tells values of several letters."""
    relation: bool = False
    """It is an equation in several letters."""
    left: str = ""
    """The letter that such an equation is solved for."""
    fraction: bool = False
    """It is a number below 1."""


@lru_cache(maxsize=1 << 12)
def kind_of(reference: str) -> Kind:
    """The kind of a reference."""
    text = tidy(reference)
    if re.fullmatch(rf"[{OPEN}(\[]*[A-J][)\].{CLOSE}]*", text):
        return Kind(option=True)
    joined = _THOUSANDS.sub(lambda found: found[1].replace(",", ""), text)
    listed = len(_parts(joined)) > 1 or joined.startswith(("(", "[", r"\{"))
    sides = _split(text, "=")
    several = len(sides) == 2 and len(letters(sides[0]) | letters(sides[1])) > 1
    named = len(sides) == 2 and _LABEL.match(sides[0].strip()) and not letters(sides[1])
    relation = several and not named and not _FUNCTION.match(sides[0].strip())
    left = sides[0].strip() if relation and _VARIABLE.match(sides[0].strip()) else ""
    unit = split_unit(text)[1] if not listed else ""
    try:
        value = Fraction(_number_of(split_unit(text)[0] if unit == "%" else text))
    except (ValueError, ZeroDivisionError):
        value = Fraction(1)
    labels = len(_labels(_parts(joined))) > 1
    return Kind(unit, False, listed, labels, relation, left, abs(value) < 1)


def _number_of(text: str) -> str:
    return re.sub(r"^(-?)\\frac\{(\d+)\}\{(\d+)\}$", r"\1\2/\3", text).replace(" ", "")


def read_form(job: Sequence[str | None]) -> str | None:
    """The form of an answer beside a reference, for a worker process; None where it cannot be compared."""
    text, reference = job
    try:
        return form(text or "", None if reference is None else kind_of(reference))
    except TooCostly:
        return None


def form(text: str, kind: Kind | None = None) -> str:
    """The normal form of a final answer.

    Args:
        text: the answer as written, such as what a box holds.
        kind: of the problem's reference; None where there is none.

    Raises:
        TooCostly: it cannot be compared: a limit, an integral, or a number beyond all bounds.
    """
    listed = _from_json(text)
    if listed is not None:
        made = [part for one in listed for part in _forms(tidy(one), kind)]
    else:
        made = _forms(tidy(text), kind)
    return made[0] if len(made) == 1 else "{" + ", ".join(sorted(made)) + "}"


def _from_json(text: str) -> list[str] | None:
    """The answers of a list of texts, as data sets keep them; None where it is none."""
    text = text.strip().strip("$").strip()
    if not re.match(r"^\[\s*[\"']", text):
        return None
    for source in (text, re.sub(r"(?<!\\)\\(?![\\\"])", r"\\\\", text), re.sub(r"'", '"', text.replace("\\", "\\\\"))):
        try:
            found = json.loads(source)
        except ValueError:
            continue
        if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
            return found
    return None


def _forms(text: str, kind: Kind | None) -> list[str]:
    """Forms of the parts of a tidied answer."""
    if kind is not None and kind.option and (found := _OPTION.match(text)):
        return [found[1].upper()]
    if kind is None and (found := re.match(rf"^[{OPEN}]?\(([A-J])\)[{CLOSE}]?(?!\s*[,;])", text)):
        return [found[1]]
    text = re.sub(rf"^{OPEN}?\([A-J]\){CLOSE}?\s*(?=[^\s,;{OPEN}{CLOSE}])", "", text)
    if kind is None or not kind.listed:
        text = _THOUSANDS.sub(lambda found: found[1].replace(",", ""), text)
    parts = _parts(text)
    ranges = [_is_order(part) for part in parts]
    if len(labels := _labels(parts)) == len(parts) > 1 and (kind is None or kind.labels):
        return [f"{label} = {_one(part, kind)}" for label, part in zip(labels, parts, strict=True)]
    made = [one for part in parts for one in _part(part, kind)]
    if len(parts) == 1 and parts[0].startswith(r"\{") and not _SET_OF.match(parts[0]):
        return list(dict.fromkeys(made)) or ["{}"]
    return [" U ".join(sorted(made))] if len(parts) > 1 and all(ranges) else made


def _labels(parts: Sequence[str]) -> list[str]:
    """The letters of which values are told, each another; none where some part is no value of a letter."""
    sides = [[side.strip() for side in _split(part, "=")] for part in parts]
    names = [two[0] for two in sides if len(two) == 2 and _VARIABLE.match(two[0])]
    return names if len(names) == len(parts) == len(set(names)) else []


def _parts(text: str) -> list[str]:
    """What commas, semicolons, "and" and "or" separate outside brackets."""
    bare = _AND.sub(" ; ", text) if not _is_phrase(text) else text
    return [part.strip() for part in _split(bare, ",;") if part.strip()]


def _is_phrase(text: str) -> bool:
    """Whether a text is a sentence, in which "and" joins no answers."""
    return bool(re.search(rf"{OPEN}[^{CLOSE}]*\w\s+(?:and|or)\s+\w", text)) and not re.search(r"\d", text)


def _split(text: str, signs: str, *, keep: bool = False) -> list[str]:
    """Pieces between signs that stand outside all brackets; with `keep` the signs too."""
    made, depth, start = [], 0, 0
    for found in re.finditer(rf"\\(?:begin|end)\{{|\\[{{}}]|{OPEN}|{CLOSE}|[()\[\]{{}}]|[{re.escape(signs)}]", text):
        sign = found[0]
        if sign in signs:
            if depth == 0:
                made += [text[start : found.start()]] + ([sign] if keep else [])
                start = found.end()
        else:
            # The brace behind \begin and \end closes again: what is left is the environment itself.
            depth += _DEPTH[sign]
    return [*made, text[start:]]


def _is_order(text: str) -> bool:
    return len(_split(text, "<>≤≥")) > 1


def _part(text: str, kind: Kind | None) -> list[str]:
    """Forms of one part: several for a plus-minus sign or a set."""
    if _BASE.match(text) or _TIME.match(split_unit(text)[0]):
        return [_digits(text, kind)]
    if found := _SET_OF.match(text):
        return _forms(found[2], kind)
    if text in ("∅", r"\{\}", r"\{ \}"):
        return ["{}"]
    if text.startswith(r"\{") and text.endswith(r"\}") and _whole(text):
        return [one for part in _parts(text[2:-2]) for one in _part(part, kind)]
    if found := _MATRIX.match(text):
        return [_matrix(found[1], found[2], kind)]
    if len(sides := _split(text, "∈")) == 2:
        return _part(sides[1].strip(), kind)
    if len(sides := _split(text, "∪")) > 1:
        return [" U ".join(sorted(one for side in sides for one in _part(side.strip(), kind)))]
    if len(_split(text, "=≈≠<>≤≥")) > 1:
        return _relation(text, kind)
    if (row := _row(text, kind)) is not None:
        return [row]
    if len(ratio := _split(text, ":")) > 1:
        return [_ratio(ratio, kind)]
    if kind is not None and kind.left and kind.left not in letters(text) and letters(text):
        return ["equation = " + relation_name(kind.left, text)]
    return _quantity(text, kind)


def _digits(text: str, kind: Kind | None) -> str:
    """Digits in a base, or a time of day."""
    value, unit = split_unit(text)
    if found := _TIME.match(value):
        told = unit if kind is not None and kind.unit not in ("", unit) else ""
        return f"{int(found[1])}:{found[2]}{found[3] or ''} {told}".strip()
    found = _BASE.match(text)
    assert found is not None
    base = str(_BASES.index(found[2])) if found[2] in _BASES else found[2]
    return f"{found[1].lstrip('0') or '0'} base {base}"


def _whole(text: str) -> bool:
    """Whether the bracket that opens a text closes at its end."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        sign = found[0]
        depth += 1 if sign[-1] in "([{" and not sign.startswith("\\end") else -1 if sign[-1] in ")]}" else 0
        if depth == 0:
            return found.end() == len(text)
    return False


def _row(text: str, kind: Kind | None) -> str | None:
    """A tuple or an interval, in its brackets; None where the text is none."""
    if not (text[:1] in ("(", "[") and text[-1:] in (")", "]") and _whole(text)):
        return None
    entries = _split(text[1:-1], ",;")
    if len(entries) < 2:
        return None
    return text[0] + ", ".join(_one(entry.strip(), kind) for entry in entries) + text[-1]


def _one(text: str, kind: Kind | None) -> str:
    """The form of an entry."""
    if not text:
        return ""
    made = _part(text, kind)
    return made[0] if len(made) == 1 else "{" + ", ".join(sorted(made)) + "}"


def _matrix(name: str, inside: str, kind: Kind | None) -> str:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", inside) if row.strip()]
    if name in ("cases", "aligned"):
        return "{" + ", ".join(sorted(_one(row.replace("&", "").strip().rstrip(","), kind) for row in rows)) + "}"
    shown = "; ".join(", ".join(_one(entry.strip(), kind) for entry in row.split("&")) for row in rows)
    return f"{'det' if name in ('vmatrix', 'Vmatrix') else 'matrix'} [{shown}]"


def _ratio(sides: Sequence[str], kind: Kind | None) -> str:
    try:
        first = sides[0].strip()
        return "ratio " + ":".join(names(rf"\frac{{{side.strip()}}}{{{first}}}")[0] for side in sides)
    except NotAnExpression:
        return " : ".join(_one(side.strip(), kind) for side in sides)


def _relation(text: str, kind: Kind | None) -> list[str]:
    """Forms of an equation, an inequality, or a value with its letter."""
    pieces = [piece.strip() for piece in _split(text, "=≈≠<>≤≥", keep=True)]
    sides, signs = pieces[::2], pieces[1::2]
    if not all(sides[1:]):
        return [_words(text)]
    if any(sign in _TURNED for sign in signs):
        return [_order(sides, signs, kind)]
    if "≠" in signs:
        shown = [_one(side, kind) for side in sides]
        return ["not " + (shown[1] if _LABEL.match(sides[0]) else " ".join(sorted(shown)))]
    if kind is not None and kind.relation and len(sides) == 2:
        return [_equation(sides)]
    if _labelled(sides, kind):
        sides, signs = sides[1:], signs[1:]
    made = [_part(side, kind) for side in sides if side]
    if all(one == made[0] for one in made) or (signs and signs[0] == "≈"):
        return made[0]
    return [_equation(sides)]


def _labelled(sides: Sequence[str], kind: Kind | None) -> bool:
    """Whether the first side only names what the others are."""
    name, rest = sides[0], letters(sides[1])
    if not name:
        return True
    if _POINTS.match(name) and _POINTS.match(sides[1]):
        return False
    if _FUNCTION.match(name) or (_LABEL.match(name) and not (_VARIABLE.match(name) and rest & letters(name))):
        return True
    return kind is not None and not kind.relation and not rest and not re.search(r"\d", name) and bool(letters(name))


def _equation(sides: Sequence[str]) -> str:
    try:
        return " = ".join(["equation", *(relation_name(sides[0], side) for side in sides[1:])])
    except NotAnExpression:
        return " = ".join(_words(side) for side in sides)


def _order(sides: Sequence[str], signs: Sequence[str], kind: Kind | None) -> str:
    """An inequality: the interval of its one letter, or its name up to a positive factor."""
    if len(signs) == 2 and all(_TURNED.get(sign) for sign in signs) and not letters(sides[0]) and not letters(sides[2]):
        if signs[0] in ">≥":
            sides, signs = sides[::-1], [_TURNED[sign] for sign in signs[::-1]]
        if all(sign in "<≤" for sign in signs):
            ends = ("[" if signs[0] == "≤" else "(", "]" if signs[1] == "≤" else ")")
            return f"{ends[0]}{_one(sides[0], kind)}, {_one(sides[2], kind)}{ends[1]}"
    if len(signs) == 1 and (_LABEL.match(sides[0]) or _LABEL.match(sides[1])):
        right, sign = (sides[1], signs[0]) if _LABEL.match(sides[0]) else (sides[0], _TURNED[signs[0]])
        if not letters(right):
            end = _one(right, kind)
            ranges = {">": f"({end}, oo)", "≥": f"[{end}, oo)", "<": f"(-oo, {end})", "≤": f"(-oo, {end}]"}
            return ranges[sign]
    try:
        made = []
        for i, sign in enumerate(signs):
            low, high = (sides[i], sides[i + 1]) if sign in "<≤" else (sides[i + 1], sides[i])
            made.append(f"{'<' if sign in '<>' else '<='} {order_name(low, high)}")
        return "order " + " and ".join(sorted(made))
    except NotAnExpression:
        return " ".join(_words(side) for side in sides) + " ".join(signs)


def _quantity(text: str, kind: Kind | None) -> list[str]:
    """Forms of a value with or without a unit, or of words."""
    if _PLAIN_WORDS.match(text) and not _ALGEBRA.match(text):
        return [_words(text)]
    if sign := re.fullmatch(r"([+-]?)\s*\\infty", text):
        return ["-oo" if sign[1] == "-" else "oo"]
    value, unit = split_unit(text)
    wanted = kind.unit if kind is not None else ""
    scale = Fraction(1)
    if unit == "%" and kind is not None and wanted != "%" and kind.fraction:
        scale = Fraction(1, 100)
    elif wanted == "%" and not unit and kind is not None and not kind.fraction and _below_one(value):
        scale = Fraction(100)
    try:
        made = names(_mixed(value), scale)
    except NotAnExpression:
        if _CALCULUS.search(text):
            raise TooCostly("an integral, a sum or a limit") from None
        return [_words(text)]
    differs = bool(wanted) and bool(unit) and unit != wanted
    return [f"{one} {unit}" for one in made] if differs else made


def _below_one(text: str) -> bool:
    try:
        return 0 < abs(Fraction(_number_of(text))) < 1
    except (ValueError, ZeroDivisionError):
        return False


def _mixed(text: str) -> str:
    """A mixed number as a sum."""
    found = _MIXED.match(text)
    if found is None:
        return text
    above, below = (found[3], found[4]) if found[3] else (found[5], found[6])
    return f"{found[1]}({found[2]}+\\frac{{{above}}}{{{below}}})"


def _words(text: str) -> str:
    """Words without what does not count: case, marks of text, spaces and full stops."""
    if re.fullmatch(rf"[{OPEN}(]*[A-Z][){CLOSE}.]*", text):
        return re.sub(r"[^A-Z]", "", text)
    bare = re.sub(rf"[{OPEN}{CLOSE}]", " ", text)
    return re.sub(r"\s+", " ", re.sub(r"\s*([^\w\s])\s*", r"\1", bare)).strip(" .'\"").casefold()
