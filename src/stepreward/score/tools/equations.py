"""A verifier without a model: finds the equations in a step and computes them again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from stepreward.core.catalog import check
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Problem, Step
from stepreward.score.short_call import ShortCall
from stepreward.score.tools.arithmetic_text import NotArithmeticError, Parser, Quantity, Token, tokens

MAX_TEXT = 20_000
MAX_WINDOW = 64
MAX_EQUATIONS = 200

_CALCULATOR = re.compile(r"<<([^<>]{1,200})>>")
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_MIXED = re.compile(r"(?<![\d.)])(\d+)\s?\\[dt]?frac\s*\{?(\d+)\}?\s*\{?(\d+)\}?(?!\d)")
_WORDS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_PLAIN: tuple[tuple[str, str], ...] = (
    (r"\\[dtc]?frac\s*(\d)\s*(\d)", r"((\1)/(\2))"),
    (r"\\(?:left|right|[Bb]igg?[lr]?|displaystyle)(?![a-zA-Z])", ""),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°", " degrees "),
    (r"\\(?:times|cdot|ast)(?![a-zA-Z])|[\u00d7\u00b7\u2217\u22c5]", " * "),
    (r"\\div(?![a-zA-Z])|÷", " / "),
    (r"\\approx(?![a-zA-Z])|\\simeq", " ≈ "),
    (r"[\u2212\u2013]", "-"),
    (r"\\([$%])", r"\1"),
    (r"\{,\}|,\\!", ","),
    (r"\\[()\[\]]|\\\\|&|\$\$", " ; "),
    (r"\\[,;:! ]|~|\\quad|\\qquad", " "),
    (r"\\(?:boxed|fbox)\s*\{([^{}]*)\}", r"\1"),
    (r"\^\s*\{\s*(-?\d+)\s*\}", r"^(\1)"),
    (r"(?<=[\d)]) ?\*\* ?(?=[\d(])", "^"),
    (r"\*\*|__", " "),
    # A dollar sign before a number is money, any other one opens or closes mathematics.
    (r"\$(?!\s?-?\s?[\d.])", " ; "),
)
_REWRITES = tuple((re.compile(pattern), made) for pattern, made in _PLAIN)
_CLAUSES = re.compile(
    r"[;\n?!<>≤≥≠|]|(?<!\.)\.(?![\d.])|:(?!\d)|,(?!\d)|\\(?:n?eq|ne|leq?|geq?|implies|Rightarrow|to)\b"
)
_LIST_NUMBER = re.compile(r"(?m)^\s*(?:step\s*)?\d+[.):]\s+", re.IGNORECASE)

_DIMENSIONS = (
    "second minute hour day week fortnight month year decade century",
    "dollar cent penny nickel dime quarter",
    "mm cm m km inch feet foot yard mile meter metre kilometer centimeter",
    # Ounces measure both mass and volume, and kitchens mix them.
    "mg gram kg kilogram ounce pound ton oz lb ml milliliter liter litre teaspoon tablespoon cup pint quart gallon",
    "dozen pair score half",
)
_COUNTS = len(_DIMENSIONS) - 1
_UNITS = {name: (i, name) for i, names in enumerate(_DIMENSIONS) for name in names.split()}
_SPELLINGS = {"inches": "inch", "pennies": "penny", "centuries": "century", "mins": "minute", "hrs": "hour"}


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation that was found and computed."""

    text: str
    left: Fraction
    right: Fraction
    holds: bool


def plain(text: str) -> str:
    """The text with LaTeX arithmetic rewritten as plain arithmetic; other LaTeX stays and is opaque later."""
    # Fractions and texts are nested: each pass replaces the innermost ones.
    for _ in range(6):
        shorter = _FRACTION.sub(r"((\1)/(\2))", _WORDS.sub(r" \1 ", text))
        if shorter == text:
            break
        text = shorter
    for pattern, made in _REWRITES:
        text = pattern.sub(made, text)
    return text


