"""Satisfiability problems with exact verifiers: decide, solve, satisfy most clauses, corrections, conflicts.

Every assignment of the at most 16 variables is tried, so that truth takes no solver: 65,536 assignments of 64 clauses
are tried in milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Flag
from stepreward.tasks.final_answer import final_answer

Clauses = Sequence[Sequence[int]]
"""Literals of each clause: the number of a variable, from 1, negative where it is negated."""
Task = Literal["decide", "solve", "max", "correction", "conflict"]
Style = Literal["math", "dimacs"]
MOST = 16
"""Variables of a problem."""
_ASK: dict[Task, str] = {
    "decide": "Can all clauses hold at once? Put SAT or UNSAT in \\boxed{}.",
    "solve": "Find values with which all clauses hold. Put one digit a variable, in order, in \\boxed{}: 1 for true.",
    "max": "Find values with which as many clauses as possible hold. Put one digit a variable, in order, in \\boxed{}: "
    "1 for true.",
    "correction": "Not all clauses can hold at once. Find a minimal set of clauses without which the others can: each "
    "of them is needed in it. Put their numbers, with commas, in \\boxed{}.",
    "conflict": "Not all clauses can hold at once. Find a minimal set of clauses that cannot either: without any one "
    "of them the rest of it can. Put their numbers, with commas, in \\boxed{}.",
}


def held(clauses: Clauses, variables: int) -> NDArray[np.bool_]:
    """(C, 2^n) which clauses hold under which assignment; bit i of its number is the value of variable i + 1.

    Raises:
        ValueError: there are more than 16 variables, or a literal is of none.
    """
    literals = [abs(literal) for clause in clauses for literal in clause]
    if not 1 <= variables <= MOST or min(literals, default=1) < 1 or max(literals, default=1) > variables:
        raise ValueError(f"expected literals of 1 to {MOST} variables, got {variables} variables and {clauses}")
    values = np.arange(1 << variables) >> np.arange(variables)[:, None] & 1 == 1
    made = np.zeros((len(clauses), 1 << variables), bool)
    for row, clause in zip(made, clauses, strict=True):
        for literal in clause:
            row |= values[abs(literal) - 1] == (literal > 0)
    return made


def _possible(table: NDArray[np.bool_]) -> bool:
    """Whether all rows hold at once somewhere."""
    return bool(table.all(axis=0).any())


def is_right(task: Task, clauses: Clauses, variables: int, answer: str) -> bool:
    """Whether an answer is one of the right ones.

    Args:
        task: what was asked.
        clauses, variables: of the problem.
        answer: as the problem asks for it; spaces do not matter.
    """
    table, answer = held(clauses, variables), re.sub(r"\s", "", answer).strip(".,$")
    if task == "decide":
        return answer.upper() == ("SAT" if _possible(table) else "UNSAT")
    if task in ("solve", "max"):
        if not re.fullmatch(rf"[01]{{{variables}}}", answer):
            return False
        count = table.sum(axis=0)
        wanted = len(clauses) if task == "solve" else int(count.max())
        return bool(count[sum(1 << at for at, digit in enumerate(answer) if digit == "1")] == wanted)
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})*", answer):
        return False
    chosen = {int(one) - 1 for one in answer.split(",")}
    if not chosen <= {*range(len(clauses))}:
        return False
    inside, outside = ([at for at in range(len(clauses)) if (at in chosen) is part] for part in (True, False))
    if task == "correction":
        return _possible(table[outside]) and not any(_possible(table[[*outside, one]]) for one in inside)
    rest = ([other for other in inside if other != one] for one in inside)
    return not _possible(table[inside]) and all(_possible(table[some]) for some in rest)


def right_answer(task: Task, clauses: Clauses, variables: int) -> str | None:
    """One of the right answers; None where there is none."""
    table = held(clauses, variables)
    count = table.sum(axis=0)
    best = int(count.argmax())
    if task == "decide":
        return "SAT" if _possible(table) else "UNSAT"
    if (task == "solve") is not _possible(table) and task != "max":
        return None
    if task in ("solve", "max"):
        return "".join(str(best >> at & 1) for at in range(variables))
    if task == "correction":
        # The fewest that can be left out are minimal.
        return ",".join(str(at + 1) for at in np.flatnonzero(~table[:, best]))
    chosen = [*range(len(clauses))]
    for one in range(len(clauses)):
        without = [other for other in chosen if other != one]
        if not _possible(table[without]):
            chosen = without
    return ",".join(str(at + 1) for at in chosen)


@generate.method(
    "sat",
    note="after sdpkjc/SATQuest: its five kinds of problems, its lengths of clauses, and a satisfiable twin by turned "
    "literals; wording and layout of answers are ours, and answers are verified without a solver",
)
def sat_problems(
    key: Key,
    *,
    task: Task = "decide",
    fewest: Annotated[int, Flag(low=2, high=MOST)] = 3,
    most: Annotated[int, Flag(low=2, high=MOST)] = 8,
    style: Style = "math",
) -> Iterator[Problem]:
    """Makes satisfiability problems, of which the grader `sat` verifies any right answer exactly.

    A problem has four clauses a variable, drawn until they cannot all hold; where they should, literals are turned
    until they can. Of `decide` half the problems can.

    Args:
        key: randomness.
        task: what is asked: whether all clauses can hold, values with which they do, values with which most do, a
            minimal set of clauses to leave out, a minimal set that cannot hold.
        fewest, most: variables.
        style: how clauses are written.

    Raises:
        ValueError: `fewest` exceeds `most`, or there is no such task or style.
    """
    if not 2 <= fewest <= most <= MOST or task not in get_args(Task) or style not in get_args(Style):
        raise ValueError(
            f"expected 2 <= fewest <= most <= {MOST}, a task of {', '.join(_ASK)} and a style of math, dimacs, "
            f"got {fewest}, {most}, {task}, {style}"
        )
    number = 0
    while True:
        rng = key.fold("sat", task, number).rng()
        variables = int(rng.integers(fewest, most + 1))
        clauses = _unsatisfiable(rng, variables)
        if task == "solve" or (task == "decide" and rng.random() < 0.5):
            _turn_until_satisfiable(rng, clauses, variables)
        clauses = [sorted(clause, key=abs) for clause in clauses]
        meta = {"task": task, "variables": variables, "clauses": clauses}
        prompt = f"{_text(clauses, variables, style)}\n\n{_ASK[task]}"
        yield Problem(
            f"sat-{task}-{key.bits:016x}-{number}", prompt, right_answer(task, clauses, variables), meta
        )  # fmt: skip
        number += 1


def _unsatisfiable(rng: np.random.Generator, variables: int) -> list[list[int]]:
    """Clauses that cannot all hold, as the peer draws them: 1 or 2 literals and a geometric number more."""
    while True:
        made = []
        for _ in range(4 * variables):
            size = (1 if rng.random() < 0.3 else 2) + int(rng.geometric(0.7))
            chosen = rng.choice(variables, min(size, variables), replace=False) + 1
            made.append([int(one) if rng.random() < 0.5 else -int(one) for one in chosen])
        if not _possible(held(made, variables)):
            return made


def _turn_until_satisfiable(rng: np.random.Generator, clauses: list[list[int]], variables: int) -> None:
    while not _possible(held(clauses, variables)):
        clause = clauses[int(rng.integers(len(clauses)))]
        at = int(rng.integers(len(clause)))
        clause[at] = -clause[at]


def _text(clauses: Clauses, variables: int, style: Style) -> str:
    if style == "dimacs":
        lines = [" ".join(map(str, [*clause, 0])) for clause in clauses]
        return "\n".join([f"p cnf {variables} {len(clauses)}", *lines])

    def literal(one: int) -> str:
        return f"x{one}" if one > 0 else f"not x{-one}"

    lines = [f"{at}. {' or '.join(map(literal, clause))}" for at, clause in enumerate(clauses, 1)]
    return "\n".join([f"Variables: x1 to x{variables}. Clauses:", *lines])


class SatGrader:
    """Grades an answer to a satisfiability problem 1 if it is any of the right ones, else 0."""

    name = "sat-1"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1.0 or 0.0.

        Raises:
            InputError: the problem has no task, variables and clauses in its meta.
        """
        meta = problem.meta
        try:
            task, variables, clauses = meta["task"], int(meta["variables"]), meta["clauses"]
            held(clauses, variables)
        except (KeyError, TypeError, ValueError) as error:
            what = f"problem {problem.id!r} has no task, variables and clauses in its meta: {error}"
            raise InputError(what, remedy="make such problems with `stepreward generate sat`") from error
        answer = self.answer(problem, steps)
        return float(answer is not None and is_right(task, clauses, variables, answer))

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """What the solution states last, in a box or after "the answer is"; None if it states nothing."""
        return final_answer("".join(step.text for step in steps if step.kind == "action"))
