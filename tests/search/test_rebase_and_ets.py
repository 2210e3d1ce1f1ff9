"""REBASE and ETS against the published loops, and the integer programme against all subsets."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal, localcontext
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult

from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Flow, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.search.candidates import Found
from stepreward.search.trees.ets import clusters, ets, keep_leaves, n_grams
from stepreward.search.trees.rebase import balanced, rebase
from stepreward.tasks.enumerable import EnumerableWorld
from tests.effort import scaled

WORLD = EnumerableWorld(4, 3, seed=2)
PROBLEM = WORLD.problems(1)[0]
KEY = Key.seed(0)
REWARDS = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9)


class Rule:
    """Sample i takes choice i; remembers what was asked."""

    name, batch_size, concurrency = "rule", 64, 1

    def __init__(self) -> None:
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self._one(q, i) for i in range(q.n)] for q in questions]

    def _one(self, question: Propose, i: int) -> Continuation:
        step, _, finished = WORLD.next_steps(question.problem, question.prefix)[i % 3]
        return Continuation((step,), finished, 1)


class Exact:
    name, batch_size = "exact", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        rows = [[WORLD.value(q.problem, q.steps[: t + 1]) for t in range(len(q.steps))] for q in questions]
        return [Scored(np.array(row), len(row), len(row)) for row in rows]


def find(flow: Flow[Found], policy: Any = None) -> Found:
    return next(Driver(policy=policy or Rule(), scorer=Exact(), grader=WORLD).run([flow])).result


def published_shares(rewards: list[float], width: int, temperature: float) -> list[int]:
    """The loop of the authors: best first, each takes its share of what is left, rounded up."""
    order = sorted(range(len(rewards)), key=lambda i: -rewards[i])
    left, counts = width, [0] * len(rewards)
    total = sum(math.exp(r / temperature) for r in rewards)
    for i in order:
        weight = math.exp(rewards[i] / temperature)
        counts[i] = min(left, math.ceil(left * weight / total - 1e-9)) if total > 0 else left
        left -= counts[i]
        total -= weight
    return counts


@given(rewards=REWARDS, width=st.integers(0, 40), temperature=st.sampled_from([0.1, 0.2, 1.0]))
@settings(max_examples=scaled(200))
def test_samples_are_shared_as_the_authors_share_them(rewards: list[float], width: int, temperature: float) -> None:
    counts = balanced(rewards, width, temperature)
    assert sum(counts) == width
    assert all(count >= 0 for count in counts)
    order = np.argsort(-np.array(rewards), kind="stable")
    assert (np.diff(np.array(counts)[order]) <= 0).all(), "a better candidate never gets less"
    if width and len(set(rewards)) == len(rewards):
        differences = np.abs(np.array(published_shares(rewards, width, temperature)) - counts)
        # Sums by subtraction lose bits that sums of what follows keep: rarely, one sample moves.
        assert differences.sum() <= 2


def one_by_one(samples: Sequence[float], width: int, temperature: float) -> list[int]:
    """The authors' loop over samples that are nodes of their own, with sixty digits."""
    with localcontext(prec=60):
        weights = {i: (Decimal(r) / Decimal(temperature)).exp() for i, r in enumerate(samples)}
        counts = [0] * len(samples)
        for i in sorted(weights, key=lambda i: -samples[i]):
            exact = (width - sum(counts)) * weights[i] / sum(weights.values())
            counts[i] = min(width - sum(counts), int((exact - Decimal("1e-9")).to_integral_value(ROUND_CEILING)))
            del weights[i]
        return counts


@given(
    merged=st.lists(st.tuples(st.floats(0, 1, width=16), st.integers(1, 6)), min_size=1, max_size=6),
    width=st.integers(0, 40),
    temperature=st.sampled_from([0.1, 0.2, 1.0]),
)
@settings(max_examples=scaled(200), deadline=None)
def test_equal_samples_share_as_if_each_were_a_node_of_its_own(
    merged: list[tuple[float, int]], width: int, temperature: float
) -> None:
    rewards, counts = [r for r, _ in merged], [count for _, count in merged]
    apart = one_by_one([r for r, count in merged for _ in range(count)], width, temperature)
    literal = [sum(apart[a:b]) for a, b in pairwise(np.cumsum([0, *counts]).tolist())]
    assert balanced(rewards, width, temperature, counts=counts) == literal


class Lopsided:
    """Begins with A fifteen times of sixteen, else with B."""

    name, batch_size, concurrency = "lopsided", 64, 1

    def __init__(self) -> None:
        self.asked: list[Propose] = []

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        self.asked += questions
        return [[self._one(bool(q.prefix), i) for i in range(q.n)] for q in questions]

    def _one(self, begun: bool, i: int) -> Continuation:
        return Continuation((Step("end" if begun else "A" if i < 15 else "B"),), begun, 1)


