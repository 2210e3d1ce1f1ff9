from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from stepreward.core.errors import PolicyError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Propose
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy

PROBLEM = Problem("p", "Toss until heads.")


def coin(problem: Problem, prefix: tuple[Step, ...]) -> list[tuple[Step, float, bool]]:
    """Tails goes on, heads ends; heads has probability 1/4. A third toss is always heads."""
    heads = 1.0 if len(prefix) == 2 else 0.25
    return [(Step("T\n"), 1 - heads, False), (Step("H\n"), heads, True)]


def sample(n: int, seed: int = 0, **settings: object) -> list[str]:
    question = Propose(PROBLEM, (), Key.seed(seed), n=n, **settings)  # type: ignore[arg-type]
    (answers,) = TabularPolicy(coin).propose([question])
    return ["".join(step.text[0] for step in a.steps) for a in answers]


def test_solutions_have_their_exact_probabilities() -> None:
    # P(H) = 1/4, P(TH) = 3/4 * 1/4 = 3/16, P(TTH) = 9/16. A right sampler fails for 1 seed in 1000; the seed is fixed.
    drawn = sample(4000)
    counts = [drawn.count(text) for text in ("H", "TH", "TTH")]
    assert sum(counts) == 4000
    assert chisquare(counts, np.array([4, 3, 9]) / 16 * 4000).pvalue > 1e-3


def test_sample_i_does_not_depend_on_n_or_on_other_questions() -> None:
    policy = TabularPolicy(coin)
    question = Propose(PROBLEM, (), Key.seed(3), n=2)
    other = Propose(PROBLEM, (Step("T\n"),), Key.seed(4), n=5)
    assert policy.propose([other, question])[1] == policy.propose([question])[0]
    assert sample(7, seed=3)[:2] == sample(2, seed=3)
    (later,), (whole,) = (policy.propose([replace(question, **own)]) for own in ({"first": 4}, {"n": 7}))
    assert later == whole[4:6]


def test_a_step_costs_one_token_and_limits_cut() -> None:
    policy = TabularPolicy(coin)
    (answers,) = policy.propose([Propose(PROBLEM, (), Key.seed(0), n=50, max_tokens=1)])
    for answer in answers:
        assert answer.n_tokens == 1
        assert answer.finished == (answer.steps[0].text == "H\n") == (not answer.truncated)
    (stepwise,) = policy.propose([Propose(PROBLEM, (), Key.seed(0), n=50, until="step")])
    assert all(len(a.steps) == 1 and not a.truncated for a in stepwise)


def test_a_step_of_probability_zero_is_never_drawn_and_an_end_state_has_no_steps() -> None:
    policy = TabularPolicy(lambda _, prefix: [] if prefix else [(Step("a"), 0.0, False), (Step("b"), 1.0, False)])
    (answers,) = policy.propose([Propose(PROBLEM, (), Key.seed(0), n=20)])
    assert all([s.text for s in a.steps] == ["b"] and a.finished and a.n_tokens == 1 for a in answers)


@pytest.mark.parametrize("probabilities", [(0.5, 0.6), (-0.5, 1.5), (0.2, 0.2)])
def test_a_table_that_is_no_distribution_is_an_error(probabilities: tuple[float, float]) -> None:
    policy = TabularPolicy(lambda *_: [(Step("a"), p, True) for p in probabilities], "bad table")
    with pytest.raises(PolicyError, match=r"bad table: expected probabilities.*problem 'p'"):
        policy.propose([Propose(PROBLEM, (), Key.seed(0))])
