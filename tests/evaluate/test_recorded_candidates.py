"""Recorded scores of candidates: step scores follow the asked aggregation, equal questions are asked once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stepreward.core.catalog import bench
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Comparison, Problem, Step, Trajectory
from stepreward.evaluate.data.scoring import candidate_scores


class Named:
    """A scorer whose scores are recorded."""

    name, batch_size = "v", 1


class Lengths:
    """Scores a step by its length over ten, and counts what it is asked."""

    name, batch_size, asked = "lengths", 8, 0

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.asked += len(questions)
        return [Scored(np.array([len(step.text) / 10 for step in one.steps])) for one in questions]


def compared(name: str, steps: Sequence[Sequence[float]], *texts: str, right: int = 0, subset: str = "") -> Comparison:
    problem = Problem(name, "?")
    candidates = tuple(Trajectory(problem, (Step(text),)) for text in texts or map(str, range(len(steps))))
    worth = tuple(float(at == right) for at in range(len(candidates)))
    made = {"v": tuple(np.array(row) for row in steps)} if steps else {}
    return Comparison(problem, candidates, worth, subset, step_scores=made)


def test_recorded_step_scores_are_aggregated_as_asked() -> None:
    """First row: minima .5 > .4, .3, products .25 < .36: right by min, second by product. Second row: first by both.

    Third row: minima .2 < .6 = .6, products .2 < .6: last by both. By min 2 of 3 are first, by product 1 of 3.
    """
    data = [
        compared("a", [[0.5, 0.5], [0.4, 0.9], [0.3]]),
        compared("b", [[0.9], [0.1, 0.2], [0.5]]),
        compared("c", [[0.2, 1.0], [0.6], [0.6, 1.0]]),
    ]
    by = {
        rule: bench["rewardmath"].take({"scorer": Named(), "data": data}, aggregate=rule).metrics
        for rule in ("min", "product")
    }
    assert by["min"]["accuracy"].value == pytest.approx(2 / 3)
    assert by["product"]["accuracy"].value == pytest.approx(1 / 3)
    # Ranks by min 1, 1, 3; by product 3 (.36 and .3 are above .25), 1, 3.
    assert by["min"]["mrr"].value == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert by["product"]["mrr"].value == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)


def test_what_stands_in_several_comparisons_is_asked_once() -> None:
    data = [compared("p", [], "right", "no"), compared("p", [], "right", "maybe so"), compared("q", [], "right", "no")]
    scorer = Lengths()
    made = candidate_scores(scorer, data, "last")
    assert [row.tolist() for row in made] == [[0.5, 0.2], [0.5, 0.8], [0.5, 0.2]]
    assert scorer.asked == 5  # three candidates of p, two of q


def test_pairs_of_one_state_are_one_step_of_web_prm_bench() -> None:
    """State s: .5 beats .2 and not .8: one of two pairs, not all. State t: .5 beats .2: all."""
    data = [
        compared("s", [], "right", "no", subset="shop"),
        compared("s", [], "maybe so", "right", right=1, subset="shop"),
        compared("t", [], "right", "no", subset="forum"),
    ]
    made = bench["web-prm-bench"].take({"scorer": Lengths(), "data": data})
    assert made.metrics["pairwise_accuracy"].value == pytest.approx((1 / 2 + 1) / 2)
    assert made.metrics["best_of_n_accuracy"].value == pytest.approx(1 / 2)
    assert made.metrics["best_of_n_accuracy"].n == 2
    assert {name: one["best_of_n_accuracy"].value for name, one in made.groups.items()} == {"shop": 0.0, "forum": 1.0}


def test_a_tie_is_half_in_tool_comp() -> None:
    data = [
        compared("a", [], "right", "no", subset="action plan"),
        compared("b", [], "right", "equal", subset="react step"),
        compared("c", [], "no", "wrong", subset="react step"),
    ]
    made = bench["tool-comp"].take({"scorer": Lengths(), "data": data})
    assert made.metrics["accuracy"].value == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert {name: one["accuracy"].value for name, one in made.groups.items()} == {
        "action plan": 1.0,
        "react step": 0.25,
    }
