"""What no search may get wrong, held for every registered one: the defects found in public code, as tests.

A world of numbers: a step is a digit and a line break, three of them are a solution, and a sample is named by its key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stepreward.core.catalog import aggregate, search
from stepreward.core.errors import ModelError
from stepreward.core.keys import Key, uniforms
from stepreward.core.method import Method
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Compare, Continuation, Judged, Propose, Score, Scored
from stepreward.core.runtime.spending import Bill, Budget
from stepreward.core.types import Problem, Step
from stepreward.search.candidates import Found

pytestmark = pytest.mark.sampled(3)
KEY = Key.seed(3)
DEPTH = 3
METHODS = list(search)
SCORED = [m for m in METHODS if "aggregate" in m.settings and m.name not in ("self-prm", "reward-weighted")]
"""Those whose totals are aggregated scores: not the policy's own confidence, not weights of samples."""
EVERY = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def problem(name: str = "p", prompt: str = "three digits") -> Problem:
    return Problem(name, prompt, "999")


class Digits:
    """Digits drawn by key; the end comes with the last one. `mark` is put into every step."""

    concurrency = 1

    def __init__(self, *, mark: str = "", batch_size: int = 64, cut: Callable[[Propose], bool] | None = None) -> None:
        self.name, self.mark, self.batch_size = f"digits{mark}", mark, batch_size
        self.cut = cut or (lambda question: False)
        self.asked: list[Propose] = []
        self.tokens = 0

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self._one(q, key) for key in q.sample_keys()] for q in questions]

    def _one(self, question: Propose, key: Key) -> Continuation:
        done = len([s for s in question.prefix if s.kind == "action"])
        assert done < DEPTH, "text was asked for after the end"
        count = 1 if question.until == "step" else DEPTH - done
        draws = uniforms(np.repeat(np.array([key.bits], np.uint64), count), np.arange(count))
        steps = tuple(self._step(int(u * 10)) for u in draws)
        self.tokens += count
        if self.cut(question):
            return Continuation(steps[:-1], False, count, truncated=True)
        return Continuation(steps, done + count == DEPTH, count)

    def _step(self, digit: int) -> Step:
        text = f"{self.mark}{digit}\n"
        return Step(text, logprobs=(-1.0 / (1 + digit),), tokens=(digit,), meta={"self_certainty": float(digit)})


def digit(step: Step) -> int:
    return int(step.text.strip()[-1])


class ByDigit:
    """A step is worth its digit; remembers what it was asked."""

    name, batch_size = "by digit", 64

    def __init__(self, change: Callable[[np.ndarray], np.ndarray] = lambda scores: scores) -> None:
        self.change, self.asked, self.tokens = change, list[Score](), 0

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.asked += questions
        self.tokens += sum(len(q.steps) for q in questions)
        return [
            Scored(
                self.change(np.array([digit(s) / 9 if s.kind == "action" else np.nan for s in q.steps])),
                len(q.steps),
                2 * len(q.steps),
            )
            for q in questions
        ]


