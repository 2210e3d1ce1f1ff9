"""Grading of real mathematics: final answers in boxes, after GSM8K's "#### 42" or "the answer is", compared whole.

Text of a model is data: what is not a plain number or words is read in worker processes that end at a bound of time and
memory. An answer that reached it is one that could not be graded: NaN, never wrong.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

from stepreward.core.errors import ModelError
from stepreward.core.runtime.flows import UNREAD
from stepreward.core.sandbox.bounded import Bounded, Unbounded
from stepreward.core.types import Problem, Step
from stepreward.tasks.final_answer import final_answer, last_box
from stepreward.tasks.normal_form import read_forms
from stepreward.tasks.value_names import number_name

_LONGEST = 20_000
"""Characters of a solution that are read, from its end, where answers are: a bound of the time."""
_LONGEST_ANSWER = 4_000
"""Most characters of an answer; longer text is no answer."""
_BRACKETS = re.compile(r"[()\[\]{}]")
_DEEPEST = 100
"""Most nested brackets; deeper text is no answer."""
_PLAIN = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?")
_MARKED = re.compile(r"####\s*(\S.*?)\s*$", re.MULTILINE)
SECONDS = 5.0
"""Time limit of one answer."""


class MathGrader:
    """Grades a solution by comparing its final answer with the reference as mathematics, not as text.

    May be used from any thread. Answers that grading equal are one vote: `0.50`, `\\frac12` and `x=\\frac12`.

    Args:
        seconds: time limit of one answer; one that takes longer has the grade NaN.

    Raises:
        ModelError: mpmath is not installed.
    """

    # The number goes up with every change of a grade: logs of answers and step labels are keyed by this name.
    name = "mathematics-3"

    def __init__(self, *, seconds: float = SECONDS) -> None:
        if importlib.util.find_spec("mpmath") is None:
            raise ModelError("grading mathematics needs mpmath: pip install 'stepreward[math]'")
        self._bounded = Bounded(read_forms, seconds=seconds)
        self._forms = lru_cache(maxsize=1 << 14)(self._compute_forms)
        self._warned, self._lock = False, threading.Lock()

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1.0 or 0.0; NaN if the problem has no reference, or one of the two answers could not be read in time."""
        wanted = stated(problem.reference or "")
        if not wanted:
            return float("nan")
        said = _answer(steps)
        if said is None:
            return 0.0
        if said == wanted:
            return 1.0  # Also where neither can be read, as an integral.
        found, right = self._forms(said, wanted)
        if found is None or right is None:
            self._warn_once(problem)
            return float("nan")
        return float(found == right)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The final answer in a normal form; None if there is none. What could not be read in time stays as written."""
        said = _answer(steps)
        if said is None:
            return None
        found, _ = self._forms(said, stated(problem.reference or "") or None)
        return f"{UNREAD}{said}" if found is None else found

    def _compute_forms(self, text: str, wanted: str | None) -> tuple[str | None, str | None]:
        """The normal forms of an answer and of a reference; None where one exceeds the bounds."""
        bare = text.strip().strip("$").strip()
        if _PLAIN.fullmatch(bare) and (wanted is None or _PLAIN.fullmatch(wanted)):
            # Exact, and bounded by its length: no child process is needed.
            return number_name(Fraction(bare)), wanted and number_name(Fraction(wanted))
        if _nesting(text) > _DEEPEST:
            return f"{UNREAD}brackets", ""
        try:
            found, right = self._bounded([text, wanted])
        except (Unbounded, ValueError):
            return None, None
        return found, right

    def _warn_once(self, problem: Problem) -> None:
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            print(
                f"an answer to problem {problem.id} could not be graded within its bounds "
                f"({self._bounded.seconds:g} s); it counts as unknown (NaN), not as wrong; later ones are only counted",
                file=sys.stderr,
            )


def stated(reference: str) -> str:
    """The answer in a reference: in a box, after GSM8K's mark, or all of it; empty where there is none."""
    box = last_box(reference)
    if box:
        return box.strip()
    marked = _MARKED.findall(reference)
    found = str(marked[-1] if marked else reference).strip()
    return found if found.strip("$ ") else ""


def _answer(steps: Sequence[Step]) -> str | None:
    said = final_answer("".join(step.text for step in steps)[-_LONGEST:])
    return None if said is None or len(said) > _LONGEST_ANSWER or _nesting(said) > _DEEPEST else said


def _nesting(text: str) -> int:
    """How deep brackets of any kind are nested."""
    depth = most = 0
    for mark in _BRACKETS.findall(text):
        depth = depth + 1 if mark in "([{" else max(0, depth - 1)
        most = max(most, depth)
    return most
