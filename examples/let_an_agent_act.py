"""Lets an agent act in an environment of your own: what is each of its actions worth, and how does it find the way?

An environment is a class with three methods. Rollouts from forks of an episode label the actions of a careless agent,
beside the exact chances; a search that executes what it considers then wins where the agent alone seldom does.
"""

from __future__ import annotations

from collections.abc import Sequence

import stepreward
from stepreward import Problem, Step
from stepreward.core.runtime.acts import Observation
from stepreward.testing import TabularPolicy, check_environment

ACTIONS = {"double": lambda number: 2 * number, "add one": lambda number: number + 1}


class Counting:
    """Begins at 1; the episode is won at the problem's number, and over after four actions."""

    def reset(self, problem: Problem) -> Observation:
        self.number, self.turns, self.target = 1, 0, int(problem.reference or 0)
        return Observation.of("The number is 1.", outcome=0.0)

    def act(self, action: Step) -> Observation:
        if action.text in ACTIONS:  # what cannot be read is no error: the agent sees that nothing changed
            self.number = ACTIONS[action.text](self.number)
        self.turns += 1
        won = self.number == self.target
        over = won or self.turns == 4
        return Observation.of(f"The number is {self.number}.", done=over, outcome=float(won), reward=float(won))

    def close(self) -> None:
        """Nothing runs."""


def chance(number: int, turns: int, target: int) -> float:
    """That coin flips still reach the target."""
    if number == target or turns == 4:
        return float(number == target)
    return sum(chance(act(number), turns + 1, target) for act in ACTIONS.values()) / 2


def careless(problem: Problem, steps: Sequence[Step]) -> list[tuple[Step, float, bool]]:
    return [(Step(name), 0.5, True) for name in ACTIONS]


problem = Problem("seven", "Count to 7.", reference="7")
check_environment(Counting, problem, [*ACTIONS])  # names what is wrong, such as randomness that does not repeat
agent = stepreward.policy(TabularPolicy(careless, "careless"), environment=Counting)
rows = stepreward.label([problem], policy=agent, method="math-shepherd", transform="soft", samples=1, n=400)
number, turns = 1, 0
for step, value in zip(rows[0].steps, rows[0].column("value"), strict=True):
    if step.kind == "action":
        number, turns = ACTIONS[step.text](number), turns + 1
        print(f"{step.text:8} gives {number}: value {value:.2f}, exactly {chance(number, turns, 7):.2f}")
(found,) = stepreward.search([problem], policy=agent, scorer="executed", method="beam", budget=32)
print(f"alone {chance(1, 0, 7):.2f}, with execution {found.outcome:.0f} after {found.bill.actions} actions")
