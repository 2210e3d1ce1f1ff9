"""Robustness of scorers whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.evaluate.robustness import NEUTRAL, PERTURBATIONS, token_attack
from stepreward.score.baselines import RuleScorer

KEY = Key.seed(0)


def solution(i: int, texts: list[str], labels: list[float] | None = None) -> Trajectory:
    columns = {"label": np.array(labels or [1.0] * len(texts))}
    return Trajectory(Problem(f"p{i}", "What is 1 + 1?"), tuple(Step(text) for text in texts), columns=columns)


DATA = [solution(i, ["1 + 1 = 2\n", "Answer: 2\n", "good\n"], [1.0, 0.0, 1.0]) for i in range(6)]
STEADY = RuleScorer(lambda problem, prefix: 0.9 if "Answer" not in prefix[-1].text else 0.1, name="steady")
COUNTS = RuleScorer(lambda problem, prefix: 1 - 0.3 * len(prefix), name="counts steps")
LIKES = RuleScorer(lambda problem, prefix: 0.8 if "!" in prefix[-1].text else 0.2, name="likes !")


@given(texts=st.lists(st.sampled_from(["a\n", "b", "c \n\n"]), min_size=1, max_size=5), seed=st.integers(0, 50))
def test_perturbations_keep_every_step_and_say_where(texts: list[str], seed: int) -> None:
    trajectory = solution(0, texts)
    for name, perturb in PERTURBATIONS.items():
        made = perturb(trajectory, Key.seed(seed))
        assert len(made.place) == len(texts)
        assert sorted(set(made.place.tolist())) == made.place.tolist(), name
        for old, at in zip(texts, made.place, strict=True):
            assert old.strip() in made.trajectory.steps[at].text
        added = len(made.trajectory) - len(texts)
        assert added == (1 if name in ("padding", "duplicate", "restate") else 0)
        assert perturb(trajectory, Key.seed(seed)).trajectory == made.trajectory
    assert NEUTRAL in PERTURBATIONS["padding"](trajectory, Key.seed(seed)).trajectory.text


def test_a_steady_scorer_does_not_move() -> None:
    made = bench["robustness"].take({"scorer": STEADY, "data": DATA})
    assert made.metrics["flipped"].value == made.metrics["moved"].value == 0
    for name in PERTURBATIONS:
        assert made.groups[name]["shift"].value == 0
        assert made.groups[name]["auroc"].value == made.groups["none"]["auroc"].value == 1


def test_a_scorer_that_counts_steps_moves_where_steps_are_added() -> None:
    made = bench["robustness"].take({"scorer": COUNTS, "data": DATA}, threshold=0.35)
    # Every old step comes one later, so each score falls by 0.3; the first error moves from step 2 to step 1.
    assert made.groups["restate"]["shift"].value == pytest.approx(-0.3)
    assert made.groups["restate"]["flipped"].value == 1
    assert made.groups["style"]["moved"].value == made.groups["separators"]["flipped"].value == 0
    assert "restate" in made.protocol or made.groups["padding"]["flipped"].value == 1
    assert made.metrics["flipped"].value == 1


def test_a_score_equal_to_the_threshold_is_wrong() -> None:
    """Scores .7, .4, .1, and one step later .4, .1, -.2: at .7 the first step is wrong both times."""
    made = bench["robustness"].take({"scorer": COUNTS, "data": DATA}, threshold=1 - 0.3)
    assert made.groups["restate"]["flipped"].value == 0


def test_the_attack_finds_the_token_that_a_scorer_likes() -> None:
    found = token_attack(LIKES, DATA, KEY)
    assert found.token == "!"
    assert found.gain.value == pytest.approx(0.6)
    assert found.escaped.value == 1
    # Equal to the threshold is wrong: .2 is to be lifted at .2, and .8 has not escaped at .8.
    assert token_attack(LIKES, DATA, KEY, threshold=0.2).escaped.value == 1
    assert token_attack(LIKES, DATA, KEY, threshold=0.8).escaped.value == 0
    none = token_attack(STEADY, DATA, KEY)
    assert none.gain.value == 0
    assert np.isnan(none.escaped.value)


def test_too_little_to_measure_is_an_error() -> None:
    with pytest.raises(InputError, match="no solution"):
        bench["robustness"].take({"scorer": STEADY, "data": []})
    with pytest.raises(InputError, match="1 solutions"):
        token_attack(STEADY, DATA[:1], KEY)
