"""Labels by rollouts from forks against exact values: what a seeker reaches is worked out by trying all its turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from stepreward.core.catalog import estimate, generate, transform
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Environment, Observation
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Step, Trajectory
from stepreward.environments.by_address import environment_at
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.retrieval.evidence import LEFT
from stepreward.environments.retrieval.seeker import seeker
from stepreward.label.better_and_worse import pairs_of
from stepreward.label.omega import tree_labels
from stepreward.label.relabelling import relabelled
from stepreward.label.samples import graded_samples
from stepreward.policies.tabular import TabularPolicy

pytest.importorskip("bm25s")
KEY, TURNS = Key.seed(0), 7
CHANCES = {"stray": 0.3, "guess": 0.2}
TABLE = seeker(**CHANCES)


def pool() -> EpisodePool:
    made = environment_at(f"retrieval?turns={TURNS}")
    assert isinstance(made, EpisodePool)
    return made


EPISODES = pool()


def problems(n: int, hops: int = 2) -> list[Problem]:
    return [*islice(generate["retrieval"].take({"key": Key.seed(7)}, fewest=hops, most=hops), n)]


def driver() -> Driver:
    return Driver(policy=Agent(TabularPolicy(TABLE, "seeker"), pool()))


def run(name: str, data: dict[str, Any], **how: Any) -> Any:
    return next(driver().run([estimate[name].take({**data, "key": KEY}, **how)])).result


def reached(problem: Problem, steps: Sequence[Step]) -> tuple[Environment, Observation]:
    """The episode after steps, which end in an action."""
    environment = EPISODES._make()
    shown = environment.reset(problem)
    for step in steps:
        if step.kind == "action":
            shown = environment.act(step)
    return environment, shown


def value(problem: Problem, prefix: tuple[Step, ...], environment: Environment, shown: Observation) -> float:
    """The chance that a seeker wins, by trying all its turns."""
    if shown.done:
        return shown.outcome
    prefix += shown.steps
    total = 0.0
    for step, chance, _ in TABLE(problem, prefix):
        after = environment.fork()  # type: ignore[attr-defined]
        total += chance * value(problem, (*prefix, step), after, after.act(step))
    return total


def exact(problem: Problem, steps: tuple[Step, ...]) -> float:
    """The chance to win after an action."""
    return value(problem, steps, *reached(problem, steps))


def samples(problem: Problem, n: int) -> list[Trajectory]:
    return next(driver().run([graded_samples(problem, KEY, n=n, temperature=None)])).result


def near(share: float, truth: float, n: float) -> bool:
    return abs(share - truth) <= 4.5 * np.sqrt(truth * (1 - truth) / n) + 1e-9


def test_the_share_of_won_episodes_is_the_exact_one() -> None:
    (problem,) = problems(1)
    won = [one.outcome for one in samples(problem, 1000)]
    truth = value(problem, (), *reached(problem, ()))
    assert 0.05 < truth < 0.6
    assert near(float(np.mean(won)), truth, 1000)


def test_ipr_values_of_an_episode_and_of_other_turns_beside_it_are_exact() -> None:
    for problem in problems(2):
        expert = max(samples(problem, 30), key=lambda one: (one.outcome, len(one)))
        tree = run("ipr", {"trajectory": expert}, n=200, width=2)
        checked = 0
        for node in np.flatnonzero(tree.action):
            found = float(tree.column("value")[node])
            if not np.isnan(found) and tree.column("n_rollouts")[node] > 1:
                assert near(found, exact(problem, tree.prefix(int(node))), tree.column("n_rollouts")[node])
                checked += 1
        assert checked > len(expert) // 2


def grown(name: str, problem: Problem, **how: Any) -> StepTree:
    tree = run(name, {"problem": problem}, **how)
    assert isinstance(tree, StepTree)
    return tree


def nodes(tree: StepTree) -> Iterator[tuple[int, float, tuple[Step, ...]]]:
    for node in np.flatnonzero(tree.action & ~np.isnan(tree.column("value"))):
        yield int(node), float(tree.column("value")[node]), tree.prefix(int(node))


def test_the_maximum_of_qlass_is_the_discount_to_the_power_of_the_exact_distance() -> None:
    """Q = 0.9 max Q, 1 at a right answer: so no Q exceeds 0.9^left, and it is that where the tree has a best path."""
    equal = total = 0
    for problem in problems(3, hops=1):
        tree = grown("qlass", problem, scale=False, width=6, max_steps=5, simulations=40)
        for _, found, steps in nodes(tree):
            _, shown = reached(problem, steps)
            left = 0 if shown.done else shown.steps[-1].meta[LEFT]
            best = shown.outcome if shown.done else 0.9**left
            assert found <= best + 1e-9
            # A tree of five actions has no best path behind a turn that leaves too few; an end is known a turn later.
            if sum(step.kind == "action" for step in steps) + left < 5:
                total += 1
                equal += abs(found - best) < 1e-9
    assert total > 30
    assert equal / total > 0.9


@pytest.mark.parametrize(
    ("name", "how"), [("masprm", {"simulations": 300, "stable": 0}), ("tree", {"simulations": 60})]
)
def test_values_of_searched_trees_rank_turns_as_exact_ones(name: str, how: dict[str, Any]) -> None:
    found, truth = list[float](), list[float]()
    for problem in problems(2):
        for _, one, steps in nodes(grown(name, problem, **how)):
            found.append(one)
            truth.append(exact(problem, steps))
    assert len(found) > 30
    assert spearmanr(found, truth).statistic > 0.6


def test_places_and_pairs_of_turns_follow_exact_values() -> None:
    """RAG-Gym's labels of values by rollouts: the better turn of a pair has the higher exact value."""
    pairs = list[tuple[float, float]]()
    for problem in problems(3):
        expert = max(samples(problem, 30), key=lambda one: (one.outcome, len(one)))
        tree = run("ipr", {"trajectory": expert}, n=60, width=8)
        rows = relabelled(tree_labels(tree, Provenance("ipr")), (transform["reciprocal-rank"], {}))
        for pair in pairs_of(rows, above=0.75, below=0.5):
            better, worse = (exact(problem, one.steps) for one in pair.candidates)
            pairs.append((better, worse))
    assert len(pairs) >= 5
    assert all(better > worse for better, worse in pairs)


def test_pairs_of_won_and_lost_episodes() -> None:
    """ARMAP's triplets: a question, an episode that was won and one that was lost."""
    (problem,) = problems(1)
    rows = samples(problem, 20)
    made = pairs_of(rows, "outcomes")
    won = {one.text for one in rows if one.outcome == 1.0}
    lost = {one.text for one in rows if one.outcome == 0.0}
    assert {tuple(one.text for one in pair.candidates) for pair in made} == {(w, b) for w in won for b in lost}
    assert made
