"""Mending solutions, rejecting starts of steps, and looking ahead: against closed forms, scripts and limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver, Finished
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.expert import WithExpert
from stepreward.policies.tabular import TabularPolicy
from stepreward.search.candidates import Found
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(4, 3, seed=2)
KEY = Key.seed(0)
PROBLEM = Problem("p", "solve it", "42")


class Checker:
    """`good` while all is right, `bad` from the first wrong step on."""

    name, batch_size = "checker", 64

    def __init__(self, wrong: Callable[[Problem, Sequence[Step]], int], bad: float = 0.0, good: float = 1.0) -> None:
        self.wrong, self.bad, self.good = wrong, bad, good
        self.asked: list[Score] = []

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.asked += questions
        made = []
        for q in questions:
            first, n = self.wrong(q.problem, q.steps), len(q.steps)
            made.append(Scored(np.array([self.good if first < 0 or t < first else self.bad for t in range(n)]), n, n))
        return made


class Scripted:
    """Answers by a rule and remembers the questions."""

    name, batch_size, concurrency = "rule", 64, 1

    def __init__(self, rule: Callable[[Propose, int], Continuation]) -> None:
        self.rule = rule
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self.rule(q, i) for i in range(q.n)] for q in questions]


class Says:
    name = "says"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float(bool(steps) and steps[-1].text.strip() == problem.reference)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text.strip() if steps else None


def run(method: str, problems: Sequence[Problem], policy: Any, scorer: Any, grader: Any, **settings: Any) -> list[Any]:
    driver = Driver(policy=policy, scorer=scorer, grader=grader)
    flows = (search[method].take({"problem": p, "key": KEY.fold(p.id)}, **settings) for p in problems)
    made: list[Finished[Found]] = sorted(driver.run(flows), key=lambda one: one.index)
    return made


def in_world(method: str, count: int = 60, **settings: Any) -> list[Any]:
    return run(
        method, WORLD.problems(count), TabularPolicy(WORLD.next_steps), Checker(WORLD.first_error), WORLD, **settings
    )


def same(one: Sequence[Any], other: Sequence[Any]) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.result.trajectory.steps == b.result.trajectory.steps
        assert a.bill == b.bill


# Look ahead


def test_without_looking_ahead_it_is_beam_search() -> None:
    how = {"beams": 2, "width": 2, "aggregate": "last"}
    ours = in_world("lookahead", ahead=0, **how)
    plain = in_world("beam", **how)
    assert [one.result.trajectory.steps for one in ours] == [one.result.trajectory.steps for one in plain]


def test_a_trap_is_seen_that_many_steps_ahead() -> None:
    """The first step "trap" looks better than "plain", and every solution behind it is lost at its second step."""

    def rule(question: Propose, i: int) -> Continuation:
        said = [step.text for step in question.prefix]
        if not said:
            return Continuation((Step(("trap", "plain")[i % 2]),), False, 1)
        return Continuation((Step("bad" if said[0] == "trap" else "good"),), len(said) == 2, 1)

    class Looks:
        name, batch_size = "looks", 8
        worth = {"trap": 0.9, "plain": 0.6, "good": 0.8, "bad": 0.1}  # noqa: RUF012

        def score_many(self, questions: Sequence[Score]) -> list[Scored]:
            return [Scored(np.array([self.worth[s.text] for s in q.steps]), 1, 1) for q in questions]

    def first(ahead: int) -> str:
        how = {"beams": 1, "width": 2, "ahead": ahead}
        (one,) = run("lookahead", [PROBLEM], Scripted(rule), Looks(), Says(), **how)
        return str(one.result.trajectory.steps[0].text)

    assert first(0) == "trap"
    assert first(1) == first(2) == "plain"


def test_rollouts_are_greedy_and_leave_no_candidate() -> None:
    policy = Scripted(lambda q, i: Continuation((Step(f"{len(q.prefix)}{i}"),), len(q.prefix) == 2, 1))
    (one,) = run("lookahead", [PROBLEM], policy, Checker(lambda *_: -1), Says(), beams=1, width=2, ahead=1)
    assert {q.n for q in policy.asked if q.temperature == 0.0} == {1}
    assert {q.temperature for q in policy.asked} == {None, 0.0}
    assert all(len(t.steps) == 3 for t in one.result.tree.trajectories())


# Early rejection


def test_starts_as_long_as_steps_are_beam_search() -> None:
    how = {"beams": 2, "width": 3}
    same(in_world("early-rejection", tokens=10, **how), in_world("beam", **how))


class Letters:
    """Steps of four letters, "aaaa" to "dddd", two steps a solution; a token is a letter."""

    name, batch_size, concurrency = "letters", 64, 1

    def __init__(self) -> None:
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self.one(q, i) for i in range(q.n)] for q in questions]

    @staticmethod
    def one(question: Propose, i: int) -> Continuation:
        begun = "".join(s.text for s in question.prefix)
        letter = begun[-1] if len(begun) % 4 else "abcd"[i % 4]
        left = 4 - len(begun) % 4
        count = min(left, question.max_tokens or left)
        whole = count == left
        step = Step(letter * count, tokens=(ord(letter),) * count, logprobs=(-1.0,) * count)
        return Continuation((step,), whole and len(begun) + count == 8, count, truncated=not whole)


class Alphabet:
    """The later the letter, the better."""

    name, batch_size = "alphabet", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.array([(ord(s.text[0]) - 96) / 4 for s in q.steps]), 1, 1) for q in questions]


def test_only_the_best_starts_are_paid_to_the_end() -> None:
    policy = Letters()
    (one,) = run("early-rejection", [PROBLEM], policy, Alphabet(), Says(), beams=1, width=4, tokens=1)
    steps = one.result.trajectory.steps
    assert [s.text for s in steps] == ["dddd", "dddd"]
    assert steps[0].tokens == (ord("d"),) * 4
    assert steps[0].logprobs == (-1.0,) * 4
    # Two steps: four starts of one token, and three tokens more of the one kept.
    assert one.bill.generated_tokens == 2 * (4 + 3)
    plain = Letters()
    (beam,) = run("beam", [PROBLEM], plain, Alphabet(), Says(), beams=1, width=4)
    assert beam.result.trajectory.text == one.result.trajectory.text
    assert beam.bill.generated_tokens == 2 * 16


def test_a_step_that_never_ends_is_left_out() -> None:
    endless = Scripted(lambda q, i: Continuation((Step("x"),), False, 1, truncated=True))
    (one,) = run("early-rejection", [PROBLEM], endless, Checker(lambda *_: -1), Says(), tokens=1, beams=2, width=1)
    assert one.result.chosen == -1 or not one.result.tree.trajectories()[one.result.chosen].terminal
    with pytest.raises(ValueError, match="tokens must be positive"):
        run("early-rejection", [PROBLEM], endless, Checker(lambda *_: -1), Says(), tokens=0)


# Cut and regenerate


@pytest.mark.parametrize(("vote", "plain"), [(True, "weighted-vote"), (False, "best-of-n")])
def test_without_rounds_it_is_a_choice_among_samples(vote: bool, plain: str) -> None:
    same(in_world("search-r2", rounds=0, n=4, vote=vote), in_world(plain, n=4))


def test_one_mended_draft_solves_as_often_as_the_closed_form_says() -> None:
    """P = V(root) + sum over right prefixes x of P(x, then a wrong step) V(x): the draft, or its second life."""

    def mended(problem: Problem, prefix: tuple[Step, ...], reach: float) -> float:
        total, here = 0.0, WORLD.value(problem, prefix)
        for step, chance, finished in WORLD.next_steps(problem, prefix):
            after = (*prefix, step)
            if WORLD.first_error(problem, after) >= 0:
                total += reach * chance * here
            elif finished:
                total += reach * chance
            else:
                total += mended(problem, after, reach * chance)
        return total

    count = 800
    exact = np.array([mended(p, (), 1.0) for p in WORLD.problems(count)])
    once = np.mean([WORLD.value(p, ()) for p in WORLD.problems(count)])
    solved = np.array([one.result.answer == "right" for one in in_world("search-r2", count, n=1, vote=False)])
    error = np.sqrt((exact * (1 - exact)).sum()) / count
    assert exact.mean() > once + 0.1
    assert abs(solved.mean() - exact.mean()) < 4 * error


def test_what_was_right_is_kept_and_drafts_that_share_it_are_mended_differently() -> None:
    policy = TabularPolicy(WORLD.next_steps)
    asked: list[Propose] = []

    class Noting(TabularPolicy):
        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            asked.extend(questions)
            return policy.propose(questions)

    run("search-r2", WORLD.problems(20), Noting(WORLD.next_steps), Checker(WORLD.first_error), WORLD, n=6, rounds=2)
    mending = [q for q in asked if q.first > 0]
    assert mending
    assert all(WORLD.first_error(q.problem, q.prefix) < 0 for q in mending)
    drawn = [(q.problem.id, q.prefix, q.first + i) for q in asked for i in range(q.n)]
    assert len(drawn) == len(set(drawn)), "a sample was drawn twice"


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("search-r2", {"n": 4, "rounds": 2, "vote": False}),
        ("glore", {"n": 2}),
        ("reflexion", {"attempts": 4}),
        ("intervention", {"most": 3}),
    ],
)
def test_a_score_equal_to_the_threshold_is_bad_and_just_above_it_good(method: str, settings: dict[str, Any]) -> None:
    """A search asks what it asks where they are 0 and 1, which is more than where no step is bad."""
    in_words = method in ("glore", "reflexion")
    world: Any = Says() if in_words else WORLD
    problems = [PROBLEM] if in_words else WORLD.problems(20)
    tabular = TabularPolicy(WORLD.next_steps)

    def asked(wrong: Callable[[Problem, Sequence[Step]], int], bad: float, good: float) -> list[Propose]:
        policy = Scripted(listens if in_words else lambda q, i: tabular.propose([q])[0][i])
        run(method, problems, policy, Checker(wrong, bad, good), world, **settings)
        return policy.asked

    wrong = lost_at_7 if in_words else WORLD.first_error
    at = asked(wrong, 0.5, float(np.nextafter(0.5, 1)))
    assert at == asked(wrong, 0.0, 1.0)
    assert len(at) > len(asked(lambda *_: -1, 0.0, 1.0))


# Asked again in words


def listens(question: Propose, i: int) -> Continuation:
    """Wrong at its second step, unless the request names that step."""
    request = question.problem.messages[-1]["content"]
    right = "7\n" in request or "be careful" in request
    if request.startswith("The solution above is wrong"):
        return Continuation((Step("be careful"),), True, 2)
    return Continuation((Step("1\n"), Step("2\n" if right else "7\n"), Step("42" if right else "47")), True, 3)


def lost_at_7(problem: Problem, steps: Sequence[Step]) -> int:
    return next((i for i, step in enumerate(steps) if step.text == "7\n"), -1)


def test_a_critique_that_names_the_step_mends_what_a_bare_request_does_not() -> None:
    policy = Scripted(listens)
    (one,) = run("glore", [PROBLEM], policy, Checker(lost_at_7), Says(), n=1)
    assert one.result.answer == "42"
    assert [a for a in one.result.answers] == ["47", "47", "42"]  # noqa: C416
    draft, bare, named = policy.asked
    assert draft.problem == PROBLEM
    for asked in (bare, named):
        assert asked.problem.messages[0]["content"] == "solve it"
        assert asked.problem.messages[1] == {"role": "assistant", "content": "1\n7\n47"}
        assert asked.problem.id not in (PROBLEM.id, draft.problem.id)
    assert "1\n" in named.problem.messages[2]["content"]
    assert "7\n" in named.problem.messages[2]["content"]


@pytest.mark.parametrize(("method", "answers"), [("glore-global", ["47", "47"]), ("glore-local", ["47", "42"])])
def test_each_refinement_may_stand_alone(method: str, answers: list[str]) -> None:
    (one,) = run(method, [PROBLEM], Scripted(listens), Checker(lost_at_7), Says(), n=1)
    assert list(one.result.answers) == answers


def test_a_draft_without_a_doubtful_step_is_not_asked_about() -> None:
    policy = Scripted(listens)
    run("glore", [PROBLEM], policy, Checker(lambda *_: -1), Says(), n=1)
    assert len(policy.asked) == 1


def test_reflections_reach_the_next_attempt_and_a_pass_ends_it() -> None:
    policy = Scripted(listens)
    (one,) = run("reflexion", [PROBLEM], policy, Checker(lost_at_7), Says(), attempts=5)
    assert one.result.answer == "42"
    assert len(policy.asked) == 3, "an attempt, a reflection, and an attempt that passes"
    assert "7\n" in policy.asked[1].problem.messages[-1]["content"]
    assert "be careful" in policy.asked[2].problem.messages[-1]["content"]
    assert one.bill.generated_tokens == 3 + 2 + 3


def test_attempts_are_bounded_and_the_last_failure_is_not_reflected_upon() -> None:
    policy = Scripted(lambda q, i: Continuation((Step("1\n"), Step("7\n"), Step("47")), True, 3))
    (one,) = run("reflexion", [PROBLEM], policy, Checker(lost_at_7), Says(), attempts=3)
    assert len(policy.asked) == 3 + 2
    assert one.result.answer == "47"


# A stronger policy


def right_steps(problem: Problem, prefix: tuple[Step, ...]) -> list[tuple[Step, float, bool]]:
    choices = [c for c in WORLD.next_steps(problem, prefix) if WORLD.first_error(problem, (*prefix, c[0])) < 0]
    return [(step, 1 / len(choices), finished) for step, _, finished in choices]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("most", [0, 1, 4])
def test_a_perfect_expert_is_asked_only_where_a_step_is_bad_and_within_its_budget(most: int) -> None:
    expert = TabularPolicy(right_steps, "expert")
    asked: list[Propose] = []

    class Noting(TabularPolicy):
        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            asked.extend(questions)
            return expert.propose(questions)

    both = WithExpert(TabularPolicy(WORLD.next_steps), Noting(right_steps, "expert"))
    problems = WORLD.problems(200)
    made = run("intervention", problems, both, Checker(WORLD.first_error), WORLD, most=most)
    per_problem = [sum(q.problem.id == p.id for q in asked) for p in problems]
    assert max(per_problem, default=0) <= most
    assert [one.bill.expert_tokens for one in made] == per_problem
    solved = np.array([one.result.answer == "right" for one in made])
    if most == WORLD.depth:
        assert solved.all(), "every bad step was replaced"
    exact = np.array([_with_help(p, (), most) for p in problems])
    assert abs(solved.mean() - exact.mean()) <= 4 * np.sqrt((exact * (1 - exact)).sum()) / len(problems) + 1e-9


def _with_help(problem: Problem, prefix: tuple[Step, ...], left: int) -> float:
    """The exact chance to solve with so many replaced steps left."""
    total = 0.0
    for step, chance, finished in WORLD.next_steps(problem, prefix):
        after = (*prefix, step)
        if WORLD.first_error(problem, after) < 0:
            total += chance if finished else chance * _with_help(problem, after, left)
        elif left:
            total += chance * sum(
                share * (1.0 if ends else _with_help(problem, (*prefix, better), left - 1))
                for better, share, ends in right_steps(problem, prefix)
            )
    return total


def test_without_an_expert_the_policy_is_asked_again() -> None:
    made = in_world("intervention", 40, most=4)
    plain = in_world("intervention", 40, most=0)
    assert sum(m.result.answer == "right" for m in made) > sum(p.result.answer == "right" for p in plain)
