"""The contract of a search, in a world of numbers whose right answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stepreward.core.errors import SteprewardError
from stepreward.core.keys import Key, uniforms
from stepreward.core.method import Method
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Compare, Continuation, Judged, Propose, Score, Scored
from stepreward.core.runtime.spending import Bill, Budget
from stepreward.core.types import Problem, Step
from stepreward.testing.rules import require

_DEPTH = 3


class Digits:
    """Writes solutions of three digits, a step each, drawn by key; reports log-probabilities and its certainty."""

    name, concurrency = "digits", 1

    def __init__(self, batch_size: int = 64) -> None:
        self.batch_size = batch_size

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; a step counts as one token."""
        return [[self._one(question, key) for key in question.sample_keys()] for question in questions]

    def _one(self, question: Propose, key: Key) -> Continuation:
        done = sum(step.kind == "action" for step in question.prefix)
        count = 1 if question.until == "step" else max(_DEPTH - done, 0)
        allowed = count if question.max_tokens is None else min(count, question.max_tokens)
        draws = uniforms(np.repeat(np.array([key.bits], np.uint64), allowed), np.arange(allowed))
        digits = [int(draw * 10) for draw in draws]
        steps = tuple(
            Step(f"{digit}\n", tokens=(digit,), logprobs=(-1 / (1 + digit),), meta={"self_certainty": float(digit)})
            for digit in digits
        )
        return Continuation(steps, done + allowed >= _DEPTH, allowed, truncated=allowed < count)


def _number(steps: Sequence[Step]) -> str:
    return "".join(step.text.strip()[-1:] for step in steps if step.kind == "action")


class ByDigit:
    """Scores a step by its digit, grades by the number, and prefers the larger number."""

    name, batch_size = "by digit", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """One score a step: its digit over 9."""
        rows = [[int(_number([s]) or 0) / 9 if s.kind == "action" else np.nan for s in q.steps] for q in questions]
        return [Scored(np.array(row, np.float64), len(row), len(row)) for row in rows]

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        """1 where the first number is larger, 1/2 where both are equal."""
        pairs = [(int(_number(q.first) or 0), int(_number(q.second) or 0)) for q in questions]
        return [Judged(0.5 + 0.5 * float(np.sign(one - other))) for one, other in pairs]

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1 where the number is the reference."""
        return float(_number(steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """The number."""
        return _number(steps) or None


def check_search(method: Method[..., Any]) -> None:
    """Runs a search on three problems in several ways that must not change its result.

    Raises:
        ContractError: a rule is broken.
    """
    problems = [Problem(f"check/{i}", "Write three digits.", reference="999") for i in range(3)]
    found, bill = _run(method, problems)
    for one in found:
        _check_found(method, one)
    alone = [_run(method, [problem])[0][0] for problem in problems]
    ways = [
        (_run(method, problems), "repeatable", "the same call gave another result", "draw from the key alone"),
        (_run(method, problems, batch_size=1), "batches", "batches of one change the result",
         "depend on answers, not on when they come"),
        ((alone, bill), "problems are apart", "other problems change the result", "keep no state between calls"),
    ]  # fmt: skip
    for (others, cost), rule, what, remedy in ways:
        for one, two in zip(found, others, strict=True):
            same = _texts(one) == _texts(two) and one.chosen == two.chosen
            same = same and np.array_equal(one.totals, two.totals, equal_nan=True)
            require(same, method, rule, what, remedy)
        spent = cost.generated_tokens == bill.generated_tokens
        require(spent, method, rule, "another number of tokens was spent", remedy)
    # What was paid for must show: a budget may end a search at any question.
    for most in (1, max(bill.generated_tokens // 6, 1)):
        (one,), cost = _run(method, problems[:1], budget=Budget(tokens=most))
        what = f"{cost.generated_tokens} tokens were spent and nothing was chosen"
        kept = one.chosen >= 0 or not cost.generated_tokens
        require(kept, method, "budget", what, "catch BudgetExhausted and conclude with the best so far")


def _run(
    method: Method[..., Any], problems: Sequence[Problem], *, batch_size: int = 64, budget: Budget | None = None
) -> tuple[list[Any], Bill]:
    world, asks = ByDigit(), set(method.asks)
    driver = Driver(
        policy=Digits(batch_size),
        scorer=world if "scorer" in asks else None,
        grader=world,
        judge=world if "judge" in asks else None,
        budget=budget,
    )
    flows = [method.take({"problem": problem, "key": Key.seed(3).fold(problem.id)}) for problem in problems]
    try:
        made = sorted(driver.run(flows), key=lambda one: one.index)
    except SteprewardError as error:
        found = f"with {', '.join(sorted(asks))} it failed: {error}"
        require(False, method, "asks", found, "declare in asks all that its questions need")
    return [one.result for one in made], driver.bill


def _texts(found: Any) -> list[str]:
    return [trajectory.text for trajectory in found.tree.trajectories()]


def _check_found(method: Method[..., Any], found: Any) -> None:
    sizes = [len(found.totals), len(found.answers), len(_texts(found))]
    what = f"totals, answers and candidates are {sizes}"
    require(len({*sizes}) == 1, method, "one row a candidate", what, "give each candidate a total and an answer")
    what = f"{found.chosen} of {sizes[0]} candidates is chosen"
    require(0 <= found.chosen < sizes[0], method, "a choice", what, "choose one where there is any")
    what = "an unfinished candidate is chosen though others are finished"
    require(found.trajectory.terminal, method, "a finished choice", what, "prefer finished candidates")
