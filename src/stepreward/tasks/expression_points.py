"""Evaluates expressions at points: equal expressions have equal values.

Nothing is expanded or simplified. Two expressions are equal if they agree at points drawn from the names of their
letters, to 60 digits (the Schwartz-Zippel test), so that the test takes time linear in the length of the text. Numbers
beyond 2^(2^60), and arguments that would take far more time than their length suggests, are refused.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from stepreward.core.optional import Deferred
from stepreward.tasks.expressions import Node, NotAnExpression, TooCostly

mpmath: Any = Deferred("mpmath")
DIGITS = 60
"""Decimal digits of evaluation."""
WHOLE = range(10, 22)
"""Turns at which letters are whole numbers, each from 1 to 12 once."""
_BITS = 20_000
"""Most bits of an exact number; longer ones become floating, so that repeated powers take bounded time."""
_LARGEST = 2**60
"""Largest result of a power, in bits."""


class Evaluator:
    """Values of expressions where each letter has a number.

    Args:
        point: values of letters, by name; None for values drawn from names and `turn`.
        turn: number of the point: letters are positive at 0 and 1, negative at 2, whole at those of `WHOLE`.
        sign: of a plus-minus sign, 1 or -1.
    """

    def __init__(self, turn: int = 0, sign: int = 1, point: Mapping[str, Fraction] | None = None) -> None:
        self.turn, self.sign, self.point = turn, sign, point

    def value(self, node: Node) -> Any:
        """A Fraction where the value is rational and short, an mpf or mpc elsewhere.

        Raises:
            NotAnExpression: it has no value.
            TooCostly: it is too large to be computed.
        """
        with mpmath.workdps(DIGITS):
            try:
                return self._evaluate(node)
            except (NotAnExpression, TooCostly):
                raise
            except (ValueError, ZeroDivisionError, OverflowError, mpmath.libmp.NoConvergence, TypeError) as error:
                raise NotAnExpression(str(error)) from error

    def _evaluate(self, node: Node) -> Any:
        kind, parts = node[0], node[1:]
        if kind == "number":
            return parts[0]
        if kind == "symbol":
            return self._symbol(parts[0])
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]()
        if kind == "infty":
            raise NotAnExpression("infinity is no number")
        if kind == "apply":
            # An unknown function: a fixed one of its name and its argument, equal where both are.
            return mpmath.sin(floating(self._evaluate(parts[1])) * (1 + _number_of_name(parts[0], 7)) + 1)
        values = [self._evaluate(part) for part in parts]
        if kind == "sum":
            return _sum(values)
        if kind in ("-", r"\pm", r"\mp"):
            return {"-": -1, r"\pm": self.sign, r"\mp": -self.sign}[kind] * values[0]
        return _OPERATIONS[kind](*values)

    def _symbol(self, name: str) -> Any:
        if self.point is not None:
            return self.point[name]
        if self.turn in WHOLE:
            return Fraction(1 + (self.turn + zlib.crc32(name.encode())) % len(WHOLE))
        drawn = _number_of_name(name, self.turn)
        return -drawn if self.turn >= 2 else drawn


def _number_of_name(name: str, turn: int) -> Fraction:
    """A number in (0.5, 2.5), a function of the name and the turn."""
    # Not Python's `hash`, which is another number in each process: forms are compared across worker processes.
    seed = zlib.crc32(f"{turn} {name}".encode())
    return Fraction(1, 2) + Fraction(2 * seed + 1, 2**32)


def floating(value: Any) -> Any:
    """The number as mpmath has it."""
    return mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _of_one_kind(left: Any, right: Any) -> tuple[Any, Any]:
    """Two numbers of one kind; exact ones of too many bits become floating."""
    if isinstance(left, Fraction) and isinstance(right, Fraction) and _bits(left) + _bits(right) <= _BITS:
        return left, right
    return floating(left), floating(right)


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _sum(values: Sequence[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        left, right = _of_one_kind(total, value)
        total = left + right
    if isinstance(total, Fraction):
        return total
    return _zero_if_rounding(total, max(abs(floating(value)) for value in values))


def _zero_if_rounding(value: Any, largest: Any) -> Any:
    """Exactly 0 where only the rounding error of terms as large as `largest` is left; other tiny numbers stay."""
    return Fraction(0) if abs(value) < largest * mpmath.mpf(10) ** (10 - DIGITS) else value


def _multiply(left: Any, right: Any) -> Any:
    left, right = _of_one_kind(left, right)
    return left * right


def _divide(left: Any, right: Any) -> Any:
    left, right = _of_one_kind(left, right)
    if right == 0:
        raise ZeroDivisionError("division by zero")
    return left / right


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(exponent, Fraction) and exponent.denominator == 1
    if whole and isinstance(base, Fraction) and _bits(base) * abs(exponent.numerator) <= _BITS:
        if base == 0 and exponent < 0:
            raise ZeroDivisionError("division by zero")
        return Fraction(base**exponent.numerator)
    base, exponent = floating(base), floating(exponent)
    # Powers are taken by the logarithm, which 0 does not have; as in Python, 0^0 is 1.
    if base == 0:
        return Fraction(0) if exponent != 0 else Fraction(1)
    logarithm = mpmath.log(base)
    if abs(logarithm * exponent) > _LARGEST:
        raise TooCostly("a power beyond 2^(2^60)")
    return mpmath.exp(logarithm * exponent) if not whole else mpmath.power(base, int(exponent))


def _root(value: Any, index: Any) -> Any:
    if not isinstance(index, Fraction) or index.denominator != 1 or not 0 < index <= 1000:
        return _power(value, _divide(Fraction(1), index))
    n = int(index)
    # Schools mean the real root: the cube root of -8 is -2, where mpmath gives the complex principal root.
    if isinstance(value, Fraction) and value < 0 and n % 2:
        return -_root(-value, index)
    if isinstance(value, Fraction) and value >= 0:
        exact = [round(mpmath.root(part, n)) if part else 0 for part in (value.numerator, value.denominator)]
        if exact[0] ** n == value.numerator and exact[1] ** n == value.denominator:
            return Fraction(exact[0], exact[1])
    return mpmath.root(floating(value), n)


def _factorial(value: Any) -> Any:
    if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= 1000:
        return Fraction(math.factorial(int(value)))
    value = floating(value)
    if abs(value) > 10**15:
        raise TooCostly("a factorial beyond (10^15)!")
    return mpmath.factorial(value)


def _binomial(n: Any, k: Any) -> Any:
    if not all(isinstance(v, Fraction) and v.denominator == 1 and 0 <= v <= 10**15 for v in (n, k)):
        return mpmath.binomial(floating(n), floating(k))
    if n <= 1000:
        return Fraction(0) if k > n else _factorial(n) / (_factorial(k) * _factorial(n - k))
    return mpmath.binomial(int(n), int(k))


def _rounding(name: str) -> Callable[[Any], Any]:
    def computed(value: Any) -> Any:
        if not isinstance(value, Fraction) and (mpmath.im(value) != 0 or abs(value) > 10**DIGITS):
            raise NotAnExpression("only a real number below 10^60 can be rounded")
        return Fraction(int(getattr(mpmath, name)(floating(value))))

    return computed


def _trigonometric(name: str) -> Callable[[Any], Any]:
    def computed(value: Any) -> Any:
        value = floating(value)
        if abs(value) > 10**20:
            raise TooCostly("an angle beyond 10^20")
        return _zero_if_rounding(getattr(mpmath, name)(value), min(abs(value), 1))

    return computed


def _inverse(name: str) -> Callable[[Any], Any]:
    return lambda value: getattr(mpmath, f"a{name}")(floating(value))


def _log(value: Any, base: Any = None) -> Any:
    value = floating(value)
    if value == 0:
        raise ZeroDivisionError("logarithm of 0")
    logarithm = _zero_if_rounding(mpmath.log(value), 1)
    return logarithm if base is None else _divide(logarithm, _log(base))


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "pi": lambda: +mpmath.pi,
    "e": lambda: +mpmath.e,
    "i": lambda: mpmath.mpc(0, 1),
}
_ANGLES = ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "*": _multiply,
    "/": _divide,
    "^": _power,
    "root": _root,
    "!": _factorial,
    "binom": _binomial,
    "degrees": lambda value: floating(value) * mpmath.pi / 180,
    "lvert": abs,
    "lfloor": _rounding("floor"),
    "lceil": _rounding("ceil"),
    "ln": _log,
    "log": lambda value, base=None: _log(value, Fraction(10) if base is None else base),
    "lg": lambda value: _log(value, Fraction(10)),
    "exp": lambda value: _power(mpmath.e, value),
    **{name: _trigonometric(name) for name in _ANGLES},
    **{f"arc{name}": _inverse(name) for name in _ANGLES},
}
