"""A world of four agents with known truth: who of them made the error that lost a trace, and what each turn is worth.

A planner says which two products to add, a multiplier calculates them, an adder adds them, and a critic accepts or
sends the work back to the multiplier or the adder. Each errs at a known rate, so that the chance to be right after any
turn follows by recursion over a handful of states.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from stepreward.core.keys import Key
from stepreward.core.types import Floats, Problem, Step

PLANNER, MULTIPLIER, ADDER, CRITIC = AGENTS = ("planner", "multiplier", "adder", "critic")
ROUTES = {
    CRITIC: [
        {"says": "Wrong products", "next": MULTIPLIER}, {"says": "Wrong sum", "next": ADDER},
        {"says": "Accepted", "next": ""},
    ]
}  # fmt: skip
"""Who speaks after the critic; all others speak in the order of `AGENTS`."""
NextTurns = Callable[[Problem, tuple[Step, ...]], Sequence[tuple[Step, float, bool]]]
"""A table for `testing.TabularPolicy`."""
_SAID = re.compile(
    r"Plan: add (?P<plan>[\d *and]+)\.|Products: (?P<products>[\d and]+)\.|Answer: (?P<answer>\d+)"
    r"|(?P<back>Wrong products|Wrong sum)|(?P<end>Accepted)"
)


@dataclass(frozen=True)
class _State:
    """What is right of the work so far, and whose turn it is."""

    agent: str = PLANNER
    plan: bool = True
    products: bool = True
    sum: bool = True
    sent: int = 0
    """How often the critic sent the work back."""


@dataclass(frozen=True)
class PlannedSums:
    """Problems, the agents' tables, a grader and exact truth in one; a `core.runtime.flows.Grader`.

    Every error makes the answer larger, so that no two of them cancel.
    """

    plan: float = 0.12
    """Chance that the planner takes a wrong number; no agent checks the plan."""
    slip: float = 0.25
    """Chance that the multiplier or the adder slips."""
    sees: float = 0.7
    """Chance that the critic sees a slip."""
    alarm: float = 0.1
    """Chance that the critic sends right products back."""
    rounds: int = 2
    """How often the critic may send the work back; then it accepts."""
    name = "planned sums"

    def problem(self, number: int, seed: int = 0) -> Problem:
        """A problem: the sum of two products."""
        a, b, c, d = Key.seed(seed).fold("planned-sums", number).rng().integers(2, 30, 4).tolist()
        return Problem(f"sums-{seed}-{number}", f"What is {a} * {b} + {c} * {d}?\n", str(a * b + c * d))

    def table(self, agent: str) -> NextTurns:
        """What an agent says after a trace, with its chances."""

        def turns(problem: Problem, prefix: tuple[Step, ...]) -> list[tuple[Step, float, bool]]:
            state, numbers = self._read(problem, prefix)
            return [
                (Step(_words(agent, move, numbers)), p, True) for move, p in self._moves(replace(state, agent=agent))
            ]

        return turns

    def value(self, problem: Problem, steps: Sequence[Step]) -> float:
        """Exact chance that the answer is right in the end."""
        return self._value(self._read(problem, steps)[0])

    def values(self, problem: Problem, steps: Sequence[Step]) -> Floats:
        """(S,) exact chances after each step."""
        return np.array([self.value(problem, steps[: at + 1]) for at in range(len(steps))])

    def decisive(self, problem: Problem, steps: Sequence[Step]) -> int:
        """The decisive error: the first step after which the answer cannot be right any more; -1 where none is."""
        lost = np.flatnonzero(self.values(problem, steps) == 0)
        return int(lost[0]) if len(lost) else -1

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1 if the last answer is right, else 0."""
        return float(self.answer(problem, steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The last answer that is stated."""
        said = re.findall(r"Answer: (\d+)", "".join(step.text for step in steps))
        return said[-1] if said else None

    def _moves(self, state: _State) -> list[tuple[str, float]]:
        """What the agent may do, each with its chance."""
        if state.agent == PLANNER:
            return _some(wrong=self.plan, right=1 - self.plan)
        if state.agent != CRITIC:
            return _some(wrong=self.slip, right=1 - self.slip)
        if state.sent == self.rounds:
            return _some(accept=1.0)
        if not state.products:
            return _some(products=self.sees, accept=1 - self.sees)
        if not state.sum:
            return _some(sum=self.sees, accept=1 - self.sees)
        return _some(products=self.alarm, accept=1 - self.alarm)

    def _value(self, state: _State) -> float:
        return _worth(self, state)

    def _read(self, problem: Problem, steps: Sequence[Step]) -> tuple[_State, list[int]]:
        """The state after a trace, and the numbers that the next agent reads."""
        a, b, c, d = map(int, re.findall(r"\d+", problem.text))
        state, plan, products = _State(), [a, b, c, d], [a * b, c * d]
        for step in steps:
            found = _SAID.search(step.text)
            if found is None:
                continue
            said = list(map(int, re.findall(r"\d+", found[0])))
            if found["plan"]:
                state, plan = replace(state, agent=MULTIPLIER, plan=said == [a, b, c, d]), said
            elif found["products"]:
                right = said == [plan[0] * plan[1], plan[2] * plan[3]]
                state, products = replace(state, agent=ADDER, products=right), said
            elif found["answer"]:
                state = replace(state, agent=CRITIC, sum=said == [sum(products)])
            elif found["back"]:
                back = MULTIPLIER if "products" in found["back"] else ADDER
                state = replace(state, agent=back, sent=state.sent + 1)
            else:
                state = replace(state, agent="")
        return state, plan if state.agent in (PLANNER, MULTIPLIER) else products


@cache
def _worth(world: PlannedSums, state: _State) -> float:
    if not state.agent:
        return float(state.plan and state.products and state.sum)
    return sum(chance * _worth(world, _after(state, move)) for move, chance in world._moves(state))


def _after(state: _State, move: str) -> _State:
    if state.agent == PLANNER:
        return replace(state, agent=MULTIPLIER, plan=move == "right")
    if state.agent == MULTIPLIER:
        return replace(state, agent=ADDER, products=move == "right")
    if state.agent == ADDER:
        return replace(state, agent=CRITIC, sum=move == "right")
    if move == "accept":
        return replace(state, agent="")
    return replace(state, agent=MULTIPLIER if move == "products" else ADDER, sent=state.sent + 1)


def _words(agent: str, move: str, numbers: Sequence[int]) -> str:
    off = move == "wrong"
    if agent == PLANNER:
        a, b, c, d = numbers
        return f"Plan: add {a + 2 * off} * {b} and {c} * {d}.\n"
    if agent == MULTIPLIER:
        a, b, c, d = numbers
        return f"Products: {a * b + 10 * off} and {c * d}.\n"
    if agent == ADDER:
        return f"Answer: {sum(numbers) + off}\n"
    return {"products": "Wrong products.\n", "sum": "Wrong sum.\n", "accept": "Accepted.\n"}[move]


def _some(**chances: float) -> list[tuple[str, float]]:
    return [(move, chance) for move, chance in chances.items() if chance > 0]
