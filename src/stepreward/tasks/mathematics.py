"""Grading of real mathematics with math-verify: boxed answers, GSM8K's "#### 42", plain expressions."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from stepreward.core.errors import ModelError
from stepreward.core.types import Problem, Step

_GSM8K = re.compile(r"####\s*(.+?)\s*$", re.MULTILINE)
_LONGEST = 20_000
"""Characters of a solution that are read, from its end: answers stand there, and parsing time is bounded."""
_BRACKETS = re.compile(r"[()\[\]{}]")
_DEEPEST = 100
"""Brackets in brackets: beyond, no answer is meant, and a parser's time explodes."""


class MathGrader:
    """Grades a solution by comparing its final answer with the reference as mathematics, not as text.

    Raises:
        ModelError: math-verify is not installed.
    """

    name = "math-verify"

    def __init__(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise ModelError("grading mathematics needs math-verify: pip install 'stepreward[math]'")
        self._library: Any = importlib.import_module("math_verify")
        self._parse = lru_cache(maxsize=1 << 14)(self._parse_text)

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1.0 or 0.0; NaN if the problem has no reference."""
        if problem.reference is None:
            return float("nan")
        said = self._parse(_tail(steps))
        return float(
            bool(said) and self._library.verify(list(self._parse(problem.reference)), list(said), timeout_seconds=None)
        )

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The final answer in SymPy's normal form, or as text where it is no expression; None if there is none."""
        said = self._parse(_tail(steps))
        return str(said[0]) if said else None

    def _parse_text(self, text: str) -> tuple[Any, ...]:
        if _nesting(text) > _DEEPEST:
            return ()
        marked = _GSM8K.findall(text)
        source = f"\\boxed{{{marked[-1]}}}" if marked else text
        found = self._library.parse(source, parsing_timeout=None)
        # A bare "x = 3" or "12" in a reference is LaTeX without its delimiters.
        return tuple(found or self._library.parse(f"${source}$", parsing_timeout=None))


def _nesting(text: str) -> int:
    """How deep brackets of any kind stand in each other."""
    depth = most = 0
    for mark in _BRACKETS.findall(text):
        depth = depth + 1 if mark in "([{" else max(0, depth - 1)
        most = max(most, depth)
    return most


def _tail(steps: Sequence[Step]) -> str:
    return "".join(step.text for step in steps)[-_LONGEST:]
