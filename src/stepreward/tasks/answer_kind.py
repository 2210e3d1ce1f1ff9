"""The kind of a reference answer, which decides how other answers are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from stepreward.tasks.latex_text import CLOSE, OPEN, tidy
from stepreward.tasks.numerals import joined, mixed, time_of_day
from stepreward.tasks.text_pieces import FUNCTION, LABEL, POINTS, VARIABLE, labels, parts, row, split
from stepreward.tasks.units import split_unit
from stepreward.tasks.value_names import letters, rational

_OPTION = re.compile(rf"[{OPEN}(\[]*[A-J][)\].{CLOSE}]*")


@dataclass(frozen=True)
class Kind:
    """What an answer may leave out, and what ambiguous signs mean."""

    unit: str = ""
    """Its unit; answers may leave it out."""
    option: bool = False
    """It is the letter of an option."""
    listed: bool = False
    """It has several parts, so that commas separate them and not thousands."""
    commas: bool = False
    """It is a number with commas between thousands."""
    labels: tuple[str, ...] = ()
    """The names whose values it gives, if several."""
    entries: int = 0
    """Entries of the tuple; 0 where it is no tuple."""
    relation: bool = False
    """It is an equation in several letters."""
    left: str = ""
    """The letter that such an equation is solved for."""
    ratio: bool = False
    """It is a ratio of two: their quotient says the same."""
    time: bool = False
    """It is a time of day; elsewhere a colon is a ratio."""
    radians: bool = False
    """It is a multiple of pi without a unit."""
    value: Fraction | None = None
    """Its value, without unit, where it is a rational number."""


@lru_cache(maxsize=1 << 12)
def kind_of(reference: str) -> Kind:
    """The kind of a reference."""
    text = tidy(reference)
    if _OPTION.fullmatch(text):
        return Kind(option=True)
    bare = joined(text)
    pieces = parts(bare)
    listed = len(pieces) > 1 or bare.startswith(("(", "[", r"\{"))
    value, unit = (bare, "") if listed else split_unit(bare)
    relation = _is_relation(split(text, "="))
    time = time_of_day(value) is not None
    return Kind(
        unit=unit,
        listed=listed,
        commas=bare != text,
        labels=labels(pieces),
        entries=len(row(bare)) if len(pieces) == 1 else 0,
        relation=relation,
        left=_solved_for(split(text, "=")) if relation else "",
        ratio=len(split(bare, ":")) == 2 and not time,
        time=time,
        radians=not listed and not unit and r"\pi" in bare,
        value=None if listed else rational(mixed(value)),
    )


def _is_relation(sides: list[str]) -> bool:
    """Whether an equation is more than a value with its name: y = 2x is, x = 3 and f(x) = 2x are not."""
    if len(sides) != 2 or len(letters(sides[0]) | letters(sides[1])) < 2 or FUNCTION.match(sides[0].strip()):
        return False
    return not (LABEL.match(sides[0].strip()) and not letters(sides[1]))


def _solved_for(sides: list[str]) -> str:
    """The one name on the left, which answers may leave out. `AB` beside capitals is a product of sides, no name."""
    left, right = sides[0].strip(), sides[1].strip()
    if POINTS.match(left):
        return "" if re.search(r"[A-Z]", right) else left
    return left if VARIABLE.match(left) and len(letters(left)) == 1 else ""
