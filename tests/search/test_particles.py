"""Particle methods: resamplers without bias, and samples from the distribution that each method states."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy
from stepreward.search.candidates import Found
from stepreward.search.particles.particle_filters import particle_filter, particle_gibbs
from stepreward.search.particles.resampling import RESAMPLERS, effective_size, normalised
from stepreward.search.particles.steering import steered
from stepreward.search.particles.tilting import flow_steps, reward_weighted, tilted_steps
from tests.effort import scaled

PROBLEM = Problem("p", "three bits")
DEPTH = 3
WEIGHTS = st.lists(st.floats(0.001, 1.0), min_size=1, max_size=6)


def chance(steps: Sequence[int]) -> float:
    """The policy: a 1 after a 1 is likelier."""
    made, before = 1.0, 0
    for bit in steps:
        one = 0.6 if before else 0.3
        made *= one if bit else 1 - one
        before = bit
    return made


def score(steps: Sequence[int]) -> float:
    """The score of a prefix: between 0.15 and 0.85, by its bits."""
    return 0.15 + 0.7 * sum(bit * 2.0**-k for k, bit in enumerate(steps, 1))


def bits(steps: Sequence[Step]) -> tuple[int, ...]:
    return tuple(int(step.text) for step in steps)


def next_steps(problem: Problem, prefix: Sequence[Step]) -> list[tuple[Step, float, bool]]:
    if len(prefix) == DEPTH:
        return []
    one = 0.6 if prefix and int(prefix[-1].text) else 0.3
    return [(Step(f"{b}\n"), one if b else 1 - one, len(prefix) == DEPTH - 1) for b in (0, 1)]


class Exact:
    name, batch_size = "exact", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [
            Scored(np.array([score(bits(q.steps[: t + 1])) for t in range(len(q.steps))], np.float64))
            for q in questions
        ]


class Bits:
    name = "bits"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return 1.0

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return "".join(map(str, bits(steps)))


LEAVES = list(product((0, 1), repeat=DEPTH))


def target(weight: Callable[[tuple[int, ...]], float]) -> np.ndarray:
    made = np.array([weight(leaf) for leaf in LEAVES])
    return made / made.sum()


def odds(leaf: tuple[int, ...]) -> float:
    return chance(leaf) * math.prod(score(leaf[: t + 1]) / (1 - score(leaf[: t + 1])) for t in range(DEPTH))


def tilted(strength: float) -> Callable[[tuple[int, ...]], float]:
    return lambda leaf: chance(leaf) * math.exp(strength * score(leaf))


def stepwise(leaf: tuple[int, ...]) -> float:
    made = 1.0
    for t in range(DEPTH):
        both = {b: chance((*leaf[:t], b)) / chance(leaf[:t]) * math.exp(3 * score((*leaf[:t], b))) for b in (0, 1)}
        made *= both[leaf[t]] / sum(both.values())
    return made


def flows(leaf: tuple[int, ...]) -> float:
    made = 1.0
    for t in range(DEPTH):
        both = {b: score((*leaf[:t], b)) for b in (0, 1)}
        made *= both[leaf[t]] / sum(both.values())
    return made


def sampled(flow: Callable[[Key], Any], runs: int, *, by_weight: bool) -> np.ndarray:
    """(8,) share of each leaf: by the weights of the candidates, or by their number."""
    driver = Driver(policy=TabularPolicy(next_steps), scorer=Exact(), grader=Bits())
    share = np.zeros(len(LEAVES))
    for one in driver.run([flow(Key.seed(i)) for i in range(runs)]):
        found: Found = one.result
        mass = found.totals if by_weight else np.ones(len(found.totals))
        for trajectory, weight in zip(found.tree.trajectories(), mass / mass.sum(), strict=True):
            share[LEAVES.index(bits(trajectory.steps))] += weight / runs
    return share


METHODS: list[tuple[str, Callable[..., Any], dict[str, Any], Callable[[tuple[int, ...]], float]]] = [
    ("particle-filter", particle_filter, {}, odds),
    ("particle-filter-cold", particle_filter, {"gate": 0.5, "resample": "residual"}, odds),
    ("particle-gibbs", particle_gibbs, {"sweeps": 4}, odds),
    ("fk-difference", steered, {"strength": 3.0}, tilted(3.0)),
    ("fk-max", steered, {"potential": "max", "strength": 3.0, "gate": 1.0}, tilted(3.0)),
    ("fk-sum", steered, {"potential": "sum", "strength": 3.0, "resample": "multinomial"}, tilted(3.0)),
    ("reward-weighted", reward_weighted, {"strength": 3.0}, tilted(3.0)),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("name", "method", "given_settings", "weight"), METHODS, ids=[m[0] for m in METHODS])
def test_weights_converge_to_the_stated_distribution(
    name: str, method: Callable[..., Any], given_settings: dict[str, Any], weight: Callable[[tuple[int, ...]], float]
) -> None:
    exact = target(weight)
    share = sampled(lambda key: method(PROBLEM, key, n=128, **given_settings), 40, by_weight=True)
    distance = 0.5 * float(np.abs(share - exact).sum())
    # 40 runs of 128: the standard error of a share is below 0.5 / sqrt(5120 / 4) = 0.014; seeds are fixed.
    assert distance < 0.03
    from_policy = 0.5 * float(np.abs(target(chance) - exact).sum())
    assert distance < from_policy / 4, "it would be as close to the policy"


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("method", "given_settings", "weight"),
    [(tilted_steps, {"strength": 3.0, "width": 24}, stepwise), (flow_steps, {"width": 24}, flows)],
    ids=["transfer-q", "gflownet"],
)
def test_walks_converge_to_the_stated_distribution(
    method: Callable[..., Any], given_settings: dict[str, Any], weight: Callable[[tuple[int, ...]], float]
) -> None:
    share = sampled(lambda key: method(PROBLEM, key, n=1, **given_settings), 1200, by_weight=False)
    exact = target(weight)
    # The mean distance of 1200 exact samples is below 0.03; seeds are fixed. The policy is four times the bound away.
    assert 0.5 * float(np.abs(share - exact).sum()) < 0.06
    assert 0.5 * float(np.abs(target(chance) - exact).sum()) > 0.24


ENDS = {"A\n": 0.8, "B\n": 0.2, "C\n": 0.15}


def ends_apart(_: Problem, prefix: Sequence[Step]) -> list[tuple[Step, float, bool]]:
    """A or B, and then C or the end, which is a draw of its own and no step."""
    if not prefix:
        return [(Step("A\n"), 0.5, False), (Step("B\n"), 0.5, False)]
    return [(Step(""), 0.5, True), (Step("C\n"), 0.5, True)]


class Looked:
    name, batch_size = "looked up", 512

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.array([ENDS[step.text] for step in q.steps], np.float64)) for q in questions]


class Spelled:
    name = "spelled"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return 1.0

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return "".join(step.text for step in steps)


def test_a_kept_solution_ends_when_it_was_drawn_to_end() -> None:
    driver = Driver(policy=TabularPolicy(ends_apart), scorer=Looked(), grader=Spelled())
    shares: dict[str, float] = {}
    # Few particles, so that the solution that is kept is much of each sweep.
    for one in driver.run([particle_gibbs(PROBLEM, Key.seed(i), n=4, sweeps=60) for i in range(30)]):
        found: Found = one.result
        for answer, total in zip(found.answers, found.totals / found.totals.sum(), strict=True):
            shares[str(answer)] = shares.get(str(answer), 0.0) + total / 30
    weight = {"A\n": 4.0, "A\nC\n": 4.0 * 0.15 / 0.85, "B\n": 0.25, "B\nC\n": 0.25 * 0.15 / 0.85}
    for answer, mass in weight.items():
        # 30 chains of 60 sweeps: the standard error is below 0.014; a solution that ended one move early gave 0.87.
        assert shares.get(answer, 0.0) == pytest.approx(mass / sum(weight.values()), abs=0.03)


def test_limits() -> None:
    # Without a say of the scores all of them sample from the policy.
    for method, calm in (
        (particle_filter, {"temperature": 1e9}), (steered, {"strength": 0.0}),
        (steered, {"potential": "max", "strength": 0.0}), (reward_weighted, {"strength": 0.0}),
    ):  # fmt: skip
        share = sampled(lambda key, m=method, c=calm: m(PROBLEM, key, n=64, **c), 40, by_weight=True)
        assert 0.5 * float(np.abs(share - target(chance)).sum()) < 0.04
    with pytest.raises(ValueError, match="at least 2"):
        sampled(lambda key: particle_gibbs(PROBLEM, key, n=1), 1, by_weight=True)


@pytest.mark.parametrize("name", RESAMPLERS)
@given(weights=WEIGHTS, n=st.integers(1, 9))
@settings(max_examples=scaled(25), deadline=None)
def test_resamplers_have_no_bias(name: str, weights: list[float], n: int) -> None:
    w = np.array(weights) / sum(weights)
    counts = np.array([np.bincount(RESAMPLERS[name](w, n, Key.seed(i)), minlength=len(w)) for i in range(400)])
    assert (counts.sum(axis=1) == n).all()
    error = np.sqrt(n * w * (1 - w) / 400)
    # Four standard errors of the most scattered one, for each index; weights near 0 get a little more.
    assert (np.abs(counts.mean(axis=0) - n * w) < 4.5 * error + 0.01).all()
    if name in ("systematic", "residual"):
        assert (counts >= np.floor(n * w - 1e-9)).all()
    if name == "systematic":
        assert (counts <= np.ceil(n * w + 1e-9)).all()


def test_resamplers_scatter_less_the_more_they_spread() -> None:
    w = np.array([0.5, 0.3, 0.15, 0.05])
    scatter = {
        name: float(np.var([np.bincount(f(w, 10, Key.seed(i)), minlength=4) for i in range(600)], axis=0).sum())
        for name, f in RESAMPLERS.items()
    }
    assert scatter["multinomial"] > scatter["residual"] > 0
    assert scatter["multinomial"] > max(scatter["stratified"], scatter["systematic"])


def test_an_index_without_weight_never_comes_up() -> None:
    w = np.array([0.0, 1.0, 0.0])
    for resample in RESAMPLERS.values():
        assert set(resample(w, 5, Key.seed(0))) == {1}
        assert resample(w, 0, Key.seed(0)) == []


def test_weights_and_their_effective_number() -> None:
    np.testing.assert_allclose(normalised([0.0, math.log(3.0)]), [0.25, 0.75])
    np.testing.assert_allclose(normalised([-math.inf, math.nan]), [0.5, 0.5])
    np.testing.assert_allclose(normalised([1000.0, -1000.0]), [1.0, 0.0])
    assert effective_size(np.full(5, 0.2)) == pytest.approx(5)
    assert effective_size(np.array([1.0, 0.0])) == 1
