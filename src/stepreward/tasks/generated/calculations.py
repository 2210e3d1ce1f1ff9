"""Random calculations that no text holds yet, and a reward for how close an answer comes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Annotated

import numpy as np

from stepreward.core.catalog import generate
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.tasks.final_answer import final_answer

_NUMBER = r"[-+]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})"
_VALUE = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?")
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
Operations = Annotated[int, Flag(low=1, high=100)]


@generate.method(
    "random-calculation",
    paper="arXiv:2507.10532",
    equation="RandomCalculation: numbers, fractions, squares and cubes joined by four operations",
    note="from a third party's note of the paper; wording ours, no brackets but of operands",
)
def calculations(key: Key, *, fewest: Operations = 1, most: Operations = 5) -> Iterator[Problem]:
    """Makes calculations with exact results, new ones for each key; the grader `calculation` grades by distance.

    Operands are integers from 0 to 100, fractions of two of them, squares and cubes.

    Args:
        key: randomness.
        fewest, most: operations; the paper goes from 1 to 20.

    Raises:
        ValueError: `fewest` exceeds `most`.
    """
    if not 1 <= fewest <= most:
        raise ValueError(f"expected 1 <= fewest <= most, got {fewest} and {most}")
    number = 0
    while True:
        rng = key.fold("calculation", number).rng()
        n = int(rng.integers(fewest, most + 1))
        signs = [("+", "-", "*", "/")[int(rng.integers(4))] for _ in range(n)]
        operands = [_operand(rng, nonzero=at > 0 and signs[at - 1] == "/") for at in range(n + 1)]
        text = operands[0][0] + "".join(f" {sign} {one}" for sign, (one, _) in zip(signs, operands[1:], strict=True))
        result = _result([value for _, value in operands], signs)
        prompt = f"Calculate {text}\n\nPut the exact result, a whole number or a fraction a/b, in \\boxed{{}}."
        yield Problem(f"calculation-{key.bits:016x}-{number}", prompt, str(result), {"expression": text})
        number += 1


def _operand(rng: np.random.Generator, *, nonzero: bool) -> tuple[str, Fraction]:
    low = 1 if nonzero else 0
    whole, kind = int(rng.integers(low, 101)), int(rng.integers(4))
    if kind == 1:
        below = int(rng.integers(1, 101))
        return f"({whole}/{below})", Fraction(whole, below)
    power = max(kind, 1)
    return f"{whole}" if power == 1 else f"{whole}^{power}", Fraction(whole) ** power


def _result(values: Sequence[Fraction], signs: Sequence[str]) -> Fraction:
    """Products and quotients from left to right, then sums."""
    total, term = Fraction(0), values[0]
    for sign, value in zip(signs, values[1:], strict=True):
        if sign == "*":
            term *= value
        elif sign == "/":
            term /= value
        else:
            total += term
            term = value if sign == "+" else -value
    return total + term


def closeness(answer: Fraction, truth: Fraction) -> float:
    """How close an answer comes, absolutely and relatively, each cut at 1.

        r = 1 - min(|a - b|, 1) / 2 - min(|a - b| / (|b| + 1e-6), 1) / 2

    Args:
        answer: a.
        truth: b.

    Returns:
        In [0, 1]; 1 only where both are equal.
    """
    gap = abs(answer - truth)
    return float(1 - min(gap, Fraction(1)) / 2 - min(gap / (abs(truth) + Fraction(1, 10**6)), Fraction(1)) / 2)


def value_of(text: str) -> Fraction | None:
    """A number, decimal or fraction as text or LaTeX; None for anything else."""
    text = re.sub(r"[\s$]|\\[,!;]|(?<=\d),(?=\d{3})", "", text).replace("\u2212", "-").strip(".")
    text = _FRACTION.sub(r"\1\2/\3", text)
    found = _VALUE.fullmatch(text)
    below = Fraction(found[2]) if found and found[2] else Fraction(1)
    return Fraction(found[1]) / below if found and below else None


class CalculationGrader:
    """Grades a number by how close it is to the reference: 1 if equal, less the farther; 0 without a number."""

    name = "calculation-1"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """In [0, 1]; NaN where the reference is no number."""
        truth = None if problem.reference is None else value_of(problem.reference)
        if truth is None:
            return float("nan")
        answer = self.answer(problem, steps)
        return 0.0 if answer is None else closeness(Fraction(answer), truth)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The number that the solution states last, as a reduced fraction; None if it states none."""
        said = final_answer("".join(step.text for step in steps if step.kind == "action"))
        made = None if said is None else value_of(said.rpartition("=")[2])
        return None if made is None else str(made)