class Sum:
    """The answer is the digits; the judge likes the larger number."""

    name, batch_size = "sum", 64

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float(self.answer(problem, steps) == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return "".join(str(digit(s)) for s in steps if s.kind == "action")

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        def number(steps: Sequence[Step]) -> int:
            return int("0" + "".join(str(digit(s)) for s in steps))

        return [Judged(0.5 + 0.5 * float(np.sign(number(q.first) - number(q.second)))) for q in questions]


def run(
    method: Method[..., Any],
    problems: Sequence[Problem],
    policy: Any = None,
    scorer: Any = None,
    budget: Budget | None = None,
) -> tuple[list[Found], Bill]:
    judge = Sum()
    driver = Driver(policy=policy or Digits(), scorer=scorer or ByDigit(), grader=judge, judge=judge, budget=budget)
    made = sorted(driver.run([method(p, KEY.fold(p.id)) for p in problems]), key=lambda one: one.index)
    return [one.result for one in made], driver.bill


def texts(found: Found) -> list[tuple[str, ...]]:
    return [tuple(s.text for s in t.steps) for t in found.tree.trajectories()]


@EVERY
def test_the_choice_is_one_of_the_candidates_and_is_finished(method: Method[..., Any]) -> None:
    (found,), _ = run(method, [problem()])
    assert 0 <= found.chosen < len(found.answers)
    assert found.trajectory is not None
    assert found.trajectory.terminal
    assert found.answer is not None
    assert len(found.totals) == len(found.answers) == len(found.tree.trajectories())
    assert [s for s in found.trajectory.steps if s.kind == "action"][-1].text.strip() != ""


@pytest.mark.parametrize("method", SCORED, ids=lambda m: m.name)
@pytest.mark.parametrize("name", ["min", "last", "mean"])
def test_the_aggregate_of_the_final_choice_is_the_one_asked_for(method: Method[..., Any], name: str) -> None:
    judge = Sum()
    driver = Driver(policy=Digits(), scorer=ByDigit(), grader=judge, judge=judge)
    found = next(driver.run([method(problem(), KEY, aggregate=name)])).result
    if "score" not in found.tree.columns:
        pytest.skip("scores no whole candidates")
    scores = found.tree.gather(found.tree.column("score"))
    made = aggregate[name].take({"scores": np.nan_to_num(scores), "mask": ~np.isnan(scores)})
    known = ~np.isnan(found.totals)
    np.testing.assert_allclose(found.totals[known], made[known])
    assert known[found.chosen]


@EVERY
def test_a_text_that_ends_with_its_separator_has_as_many_scores_as_steps(method: Method[..., Any]) -> None:
    scorer = ByDigit()
    run(method, [problem()], scorer=scorer)
    assert all(step.text.strip() for q in scorer.asked for step in q.steps), "an empty step was scored"


@EVERY
def test_nothing_is_scored_twice(method: Method[..., Any]) -> None:
    scorer = ByDigit()
    run(method, [problem()], scorer=scorer)
    asked = [tuple(s.identity for s in q.steps) for q in scorer.asked]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("method", SCORED, ids=lambda m: m.name)
@pytest.mark.parametrize("change", [lambda s: s[:-1], lambda s: np.append(s, 0.5)], ids=["short", "long"])
def test_another_number_of_scores_than_steps_is_an_error(method: Method[..., Any], change: Any) -> None:
    with pytest.raises(ModelError, match="one number a step"):
        run(method, [problem()], scorer=ByDigit(change))


@EVERY
def test_a_score_that_is_zero_loses_no_step(method: Method[..., Any]) -> None:
    (found,), _ = run(method, [problem()], scorer=ByDigit(lambda scores: 0 * scores))
    assert found.answer is not None


@EVERY
def test_a_limit_is_no_end(method: Method[..., Any]) -> None:
    (found,), _ = run(method, [problem()], policy=Digits(cut=lambda question: True))
    assert found.answer is None
    assert not any(t.terminal for t in found.tree.trajectories())


@EVERY
def test_questions_that_are_equal_do_not_collide(method: Method[..., Any]) -> None:
    same = [problem("p"), problem("q"), problem("p")]
    together, _ = run(method, same)
    assert texts(together[0]) == texts(together[2])
    assert together[0].answers == together[2].answers
    alone = [run(method, [one])[0][0] for one in same]
    assert [texts(f) for f in together] == [texts(f) for f in alone]
    assert [f.chosen for f in together] == [f.chosen for f in alone]


@pytest.mark.sampled(4)
@EVERY
@pytest.mark.parametrize("batch_size", [1, 5])
def test_the_size_of_batches_changes_nothing(method: Method[..., Any], batch_size: int) -> None:
    problems = [problem(f"p{i}") for i in range(3)]
    wide, bill = run(method, problems)
    narrow, other = run(method, problems, policy=Digits(batch_size=batch_size))
    assert [texts(f) for f in wide] == [texts(f) for f in narrow]
    for one, two in zip(wide, narrow, strict=True):
        np.testing.assert_array_equal(one.totals, two.totals)
    assert bill.generated_tokens == other.generated_tokens


@EVERY
def test_settings_of_one_run_do_not_reach_another(method: Method[..., Any]) -> None:
    name = next((n for n in ("n", "width", "beams") if isinstance(method.settings.get(n), int)), None)
    if name is None:
        pytest.skip("has no width")
    judge = Sum()
    flows = [method(problem(), KEY, **{name: 3}), method(problem(), KEY), method(problem(), KEY, **{name: 3})]
    driver = Driver(policy=Digits(), scorer=ByDigit(), grader=judge, judge=judge)
    made = sorted(driver.run(flows), key=lambda one: one.index)
    assert texts(made[0].result) == texts(made[2].result)
    (alone,), _ = run(method, [problem()])
    default = next(Driver(policy=Digits(), scorer=ByDigit(), grader=judge, judge=judge).run([method(problem(), KEY)]))
    assert texts(made[1].result) == texts(default.result)
    assert alone.answers


@EVERY
def test_any_script_survives(method: Method[..., Any]) -> None:
    mark = "計算 🙂 \u0301 é "
    (found,), _ = run(method, [problem(prompt="三つの数字 🙂")], policy=Digits(mark=mark))
    assert found.trajectory is not None
    assert all(s.text.startswith(mark) for s in found.trajectory.steps if s.kind == "action")


@EVERY
def test_the_bill_counts_what_the_backends_counted(method: Method[..., Any]) -> None:
    policy, scorer = Digits(), ByDigit()
    _, bill = run(method, [problem(f"p{i}") for i in range(2)], policy=policy, scorer=scorer)
    assert bill.generated_tokens == policy.tokens
    assert bill.scored_steps == bill.scored_tokens == scorer.tokens
    assert bill.scored_tokens_unshared == 2 * scorer.tokens
    assert bill.proposals == sum(q.n for q in policy.asked)


def lost(method: Method[..., Any], budget: Budget | None = None) -> bool:
    """Whether tokens were paid for and no candidate shows them."""
    (found,), bill = run(method, [problem()], budget=budget)
    return bill.generated_tokens > 0 and (found.chosen < 0 or not found.answers)


@pytest.mark.sampled(4)
@EVERY
@pytest.mark.parametrize("limit", ["rollouts", "tokens"])
def test_what_was_paid_for_is_never_lost_whatever_the_limit(method: Method[..., Any], limit: str) -> None:
    assert [most for most in range(1, 21) if lost(method, Budget(**{limit: most}))] == []


@pytest.mark.parametrize("method", [m for m in METHODS if "max_steps" in m.settings], ids=lambda m: m.name)
@pytest.mark.parametrize("most", [1, 2])
def test_solutions_longer_than_the_most_steps_are_shown_unfinished(method: Method[..., Any], most: int) -> None:
    (found,), bill = run(replace(method, fixed={**method.fixed, "max_steps": most}), [problem()])
    assert bill.generated_tokens > 0
    assert found.chosen >= 0


@EVERY
def test_a_budget_ends_it_with_the_best_so_far(method: Method[..., Any]) -> None:
    _, whole = run(method, [problem()])
    for tokens in (1, max(whole.generated_tokens // 2, 1)):
        (found,), bill = run(method, [problem()], budget=Budget(tokens=tokens))
        assert bill.generated_tokens <= whole.generated_tokens
        assert found.chosen < len(found.answers)
        assert (found.chosen >= 0) == bool(found.answers)
    (nothing,), bill = run(method, [problem()], budget=Budget(rollouts=0))
    assert (nothing.chosen, bill.generated_tokens) == (-1, 0)


@EVERY
def test_candidates_are_apart_unless_samples_are_what_is_counted(method: Method[..., Any]) -> None:
    (found,), _ = run(method, [problem()])
    if {"trees", "n", "rounds"} & method.settings.keys():
        return
    assert len(set(texts(found))) == len(texts(found))