class Even:
    name, batch_size = "even", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        return [Scored(np.full(len(q.steps), 0.5)) for q in questions]

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return 1.0

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[0].text


@pytest.mark.parametrize("method", [rebase, ets])
def test_a_step_sampled_fifteen_times_is_grown_fifteen_times(method: Any) -> None:
    policy = Lopsided()
    list(Driver(policy=policy, scorer=Even(), grader=Even()).run([method(PROBLEM, KEY, width=16)]))
    assert {q.prefix[0].text: q.n for q in policy.asked if q.prefix} == {"A": 15, "B": 1}


def test_shares_worked_out() -> None:
    # e^0 : e^-1 : e^-2 = 1 : 0.368 : 0.135 of 1.503: ceil(16 * 0.665) = 11, ceil(5 * 0.731) = 4, the last one.
    assert balanced([0.2, 1.2, 2.2], 16, 1.0) == [1, 4, 11]
    assert balanced([1.0, 1.0], 4) == [2, 2]
    assert balanced([math.nan, 0.5], 4) == [0, 4]
    assert balanced([math.nan, math.nan], 4) == [2, 2]
    with pytest.raises(ValueError, match="temperature"):
        balanced([1.0], 1, 0.0)


@given(rewards=REWARDS, width=st.integers(1, 40))
@settings(max_examples=scaled(50))
def test_limits_of_the_temperature(rewards: list[float], width: int) -> None:
    cold = balanced(rewards, width, 1e-4) if len({round(r, 2) for r in rewards}) == len(rewards) else None
    if cold is not None:
        assert cold[int(np.argmax(rewards))] == width
    warm = balanced(rewards, width, 1e12)
    assert max(warm) - min(warm) <= 1


def test_rebase_samples_its_width_at_each_depth_and_finds_the_right_end() -> None:
    policy = Rule()
    found = find(rebase(PROBLEM, KEY, width=9), policy)
    assert found.answer == "right"
    by_depth = [sum(q.n for q in policy.asked if len(q.prefix) == depth) for depth in range(4)]
    assert by_depth == [9, 9, 9, 9], "equal samples of a node are one child that counts as many"
    assert not [q for q in policy.asked if len(q.prefix) == 4], "nothing is asked after the end"
    values = [WORLD.value(PROBLEM, t.steps) for t in found.tree.trajectories()]
    np.testing.assert_array_equal(found.totals, values)


def by_brute_force(
    shares: Sequence[float], ancestors: Sequence[Sequence[int]], cluster: Sequence[int], cost: float, coverage: float
) -> float:
    nodes = {a for path in ancestors for a in path}
    best = -math.inf
    for size in range(1, len(shares) + 1):
        for kept in combinations(range(len(shares)), size):
            needed = {a for i in kept for a in ancestors[i]}
            price = cost / (len(nodes) + len(shares)) * (len(needed) + size)
            gain = coverage / len(set(cluster)) * len({cluster[i] for i in kept})
            best = max(best, sum(shares[i] for i in kept) - price + gain)
    return best


@st.composite
def programmes(draw: st.DrawFn) -> tuple[list[float], list[list[int]], list[int]]:
    n = draw(st.integers(1, 7))
    shares = draw(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5]), min_size=n, max_size=n))
    ancestors = [[0, *sorted(draw(st.sets(st.integers(1, 5), max_size=3)))] for _ in range(n)]
    return shares, ancestors, draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))


@given(programme=programmes(), cost=st.sampled_from([0.0, 1.0, 5.0]), coverage=st.sampled_from([0.0, 1.5]))
@settings(max_examples=scaled(80), deadline=None)
def test_the_programme_is_solved_as_by_trying_every_subset(programme: Any, cost: float, coverage: float) -> None:
    shares, ancestors, cluster = programme
    kept = keep_leaves(shares, ancestors, cluster, cost=cost, coverage=coverage)
    assert kept == sorted(set(kept))
    assert kept, "never empty"
    assert set(kept) <= set(range(len(shares)))
    nodes = {a for path in ancestors for a in path}
    needed = {a for i in kept for a in ancestors[i]}
    value = sum(shares[i] for i in kept) - cost / (len(nodes) + len(shares)) * (len(needed) + len(kept))
    value += coverage / len(set(cluster)) * len({cluster[i] for i in kept})
    assert value == pytest.approx(by_brute_force(shares, ancestors, cluster, cost, coverage), abs=1e-7)


