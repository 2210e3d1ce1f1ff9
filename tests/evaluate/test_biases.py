"""Biases and pools: scorers whose fault is known, and numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.evaluate.data.scoring import RecordedScorer
from stepreward.evaluate.robustness import token_attack
from stepreward.score.baselines import RuleScorer

NAN = float("nan")


def solution(
    problem: str, texts: Sequence[str], right: float = NAN, labels: Sequence[float] = (), scores: Sequence[float] = ()
) -> Trajectory:
    known = {"label": np.array(labels, float), "score:v": np.array(scores)}
    columns = {name: values for name, values in known.items() if len(values)}
    return Trajectory(Problem(problem, "?"), tuple(Step(text) for text in texts), outcome=right, columns=columns)


def metrics(name: str, scorer: Scorer, data: Sequence[Trajectory], **settings: object) -> dict[str, float]:
    made = bench[name].take({"scorer": scorer, "data": data}, **settings)
    return {of: one.value for of, one in made.metrics.items()}


CHAINS = [solution(f"p{i}", [f"{i}1", f"{i}2", f"{i}3"], 1.0) for i in range(4)]
SORTED = RuleScorer(
    lambda problem, prefix: float([s.text for s in prefix] == sorted(s.text for s in prefix)), name="sorted"
)
STEADY = RuleScorer(lambda problem, prefix: 0.5, name="steady")


def test_a_scorer_that_reads_the_order_is_not_blind_to_it() -> None:
    assert metrics("order", SORTED, CHAINS) == {"blind": 0.0, "shift": -1.0, "reversed": 0.0}
    assert metrics("order", STEADY, CHAINS) == {"blind": 1.0, "shift": 0.0, "reversed": 0.0}


def test_only_right_solutions_are_shuffled_where_these_are_known() -> None:
    wrong = [solution("w", ["2", "1"], 0.0), solution("x", ["1"], 1.0)]
    made = bench["order"].take({"scorer": SORTED, "data": [*CHAINS, *wrong]})
    assert made.metrics["blind"].n == 4
    with pytest.raises(InputError, match="no right solution has two actions"):
        metrics("order", SORTED, wrong)


class ByPlace:
    """Scores a question by its place in the call: 0.1, 0.2, ..."""

    name, batch_size = "by place", 8

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.full(len(one.steps), 0.1 * (at + 1))) for at, one in enumerate(questions)]


def test_a_scorer_that_heeds_the_order_of_questions_is_found() -> None:
    # Places 1 2 3 4 against 4 3 2 1: scores move by .3 .1 .1 .3.
    assert metrics("order", ByPlace(), CHAINS)["reversed"] == pytest.approx(0.2)


def test_length_bias_is_looked_for_among_equally_right_solutions() -> None:
    """Right ones are long and score high, wrong ones short and low: within a kind, length tells nothing or all."""
    data = [
        *(solution(f"r{i}", ["x" * 10] * (4 + i), 1.0, scores=[0.9] * (4 + i)) for i in range(3)),
        *(solution(f"w{i}", ["x" * 10] * (1 + i), 0.0, scores=[0.1] * (1 + i)) for i in range(3)),
    ]
    assert metrics("length-bias", RecordedScorer(data, "v"), data) == {"steps": 0.0, "characters": 0.0}
    longer = RuleScorer(lambda problem, prefix: len(prefix) / 100, name="longer")
    assert metrics("length-bias", longer, data, aggregate="last") == {"steps": 1.0, "characters": 1.0}
    # Wrong ones alone follow length downwards: the mean of 0 and -1.
    mixed = RuleScorer(lambda problem, prefix: 0.9 if problem.id[0] == "r" else 0.5 - len(prefix) / 10, name="mixed")
    made = bench["length-bias"].take({"scorer": mixed, "data": data})
    assert made.metrics["steps"].value == -0.5
    assert {kind: one["steps"].value for kind, one in made.groups.items()} == {"right": 0.0, "wrong": -1.0}


def test_the_attack_by_name_is_the_function() -> None:
    likes = RuleScorer(lambda problem, prefix: 0.8 if "!" in prefix[-1].text else 0.2, name="likes !")
    made = bench["token-attack"].take({"scorer": likes, "data": CHAINS}, tokens="?|!")
    found = token_attack(likes, CHAINS, Key.seed(0).fold("token-attack"), tokens=("?", "!"))
    assert made.metrics == {"gain": found.gain, "escaped": found.escaped}
    assert made.metrics["gain"].value == pytest.approx(0.6)
    assert "Of 2 tokens '!'" in made.protocol


def test_over_optimisation_worked_out() -> None:
    """The proxy prefers the wrong one of two: half right at one sample, never at two. The third sample is cut off."""
    data = [
        solution("p", ["a"], 0.0, scores=[0.9]), solution("p", ["b"], 1.0, scores=[0.1]),
        solution("q", ["a"], 1.0, scores=[0.2]), solution("q", ["b"], 0.0, scores=[0.7]),
        solution("q", ["c"], 1.0, scores=[0.99]),
    ]  # fmt: skip
    made = bench["over-optimisation"].take({"scorer": RecordedScorer(data, "v"), "data": data})
    assert {name: one["gold"].value for name, one in made.groups.items()} == {"best of 1": 0.5, "best of 2": 0.0}
    assert made.groups["best of 2"]["proxy"].value == pytest.approx(0.8)
    assert made.groups["best of 2"]["divergence"].value == pytest.approx(np.log(2) - 0.5)
    assert (made.metrics["gold"].value, made.metrics["highest_gold"].value, made.metrics["peak"].value) == (0, 0.5, 1)


def parted(scores: Sequence[Sequence[float]]) -> list[Trajectory]:
    """Two solutions that share their first step; the second of them goes wrong."""
    rows = [(["a", "b"], [1.0, 1.0]), (["a", "c"], [1.0, 0.0])]
    return [
        solution("p", texts, labels=labels, scores=mine) for (texts, labels), mine in zip(rows, scores, strict=True)
    ]


def test_the_distance_of_rewards_heeds_neither_scale_nor_shaping() -> None:
    def distance(scores: Sequence[Sequence[float]]) -> dict[str, float]:
        data = parted(scores)
        return metrics("reward-distance", RecordedScorer(data, "v"), data)

    same = distance([[1.0, 1.0], [1.0, 0.0]])
    assert same == {"starc": pytest.approx(0), "epic": pytest.approx(0)}
    assert distance([[0.3, 0.3], [0.3, 0.0]])["starc"] == pytest.approx(0)
    # A potential of 0.5 at the prefix "a": 0.9 * 0.5 more into it, 0.5 less out of it.
    assert distance([[1.45, 0.5], [1.45, -0.5]])["starc"] == pytest.approx(0)
    assert distance([[-1.0, -1.0], [-1.0, 0.0]])["starc"] == pytest.approx(1)
    assert 0 < distance([[1.0, 0.0], [1.0, 1.0]])["starc"] <= 1
    one = parted([[1.0, 1.0], [1.0, 0.0]])[:1]
    with pytest.raises(InputError, match="no problem has solutions that part"):
        metrics("reward-distance", RecordedScorer(one, "v"), one)
