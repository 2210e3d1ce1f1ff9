"""Several scorers as one: by hand, in a search, and what cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from stepreward.core.catalog import search
from stepreward.core.errors import InputError, ModelError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy
from stepreward.score.baselines import RuleScorer, uniform
from stepreward.score.ensemble import EnsembleScorer, combined
from stepreward.tasks.enumerable import EnumerableWorld

ASK = [Score(Problem("p", "q"), (Step("a"), Step("b", "observation"), Step("c")))]


class Fixed:
    batch_size = 8

    def __init__(self, *scores: float, name: str = "fixed", batch_size: int = 8) -> None:
        self.scores, self.name, self.batch_size = scores, name, batch_size

    def score_many(self, questions: list[Score]) -> list[Scored]:
        return [Scored(np.array(self.scores), 3, 5) for _ in questions]


@pytest.mark.parametrize(
    ("combine", "expected"),
    [
        ("mean", [0.5, 0.6]),
        ("median", [0.6, 0.6]),
        ("min", [0.0, 0.3]),
        ("lower", [0.12583426, 0.35505103]),
    ],
)
def test_scores_are_combined_step_by_step(combine: str, expected: list[float]) -> None:
    parts = [Fixed(0.0, np.nan, 0.3), Fixed(0.9, np.nan, 0.9), Fixed(0.6, np.nan, 0.6)]
    (made,) = EnsembleScorer(parts, combine=combine).score_many(ASK)  # type: ignore[arg-type]
    assert np.isnan(made.scores[1])
    np.testing.assert_allclose(made.scores[[0, 2]], expected, atol=1e-6)
    assert (made.tokens, made.tokens_unshared) == (9, 15)


def test_texts_are_scored_as_by_any_scorer() -> None:
    made = EnsembleScorer([Fixed(0.25, 1.0), Fixed(0.75, 0.0)]).score("q", ["a", "b"])
    np.testing.assert_allclose(made, [0.5, 0.5])
    with pytest.raises(InputError, match="at least one step"):
        EnsembleScorer([Fixed(0.25)]).score("q", [])


def test_names_and_batches_follow_from_the_parts() -> None:
    made = EnsembleScorer([Fixed(1.0, name="a", batch_size=4), Fixed(1.0, name="b")], combine="lower", doubt=2)
    assert made.name == "lower(2) of a, b"
    assert made.batch_size == 4


def test_one_scorer_is_itself_and_a_careful_pair_is_fooled_less() -> None:
    """Each scorer believes in one wrong last step; the pair believes in neither."""
    world = EnumerableWorld(4, 3, seed=5)
    problems = world.problems(200)

    def fooled_by(digit: int) -> RuleScorer:
        def rule(problem: Problem, prefix: tuple[Step, ...]) -> float:
            lost = world.first_error(problem, prefix) >= 0
            return 1.0 if lost and prefix[-1].text == f"{digit}\n" else 0.1 if lost else 0.8

        return RuleScorer(rule, name=f"fooled by {digit}")

    def solved(scorer: object) -> int:
        driver = Driver(policy=TabularPolicy(world.next_steps), scorer=scorer, grader=world)  # type: ignore[arg-type]
        flows = (search["best-of-n"].take({"problem": p, "key": Key.seed(0)}, n=8, aggregate="last") for p in problems)
        return sum(one.result.answer == "right" for one in driver.run(flows))

    alone = [solved(fooled_by(digit)) for digit in (0, 1)]
    assert solved(EnsembleScorer([fooled_by(0)])) == alone[0]
    assert solved(EnsembleScorer([fooled_by(0), fooled_by(1)], combine="min")) > max(alone) + 10


def test_what_cannot_be_an_ensemble() -> None:
    with pytest.raises(InputError, match="needs a scorer"):
        EnsembleScorer([])
    with pytest.raises(InputError, match="mean, median, min or lower"):
        EnsembleScorer([uniform()], combine="max")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="3 numbers"):
        EnsembleScorer([Fixed(0.1)]).score_many(ASK)


def test_one_scorer_stays_as_it_is_and_two_are_an_ensemble() -> None:
    one, other = Fixed(0.5, 0.0, 0.9), Fixed(0.1, 0.0, 0.3)
    assert combined([]) is None
    assert combined([one]) is one
    both = combined([one, other])
    assert both is not None
    assert both.score_many(ASK)[0].scores.tolist() == pytest.approx([0.3, 0.0, 0.6])
