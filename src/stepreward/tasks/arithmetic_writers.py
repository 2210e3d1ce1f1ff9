"""Solutions by writers who make mistakes, as a policy's training text: some writers are careful, some careless.

A writer who slips goes on from the wrong number, as people do. A careless writer slips again sooner than a careful one,
so a slip in a text foretells more: a model of such texts has a reason to notice mistakes.
"""

from __future__ import annotations

import numpy as np

from stepreward.core.types import Problem, Step
from stepreward.tasks.arithmetic import Amount, Operator, apply, needed_quantities, quantities_of

SLIPS = ("result", "operand", "operation", "skip")
_OTHER: dict[Operator, Operator] = {"+": "-", "-": "+", "*": "/", "/": "*"}


def written_solution(problem: Problem, rng: np.random.Generator, slip_rate: float) -> tuple[Step, ...]:
    """A solution whose writer slips at each equation with probability `slip_rate`.

    A slip is, with equal chances: a wrong digit in the result, a number misread or taken from elsewhere in the problem,
    the opposite operation, or an equation left out. At rate 0 this is `arithmetic.solution`.
    """
    quantities = quantities_of(problem)
    believed = [q.value for q in quantities]
    lines = []
    for i in needed_quantities(quantities):
        q = quantities[i]
        if q.operator is None:
            continue
        slip = str(rng.choice(SLIPS)) if rng.random() < slip_rate else ""
        if slip == "skip":
            believed[i] = believed[q.left]
            continue
        line, believed[i] = _equation(q, believed, slip, rng)
        lines.append(line)
    return tuple(Step(line) for line in [*lines, f"Answer: {believed[-1]}\n"])


def _equation(q: Amount, believed: list[int], slip: str, rng: np.random.Generator) -> tuple[str, int]:
    """The line a writer writes and the number they go on with."""
    operator: Operator = q.operator or "+"
    left, right = believed[q.left], believed[q.right]
    if slip == "operation":
        operator = _OTHER[operator]
    if slip == "operand":
        right = _misread(right, [other for other in believed if other != right], rng)
    result = apply(operator, left, right)
    if result is None:
        result = left // max(right, 1)
    if slip == "result":
        result = _misread(result, [], rng)
    result = abs(result)
    return f"{left} {operator} {right} = {result}\n", result


def _misread(number: int, others: list[int], rng: np.random.Generator) -> int:
    """Another number of the text, or the same with one digit changed."""
    if others and rng.random() < 0.5:
        return int(rng.choice(others))
    digits = [int(digit) for digit in str(abs(number))]
    place = int(rng.integers(len(digits)))
    digits[place] = (digits[place] + int(rng.choice([1, 1, 2, 5, 8, 9, 9]))) % 10
    return int("".join(map(str, digits)))
