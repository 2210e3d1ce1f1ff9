"""One name for each value: expressions have equal names iff their values are equal.

Whole numbers are exact. Others are equal if 12 significant digits are, so that tiny ones are compared relatively.
Expressions with letters are named by their polynomial where they are one in one letter, else by their values at points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from stepreward.core.optional import Deferred
from stepreward.tasks.expression_points import DIGITS, WHOLE, Evaluator, floating
from stepreward.tasks.expressions import Node, NotAnExpression, branches, holds, read, symbols_of

mpmath: Any = Deferred("mpmath")
SHOWN = 12
"""Significant digits by which numbers that are not whole are compared."""
_LARGEST = 10_000
"""Largest denominator of a fraction in a name."""
_DEGREE = 6
"""Largest degree of a polynomial in a name."""


def names(text: str, scale: Fraction = Fraction(1)) -> list[str]:
    r"""The names of what an expression may be: one, or two where it has a sign \pm.

    Args:
        text: tidied.
        scale: factor on its value.

    Raises:
        NotAnExpression, TooCostly: as `expressions.read`.
    """
    node = read(text)
    node = node if scale == 1 else ("*", ("number", scale), node)
    signs = (1, -1) if holds(node, ("\\pm", "\\mp")) else (1,)
    return list(dict.fromkeys(_expression_name(node, sign) for sign in signs))


def rational(text: str) -> Fraction | None:
    """The value of an expression that is a rational number; None elsewhere."""
    try:
        node = read(text)
        value = None if symbols_of(node) or holds(node, ("\\pm", "\\mp")) else Evaluator().value(node)
    except ValueError:
        return None
    return value if isinstance(value, Fraction) else None


def relation_name(left: str, right: str) -> str:
    """The name of an equation, up to a factor of its two sides; "0" for an identity."""
    node = ("sum", read(left), ("-", read(right)))
    values = _values(node, 1)
    if not any(values):
        return "0"
    first = next(filter(None, values))
    # 2x = 6 and x = 3 are one equation: a factor of both sides cancels.
    return "; ".join(number_name(floating(value) / floating(first)) for value in values)


def order_name(smaller: str, larger: str) -> str:
    """The name of an inequality, up to a positive factor."""
    values = _values(("sum", read(larger), ("-", read(smaller))), 1)
    first = next(filter(None, values), Fraction(1))
    return "; ".join(number_name(floating(value) / abs(floating(first))) for value in values)


def letters(text: str) -> frozenset[str]:
    """Letters of an expression; none where the text is no expression."""
    try:
        return symbols_of(read(text))
    except ValueError:
        return frozenset()


def _expression_name(node: Node, sign: int) -> str:
    unknown = sorted(symbols_of(node))
    if not unknown:
        return number_name(Evaluator(sign=sign).value(node))
    if node[0] == "symbol":
        return str(node[1])
    values = _values(node, sign)
    shown = [number_name(value) for value in values]
    if len(set(shown)) == 1 and not branches(node):
        return shown[0]
    # x + 0, or 2x / 2, is the letter itself.
    for letter in unknown:
        if [number_name(value) for value in _values(("symbol", letter), 1)] == shown:
            return letter
    polynomial = _polynomial(node, unknown[0], sign) if len(unknown) == 1 else None
    return polynomial or f"({', '.join(unknown)}: {'; '.join(shown)})"


def _values(node: Node, sign: int) -> list[Any]:
    """Values at two points of positive letters, and at one of negative letters where no branch depends on it.

    Expressions with floor or ceiling are compared at whole numbers; a point without a value counts as 0.
    """
    if holds(node, ("lfloor", "lceil")):
        values = []
        for turn in WHOLE:
            try:
                values.append(Evaluator(turn, sign).value(node))
            except NotAnExpression:
                values.append(Fraction(0))
        return values
    turns = (0, 1) if branches(node) else (0, 1, 2)
    return [Evaluator(turn, sign).value(node) for turn in turns]


def _polynomial(node: Node, letter: str, sign: int) -> str | None:
    """An expression in one letter as a polynomial of low degree with rational coefficients; None where it is none."""
    # Two points more than a polynomial of this degree needs: it must also fit those.
    points = [Fraction(2 * i + 3, 7) for i in range(_DEGREE + 3)]
    try:
        values = [Evaluator(sign=sign, point={letter: point}).value(node) for point in points]
    except ValueError:
        return None
    if not all(isinstance(value, Fraction) for value in values):
        return None
    coefficients = _interpolate(points[: _DEGREE + 1], values[: _DEGREE + 1])
    if any(sum(c * x**k for k, c in enumerate(coefficients)) != y for x, y in zip(points, values, strict=True)):
        return None
    terms = [(c, k) for k, c in reversed([*enumerate(coefficients)]) if c]
    return " + ".join(str(c) if k == 0 else f"{c}*{letter}" + ("" if k == 1 else f"^{k}") for c, k in terms)


def _interpolate(points: Sequence[Fraction], values: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, lowest first, of the polynomial through as many points, by Newton's divided differences."""
    divided = list(values)
    for level in range(1, len(points)):
        for i in range(len(points) - 1, level - 1, -1):
            divided[i] = (divided[i] - divided[i - 1]) / (points[i] - points[i - level])
    made = [Fraction(0)] * len(points)
    for point, difference in zip(reversed(points), reversed(divided), strict=True):
        made = [low - point * high for low, high in zip([Fraction(0), *made], [*made, Fraction(0)], strict=True)][:-1]
        made[0] += difference
    return made