def equations(text: str) -> list[Equation]:
    """Equations of a text whose two sides can be computed, in order, each pair of a chain a = b = c on its own.

    What cannot be decided is left out: algebra, functions, plain definitions (`1 week = 7 days`), sums across units of
    one dimension, quotients with a remainder. Work is bounded: 20,000 characters, 200 equations, 64 tokens before each.
    """
    text = _MIXED.sub(r"(\1+\2/\3)", text[:MAX_TEXT])
    calculators = _CALCULATOR.findall(text)
    prose = plain(_LIST_NUMBER.sub("\n", _CALCULATOR.sub("", text)))
    made: list[Equation] = []
    for clause in [*calculators, *_CLAUSES.split(prose)]:
        if ("=" in clause or "≈" in clause) and len(made) < MAX_EQUATIONS:
            made += _clause_equations(tokens(clause))
    return made


def _clause_equations(items: list[Token]) -> list[Equation]:
    signs = [i for i, token in enumerate(items) if token.kind == "eq"][:MAX_EQUATIONS]
    found = []
    for n, sign in enumerate(signs):
        start = signs[n - 1] + 1 if n else 0
        end = signs[n + 1] if n + 1 < len(signs) else len(items)
        left = _left_side(items[:sign], start, chained=n > 0)
        right = _right_side(items[:end], sign + 1)
        if left is None or right is None or (left[1].bare and right.bare):
            continue
        verdict = _verdict(left[1], right, approximate=items[sign].text == "≈")
        if verdict is not None:
            words = " ".join(token.text for token in items[left[0] : right.end])
            found.append(Equation(words, left[1].value, right.value, verdict))
    return found


def _left_side(items: list[Token], start: int, *, chained: bool) -> tuple[int, Quantity] | None:
    """The longest expression that ends at the sign, with its first index; None if what precedes may belong to it."""
    # From the left, so that the longest expression is found first.
    for at in range(max(start, len(items) - MAX_WINDOW), len(items)):
        if items[at].kind not in ("num", "open", "money", "op"):
            continue
        try:
            side = Parser(items, at).parse()
        except NotArithmeticError:
            continue
        if side.end != len(items):
            continue
        before = items[at - 1] if at > start else None
        if items[at].kind == "op" and not items[at + 1].glued:
            return None  # the bullet of a list, or a dash
        function = items[at].kind == "open" and items[at].glued  # a name before a parenthesis, as in f(2)
        if before is not None and (before.kind != "word" or items[at].kind == "op" or function):
            return None
        if before is not None and before.text == "and" and [token.text for token in items[at + 1 : at + 2]] == ["/"]:
            return None  # a mixed number: 1 and 1/4
        if side.bare and (side.worded or not (chained or before is None)):
            return None
        return at, side
    return None


def _right_side(items: list[Token], start: int) -> Quantity | None:
    """The longest expression behind the sign; None if it goes on in something that is not arithmetic."""
    try:
        side = Parser(items, start).parse()
    except NotArithmeticError:
        return None
    if side.end >= len(items):
        return side
    rest = items[side.end]
    if rest.text == "and" and [token.text for token in items[side.end + 2 : side.end + 3]] == ["/"]:
        return None
    dash = rest.text == "-" and not rest.glued
    if rest.kind in ("word", "close", "eq", "money") or dash:
        return side
    return side if rest.text in ('"', "'", "”", ")", "]", "}") else None


def _units_of(side: Quantity) -> set[tuple[int, str]]:
    """The units of one side that are known, each with its dimension."""
    kinds = set()
    for word in side.units:
        single = _SPELLINGS.get(word, word.removesuffix("s"))
        kinds |= {_UNITS[name] for name in (word, single) if name in _UNITS}
    return kinds


