"""The comparison of searches in a world whose policy, scorer and truth are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepreward.core.catalog import search
from stepreward.core.errors import InputError, UnknownNameError
from stepreward.core.runtime.flows import Grader, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.pipeline.compare import REFERENCE, comparable, compare, left_out, verdict
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.enumerable import EnumerableWorld

WORLD = EnumerableWorld(4, 3, seed=1)
PROBLEMS = WORLD.problems(12)


class Exact:
    name, batch_size = "exact", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        rows = [[WORLD.value(q.problem, q.steps[: t + 1]) for t in range(len(q.steps))] for q in questions]
        return [Scored(np.array(row), len(row), len(row)) for row in rows]


class Counting(TabularPolicy):
    asked = 0

    def propose(self, questions: Sequence[Propose]) -> list:  # type: ignore[type-arg]
        Counting.asked += len(questions)
        return super().propose(questions)


def run(out: Path, **settings: object) -> dict:  # type: ignore[type-arg]
    policy = Counting(WORLD.next_steps, WORLD.name)
    return compare(PROBLEMS, out, policy=policy, scorer=Exact(), grader=WORLD, **settings)  # type: ignore[arg-type]


def test_every_search_of_the_plan_runs_at_every_budget_and_beside_its_bound(tmp_path: Path) -> None:
    made = run(tmp_path, budgets=(2, 4))
    assert {(p["algorithm"], p["budget"]) for p in made["points"]} == {
        (name, b) for name in comparable() for b in (2, 4)
    }
    assert all(0 <= p["accuracy"]["value"] <= 1 and p["cost"]["value"] > 0 for p in made["points"])
    assert [row["k"] for row in made["oracle"]] == [1, 2, 4]
    chances = [row["pass_at_k"] for row in made["oracle"]]
    assert chances == sorted(chances)
    at = {(p["algorithm"], p["budget"]): p for p in made["points"]}
    # Exact values: the best of the samples is right wherever one is, so it is the bound itself.
    assert at["best-of-n", 4]["accuracy"]["value"] == pytest.approx(chances[-1])
    assert at["majority", 4]["cost"]["value"] == at["best-of-n", 4]["cost"]["value"] == made["oracle"][-1]["tokens"]
    assert at["majority", 4]["scored_tokens"] == 0 < at["best-of-n", 4]["scored_tokens"]
    assert json.loads((tmp_path / "compare.json").read_text())["schema"] == made["schema"]
    page = (tmp_path / "compare.html").read_text()
    assert "particle-filter" in page
    assert "<svg" in page


def test_a_second_run_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    first = run(tmp_path, budgets=(2,), methods=("beam", "mcts"))
    before = Counting.asked
    again = run(tmp_path, budgets=(2,), methods=("beam", "mcts"))
    assert Counting.asked == before
    assert first == again
    assert {p["algorithm"] for p in again["points"]} == {REFERENCE, "beam", "mcts"}


def test_settings_of_one_search_change_that_search_alone(tmp_path: Path) -> None:
    plain = run(tmp_path / "a", budgets=(2,), methods=("beam", "dvts"))
    short = run(tmp_path / "b", budgets=(2,), methods=("beam", "dvts"), settings={"beam": {"max_steps": 1}, "dvts": {}})
    before, after = ({p["algorithm"]: p for p in made["points"]} for made in (plain, short))
    assert after["beam"]["cost"]["value"] < before["beam"]["cost"]["value"]
    for what in ("cost", "accuracy"):
        assert after["dvts"][what]["value"] == before["dvts"][what]["value"]
    total = run(tmp_path / "c", budgets=(2,), methods=("rebase", "majority"), aggregate="min")
    same = run(tmp_path / "d", budgets=(2,), methods=("rebase", "majority"), settings={"rebase": {"aggregate": "min"}})
    assert total["points"] == same["points"]
    assert (plain["settings"], short["settings"]) == ({}, {"beam": {"max_steps": 1}})


def test_verdicts_are_of_intervals_alone() -> None:
    assert verdict(None) == ""
    assert verdict({"value": 0.1, "low": 0.02, "high": 0.2}) == "beats"
    assert verdict({"value": -0.1, "low": -0.2, "high": -0.02}) == "loses to"
    assert verdict({"value": 0.1, "low": -0.02, "high": 0.2}) == "no difference seen"
    assert verdict({"value": None, "low": None, "high": None}) == "cheaper than any run of the reference"


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean beam"):
        run(tmp_path, methods=("beem",))
    policy = TabularPolicy(WORLD.next_steps)
    for problems, message in (([], "no problem"), ([replace(PROBLEMS[0], reference=None)], "has no reference")):
        with pytest.raises(InputError, match=message):
            compare(problems, tmp_path, policy=policy, scorer=Exact(), grader=WORLD)


def test_every_search_is_compared_or_named_with_the_reason_why_not() -> None:
    assert sorted([*comparable(), *left_out()]) == sorted(method.name for method in search)
    assert left_out() == {
        "feynman-kac": "fk-difference is it",
        "glore": "needs a policy that follows requests in words",
        "glore-global": "needs a policy that follows requests in words",
        "glore-local": "needs a policy that follows requests in words",
        "rearter-explained": "needs a policy that follows requests in words",
        "guided-retry": "needs a policy that follows requests in words",
        "reflexion": "needs a policy that follows requests in words",
        "intervention": "needs a stronger policy",
        "self-certainty": "needs a policy that measures its certainty",
        "self-prm": "needs a policy that reports log-probabilities",
        "knockout": "needs a judge of pairs",
        "elo": "needs a judge of pairs",
    }


class Unsure:
    """The world's grader, which cannot grade one problem."""

    name = "unsure"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return float("nan") if problem.id == PROBLEMS[0].id else WORLD.grade(problem, steps)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return WORLD.answer(problem, steps)


def test_problems_that_could_not_be_graded_are_left_out_of_all_runs_and_told(tmp_path: Path) -> None:
    def points(problems: list[Problem], grader: Grader, out: str) -> list[float]:
        policy = TabularPolicy(WORLD.next_steps, WORLD.name)
        made = compare(
            problems, tmp_path / out, policy=policy, scorer=Exact(), grader=grader, methods=["majority"], budgets=[2]
        )
        assert made["ungraded"] == (out == "unsure")
        said = "1 with an answer that could not be graded left out" in (tmp_path / out / "compare.html").read_text()
        assert said == (out == "unsure")
        return [p["accuracy"]["value"] for p in made["points"]] + [row["pass_at_k"] for row in made["oracle"]]

    assert points(PROBLEMS, Unsure(), "unsure") == pytest.approx(points(PROBLEMS[1:], WORLD, "without"))
