"""Arithmetic out of prose: a lexer and a precedence parser over exact fractions, with limits instead of trust.

No text is ever executed. Numbers, powers, nesting and work are bounded, so hostile input ends as "not arithmetic".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

MAX_DIGITS = 40
MAX_BITS = 2048
MAX_DEPTH = 32
MAX_UNIT_WORDS = 5

Kind = Literal["num", "op", "open", "close", "eq", "money", "word", "opaque"]


class NotArithmeticError(ValueError):
    """A text is not an arithmetic expression, or one beyond the limits."""


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a clause."""

    kind: Kind
    text: str
    glued: bool
    """Whether no space comes before it."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What an expression is worth, and how it was written."""

    value: Fraction
    bare: bool
    """A number, with no operation."""
    decimals: int
    """Decimals written, of a bare number."""
    percent: bool
    """Whether it contains a percent sign."""
    units: frozenset[str]
    worded: bool
    """Words follow a number."""
    divides: bool
    """Whether it contains a division."""
    doubtful: bool
    """People read it in two ways: `2 / 1/5`, `100 - 20%`, `5 million` beside a plain 5."""
    prose: bool
    """An operator is written as a word."""
    rounded: bool
    """A number has three decimals or more: it may have been rounded itself."""
    end: int
    """Index of the token after it."""


_LEX = re.compile(
    r"""(?P<time>\d+:\d+)
      | (?P<num>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)
      | (?P<eq>==?|≈)
      | (?P<op>\*\*|[-+*/^])
      | (?P<open>\()
      | (?P<close>\))
      | (?P<money>[$€£])
      | (?P<word>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*)
      | (?P<percent>%)
      | (?P<opaque>\S)""",
    re.VERBOSE,
)
_WORD_OPERATORS = {"times": "*", "plus": "+", "minus": "-", "x": "*", "X": "*"}
_PROSE = frozenset(
    "of divided and or so is are was because since if then which that gives by remainder".split()  # noqa: SIM905
)
"""Words that are no unit: a sentence begins or goes on."""
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
# "1/3 of 36" is (1/3) * 36, so "of" binds weaker than a division.
_BINDING = {"+": 10, "-": 10, "of": 15, "*": 20, "/": 20, "^": 40}


def tokens(clause: str) -> list[Token]:
    """Tokens of a clause; single letters and symbols that are no arithmetic are opaque."""
    made: list[Token] = []
    for found in _LEX.finditer(clause):
        kind, text = str(found.lastgroup), found.group()
        glued = found.start() > 0 and not clause[found.start() - 1].isspace()
        if kind == "word":
            made.append(_word_token(text, glued, made, clause[found.end() : found.end() + 2].strip()))
        elif kind == "percent":
            made.append(Token("word", "%", glued))
        elif kind == "time" or (kind == "num" and (len(text) > MAX_DIGITS or re.match(r"0\d", text))):
            made.append(Token("opaque", text, glued))
        else:
            made.append(Token(kind, "^" if text == "**" else text, glued))  # type: ignore[arg-type]
    return made


def _word_token(text: str, glued: bool, before: list[Token], after: str) -> Token:
    number_before = bool(before) and before[-1].kind in ("num", "close", "word")
    number_after = after[:1].isdigit() or after[:1] in tuple("($.")
    if text in _WORD_OPERATORS and (len(text) > 1 or (number_before and number_after)):
        return Token("op", text, glued)
    single = len(text) == 1 and (glued or text != "a")
    # `2x` and `3ab` are algebra, `5km` is a length: two letters and more are units.
    return Token("opaque" if single else "word", text, glued)