def _verdict(left: Quantity, right: Quantity, *, approximate: bool) -> bool | None:
    """Whether the sides are equal to the digits written; None where units or percents leave it open."""
    slacks = [_slack(side, approximate=approximate) for side in (left, right)]
    if abs(left.value - right.value) <= max(slacks):
        return True
    if left.percent != right.percent:
        # The other reading: 30 / 40 * 100 = 75 %, where the sign is a unit and not a factor of 1/100.
        scales = [100 if side.percent else 1 for side in (left, right)]
        slack = max(scale * one for scale, one in zip(scales, slacks, strict=True))
        if abs(left.value * scales[0] - right.value * scales[1]) <= slack:
            return True
    return None if _open_to_doubt(left, right) else False


def _open_to_doubt(left: Quantity, right: Quantity) -> bool:
    """Whether unequal sides may still be meant rightly: mixed units, two readings, or a quotient with a remainder."""
    dimensions = [dimension for dimension, _ in _units_of(left) | _units_of(right)]
    # Two units of one dimension, such as hours and minutes, need a factor that the text does not write.
    mixed = len(dimensions) != len(set(dimensions)) or _COUNTS in dimensions
    whole = any(side.bare and side.value.denominator == 1 for side in (left, right))
    remainder = whole and (left.divides or right.divides) and abs(left.value - right.value) < 1
    return mixed or left.doubtful or right.doubtful or right.prose or remainder


def _slack(side: Quantity, *, approximate: bool) -> Fraction:
    """How far the other side may be: less than one unit in the last decimal written, nothing for whole numbers."""
    tiny = abs(side.value) / 10**9
    if not side.bare:
        return abs(side.value) / 1000 if side.rounded else tiny
    unit = Fraction(1, 10 ** (side.decimals + (2 if side.percent else 0)))
    if approximate:
        return max(unit, abs(side.value) / 50)
    # Nearly a whole unit and not half of one, as people cut digits off as often as they round.
    written = side.decimals > 0 or side.percent
    return max(tiny, unit * Fraction(999, 1000)) if written else tiny


@check.method("equations", note="ours: as the scorer `tool` reads equations, without a score for what it cannot read")
def check_equations(problem: Problem, steps: Sequence[Step]) -> list[StepCheck]:
    """Computes the equations between numbers that a step writes again: one that is false makes it wrong.

    A step whose equations all hold is right, one without a decidable equation unknown. It knows nothing of the problem:
    a step that computes the wrong thing correctly is right. The kind of error is `arithmetic`.

    Args:
        problem: not read.
        steps: of one solution.
    """
    return [_checked(step.text) if step.kind == "action" else StepCheck(None) for step in steps]


def _checked(text: str) -> StepCheck:
    found = equations(text)
    wrong = next((equation for equation in found if not equation.holds), None)
    return StepCheck(bool(found) or None) if wrong is None else StepCheck(False, "arithmetic", wrong.text)


@dataclass
class ToolScorer(ShortCall):
    """Scores a step 1 if every equation found in it holds, 0 if one is false, and `neutral` if none is found.

    It knows nothing of the problem: a step that computes the wrong thing correctly scores 1. Rounding is forgiven to
    less than one unit of the last decimal written; whole results of `=` must be exact, `≈` forgives 2 %.
    """

    neutral: float = 0.8
    """Score of a step without a decidable equation, in [0, 1]: about how often such a step is right. Above the
    threshold it counts as right; below 1 it ranks unchecked steps under checked ones."""
    batch_size: int = 1024
    name: str = field(init=False)
    """Identity for caches and provenance."""

    def __post_init__(self) -> None:
        if not 0 <= self.neutral <= 1:
            raise ValueError(f"neutral must be in [0, 1], got {self.neutral}")
        self.name = f"tool-equations(neutral={self.neutral:g})"

    def score_text(self, text: str) -> float:
        """The score of one step."""
        found = equations(text)
        return float(all(equation.holds for equation in found)) if found else self.neutral

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """Scores of each question's steps, in order; NaN at observations. No token is encoded."""
        made = []
        for question in questions:
            scores = [self.score_text(step.text) if step.kind == "action" else np.nan for step in question.steps]
            made.append(Scored(np.array(scores, np.float64)))
        return made
