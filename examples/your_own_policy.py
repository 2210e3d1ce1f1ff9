"""Puts your own generator behind stepreward: a policy is a name, two numbers and one method.

This one halves an interval, with a coin that is sometimes unfair. `check_policy` tells whether it keeps the contract.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepreward import Key, Problem, Step
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.label.estimators import monte_carlo
from stepreward.label.samples import graded_samples
from stepreward.testing import check_policy


class Halving:
    """Halves [0, 15] four times towards the target, and errs in one step of ten."""

    name = "halving:0.1"  # equal names promise equal samples: caches and resumed runs rely on it
    batch_size = 64
    concurrency = 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[self.solve(question, key) for key in question.sample_keys()] for question in questions]

    def solve(self, question: Propose, key: Key) -> Continuation:
        low, high = map(int, question.prefix[-1].text.split("..")) if question.prefix else (0, 15)
        wanted, steps, coin = 1 if question.until == "step" else 4, [], key.rng()
        while low < high and len(steps) < wanted and len(steps) != question.max_tokens:  # a step counts as a token
            middle = (low + high) // 2
            right = (int(question.problem.reference or 0) > middle) != (coin.random() < 0.1)
            low, high = (middle + 1, high) if right else (low, middle)
            steps.append(Step(f"{low}..{high}\n"))
        return Continuation(tuple(steps), low == high, len(steps), truncated=low < high and len(steps) < wanted)


class LastNumber:
    """Grades by the number that the last step arrives at."""

    name = "last number"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float(self.answer(problem, steps) == problem.reference) if problem.reference else float("nan")

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text.strip().split("..")[0] if steps else None


problem = Problem("guess", "Which number from 0 to 15 is it?", reference="11")
check_policy(Halving(), problem)  # names the rule that a policy breaks, and the remedy
driver = Driver(policy=Halving(), grader=LastNumber())
(sampled,) = driver.run([graded_samples(problem, Key.seed(0), n=1000)])
print(f"{sum(t.outcome for t in sampled.result):.0f} of 1000 right; 0.9 ** 4 = {0.9**4:.2f}")
one = next(t for t in sampled.result if t.outcome == 1)
(made,) = driver.run([monte_carlo(one, Key.seed(1), n=200)])
for step, value, left in zip(one.steps, made.result.column("value"), (3, 2, 1, 0), strict=True):
    print(f"{step.text.strip():8} value {value:.2f}, exactly {0.9**left:.2f}")
