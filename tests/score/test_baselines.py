"""Scorers without a model."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from stepreward.core.runtime.flows import Score
from stepreward.core.types import Problem, Step
from stepreward.score.baselines import PositionScorer, WithoutModel, constant, length, uniform

STEPS = (Step("a" * 100), Step("the tool says 17", kind="observation"), Step("b" * 300))


@pytest.mark.parametrize("scorer", [constant(), uniform(), length(), PositionScorer()], ids=lambda s: s.name)
def test_every_action_gets_a_score_and_no_observation(scorer: WithoutModel) -> None:
    (scored,) = scorer.score_many([Score(Problem("p", "q"), STEPS)])
    assert np.isnan(scored.scores).tolist() == [False, True, False]
    assert ((scored.scores >= 0) & (scored.scores <= 1))[[0, 2]].all()
    assert scored.tokens == scored.tokens_unshared == 0
    assert scorer.score_many([]) == []


def test_worked_numbers() -> None:
    # 1 / (1 + 100/100) and 1 / (1 + 300/100)
    scores = length(100).score_many([Score(Problem("p", "q"), STEPS)])[0].scores
    np.testing.assert_allclose(scores[[0, 2]], [0.5, 0.25])
    np.testing.assert_allclose(constant(0.3).score_many([Score(Problem("p", "q"), STEPS)])[0].scores[[0, 2]], 0.3)


def test_the_place_of_a_step_among_the_actions_is_all_that_position_reads() -> None:
    """Three actions stand at 1/6, 3/6 and 5/6: 0.75 / (0.75 + place) crosses one half between the last two."""
    steps = (Step("a"), Step("the tool says 17", kind="observation"), Step("b" * 300), Step("c"))
    (scored,) = PositionScorer().score_many([Score(Problem("p", "q"), steps)])
    np.testing.assert_allclose(scored.scores, [9 / 11, np.nan, 9 / 15, 9 / 19])


def test_random_scores_follow_from_seed_problem_and_prefix_alone() -> None:
    asked = [Score(Problem(f"p{i}", "q"), tuple(Step(f"s{j}") for j in range(4))) for i in range(500)]
    together = [s.scores for s in uniform(1).score_many(asked)]
    np.testing.assert_array_equal(together[7], uniform(1).score_many([asked[7]])[0].scores)
    short = uniform(1).score_many([Score(asked[7].problem, asked[7].steps[:2])])[0].scores
    np.testing.assert_array_equal(short, together[7][:2])
    assert not np.array_equal(together[7], uniform(2).score_many([asked[7]])[0].scores)
    # 2000 uniform numbers: standard error of the mean is 0.0065; seed fixed, four errors allowed.
    assert abs(np.mean(together) - 0.5) < 0.026
    assert np.unique(together).size == 2000


def test_settings_out_of_range_are_errors() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        constant(1.5)
    with pytest.raises(ValueError, match="positive"):
        length(0)
    with pytest.raises(ValueError, match="positive"):
        PositionScorer(0)


def test_baselines_load_no_torch() -> None:
    code = "import sys, stepreward.score.baselines; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
