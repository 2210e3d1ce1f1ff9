r"""Reads one expression of LaTeX or plain text as a whole, and evaluates it at points: equal expressions, equal values.

Nothing is expanded or simplified. Two expressions are equal if they agree at points drawn from the names of their
letters, to 60 digits (Schwartz and Zippel's test of identities), so that equality takes time in the length of the text.
Numbers beyond 2^(2^60) and arguments that cost more than their text says are refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from stepreward.core.engines import Deferred

mpmath: Any = Deferred("mpmath")
DIGITS = 60
"""Decimal digits of evaluation."""
_BITS = 20_000
"""Exact numbers are at most so long; longer ones are floating."""
_LARGEST = 2**60
"""Of exponents, in bits."""
_TOKEN = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+|\\[A-Za-z]+|\\.|\S", re.ASCII)
_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "iota",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "upsilon",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Xi",
        "Sigma",
        "Phi",
        "Psi",
        "Omega",
        "ell",
        "hbar",
    ]
)
FUNCTIONS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "ln",
        "log",
        "lg",
        "exp",
        "max",
        "min",
        "gcd",
        "lcm",
    ]
)
_CLOSING = {
    "(": ")",
    "[": "]",
    "{": "}",
    r"\{": r"\}",
    r"\lfloor": r"\rfloor",
    r"\lceil": r"\rceil",
    r"\lvert": r"\rvert",
}
_TIMES, _OVER = frozenset(("*", r"\cdot", r"\times", r"\ast")), frozenset(("/", r"\div"))
_SIGNS = frozenset(("+", "-", r"\pm", r"\mp"))
Node = tuple[Any, ...]
"""Its kind, then its parts."""


class NotAnExpression(ValueError):  # noqa: N818 - an answer may well be words
    """The text is no expression as a whole."""


class TooCostly(ValueError):  # noqa: N818 - what is refused, not what failed
    """An expression whose value would take more than its text says."""


class _Reader:
    """A reader by recursive descent; `at` is the next token."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = _TOKEN.findall(text)
        self.at = 0
        self.bars = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise NotAnExpression(f"{wanted or 'more'} expected, got {token or 'the end'}")
        self.at += 1
        return token

    def whole(self) -> Node:
        node = self.sum()
        if self.peek():
            raise NotAnExpression(f"{self.peek()} is not expected")
        return node

    def sum(self) -> Node:
        terms: list[Node] = []
        while True:
            sign = self.take() if self.peek() in _SIGNS else "+"
            term = self.product()
            terms.append(term if sign == "+" else (sign, term))
            if self.peek() not in _SIGNS:
                return terms[0] if len(terms) == 1 else ("sum", *terms)

    def product(self, *, bare: bool = False) -> Node:
        """Factors; with `bare` those of a function without brackets, up to a sign of times or a function."""
        node = self.factor()
        while True:
            token = self.peek()
            if not bare and token in _TIMES | _OVER:
                self.take()
                other = self.factor()
                node = ("/" if token in _OVER else "*", node, other)
            elif self._starts_factor(token) and not (bare and (token[1:] in FUNCTIONS or token in ("(", "["))):
                mixed = token == r"\frac" and node[0] == "number" and node[1].denominator == 1
                other = self.factor()
                whole = mixed and other[0] == "/" and other[1][0] == other[2][0] == "number"
                node = ("sum", node, other) if whole else ("*", node, other)
            else:
                return node

    def _starts_factor(self, token: str) -> bool:
        if token == "|":
            return self.bars == 0
        if token.startswith("\\"):
            return (
                token in _CLOSING
                or token in (r"\frac", r"\sqrt", r"\binom", r"\pi", r"\infty", r"\overline")
                or (token[1:] in _GREEK | FUNCTIONS)
            )
        return bool(token) and (token[0].isalnum() or token in ("(", "[", "{", "."))

    def factor(self) -> Node:
        if self.peek() in _SIGNS:
            sign = self.take()
            inner = self.factor()
            return inner if sign == "+" else (sign, inner)
        node = self.primary()
        while True:
            token = self.peek()
            if token == "^":
                self.take()
                if self.peek() == r"\circ" or self.tokens[self.at : self.at + 3] == ["{", r"\circ", "}"]:
                    self.at += 1 if self.peek() == r"\circ" else 3
                    node = ("degrees", node)
                else:
                    node = ("^", node, self.argument())
            elif token == "!":
                self.take()
                node = ("!", node)
            elif token in ("%", r"\%"):
                self.take()
                node = ("/", node, ("number", Fraction(100)))
            else:
                return node

    def argument(self, *, digit: bool = False) -> Node:
        """What a command or a caret takes: a group, or one token; with `digit` one digit of a number."""
        token = self.peek()
        if token == "{":
            return self.group()
        if digit and token.isdigit() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return ("number", Fraction(token[0]))
        if token in _SIGNS:
            sign = self.take()
            inner = self.argument(digit=digit)
            return inner if sign == "+" else (sign, inner)
        return self.primary()

    def group(self) -> Node:
        closing = _CLOSING[self.take()]
        bars, self.bars = self.bars, 0
        node = self.sum()
        self.take(closing)
        self.bars = bars
        return node

    def primary(self) -> Node:
        token = self.peek()
        if token in ("(", "[", "{", r"\{"):
            return self.group()
        if token in (r"\lfloor", r"\lceil", r"\lvert"):
            return (token[1:], self.group())
        self.take()
        if token == "|":
            self.bars += 1
            inner = self.sum()
            self.take("|")
            self.bars -= 1
            return ("lvert", inner)
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return ("number", _number(token))
        if token.isalpha() and token.isascii():
            return self.letter(token)
        return self.command(token[1:]) if token.startswith("\\") else self.refuse(token)

    def refuse(self, token: str) -> Node:
        raise NotAnExpression(f"{token} is not expected")

    def command(self, name: str) -> Node:
        if name in ("frac", "binom"):
            return ("/" if name == "frac" else "binom", self.argument(digit=True), self.argument(digit=True))
        if name == "sqrt":
            index: Node = ("number", Fraction(2))
            if self.peek() == "[":
                index = self.group()
            return ("root", self.argument(), index)
        if name == "overline":
            return ("symbol", "overline" + repr(self.argument()))
        if name in ("pi", "infty"):
            return (name,)
        if name in _GREEK:
            return self.letter(name)
        return self.function(name) if name in FUNCTIONS else self.refuse("\\" + name)

    def letter(self, name: str) -> Node:
        plain = name
        if self.peek() == "_":
            self.take()
            name += "_" + repr(self.argument())
        while self.peek() == "'":
            name += self.take()
        if self.peek() == "(" and (plain in ("f", "g", "h") or (plain.isupper() and self._argument_follows())):
            return ("apply", name, self.group())
        return (name,) if name in ("i", "e") else ("symbol", name)

    def _argument_follows(self) -> bool:
        """Whether brackets hold one letter or number, as of a function; elsewhere they are a factor."""
        inside = self.tokens[self.at + 1 : self.at + 3]
        return len(inside) == 2 and inside[0].isalnum() and inside[1] == ")"

    def function(self, name: str) -> Node:
        power = base = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                power = self.argument()
            else:
                base = self.argument()
        if name in ("max", "min", "gcd", "lcm"):
            return self.refuse(name)
        inner = self.group() if self.peek() in ("(", "[", "{") else self.product(bare=True)
        inverse = power is not None and power == ("-", ("number", Fraction(1)))
        node: Node = ("arc" + name if inverse else name, inner, *([base] if base is not None else []))
        return node if power is None or inverse else ("^", node, power)


