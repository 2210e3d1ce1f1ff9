"""Reads one expression of LaTeX or plain text as a whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

_TOKEN = re.compile(r"\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+|\\[A-Za-z]+|\\.|\S", re.ASCII)
_GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota", "kappa",
    "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi", "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Xi", "Sigma", "Phi", "Psi", "Omega", "ell", "hbar",
))  # fmt: skip
FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log",
    "lg", "exp", "max", "min", "gcd", "lcm",
))  # fmt: skip
_FACTORS = _GREEK | FUNCTIONS | {"frac", "sqrt", "binom", "pi", "infty", "overline"}
"""Commands with which a factor begins."""
_CLOSING = {
    "(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\lvert": r"\rvert",
}  # fmt: skip
_TIMES, _OVER = frozenset(("*", r"\cdot", r"\times", r"\ast")), frozenset(("/", r"\div"))
_SIGNS = frozenset(("+", "-", r"\pm", r"\mp"))
Node = tuple[Any, ...]
"""Its kind, then its parts."""


class NotAnExpression(ValueError):  # noqa: N818 - many answers are words, which is no error
    """The text is no expression as a whole."""


class TooCostly(ValueError):  # noqa: N818 - refused before it is evaluated
    """An expression whose value would take far more time or memory than its length suggests."""


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
            raise NotAnExpression(f"expected {wanted or 'more'}, got {token or 'the end'}")
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
                # A number before \frac of two numbers is a mixed number: 1\frac12 is 3/2, not 1/2.
                mixed = token == r"\frac" and node[0] == "number" and node[1].denominator == 1
                other = self.factor()
                whole = mixed and other[0] == "/" and other[1][0] == other[2][0] == "number"
                node = ("sum", node, other) if whole else ("*", node, other)
            else:
                return node

    def _starts_factor(self, token: str) -> bool:
        if token == "|":
            # The same sign opens and closes: inside bars it closes them.
            return self.bars == 0
        if token.startswith("\\"):
            return token in _CLOSING or token[1:] in _FACTORS
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
        # LaTeX reads \frac12 as 1/2: without braces an argument is one digit.
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
        # Inside brackets a bar opens again.
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
            digits, _, exponent = token.lower().partition("e")
            # A bound of the time: to read an integer takes time quadratic in its digits.
            if len(digits) > 5_000 or (exponent and abs(int(exponent[:9])) > 5_000):
                raise TooCostly("a number of more than 5,000 digits")
            return ("number", Fraction(token))
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
        # A capital before brackets with one letter or number is a function; before others it is a factor.
        inside = self.tokens[self.at + 1 : self.at + 3]
        one_argument = len(inside) == 2 and inside[0].isalnum() and inside[1] == ")"
        if self.peek() == "(" and (plain in ("f", "g", "h") or (plain.isupper() and one_argument)):
            return ("apply", name, self.group())
        return (name,) if name in ("i", "e") else ("symbol", name)

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
        # sin^{-1} x is the inverse function, sin^2 x a power of its value.
        inverse = power is not None and power == ("-", ("number", Fraction(1)))
        node: Node = ("arc" + name if inverse else name, inner, *([base] if base is not None else []))
        return node if power is None or inverse else ("^", node, power)


@lru_cache(maxsize=1 << 12)
def read(text: str) -> Node:
    """The expression that a text is.

    Raises:
        NotAnExpression: the text as a whole is none.
        TooCostly: it has a number of thousands of digits.
    """
    return _Reader(text).whole()


def symbols_of(node: Node) -> frozenset[str]:
    """Letters of an expression without i, e and names of functions."""
    if node[0] in ("symbol", "apply"):
        inner: frozenset[str] = frozenset([node[1]]) if node[0] == "symbol" else symbols_of(node[2])
        return inner
    return frozenset().union(*(symbols_of(part) for part in node[1:] if isinstance(part, tuple)))


def holds(node: Node, kinds: Sequence[str]) -> bool:
    """Whether an expression has a part of these kinds."""
    return node[0] in kinds or any(holds(part, kinds) for part in node[1:] if isinstance(part, tuple))


def branches(node: Node) -> bool:
    """Whether a root, a logarithm or a power has an argument with letters, so that signs decide its branch."""
    if node[0] in ("root", "ln", "log", "lg") and symbols_of(node):
        return True
    if node[0] == "^" and symbols_of(node[1]):
        exponent = node[2][1] if node[2][0] == "-" else node[2]
        # A power of whole exponent has one value, whatever the sign of its base.
        if not (exponent[0] == "number" and exponent[1].denominator == 1):
            return True
    return any(branches(part) for part in node[1:] if isinstance(part, tuple))
