"""Wrong steps made of right ones: checked by a program, confirmed by rollouts, or said to be neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.label.label_world import PROBLEM, World

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.label.estimators import monte_carlo
from stepreward.label.omega import tree_labels
from stepreward.label.planted.planted_errors import KINDS, changed_numbers, changed_texts, planted_errors
from stepreward.score.tools.equations import equations

NAN = float("nan")
KEY = Key.seed(5)


def rows_of(flow: Any, **answerers: Any) -> list[Trajectory]:
    return tree_labels(next(Driver(**answerers).run([flow])).result, Provenance("test"))


def solution(*texts: str, outcome: float = 1.0) -> Trajectory:
    return Trajectory(Problem("p", "Add."), tuple(map(Step, texts)), outcome)


def test_one_number_or_sign_is_changed_at_a_time() -> None:
    assert [*changed_texts("12 + 3 = 15")] == [
        "13 + 3 = 15", "11 + 3 = 15", "120 + 3 = 15", "21 + 3 = 15", "12 - 3 = 15", "12 + 4 = 15", "12 + 2 = 15",
        "12 + 30 = 15", "12 + 3 = 16", "12 + 3 = 14", "12 + 3 = 150", "12 + 3 = 51",
    ]  # fmt: skip
    assert [*changed_texts("x1 is 1.5 or 2,000 of a-b")] == []


def test_a_changed_step_is_wrong_if_the_program_says_so() -> None:
    right = solution("Then 12 + 3 = 15.\n", "No sum here.\n", "So 15 - 5 = 10.\n")
    own, *copies = rows_of(changed_numbers(right, KEY, n=50))
    np.testing.assert_array_equal(own.labels, [1, NAN, 1])
    assert len(copies) > 8
    assert len({one.text for one in copies}) == len(copies)
    for one in copies:
        np.testing.assert_array_equal(one.labels, [0] if len(one) == 1 else [1, NAN, 0])
        assert not all(found.holds for found in equations(one.steps[-1].text))
        assert one.steps[:-1] == right.steps[: len(one) - 1]
        assert not one.terminal
        assert np.isnan(one.outcome)
    assert len(rows_of(changed_numbers(right, KEY, n=3))) == 4
    drawn = [[one.text for one in rows_of(changed_numbers(right, Key.seed(seed), n=3))] for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]
    (first, *_) = rows_of(changed_numbers(right, KEY, unchecked="right"))
    np.testing.assert_array_equal(first.labels, [1, 1, 1])


def test_nothing_is_made_of_a_wrong_solution_or_of_a_step_that_was_wrong_before() -> None:
    (only,) = rows_of(changed_numbers(solution("1 + 1 = 2\n", outcome=0.0), KEY))
    assert np.isnan(only.labels).all()
    own, *copies = rows_of(changed_numbers(solution("1 + 1 = 3\n", "2 + 2 = 4\n"), KEY, n=20))
    np.testing.assert_array_equal(own.labels, [0, 1])
    assert {len(one) for one in copies} == {2}
    with pytest.raises(InputError, match="no step"):
        rows_of(changed_numbers(solution(), KEY))


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from("+-*"))
def test_every_copy_states_something_false(a: int, b: int, sign: str) -> None:
    result = {"+": a + b, "-": a - b, "*": a * b}[sign]
    for one in rows_of(changed_numbers(solution(f"{a} {sign} {b} = {result}\n"), KEY, n=30))[1:]:
        left, _, right = one.text.strip().partition(" = ")
        assert eval(left) != int(right)


class Writer:
    """The policy of a world, which writes what it is told where it is asked for an error, and keeps the requests."""

    batch_size, concurrency, name = 64, 1, "writer"

    def __init__(self, world: World, *said: str) -> None:
        self.inner, self.said, self.asked = world.policy(), list(said), list[Propose]()

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        made = []
        for question in questions:
            if " planted " in question.problem.id:
                self.asked.append(question)
                made.append([Continuation((Step(self.said[(len(self.asked) - 1) % len(self.said)]),), True, 5)])
            else:
                made += self.inner.propose([question])
        return made


WORLD = World(length=4, error=0.0, slip=0.0)


def planted(said: tuple[str, ...], text: str = "abab", **settings: Any) -> tuple[list[Trajectory], Writer]:
    writer = Writer(WORLD, *said)
    return rows_of(planted_errors(WORLD.trajectory(text), KEY, **settings), policy=writer, grader=WORLD), writer


def test_a_fatal_step_is_confirmed_by_rollouts_and_a_harmless_one_is_not() -> None:
    """Nothing goes wrong in this world but an x: behind it no rollout succeeds, behind any other step all do."""
    (own, *copies), writer = planted(("<step>x</step>",), n=3, rollouts_each=4)
    assert own.facts["planted"] == {"asked": 3, "unread": 3 - len(copies), "unconfirmed": 0}
    assert copies
    for one in copies:
        at = len(one) - 1
        assert at < 3, "the last step has no rollouts"
        assert (one.labels[at], one.column("n_rollouts")[at], one.column("n_correct")[at]) == (0, 4, 0)
        assert (own.labels[at], own.column("n_rollouts")[at], own.column("n_correct")[at]) == (1, 4, 4)
        assert one.steps[at].text == "x\n", "the line break of the right step stays"
        assert one.steps[at].meta["planted"] in KINDS
        assert one.steps[:at] == own.steps[:at]
    assert len({one.problem.id for one in writer.asked}) == 3
    (own, *copies), _ = planted(("<step>s</step>",), n=3, rollouts_each=4)
    assert copies == []
    assert own.facts["planted"]["unconfirmed"] == 3 - own.facts["planted"]["unread"] > 0
    assert np.isnan(own.labels).all()


def test_without_rollouts_the_changed_step_alone_has_a_value() -> None:
    (own, *copies), writer = planted(("Sure: <step>first</step> or <step> x </step>",), n=4)
    assert np.isnan(own.labels).all()
    for one in copies:
        np.testing.assert_array_equal(one.labels, [NAN] * (len(one) - 1) + [0])
        assert one.steps[-1].text == "x\n"
    text = writer.asked[0].problem.text
    assert "Get to the end without an x." in text
    assert sum(kind in text for kind in KINDS) == 1


@pytest.mark.parametrize(
    "said", ["x", "<step></step>", "<think><step>x</step>", "<step>a</step><step> a</step>", "<step>x</step"]
)
def test_what_cannot_be_read_or_changes_nothing_is_counted(said: str) -> None:
    made, _ = planted((said,), text="aaaa", n=4)
    assert len(made) == 1
    assert made[0].facts["planted"] == {"asked": 4, "unread": 4, "unconfirmed": 0}


def test_nothing_is_asked_of_a_wrong_solution_and_bad_settings_are_refused() -> None:
    _, writer = planted(("<step>x</step>",), text="abxb")
    assert writer.asked == []
    for bad in ({"rollouts_each": -1}, {"low": 0.5}, {"high": 1.5}):
        with pytest.raises(ValueError, match="0 <= low < high <= 1"):
            planted(("<step>x</step>",), **bad)
    assert PROBLEM.id == "p"


@pytest.mark.parametrize(("said", "high", "low"), [("x", 0.2, 0.0), ("s", 0.51, 0.5)])
def test_rates_are_those_that_monte_carlo_measures_of_the_same_prefixes(said: str, high: float, low: float) -> None:
    world = World(length=6, error=0.1, slip=0.1)
    right = world.trajectory("ababab")
    writer = Writer(world, f"<step>{said}</step>")
    flow = planted_errors(right, KEY, n=20, rollouts_each=8, high=high, low=low)
    own, *copies = rows_of(flow, policy=writer, grader=world)
    assert copies
    for one in copies:
        at = len(one) - 1
        for row, steps in ((own, right.steps), (one, one.steps)):
            alone = Trajectory(PROBLEM, steps[: at + 1], terminal=False)
            (plain,) = Driver(policy=world.policy(), grader=world).run([monte_carlo(alone, KEY, n=8)])
            assert row.labels[at] == plain.result.labels[at]
            assert row.column("n_correct")[at] == plain.result.column("n_correct")[at]
        assert one.labels[at] <= low < high <= own.labels[at]
