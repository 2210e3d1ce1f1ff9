"""Solutions with slips: the training text of the built-in policy.

The common slip is a lost carry: `58 + 27 = 75`, `42 - 17 = 35`, `38 * 2 = 66`. It depends on the numbers alone, so
writers who lose carries agree on their wrong answer, and often outvote the right one. Rollouts from the step before
still reach the right answer, those from the slip do not, so Monte Carlo labels name the slip. The rare slips are of
other kinds.

A writer continues from the wrong number, as people do. A careless writer slips far more often than a careful one, so a
slip in a text announces more slips: a model of such texts has a reason to notice them.
"""

from __future__ import annotations

from itertools import zip_longest

import numpy as np

from stepreward.core.types import Problem, Step
from stepreward.tasks.arithmetic import Amount, Operator, apply, needed_quantities, quantities_of

RARE_SLIPS = ("result", "operand", "operation", "skip")
RARE = 0.1
"""Rate of the rare slips at an equation, as a share of the rate at which carries are lost."""
_OPPOSITE: dict[Operator, Operator] = {"+": "-", "-": "+", "*": "/", "/": "*"}


def written_solution(problem: Problem, rng: np.random.Generator, slip_rate: float) -> tuple[Step, ...]:
    """A solution whose writer loses the carry of an equation that has one with probability `slip_rate`.

    At each equation the writer makes a rare slip with probability `RARE * slip_rate` instead: with equal chances a
    wrong digit in the result, a number misread or taken from elsewhere in the problem, the opposite operation, or an
    equation left out. At rate 0 this is `arithmetic.solution`.

    Args:
        problem: a problem of `arithmetic.generate`.
        rng: randomness of the slips.
        slip_rate: between 0 and 1 / (1 + RARE).
    """
    quantities = quantities_of(problem)
    believed = [q.value for q in quantities]
    lines = []
    for i in needed_quantities(quantities):
        q = quantities[i]
        if q.operator is None:
            continue
        slip = _draw_slip(rng, slip_rate)
        if slip == "skip":
            # The writer forgets this equation, and goes on with its left operand.
            believed[i] = believed[q.left]
            continue
        line, believed[i] = _equation(q, believed, slip, rng)
        lines.append(line)
    return tuple(Step(line) for line in [*lines, f"Answer: {believed[-1]}\n"])


def without_carry(operator: Operator, left: int, right: int) -> int | None:
    """The result of an operation digit by digit, without carrying or borrowing; the exact one where neither occurs.

    Returns:
        None where there is no exact result (`arithmetic.apply`).
    """
    if operator == "/" or (operator == "*" and right > 9):
        return apply(operator, left, right)
    pairs = list(zip_longest(_digits(left), _digits(right), fillvalue=0))
    if operator == "+":
        places = [a + b for a, b in pairs]
    elif operator == "-":
        places = [abs(a - b) for a, b in pairs]
    else:
        places = [a * right for a in _digits(left)]
    result = places.pop()
    for place in reversed(places):
        result = 10 * result + place % 10
    return result


def _digits(number: int) -> list[int]:
    """Decimal digits, ones first."""
    return [int(digit) for digit in reversed(str(number))]


def _draw_slip(rng: np.random.Generator, slip_rate: float) -> str:
    """The slip that the writer makes at an equation, "" for none."""
    u = rng.random()
    if u < RARE * slip_rate:
        return str(rng.choice(RARE_SLIPS))
    return "carry" if u < (1 + RARE) * slip_rate else ""


def _equation(q: Amount, believed: list[int], slip: str, rng: np.random.Generator) -> tuple[str, int]:
    """The line, and the number with which the writer continues."""
    operator: Operator = q.operator or "+"
    left, right = believed[q.left], believed[q.right]
    if slip == "operation":
        operator = _OPPOSITE[operator]
    if slip == "operand":
        right = _misread(right, [other for other in believed if other != right], rng)
    result = without_carry(operator, left, right) if slip == "carry" else apply(operator, left, right)
    # After a slip, a division may leave a remainder: the writer drops it.
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