def _number(token: str) -> Fraction:
    digits, _, exponent = token.lower().partition("e")
    if len(digits) > 5_000 or (exponent and abs(int(exponent[:9])) > 5_000):
        raise TooCostly("a number of more than 5,000 digits")
    return Fraction(token)


def read(text: str) -> Node:
    """The expression that a text is.

    Raises:
        NotAnExpression: the text as a whole is none.
        TooCostly: it holds a number of thousands of digits.
    """
    return _Reader(text).whole()


def symbols_of(node: Node) -> frozenset[str]:
    """Letters of an expression, but for i, e and functions applied."""
    if node[0] in ("symbol", "apply"):
        inner: frozenset[str] = frozenset([node[1]]) if node[0] == "symbol" else symbols_of(node[2])
        return inner
    return frozenset().union(*(symbols_of(part) for part in node[1:] if isinstance(part, tuple)))


def holds(node: Node, kinds: Sequence[str]) -> bool:
    """Whether a part of these kinds stands in an expression."""
    return node[0] in kinds or any(holds(part, kinds) for part in node[1:] if isinstance(part, tuple))


def branches(node: Node) -> bool:
    """Whether a root, a logarithm or a power has an argument with letters, so that signs decide its branch."""
    return (
        (node[0] in ("root", "ln", "log", "lg") and bool(symbols_of(node)))
        or (
            node[0] == "^"
            and bool(symbols_of(node[1]))
            and not (node[2][0] == "number" and node[2][1].denominator == 1)
        )
        or any(branches(part) for part in node[1:] if isinstance(part, tuple))
    )