class Parser:
    """Precedence climbing over tokens, from a start index to wherever the expression ends."""

    def __init__(self, items: list[Token], start: int = 0) -> None:
        self._items, self._at, self._depth = items, start, 0
        self._operations = self._decimals = 0
        self._percent = self._worded = self._divides = self._sums = self._doubtful = False
        self._worded_operator = self._rounded = False
        self._units: set[str] = set()

    def parse(self) -> Quantity:
        """The longest expression from the start.

        Raises:
            NotArithmeticError: there is none, or it is beyond the limits.
        """
        value = self._expression(0)
        return Quantity(
            value, bare=self._operations == 0, decimals=self._decimals, percent=self._percent,
            units=frozenset(self._units), worded=self._worded, divides=self._divides,
            doubtful=self._doubtful or (self._sums and self._percent),
            prose=self._worded_operator, rounded=self._rounded, end=self._at,
        )  # fmt: skip

    def _peek(self, ahead: int = 0) -> Token | None:
        at = self._at + ahead
        return self._items[at] if at < len(self._items) else None

    def _expression(self, floor: int) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotArithmeticError("nested too deep")
        left, before = self._operand(), ""
        while (operator := self._operator()) is not None and _BINDING[operator[0]] > floor:
            name, width = operator
            self._worded_operator |= width > 0 and self._items[self._at].text[0].isalpha()
            self._at += width
            # Powers associate to the right.
            right = self._expression(_BINDING[name] - (1 if name == "^" else 0))
            left = _apply(name, left, right)
            self._operations += 1
            self._sums |= name in "+-"
            self._divides |= name == "/"
            self._doubtful |= name == before == "/"
            before = name
        self._depth -= 1
        return left

    def _operator(self) -> tuple[str, int] | None:
        token = self._peek()
        if token is None:
            return None
        before = self._items[self._at - 1]
        if token.kind == "op":
            return (_WORD_OPERATORS.get(token.text, token.text), 1) if self._starts_operand(1) else None
        if token.kind == "open" and before.kind in ("num", "close") and token.glued:
            return "*", 0
        fraction = self._at > 2 and self._items[self._at - 2].text == "/"
        if token.kind == "word" and token.text == "of" and (fraction or before.text in ("%", "percent", ")")):
            return ("of", 1) if self._starts_operand(1) else None
        if token.text == "divided" and (by := self._peek(1)) is not None and by.text == "by":
            return ("/", 2) if self._starts_operand(2) else None
        return None

    def _starts_operand(self, ahead: int) -> bool:
        token = self._peek(ahead)
        if token is not None and (token.kind == "money" or token.text in "+-"):
            return self._starts_operand(ahead + 1) if token.kind == "money" else self._is_number(ahead + 1)
        return self._is_number(ahead)

    def _is_number(self, ahead: int) -> bool:
        token = self._peek(ahead)
        if token is not None and token.kind == "money":
            token = self._peek(ahead + 1)
        return token is not None and token.kind in ("num", "open")

    def _operand(self) -> Fraction:
        token = self._peek()
        if token is None:
            raise NotArithmeticError("an operand is missing")
        self._at += 1
        if token.kind == "op" and token.text in "+-":
            # The sign binds weaker than a power: -2^2 is -4.
            inner = self._expression(_BINDING["^"] - 1)
            return -inner if token.text == "-" else inner
        if token.kind == "money":
            self._units.add("dollar")
            return self._operand()
        if token.kind == "open":
            inner = self._expression(0)
            closing = self._peek()
            if closing is None or closing.kind != "close":
                raise NotArithmeticError("a parenthesis is not closed")
            self._at += 1
            return self._suffix(inner)
        if token.kind != "num":
            raise NotArithmeticError(f"{token.text[:20]!r} is no operand")
        plain = token.text.replace(",", "")
        self._decimals = len(plain.partition(".")[2])
        self._rounded |= self._decimals >= 3
        return self._suffix(Fraction(plain))

    def _suffix(self, value: Fraction) -> Fraction:
        """Percent signs, scale words and units behind an operand; words that lead nowhere are left alone."""
        token = self._peek()
        if token is not None and token.text in ("%", "percent"):
            self._at += 1
            self._percent = True
            value /= 100
        elif token is not None and token.text.lower() in _SCALES:
            self._at += 1
            value *= _SCALES[token.text.lower()]
            self._doubtful = True
        self._take_units()
        return value

    def _take_units(self) -> None:
        at = self._at
        words: list[str] = []
        while at < len(self._items) and len(words) <= MAX_UNIT_WORDS:
            token = self._items[at]
            following = self._items[at + 1] if at + 1 < len(self._items) else None
            if token.kind == "word" and token.text.lower() not in _PROSE:
                words.append(token.text.lower())
                at += 1
            elif token.text == "/" and following is not None and following.kind == "word":
                at += 1
            elif words and token.text == "^" and following is not None and following.text in ("2", "3"):
                at += 2
            else:
                break
        # Words belong to the number if an operator or the end follows them; otherwise they begin a sentence.
        ends = (
            at == len(self._items) or self._items[at].kind in ("op", "eq", "close") or self._items[at].text == "divided"
        )
        if words and ends:
            self._at = at
            self._worded = True
            self._units.update(words)
        elif words and self._at < len(self._items):
            self._units.add(self._items[self._at].text.lower())
            self._worded = True


def _apply(operator: str, a: Fraction, b: Fraction) -> Fraction:
    if operator == "^":
        made = _power(a, b)
    elif operator == "/":
        if b == 0:
            raise NotArithmeticError("division by zero")
        made = a / b
    else:
        made = a + b if operator == "+" else a - b if operator == "-" else a * b
    if made.numerator.bit_length() + made.denominator.bit_length() > MAX_BITS:
        raise NotArithmeticError("the number is too large")
    return made


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    # The size of the result is bounded before it is computed: 9^9^9 would never end.
    bits = base.numerator.bit_length() + base.denominator.bit_length()
    if exponent.denominator != 1 or bits * abs(exponent) > MAX_BITS:
        raise NotArithmeticError("only small whole powers are computed")
    if base == 0 and exponent < 0:
        raise NotArithmeticError("division by zero")
    return Fraction(base ** int(exponent))
