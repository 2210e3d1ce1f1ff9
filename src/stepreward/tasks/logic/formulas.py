"""Formulas of monadic first-order logic as texts and trees: a small grammar, read by our own code and never executed.

    formula := either ["->" formula]        either := both {"|" both}        both := literal {"&" literal}
    literal := "~" literal | "all" name "(" formula ")" | "some" name "(" formula ")" | "(" formula ")" | atom
    atom    := name ["(" name ")"]

A tree is a tuple of its kind and its parts: ("->", a, b), ("|", a, b), ("&", a, b), ("~", a), ("all", "x", a),
("some", "x", a), ("atom", "P") and ("atom", "P", "x"). Signs of textbooks may stand for those above.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Formula = tuple[Any, ...]
LONGEST, DEEPEST = 2_000, 40
"""Characters and levels of a formula; a longer or deeper text is none."""
_TOKEN = re.compile(r"\s*(->|[A-Za-z][A-Za-z0-9_]*|[~&|()])")
_SIGNS = str.maketrans({"¬": "~", "∧": "&", "\u2228": "|", "→": "->", "⇒": "->", "∀": "all ", "∃": "some "})
_STRENGTH = {"->": 0, "|": 1, "&": 2, "~": 3, "all": 4, "some": 4, "atom": 4}


class NoFormula(ValueError):  # noqa: N818 - a model may write anything
    """A text is no formula, or one beyond the limits."""


def read_formula(text: str) -> Formula:
    """The formula that a text is as a whole.

    Raises:
        NoFormula: it is none.
    """
    text = text.translate(_SIGNS).strip()
    if len(text) > LONGEST:
        raise NoFormula(f"a formula of more than {LONGEST} characters")
    tokens, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise NoFormula(f"{text[at : at + 10]!r} is not expected")
        tokens.append(found[1])
        at = found.end()
    reader = _FormulaReader(tokens)
    made = reader.formula(0)
    if reader.peek():
        raise NoFormula(f"{reader.peek()!r} is not expected")
    return made


class _FormulaReader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at, self._bound = tokens, 0, list[str]()

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise NoFormula(f"expected {wanted or 'more'}, got {token or 'the end'}")
        self._at += 1
        return token

    def formula(self, depth: int) -> Formula:
        if depth > DEEPEST:
            raise NoFormula("nested too deep")
        left = self._row("|", depth)
        if self.peek() != "->":
            return left
        self._take()
        return "->", left, self.formula(depth + 1)

    def _row(self, sign: str, depth: int) -> Formula:
        def part() -> Formula:
            return self._row("&", depth) if sign == "|" else self._literal(depth)

        made = part()
        while self.peek() == sign:
            self._take()
            made = (sign, made, part())
        return made

    def _literal(self, depth: int) -> Formula:
        if depth > DEEPEST:
            raise NoFormula("nested too deep")
        sign = self._take()
        if sign == "~":
            return "~", self._literal(depth + 1)
        if sign == "(":
            inner = self.formula(depth + 1)
            self._take(")")
            return inner
        if not sign[0].isalpha():
            raise NoFormula(f"{sign!r} is not expected")
        if sign in ("all", "some"):
            name = self._name()
            self._take("(")
            self._bound.append(name)
            inner = self.formula(depth + 1)
            self._bound.pop()
            self._take(")")
            return sign, name, inner
        if self.peek() != "(":
            return "atom", sign
        self._take("(")
        name = self._name()
        self._take(")")
        return "atom", sign, name

    def _name(self) -> str:
        name = self._take()
        if not name[0].isalpha() or name in ("all", "some"):
            raise NoFormula(f"expected a name, got {name!r}")
        return name


def written(formula: Formula) -> str:
    """The text of a formula, with no more brackets than it needs; `read_formula` gives the formula back."""
    kind, parts = formula[0], formula[1:]
    if kind == "atom":
        return parts[0] if len(parts) == 1 else f"{parts[0]}({parts[1]})"
    if kind in ("all", "some"):
        return f"{kind} {parts[0]} ({written(parts[1])})"
    strength = _STRENGTH[kind]

    def inside(part: Formula, least: int) -> str:
        return written(part) if _STRENGTH[part[0]] >= least else f"({written(part)})"

    if kind == "~":
        return f"~{inside(parts[0], strength)}"
    # An implication associates to the right, the others to the left.
    left, right = (strength + 1, strength) if kind == "->" else (strength, strength + 1)
    return f"{inside(parts[0], left)} {kind} {inside(parts[1], right)}"


def negated(formula: Formula) -> Formula:
    """The negation, without a double one."""
    return formula[1] if formula[0] == "~" else ("~", formula)


def atoms(formula: Formula, bound: tuple[str, ...] = ()) -> Iterator[tuple[str, str, bool]]:
    """Yields each atom: its name, its argument or "", and whether that is a variable."""
    kind, parts = formula[0], formula[1:]
    if kind == "atom":
        argument = parts[1] if len(parts) == 2 else ""
        yield parts[0], argument, argument in bound
    elif kind in ("all", "some"):
        yield from atoms(parts[1], (*bound, parts[0]))
    else:
        for part in parts:
            yield from atoms(part, bound)