def test_a_high_price_keeps_one_leaf_and_coverage_keeps_meanings() -> None:
    shares, ancestors = [0.5, 0.3, 0.2], [[0, 1], [0, 1], [0, 2]]
    assert keep_leaves(shares, ancestors, [0, 0, 1], cost=100.0, coverage=0.0) == [0]
    assert keep_leaves(shares, ancestors, [0, 0, 1], cost=1.0, coverage=10.0) in ([0, 2], [0, 1, 2])


def large_programme() -> tuple[list[float], list[list[int]], list[int]]:
    """One that HiGHS needs some seconds for."""
    rng = np.random.default_rng(0)
    ancestors = [sorted({0, *rng.choice(np.arange(1, 150), 12, replace=False).tolist()}) for _ in range(300)]
    return rng.dirichlet(np.ones(300)).tolist(), ancestors, rng.integers(0, 60, 300).tolist()


def test_the_programme_ends_in_its_time_with_leaves_that_may_be_kept() -> None:
    shares, ancestors, cluster = large_programme()
    start = time.perf_counter()
    kept = keep_leaves(shares, ancestors, cluster, cost=20.0, coverage=1.5, seconds=0.2)
    assert time.perf_counter() - start < 30, "the limit is kept, if not to the tenth of a second"
    assert kept
    assert set(kept) <= set(range(300))
    with pytest.raises(ValueError, match="seconds must be positive"):
        keep_leaves([1.0], [[0]], [0], seconds=0.0)


@pytest.mark.parametrize(("found", "kept"), [(None, [0, 1, 2]), ([0.0, 1.0, 0.0], [1])])
def test_a_solver_out_of_time_leaves_its_best_set_or_all_leaves(
    monkeypatch: pytest.MonkeyPatch, found: list[float] | None, kept: list[int]
) -> None:
    asked: list[Any] = []

    def out_of_time(gain: np.ndarray, **how: Any) -> OptimizeResult:
        asked.append(how["options"])
        x = None if found is None else np.array(found + [1.0] * (len(gain) - 3))
        return OptimizeResult(status=1, x=x, message="Time limit reached.")

    monkeypatch.setattr("stepreward.search.trees.ets.milp", out_of_time)
    assert keep_leaves([0.5, 0.3, 0.2], [[0], [0], [0]], [0, 0, 1], seconds=0.25) == kept
    assert asked == [{"time_limit": 0.25}]


def test_steps_with_one_meaning_are_one_cluster() -> None:
    texts = ["12 + 5 = 17", "12 + 5 = 17.", "Let me think about buses"]
    made = clusters(n_grams(texts), 0.2)
    assert made[0] == made[1] != made[2]
    assert clusters(n_grams(["same", "same"])) == [1, 1]
    assert clusters(np.zeros((1, 3))) == [0]
    assert len(set(clusters(np.zeros((2, 3))))) == 2, "texts without a gram are like nothing"
    np.testing.assert_allclose(n_grams(["ab"])[0], np.ones(2))


def test_free_nodes_and_no_coverage_are_rebase_where_every_candidate_gets_a_sample() -> None:
    one, other = Rule(), Rule()
    plain = find(rebase(PROBLEM, KEY, width=81, temperature=1e9), one)
    pruned = find(ets(PROBLEM, KEY, width=81, temperature=1e9, cost=0.0, coverage=0.0), other)
    assert [(q.prefix, q.n) for q in one.asked] == [(q.prefix, q.n) for q in other.asked]
    assert plain.answers == pruned.answers
    assert len([q for q in one.asked if len(q.prefix) == 3]) == 27


def test_ets_grows_fewer_nodes_than_rebase_and_takes_any_embedding() -> None:
    wide = find(rebase(PROBLEM, KEY, width=9))
    seen: list[Sequence[str]] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        seen.append(texts)
        return np.ones((len(texts), 2))

    narrow = find(ets(PROBLEM, KEY, width=9, cost=3.0, embed=embed))
    assert narrow.searched is not None
    assert wide.searched is not None
    assert narrow.searched.n < wide.searched.n
    assert narrow.answer == "right"
    assert seen
    assert all(isinstance(text, str) for texts in seen for text in texts)


def test_a_problem_of_its_own_for_each_flow() -> None:
    flows = [rebase(Problem(PROBLEM.id, PROBLEM.prompt), KEY, width=4) for _ in range(2)]
    made = [one.result for one in Driver(policy=Rule(), scorer=Exact(), grader=WORLD).run(flows)]
    assert made[0].answers == made[1].answers
    assert made[0].tree.trajectories()[0].steps[0] == Step(made[0].tree.trajectories()[0].steps[0].text)
