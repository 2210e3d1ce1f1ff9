"""Trees of rollouts as flows: where they fork, how many solutions they have, and what is shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled
from tests.environments.counting import policy as counter
from tests.environments.counting import pool

from stepreward.connect.rollout_trees import Forks, Levels, Shape, TreeSolution
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.scripted import ScriptedPolicy

PROBLEM, KEY = Problem("p", "Go."), Key.seed(0)


def decode(tokens: Any) -> str:
    return "".join(map(chr, tokens))


def step(text: str, said: float = -0.5, **at: float) -> Step:
    """A step of one token a letter; the log-probability of some letters is given."""
    return Step(text, tokens=tuple(map(ord, text)), logprobs=tuple(at.get(letter, said) for letter in text))


def wrote(*steps: Step, finished: bool = True, **how: Any) -> Continuation:
    return Continuation(steps, finished, sum(len(one.tokens or ()) for one in steps) + int(finished), **how)


def grown(shape: Shape, script: Callable[[Propose, int], Continuation], n: int, most: int = 99) -> tuple[Any, Any, Any]:
    """The solutions, what was asked, and the bill."""
    policy = ScriptedPolicy(script)
    driver = Driver(policy=policy)
    (done,) = driver.run([shape.flow(PROBLEM, KEY, n, most, decode)])
    return done.result, policy.questions, driver.bill


def texts(branches: list[TreeSolution]) -> list[list[str]]:
    return [[one.text for one in branch.steps] for branch in branches]


def test_forks_stand_before_the_tokens_that_were_least_likely() -> None:
    def script(question: Propose, i: int) -> Continuation:
        if question.prefix:
            return wrote(step("X;"), step("Y"))
        # 'c' is the first token of a step, 'e' is within one; 'b' is third.
        return wrote(step("ab;", b=-2.0), step("cde;", c=-4.0, e=-3.0))

    made, asked, bill = grown(Forks(points=2, width=2), script, 5, most=20)
    assert texts(made) == [["ab;", "cde;"], *[["ab;", "X;", "Y"]] * 2, *[["ab;", "cdX;", "Y"]] * 2]
    assert [(decode(sum((s.tokens for s in q.prefix), ())), q.n, q.max_tokens) for q in asked] == [
        ("", 1, 20), ("ab;", 2, 17), ("ab;cd", 2, 15),
    ]  # fmt: skip
    assert [one.start for one in made] == [0, 3, 3, 5, 5]
    # All of the first solution's forks are on the way of the later one, and the other way round none.
    assert [sorted(one.cuts) for one in made] == [[3, 5], [3], [3], [3, 5], [3, 5]]
    assert [one.tokens for one in made] == [7, 6, 6, 8, 8]
    # 7 tokens, then twice 3 and twice 3, and five ends.
    assert bill.generated_tokens == 7 + 4 * 3 + 5
    whole = made[3].steps[1]
    assert (whole.tokens, whole.logprobs) == (tuple(map(ord, "cdX;")), (-4.0, -0.5, -0.5, -0.5))


def test_a_later_round_sees_what_the_earlier_one_sampled() -> None:
    def script(question: Propose, i: int) -> Continuation:
        text = decode(sum((s.tokens or () for s in question.prefix), ()))
        return wrote({"": step("abc", b=-2.0), "a": step("xyz", y=-9.0), "ax": step("w")}[text])

    made, _, _ = grown(Forks(rounds=2), script, 3)
    assert texts(made) == [["abc"], ["axyz"], ["axw"]]
    assert made[2].parent is made[1]
    assert [sorted(one.cuts) for one in made] == [[1], [1, 2], [1, 2]]


def test_random_forks_stand_between_steps_and_a_leaf_is_not_expanded() -> None:
    def script(question: Propose, i: int) -> Continuation:
        return wrote(*(step(text) for text in ("a;", "bb;", "c")[len(question.prefix) :]))

    seen: Counter[int] = Counter()
    for seed in range(60):
        shape = Forks(where="random", unit="step")
        (done,) = Driver(policy=ScriptedPolicy(script)).run([shape.flow(PROBLEM, Key.seed(seed), 2, 99, decode)])
        seen[done.result[1].start] += 1
    assert seen.keys() == {2, 5}
    # Chance 2.7e-7 of a fair coin beyond 5 standard deviations.
    assert abs(seen[2] - 30) < 5 * np.sqrt(60 / 4)
    same = [texts(grown(shape, script, 2)[0]) for _ in range(2)]
    assert same[0] == same[1]


def test_forks_between_steps_stand_before_the_step_of_least_mean() -> None:
    """'bbb' has the least sum, 'c' the least mean, and what a fork shares, or begins with, is no place of its own."""

    def script(question: Propose, i: int) -> Continuation:
        if question.prefix:
            return wrote(step("x;", said=-7.0), step("y", said=-6.0), step("z", said=-1.0))
        return wrote(step("a;", said=-9.0), step("bbb;", said=-1.5), step("c", said=-5.0), step("d", said=-0.1))

    made, _, _ = grown(Forks(rounds=2, unit="step"), script, 3)
    assert texts(made) == [
        ["a;", "bbb;", "c", "d"], ["a;", "bbb;", "x;", "y", "z"], ["a;", "bbb;", "x;", "x;", "y", "z"]
    ]  # fmt: skip
    assert [one.start for one in made] == [0, 6, 8]


def test_what_has_no_place_to_fork_is_sampled_from_the_problem_again() -> None:
    made, asked, _ = grown(Forks(points=2, unit="step"), lambda question, i: wrote(step(f"{i}")), 6)
    assert [question.prefix for question in asked] == [()] * 5
    assert texts(made) == [["0"], ["1"], *[["0"]] * 4]
    assert [one.root for one in made] == [0, 1, 0, 0, 1, 1]
    assert made[2].cuts == set()


@pytest.mark.parametrize(
    ("shape", "n"), [(Forks(), 3), (Forks(roots=3), 8), (Forks(points=3), 2), (Forks(rounds=0, roots=2), 3)]
)
def test_groups_that_the_trees_do_not_fill_are_refused(shape: Forks, n: int) -> None:
    with pytest.raises(InputError, match=f"a group of {n} is wanted; choose num_generations"):
        shape.trees(n)


def test_sizes_of_trees() -> None:
    assert Forks(rounds=2, points=3, width=2).trees(26) == 2
    assert Forks(roots=2, points=3).trees(8) == 2
    assert Forks(rounds=0).trees(5) == 5


@given(seed=st.integers(0, 999), n=st.integers(1, 9), width=st.integers(1, 3), roots=st.integers(1, 4))
@settings(max_examples=scaled(40), deadline=None)
def test_levels_fill_the_group_whenever_paths_end(seed: int, n: int, width: int, roots: int) -> None:
    def script(question: Propose, i: int) -> Continuation:
        rng = question.key.fold(i).rng()
        assert question.max_tokens is not None
        if rng.random() < 0.3:
            return wrote(finished=True)
        new = step(f"{rng.integers(9)}"[: question.max_tokens])
        # A step may end where the limit is: such a solution has an end, and nothing says that it was cut.
        return wrote(new, finished=False, truncated=question.max_tokens == 1 and seed % 2 == 0)

    policy = ScriptedPolicy(script)
    driver = Driver(policy=policy)
    (done,) = driver.run([Levels(width, roots).flow(PROBLEM, Key.seed(seed), n, 6, decode)])
    made: list[TreeSolution] = done.result
    assert len(made) == n
    assert all(one.finished or one.tokens == 6 for one in made)
    assert all(1 <= question.n <= width for question in policy.questions)
    assert all(question.max_tokens == 6 - len(question.prefix) for question in policy.questions)
    assert driver.bill.generated_tokens <= sum(one.tokens + one.finished for one in made)
    assert {one.root for one in made} <= set(range(roots))
    if width == 1 and roots >= n:
        assert driver.bill.generated_tokens == sum(one.tokens + one.finished for one in made)


def test_levels_by_hand() -> None:
    """Width 2, four wanted: 2 next steps, of which one ends; the other has 2, and each of those goes on to an end."""

    def script(question: Propose, i: int) -> Continuation:
        text = "".join(one.text for one in question.prefix)
        if text == "":
            return wrote(step("e")) if i else wrote(step("a"), finished=False)
        return wrote(step("bc"[i]), finished=False) if text == "a" else wrote(finished=True)

    made, asked, bill = grown(Levels(2), script, 4)
    assert [(len(q.prefix), q.n) for q in asked[:2]] == [(0, 2), (1, 2)]
    # Three are still missing behind "ab" and "ac": one of them is asked twice.
    assert sorted((len(q.prefix), q.n) for q in asked[2:]) == [(2, 1), (2, 2)]
    ends = Counter("".join(one.text for one in branch.steps) for branch in made)
    assert ends["e"] == 1
    assert sorted(ends) == ["ab", "ac", "e"]
    assert sorted(ends.values()) == [1, 1, 2]
    assert bill.generated_tokens == 2 + 1 + 2 + 3


def test_what_forks_need_of_the_policy_is_told() -> None:
    with pytest.raises(InputError, match="reports no tokens"):
        grown(Forks(), lambda question, i: Continuation((Step("ab"),), True, 2), 2)
    with pytest.raises(InputError, match=r"log-probabilities.*where='random'"):
        grown(Forks(), lambda question, i: Continuation((Step("ab", tokens=(1, 2)),), True, 2), 2)
    made, _, _ = grown(Forks(where="random"), lambda q, i: Continuation((Step("ab", tokens=(97, 98)),), True, 2), 2)
    assert len(made) == 2


@pytest.mark.parametrize("forks", [False, True], ids=["acted again", "snapshots"])
@pytest.mark.parametrize("shape", [Forks(where="random", unit="step", points=3), Levels(2)], ids=["forks", "levels"])
def test_episodes_are_forked_between_turns(forks: bool, shape: Shape) -> None:
    class Counted:
        """The policy of the world of counting, with a token for each letter."""

        name, batch_size, concurrency = "counter", 64, 1

        def propose(self, questions: Any) -> list[list[Continuation]]:
            return [
                [Continuation((step(one.steps[0].text),), one.finished, len(one.steps[0].text) + 1) for one in some]
                for some in counter().propose(questions)
            ]

    episodes, problem = pool(forks=forks), Problem("p", "Count to 4.", "4")
    driver = Driver(policy=Agent(Counted(), episodes))
    (done,) = driver.run([shape.flow(problem, KEY, 4, 99, decode)])
    for branch in done.result:
        shown, at = [], 1
        for one in branch.actions:
            shown.append(f"value {at}\n")
            at = {"+1": at + 1, "*2": at * 2, "-1": at - 1}[one.text.strip()]
        assert [one.text for one in branch.steps if one.kind == "observation"] == shown
        assert branch.finished
        assert at == 4 or len(branch.actions) == 4
        assert branch.steps[-1].kind == "action"
    assert episodes.executed < sum(len(branch.actions) for branch in done.result), "a shared turn is executed once"
    assert driver.bill.generated_tokens < sum(branch.tokens + len(branch.actions) for branch in done.result)
