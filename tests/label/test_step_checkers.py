"""Labels by programs that check steps: what they say, how several are joined, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.running import invoke

import stepreward
from stepreward.core.catalog import check, estimate, reward
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Score
from stepreward.core.step_check import StepCheck
from stepreward.core.table import read_table
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.environments.tools.shop import shop_problems
from stepreward.score.tools.checker_scorer import CheckerScorer
from stepreward.score.tools.equations import ToolScorer
from stepreward.tasks.arithmetic import generate, solution
from stepreward.tasks.arithmetic_truth import truth

PROBLEM = Problem("p", "How many?")


def trajectory(*texts: str, **more: Any) -> Trajectory:
    return Trajectory(PROBLEM, tuple(map(Step, texts)), **more)


def labelled(one: Trajectory, **settings: Any) -> Trajectory:
    """The result of the estimator, of a driver that has nobody to ask."""
    method = estimate["checker"]
    made: Trajectory = next(Driver().run([method.take({"trajectory": one, "key": Key.seed(0)}, **settings)])).result
    return made


@pytest.fixture
def known() -> Iterator[None]:
    """Checkers that know words: one says what is bad, the other what is good or odd."""

    def bad(problem: Problem, steps: Any) -> list[StepCheck]:
        """Knows bad steps."""
        return [StepCheck(False, "bad word", step.text) if "bad" in step.text else StepCheck(None) for step in steps]

    def good(problem: Problem, steps: Any) -> list[StepCheck]:
        """Knows good steps."""
        return [StepCheck(True if "good" in step.text else False if "odd" in step.text else None) for step in steps]

    def short(problem: Problem, steps: Any) -> list[StepCheck]:
        """Forgets the last step."""
        return [StepCheck(True)] * (len(steps) - 1)

    for made in (bad, good, short):
        check.method(made.__name__, note="an example")(made)
    yield
    for made in (bad, good, short):
        del check._methods[made.__name__]


@pytest.mark.usefixtures("known")
def test_steps_are_right_wrong_or_unknown_and_the_first_wrong_one_is_the_error() -> None:
    one = trajectory("well\n", "good\n", "good bad\n", "odd bad\n", "odd\n")
    made = labelled(one, checker="bad+good")
    np.testing.assert_array_equal(made.labels, [np.nan, 1, 0, 0, 0])
    np.testing.assert_array_equal(made.column("value"), made.labels)
    assert (made.first_error, made.facts["checked"]) == (2, 0.8)
    assert made.facts["step_errors"] == [
        {"step": 2, "kind": "bad word", "claim": "good bad\n", "checker": "bad"},
        {"step": 3, "kind": "bad word", "claim": "odd bad\n", "checker": "bad"},
        {"step": 4, "kind": "", "claim": "", "checker": "good"},
    ]
    by = made.provenance[-1]
    assert (by.estimator, by.policy, by.grader) == ("checker", "", "")
    assert by.settings == {"checker": "bad+good", "unchecked": "unknown"}
    assert set(by.what) == {"value", "label"}


@pytest.mark.usefixtures("known")
def test_unchecked_steps_may_count_as_right_and_observations_never_count() -> None:
    steps = (Step("well\n"), Step("bad\n", kind="observation"), Step("bad\n"), Step("well\n"))
    made = labelled(Trajectory(PROBLEM, steps), checker="bad", unchecked="right")
    np.testing.assert_array_equal(made.labels, [1, np.nan, 0, 1])
    assert made.facts["checked"] == pytest.approx(1 / 3)
    assert labelled(trajectory("well\n"), checker="bad").first_error is None


@pytest.mark.usefixtures("known")
def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="said 1 things of 2 steps of problem 'p'"):
        labelled(trajectory("a", "b"), checker="short")
    with pytest.raises(UnknownNameError, match="equations"):
        labelled(trajectory("a"), checker="equation")
    with pytest.raises(ValueError, match="'unknown' or 'right', got 'wrong'"):
        labelled(trajectory("a"), unchecked="wrong")
    with pytest.raises(InputError, match="has no step"):
        labelled(trajectory())


@given(st.lists(st.sampled_from(["2 + 2 = 4\n", "2 + 2 = 5\n", "So far.\n", "3 * 4 = 12 and 1 + 1 = 3\n"]), min_size=1))
def test_equations_agree_with_the_scorer_that_reads_them(texts: list[str]) -> None:
    made = labelled(trajectory(*texts))
    scorer = ToolScorer(neutral=0.5)
    scores = np.array([scorer.score_text(text) for text in texts])
    np.testing.assert_array_equal(np.where(np.isnan(made.labels), 0.5, made.labels), scores)
    assert all(error["kind"] == "arithmetic" for error in made.facts["step_errors"])
    assert {error["claim"] for error in made.facts["step_errors"]} <= {"2 + 2 = 5", "1 + 1 = 3"}


def test_the_checker_of_the_built_in_world_gives_its_truth() -> None:
    for problem in generate("train", 20, seed=4):
        right = Trajectory(problem, solution(problem))
        made = labelled(right, checker="arithmetic")
        np.testing.assert_array_equal(made.labels, truth(problem, right.steps))
        assert made.first_error == -1
        steps = list(right.steps)
        steps[0] = Step(steps[0].text.replace("= ", "= 9"))
        wrong = labelled(Trajectory(problem, tuple(steps)), checker="arithmetic")
        assert wrong.first_error == 0
        assert wrong.facts["step_errors"][0]["kind"] == "arithmetic"


def test_the_command_and_the_verb_need_neither_policy_nor_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": "How many?", "completions": ["3 + 4 = 7\n", "7 * 2 = 15\n", "So 15.\n"], "labels": [True] * 3}]
    Path("solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = invoke("label --data solutions.jsonl --estimator checker --out labels")
    assert "2 of 3 steps have a label" in said
    (made,) = read_table(Path("labels") / "labels.parquet")
    np.testing.assert_array_equal(made.labels, [1, 0, np.nan])
    assert made.facts["step_errors"] == [
        {"step": 1, "kind": "arithmetic", "claim": "7 * 2 = 15", "checker": "equations"}
    ]
    line = "label --data solutions.jsonl --estimator checker --set unchecked=right --out others --json"
    told = json.loads(invoke(line))
    assert (told["labelled_steps"], told["steps"], told["bill"]["proposals"]) == (3, 3, 0)
    (same,) = stepreward.label(Path("solutions.jsonl"), method="checker", unchecked="right")
    np.testing.assert_array_equal(same.labels, [1, 0, 1])


@pytest.mark.usefixtures("known")
def test_checkers_are_scorers_and_rewards_too() -> None:
    steps = (Step("well\n"), Step("good\n"), Step("bad\n", kind="observation"), Step("good bad\n"))
    scorer = stepreward.load("check:bad+good")
    assert scorer.name == "check:bad+good(neutral=0.8)"
    (made,) = scorer.score_many([Score(PROBLEM, steps)])
    np.testing.assert_array_equal(made.scores, [0.8, 1, np.nan, 0])
    rewards = reward["checked"].take({"problem": PROBLEM, "steps": steps}, checker="bad+good", wrong=-2.0)
    np.testing.assert_array_equal(rewards, [0, 1, np.nan, -2])
    with pytest.raises(UnknownNameError, match="god"):
        stepreward.load("check:god")
    with pytest.raises(InputError, match="no recipe to follow"):
        stepreward.load("check:good", like="trl-prm")
    with pytest.raises(ValueError, match=r"neutral must be in \[0, 1\], got 2"):
        CheckerScorer("good", neutral=2.0)


def test_the_scorer_of_equations_is_the_tool() -> None:
    texts = ["2 + 2 = 4", "So it is.", "2 + 2 = 5"]
    np.testing.assert_array_equal(
        stepreward.load("check:equations").score("?", texts), stepreward.load("tool").score("?", texts)
    )


LOGIC = {"facts": {"fact1": "P"}, "hypothesis": "P"}
DATABASE = {"database": ["CREATE TABLE pets (name TEXT)"]}
GIVEN = {
    "arithmetic": next(generate("train", 1)),
    "logic": Problem("p", "?", "PROVED", LOGIC),
    "sql": Problem("p", "?", "SELECT name FROM pets", DATABASE),
    "shop": next(shop_problems(Key.seed(0))),
}
"""Problems of checkers that need more than a text."""


@pytest.mark.parametrize("method", list(check), ids=lambda one: str(one.name))
def test_every_checker_says_one_thing_a_step_and_nothing_of_observations(method: Any) -> None:
    texts = ["1 + 1 = 3\n", "$x^2 = 4$\n", "", "fact1 -> int1: P\n", "```sql\nSELECT 1\n```\n", "\x00 \ud800 ( $\n"]
    problem = GIVEN.get(method.name, PROBLEM)
    steps = tuple(Step(text) for text in texts)
    made = method.take({"problem": problem, "steps": steps})
    assert [type(one) for one in made] == [StepCheck] * len(steps)
    assert made == method.take({"problem": problem, "steps": steps})
    assert all(one.kind for one in made if one.right is False)
    assert method.take({"problem": problem, "steps": ()}) == []
    watched = tuple(Step(text, kind="observation") for text in texts)
    if method.name != "arithmetic":  # Its world has no observations.
        assert all(one.right is None for one in method.take({"problem": problem, "steps": watched}))
