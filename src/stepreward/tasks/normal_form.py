r"""Final answers in a normal form, compared whole: lists, sets, tuples, intervals, matrices, relations, units, words.

Equal answers to a problem have equal forms. Of the reference a form uses only its kind (`Kind`): whether an answer may
leave out a unit, a percent sign or the left side of an equation, whether a letter is an option, and whether a comma may
separate thousands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from stepreward.tasks.answer_kind import Kind, kind_of
from stepreward.tasks.expressions import NotAnExpression, TooCostly
from stepreward.tasks.latex_text import CLOSE, OPEN, tidy
from stepreward.tasks.numerals import in_base, joined, mixed, time_of_day
from stepreward.tasks.text_pieces import FUNCTION, LABEL, POINTS, VARIABLE, WORD, labels, parts, row, split, whole
from stepreward.tasks.units import factor_of, same_unit, split_unit
from stepreward.tasks.value_names import letters, names, order_name, rational, relation_name

_OPTION = re.compile(rf"^[{OPEN}(\[]*([A-J])(?:[)\].:{CLOSE}]+|\s*$)(?!\s*=)", re.IGNORECASE)
_CHOICE = re.compile(
    rf"^{OPEN}?(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\b(?:\s+is\b)?[\s:{CLOSE}]*", re.IGNORECASE
)
_ABOUT = re.compile(
    rf"^{OPEN}?(?:about|approximately|approx\.?|around|roughly|nearly|either)[\s{CLOSE}]+(?=[\d\\$.-])", re.IGNORECASE
)
_TO = re.compile(rf"(?<=\d)\s*(?:{OPEN}\s*to\s*{CLOSE}|\bto\b)\s*(?=\d)")
_SET_OF = re.compile(r"^\\\{\s*([A-Za-z])\s*(?:∈\s*[^|:]+?)?(?:\\mid|\||:)\s*(.*?)\s*\\\}$")
_MATRIX = re.compile(
    r"^\(?\\begin\{([pbvBV]?matrix|smallmatrix|array|cases|aligned)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}\)?$", re.DOTALL
)
_MODULO = re.compile(r"^(?:\\?\w+\s*\\equiv\s*)?([^=]+?)\s*\(?\s*\\?mod\s*\{?(\d+)\}?\s*\)?$")
_FRENCH_INTERVAL = re.compile(r"^([\[\](])([^\[\]()]+,[^\[\]()]+)([\[\])])$")
_AND = re.compile(rf"{OPEN}\s*and\s*{CLOSE}|\band\b")
_DISTANCE = re.compile(r"^\|\s*[A-Za-z]\s*\|$")
_REALS = re.compile(rf"^(?:\\mathbb\s*\{{?R\}}?|{OPEN}?all real(?: number)?s?{CLOSE}?)$", re.IGNORECASE)
_CALCULUS = re.compile(r"\\(?:int|iint|oint|sum|prod|lim|limsup|liminf)(?![A-Za-z])|\\frac\s*\{d[^{}]*\}\s*\{d")
_ALGEBRA = re.compile(r"^(?:[b-df-hj-np-tv-z]{2,3}|[a-d]{2,3}|a[b-df-hj-np-tv-z]|[b-df-hj-np-tv-z]a)$")
# Possessive, so that a text that is no words is left in time that is linear in its length.
_PLAIN_WORDS = re.compile(rf"^[\s.,'’\"!?:;()&/-]*+(?:(?:{WORD}|[A-Za-z]{{2,}}+)[\s.,'’\"!?:;()&/-]*+)++$")
_MIRRORED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}


def read_forms(job: Sequence[str | None]) -> list[str | None]:
    """The forms of an answer and of its reference, for a worker process; None where one cannot be compared."""
    text, reference = job
    if reference is None:
        return [_form_or_none(text or "", None), None]
    kind = kind_of(reference)
    return [_form_or_none(text or "", kind), _form_or_none(reference, kind)]


@lru_cache(maxsize=1 << 12)
def _form_or_none(text: str, kind: Kind | None) -> str | None:
    try:
        return form(text, kind)
    except TooCostly:
        return None
    except RecursionError:
        # Thousands of factors or brackets are no real answer: compare the text.
        return _words(tidy(text))


def form(text: str, kind: Kind | None = None) -> str:
    """The normal form of a final answer.

    Args:
        text: the answer as written, such as the content of a box.
        kind: of the problem's reference; None where there is none.

    Raises:
        TooCostly: it cannot be compared: a limit, an integral, or a number beyond all bounds.
    """
    made = _forms(tidy(text), kind)
    return made[0] if len(made) == 1 else _set_form(made)


def _set_form(forms: Sequence[str]) -> str:
    return "{" + ", ".join(sorted(forms)) + "}"


def _forms(text: str, kind: Kind | None) -> list[str]:
    """Forms of the parts of a tidied answer."""
    # "about 5" is 5, and "3 to 4" a ratio.
    text = _TO.sub(":", _ABOUT.sub("", text))
    if kind is not None and kind.option and (chosen := _options(text)):
        return chosen
    # Without a reference, "(C)" is an option; "(C) 12" beside a reference of another kind is 12.
    if kind is None and (found := re.match(rf"^[{OPEN}]?\(([A-J])\)[{CLOSE}]?(?!\s*[,;])", text)):
        return [found[1]]
    text = re.sub(rf"^{OPEN}?\([A-J]\){CLOSE}?\s*(?=[^\s,;{OPEN}{CLOSE}])", "", text)
    if kind is None or not kind.listed:
        text = joined(text, spaced=kind is not None and kind.commas)
    pieces = parts(text)
    if values := _named_values(text, pieces, kind):
        return values
    ranges = [len(split(piece, "<>≤≥")) > 1 for piece in pieces]
    made = [one for piece in pieces for one in _forms_of_part(piece, kind)]
    if len(pieces) == 1 and pieces[0].startswith(r"\{") and not _SET_OF.match(pieces[0]):
        return list(dict.fromkeys(made)) or ["{}"]
    # "x > 1 and x < 3" is an interval, "x < 1 or x > 3" a union.
    if len(pieces) > 1 and all(ranges):
        return [(_intersection(made) if _AND.search(text) else "") or " U ".join(sorted(made))]
    return made


def _intersection(rays: Sequence[str]) -> str:
    """The interval in which two rays overlap; "" where they do not, or are no rays."""
    upward = [ray for ray in rays if ray.endswith(", oo)")]
    downward = [ray for ray in rays if ray.startswith("(-oo, ")]
    if len(rays) != 2 or len(upward) != 1 or len(downward) != 1:
        return ""
    low, high = upward[0][1:].removesuffix(", oo)"), downward[0].removeprefix("(-oo, ")[:-1]
    ends = rational(low), rational(high)
    if None not in ends and ends[0] >= ends[1]:  # type: ignore[operator]
        return ""
    return f"{upward[0][0]}{low}, {high}{downward[0][-1]}"


def _options(text: str) -> list[str]:
    """Letters of options: all where several are named, else the one in front; none where there is none."""
    text = _CHOICE.sub("", text)
    chosen = [found[1].upper() for piece in parts(text) if (found := _OPTION.match(piece))]
    return chosen if _OPTION.match(text) else []


def _named_values(text: str, pieces: Sequence[str], kind: Kind | None) -> list[str]:
    """Forms of the values of several names, where the reference names values or is a tuple; none elsewhere."""
    found = labels(pieces)
    values = [split(piece, "=")[1].strip() for piece in pieces] if found else []
    if kind is not None and kind.entries and found:
        ordered = [_single_form(value, kind) for _, value in sorted(zip(found, values, strict=True))]
        return [f"({', '.join(ordered)})"] if len(found) == kind.entries else []
    if kind is not None and kind.labels and not found and len(entries := row(text)) == len(kind.labels):
        found, values = tuple(sorted(kind.labels)), entries
    if not found or (kind is not None and not kind.labels):
        return []
    return [f"{name} = {_single_form(value, kind)}" for name, value in zip(found, values, strict=True)]


def _forms_of_part(text: str, kind: Kind | None) -> list[str]:
    """Forms of one part: several for a plus-minus sign or a set."""
    if (found := _FRENCH_INTERVAL.match(text)) and (found[1] == "]" or found[3] == "["):
        # French notation of intervals: a bracket that points outward is an open end.
        text = f"{'(' if found[1] == ']' else found[1]}{found[2]}{')' if found[3] == '[' else found[3]}"
    if found := _MODULO.match(text):
        return [f"{_single_form(found[1], kind)} mod {found[2]}"]
    if (digits := in_base(text) or _time(text, kind)) is not None:
        return [digits]
    if _REALS.match(text):
        return ["(-oo, oo)"]
    if found := _SET_OF.match(text):
        return _forms(found[2], kind)
    if text in ("∅", r"\{\}", r"\{ \}"):
        return ["{}"]
    if text.startswith(r"\{") and text.endswith(r"\}") and whole(text):
        return [one for part in parts(text[2:-2]) for one in _forms_of_part(part, kind)]
    if found := _MATRIX.match(text):
        return [_matrix(found[1], found[2], kind)]
    if len(sides := split(text, "∈")) == 2:
        return _forms_of_part(sides[1].strip(), kind)
    if len(sides := split(text, "∪")) > 1:
        if all(side.strip().startswith(r"\{") for side in sides):
            return list(dict.fromkeys(one for side in sides for one in _forms_of_part(side.strip(), kind)))
        return [" U ".join(sorted(one for side in sides for one in _forms_of_part(side.strip(), kind)))]
    if len(split(text, "=≈≠<>≤≥")) > 1:
        return _relation(text, kind)
    if entries := row(text):
        return [text[0] + ", ".join(_single_form(entry, kind) for entry in entries) + text[-1]]
    if len(ratio := split(text, ":")) > 1:
        # Beside a number as the reference, 1:2 is the quotient 1/2.
        if len(ratio) == 2 and kind is not None and not kind.ratio and kind.value is not None:
            return _quantity(rf"\frac{{{ratio[0]}}}{{{ratio[1]}}}", kind)
        return [_ratio(ratio, kind)]
    if kind is not None and kind.ratio and re.search(r"/|frac", text) and rational(text):
        return [_ratio([text, "1"], kind)]
    if kind is not None and kind.left and kind.left not in letters(text) and letters(text):
        return ["equation = " + relation_name(kind.left, text)]
    return _quantity(text, kind)


def _time(text: str, kind: Kind | None) -> str | None:
    """A time of day, with its half of the day where the reference has another."""
    value, unit = split_unit(text)
    time = None if kind is not None and not kind.time else time_of_day(value)
    return f"{time} {unit}" if time is not None and _has_other_unit(unit, kind) else time


def _has_other_unit(unit: str, kind: Kind | None) -> bool:
    """Whether a unit is not the one of the reference; False where either has none."""
    if kind is None or not (unit and kind.unit):
        return False
    return not same_unit(unit, kind.unit) and factor_of(unit, kind.unit) is None


def _single_form(text: str, kind: Kind | None) -> str:
    """The form of an entry."""
    if not text:
        return ""
    made = _forms_of_part(text, kind)
    return made[0] if len(made) == 1 else _set_form(made)


def _matrix(name: str, inside: str, kind: Kind | None) -> str:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", inside) if row.strip()]
    if name in ("cases", "aligned"):
        # Equations of a system, or values of several cases: their order does not matter.
        return _set_form([_single_form(row.replace("&", "").strip().rstrip(","), kind) for row in rows])
    shown = "; ".join(", ".join(_single_form(entry.strip(), kind) for entry in row.split("&")) for row in rows)
    return f"{'det' if name in ('vmatrix', 'Vmatrix') else 'matrix'} [{shown}]"


def _ratio(sides: Sequence[str], kind: Kind | None) -> str:
    try:
        first = sides[0].strip()
        return "ratio " + ":".join(names(rf"\frac{{{side.strip()}}}{{{first}}}")[0] for side in sides)
    except NotAnExpression:
        return " : ".join(_single_form(side.strip(), kind) for side in sides)


def _relation(text: str, kind: Kind | None) -> list[str]:
    """Forms of an equation, an inequality, or a value with its letter."""
    pieces = [piece.strip() for piece in split(text, "=≈≠<>≤≥", keep=True)]
    sides, signs = pieces[::2], pieces[1::2]
    if not all(sides[1:]):
        return [_words(text)]
    if any(sign in _MIRRORED for sign in signs):
        return [_inequality(sides, signs, kind)]
    if "≠" in signs:
        shown = [_single_form(side, kind) for side in sides]
        return ["not " + (shown[1] if LABEL.match(sides[0]) else " ".join(sorted(shown)))]
    if kind is not None and kind.relation and len(sides) == 2:
        return [_equation(sides)]
    if len(sides) == 2 and sides[0] and VARIABLE.match(sides[1]) and not letters(sides[0]):
        sides = sides[::-1]
    if _labelled(sides, kind):
        sides, signs = sides[1:], signs[1:]
    made = [_forms_of_part(side, kind) for side in sides if side]
    # "1/2 = 0.5" states one value; of "pi ≈ 3.14" the first side is exact.
    if all(one == made[0] for one in made) or (signs and signs[0] == "≈"):
        return made[0]
    return [_equation(sides)]


def _labelled(sides: Sequence[str], kind: Kind | None) -> bool:
    """Whether the first side is only a name of the others."""
    name, rest = sides[0], letters(sides[1])
    if not name:
        return True
    if POINTS.match(name) and POINTS.match(sides[1]):
        return False
    if FUNCTION.match(name) or (LABEL.match(name) and not (VARIABLE.match(name) and rest & letters(name))):
        return True
    return kind is not None and not kind.relation and not rest and not re.search(r"\d", name) and bool(letters(name))


def _equation(sides: Sequence[str]) -> str:
    try:
        return " = ".join(["equation", *(relation_name(sides[0], side) for side in sides[1:])])
    except NotAnExpression:
        return " = ".join(_words(side) for side in sides)


def _inequality(sides: Sequence[str], signs: Sequence[str], kind: Kind | None) -> str:
    """An inequality: the interval of its one letter, or its name up to a positive factor."""
    if len(signs) == 2 and all(map(_MIRRORED.get, signs)) and not letters(sides[0]) and not letters(sides[2]):
        if signs[0] in ">≥":
            sides, signs = sides[::-1], [_MIRRORED[sign] for sign in signs[::-1]]
        if all(sign in "<≤" for sign in signs):
            ends = ("[" if signs[0] == "≤" else "(", "]" if signs[1] == "≤" else ")")
            return f"{ends[0]}{_single_form(sides[0], kind)}, {_single_form(sides[2], kind)}{ends[1]}"
    if len(signs) == 1 and (LABEL.match(sides[0]) or LABEL.match(sides[1])):
        right, sign = (sides[1], signs[0]) if LABEL.match(sides[0]) else (sides[0], _MIRRORED[signs[0]])
        if not letters(right):
            end = _single_form(right, kind)
            ranges = {">": f"({end}, oo)", "≥": f"[{end}, oo)", "<": f"(-oo, {end})", "≤": f"(-oo, {end}]"}
            return ranges[sign]
    if len(signs) == 1 and _DISTANCE.match(sides[0]) and not letters(sides[1]):
        low, high = _single_form(f"-({sides[1]})", kind), _single_form(sides[1], kind)
        inside = {"<": f"({low}, {high})", "≤": f"[{low}, {high}]"}
        outside = {">": f"(-oo, {low}) U ({high}, oo)", "≥": f"(-oo, {low}] U [{high}, oo)"}
        return (inside | outside)[signs[0]]
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
    try:
        made = names(*_scaled(mixed(value), unit, kind))
    except NotAnExpression:
        if _CALCULUS.search(text):
            # To compare its text would call equal integrals different: it is not graded.
            raise TooCostly("an integral, a sum or a limit") from None
        return [_words(text)]
    return [f"{one} {unit}" for one in made] if _has_other_unit(unit, kind) else made


def _scaled(value: str, unit: str, kind: Kind | None) -> tuple[str, Fraction]:
    """A value with the factor that makes it one in the unit of the reference: percent and degrees."""
    if kind is None or unit == kind.unit:
        return value, Fraction(1)
    if (factor := factor_of(unit, kind.unit)) is not None:
        return value, factor
    if kind.unit == "degree" and not unit and r"\pi" in value:
        return rf"\frac{{({value})}}{{\pi}}", Fraction(180)
    if unit == "degree" and kind.radians:
        return rf"({value})\pi", Fraction(1, 180)
    # "50%" and "0.5" are one value where either is the reference; with a percent sign on both, 50% is not 0.5%.
    if "%" in (unit, kind.unit) and kind.value is not None and (number := rational(value)) is not None:
        factor = Fraction(1, 100) if unit == "%" else Fraction(100)
        return value, factor if number * factor == kind.value and not (unit and kind.unit) else Fraction(1)
    return value, Fraction(1)


def _words(text: str) -> str:
    """Words without case, text marks, extra spaces and full stops."""
    if re.fullmatch(rf"[{OPEN}(]*[A-Z][){CLOSE}.]*", text):
        return re.sub(r"[^A-Z]", "", text)
    bare = re.sub(rf"[{OPEN}{CLOSE}]", " ", text)
    return re.sub(r"\s+", " ", re.sub(r"\s*([^\w\s])\s*", r"\1", bare)).strip(" .'\"").casefold()