def number_name(value: Any) -> str:
    """The name of a number: whole ones exact, fractions and roots where 12 digits show one, else 12 digits."""
    # A short fraction: `_shown_name` would find exactly this one from its twelve digits.
    if isinstance(value, Fraction) and (
        value.denominator == 1 or (value.denominator <= _LARGEST and 10**-4 <= abs(value) < 10**3)
    ):
        return str(value)
    with mpmath.workdps(DIGITS):
        value = mpmath.mpmathify(floating(value))
        if not mpmath.isfinite(value):
            raise NotAnExpression("no finite number")
        real, imaginary = mpmath.re(value), mpmath.im(value)
        size = max(abs(real), abs(imaginary))
        real, imaginary = (
            mpmath.mpf(0) if abs(part) < size * mpmath.mpf(10) ** (15 - DIGITS) else part for part in (real, imaginary)
        )
        if imaginary == 0:
            return _real_name(real)
        return (f"{_real_name(real)} + " if real != 0 else "") + f"{_real_name(imaginary)}*i"


def _real_name(value: Any) -> str:
    if value == 0:
        return "0"
    nearest = mpmath.nint(value)
    if nearest != 0 and abs(value) < mpmath.mpf(10) ** 30 and abs(value - nearest) < mpmath.mpf(10) ** -(SHOWN + 2):
        return str(int(nearest))
    whole = len(str(int(abs(nearest)))) if abs(value) < mpmath.mpf(10) ** 30 else 0
    return _shown_name(str(mpmath.nstr(value, max(SHOWN, whole + 3))))


@lru_cache(maxsize=1 << 12)
def _shown_name(shown: str) -> str:
    """A simple fraction, multiple of pi or e, or root with the same digits; the digits themselves where there is none.

    Only the digits decide, so that a decimal of 15 digits has the name of the exact value.
    """
    value = float(shown)
    if "e" in shown or not 1e-6 < abs(value) < 1e9:
        return shown
    near = Fraction(shown).limit_denominator(_LARGEST)
    if near and _has_digits(near.numerator / near.denominator, shown):
        return str(near)
    for unit, word in ((math.pi, "pi"), (math.e, "e")):
        times = Fraction(value / unit).limit_denominator(1_000)
        if times and _has_digits(unit * times.numerator / times.denominator, shown):
            return f"{times}*{word}"
    square = Fraction(value * value).limit_denominator(1_000)
    if square and _has_digits(math.sqrt(square), shown):
        return ("-" if value < 0 else "") + f"sqrt({square})"
    return shown


def _has_digits(value: float, shown: str) -> bool:
    return Fraction(format(abs(value), f".{SHOWN}g")) == Fraction(shown.lstrip("-"))
