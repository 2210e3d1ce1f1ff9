"""The calibrated scorer: its scores, its cost, its name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.driver import answer_all
from stepreward.core.runtime.flows import Flow, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.score.calibrate.calibrated_scorer import CalibratedScorer
from stepreward.score.calibrate.calibrators import Isotonic, Temperature

ASK = Score(Problem("p", "?"), (Step("a\n"), Step("seen\n", kind="observation"), Step("b\n")))
FITTED = Isotonic().fit([0.2, 0.8], [0.0, 1.0])


class Fixed:
    name, batch_size = "fixed", 7

    def __init__(self, *scores: float) -> None:
        self.scores = np.array(scores)

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(self.scores, 5, 9) for _ in questions]


def test_scores_are_mapped_and_the_cost_is_kept() -> None:
    scorer = CalibratedScorer(Fixed(0.5, np.nan, 0.65), FITTED)
    (answer,) = scorer.score_many([ASK])
    # Linear from 0 at 0.2 to 1 at 0.8.
    np.testing.assert_allclose(answer.scores, [0.5, np.nan, 0.75])
    assert (answer.tokens, answer.tokens_unshared, scorer.batch_size) == (5, 9, 7)


def test_a_flow_cannot_tell_it_from_another_scorer() -> None:
    def flow() -> Flow[np.ndarray]:
        (scores,) = yield [ASK]
        return scores

    found = answer_all(flow(), scorer=CalibratedScorer(Fixed(0.5, np.nan, 0.65), FITTED))
    np.testing.assert_allclose(found, [0.5, np.nan, 0.75])


def test_the_name_tells_two_fits_apart() -> None:
    names = [CalibratedScorer(Fixed(0.5), one).name for one in (FITTED, Isotonic().fit([0.2, 0.8], [0.0, 0.9]))]
    assert names[0].startswith("fixed + isotonic:")
    assert names[0] != names[1]
    assert names[0] == CalibratedScorer(Fixed(0.1), Isotonic().fit([0.2, 0.8], [0.0, 1.0])).name


def test_what_cannot_be_calibrated() -> None:
    with pytest.raises(ModelError, match="fit"):
        CalibratedScorer(Fixed(0.5), Temperature())
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        CalibratedScorer(Fixed(-3.0), FITTED).score_many([ASK])