class Evaluator:
    """Values of expressions where each letter has a number.

    Args:
        point: values of letters, by name; None for values drawn from names and `turn`.
        turn: number of the point; odd ones from 3 on are negative.
        sign: what a plus-minus sign is, 1 or -1.
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
                return self._of(node)
            except (ZeroDivisionError, OverflowError, mpmath.libmp.NoConvergence, TypeError) as error:
                raise NotAnExpression(str(error)) from error

    def _of(self, node: Node) -> Any:
        kind, parts = node[0], node[1:]
        if kind == "number":
            return parts[0]
        if kind == "symbol":
            return self._letter(parts[0])
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]()
        if kind == "infty":
            raise NotAnExpression("infinity is no number")
        if kind == "apply":
            return mpmath.sin(_floating(self._of(parts[1])) * (1 + _drawn(parts[0], 7)) + 1)
        values = [self._of(part) for part in parts]
        if kind == "sum":
            return _added(values)
        if kind in ("-", r"\pm", r"\mp"):
            return {"-": -1, r"\pm": self.sign, r"\mp": -self.sign}[kind] * values[0]
        return _OPERATIONS[kind](*values)

    def _letter(self, name: str) -> Any:
        if self.point is not None:
            return self.point[name]
        drawn = _drawn(name, self.turn)
        return -drawn if self.turn >= 2 else drawn


def _drawn(name: str, turn: int) -> Fraction:
    """A number in (0.5, 2.5) that belongs to a name."""
    seed = zlib.crc32(f"{turn} {name}".encode())
    return Fraction(1, 2) + Fraction(2 * seed + 1, 2**32)


def _floating(value: Any) -> Any:
    return mpmath.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


def _both(left: Any, right: Any) -> tuple[Any, Any]:
    """Two numbers of one kind; exact ones of too many bits become floating."""
    if isinstance(left, Fraction) and isinstance(right, Fraction) and _bits(left) + _bits(right) <= _BITS:
        return left, right
    return _floating(left), _floating(right)


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _added(values: Sequence[Any]) -> Any:
    total = values[0]
    for value in values[1:]:
        left, right = _both(total, value)
        total = left + right
    return total


def _times(left: Any, right: Any) -> Any:
    left, right = _both(left, right)
    return left * right


def _over(left: Any, right: Any) -> Any:
    left, right = _both(left, right)
    if right == 0:
        raise ZeroDivisionError("division by zero")
    return left / right


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(exponent, Fraction) and exponent.denominator == 1
    if whole and isinstance(base, Fraction) and _bits(base) * abs(exponent.numerator) <= _BITS:
        if base == 0 and exponent < 0:
            raise ZeroDivisionError("division by zero")
        return Fraction(base**exponent.numerator)
    base, exponent = _floating(base), _floating(exponent)
    if base == 0:
        return Fraction(0) if exponent != 0 else Fraction(1)
    logarithm = mpmath.log(base)
    if abs(logarithm * exponent) > _LARGEST:
        raise TooCostly("a power beyond 2^(2^60)")
    return mpmath.exp(logarithm * exponent) if not whole else mpmath.power(base, int(exponent))


def _root(value: Any, index: Any) -> Any:
    if not isinstance(index, Fraction) or index.denominator != 1 or not 0 < index <= 1000:
        return _power(value, _over(Fraction(1), index))
    n = int(index)
    if isinstance(value, Fraction) and value < 0 and n % 2:
        return -_root(-value, index)
    if isinstance(value, Fraction) and value >= 0:
        exact = [round(mpmath.root(part, n)) if part else 0 for part in (value.numerator, value.denominator)]
        if exact[0] ** n == value.numerator and exact[1] ** n == value.denominator:
            return Fraction(exact[0], exact[1])
    return mpmath.root(_floating(value), n)


def _factorial(value: Any) -> Any:
    if isinstance(value, Fraction) and value.denominator == 1 and 0 <= value <= 1000:
        return Fraction(int(mpmath.mp.factorial(int(value)))) if value < 40 else Fraction(_product(int(value)))
    value = _floating(value)
    if abs(value) > 10**15:
        raise TooCostly("a factorial beyond (10^15)!")
    return mpmath.factorial(value)


def _product(n: int) -> int:
    made = 1
    for i in range(2, n + 1):
        made *= i
    return made


def _binomial(n: Any, k: Any) -> Any:
    if not all(isinstance(v, Fraction) and v.denominator == 1 and 0 <= v <= 10**15 for v in (n, k)):
        return mpmath.binomial(_floating(n), _floating(k))
    if n <= 1000:
        return Fraction(0) if k > n else _factorial(n) / (_factorial(k) * _factorial(n - k))
    return mpmath.binomial(int(n), int(k))


def _whole(name: str) -> Callable[[Any], Any]:
    def taken(value: Any) -> Any:
        if not isinstance(value, Fraction) and (mpmath.im(value) != 0 or abs(value) > 10**DIGITS):
            raise NotAnExpression("no whole number lies there")
        return Fraction(int(getattr(mpmath, name)(_floating(value))))

    return taken


def _of_angle(name: str) -> Callable[[Any], Any]:
    def taken(value: Any) -> Any:
        value = _floating(value)
        if abs(value) > 10**20:
            raise TooCostly("an angle beyond 10^20")
        return getattr(mpmath, name)(value)

    return taken


def _plain(name: str) -> Callable[[Any], Any]:
    return lambda value: getattr(mpmath, name)(_floating(value))


def _log(value: Any, base: Any = None) -> Any:
    value = _floating(value)
    if value == 0:
        raise ZeroDivisionError("logarithm of 0")
    return mpmath.log(value) if base is None else mpmath.log(value) / mpmath.log(_floating(base))


def _magnitude(value: Any) -> Any:
    return abs(value)


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "pi": lambda: +mpmath.pi,
    "e": lambda: +mpmath.e,
    "i": lambda: mpmath.mpc(0, 1),
}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "*": _times,
    "/": _over,
    "^": _power,
    "root": _root,
    "!": _factorial,
    "binom": _binomial,
    "degrees": lambda value: _floating(value) * mpmath.pi / 180,
    "lvert": _magnitude,
    "lfloor": _whole("floor"),
    "lceil": _whole("ceil"),
    "ln": _log,
    "log": lambda value, base=None: _log(value, Fraction(10) if base is None else base),
    "lg": lambda value: _log(value, Fraction(10)),
    "exp": lambda value: _power(mpmath.e, value),
    **{name: _of_angle(name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh")},
    "arcsin": _plain("asin"),
    "arccos": _plain("acos"),
    "arctan": _plain("atan"),
    "arccot": _plain("acot"),
    "arcsec": _plain("asec"),
    "arccsc": _plain("acsc"),
    "arcsinh": _plain("asinh"),
    "arccosh": _plain("acosh"),
    "arctanh": _plain("atanh"),
}
