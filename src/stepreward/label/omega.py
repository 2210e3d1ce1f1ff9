"""OmegaPRM: a tree of rollouts in which each search step bisects the most telling wrong rollout for its first error.

A *state* is a prefix with rollouts of its own. The search keeps states and their wrong rollouts as arrays, so that all
priorities are computed afresh before each choice: they depend on the visits of every state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted
from stepreward.core.keys import Key
from stepreward.core.measure.rollout_priority import priority
from stepreward.core.measure.statistics import wilson
from stepreward.core.runtime.flows import Flow
from stepreward.core.tree import StepTree
from stepreward.core.types import Labels, Problem, Provenance, Step, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.rollouts import Rollout, Unfinished, count, rollouts

Floats = NDArray[np.float64]


@dataclass
class _Search:
    """States, their rollouts, and the pool of wrong rollouts that are still to be searched."""

    problem: Problem
    prefixes: list[tuple[Step, ...]] = field(default_factory=list)
    made: list[list[Rollout]] = field(default_factory=list)
    counted: list[tuple[int, int]] = field(default_factory=list)
    """Rollouts with a known outcome, and the right ones among them."""
    visits: list[int] = field(default_factory=list)
    known: dict[tuple[object, ...], int] = field(default_factory=dict)
    pool: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 3), np.int64))
    """(R, 3) state, rollout and tokens of wrong finished rollouts from states with 0 < MC < 1; each enters once."""
    searched: set[tuple[object, ...]] = field(default_factory=set)
    """Full solutions that were bisected, so that a twin rollout is not searched again."""

    def value(self, state: int) -> float:
        n, correct = self.counted[state]
        return correct / n if n else float("nan")

    def look_up(self, prefix: tuple[Step, ...]) -> float:
        """MC of a prefix, NaN where it is no state."""
        state = self.known.get(_identity(prefix))
        return float("nan") if state is None else self.value(state)

    def add(self, prefix: tuple[Step, ...], made: list[Rollout]) -> int:
        """Enters a state with its rollouts, and its wrong ones into the pool."""
        state = len(self.prefixes)
        self.prefixes.append(prefix)
        self.made.append(made)
        self.counted.append(count(made))
        self.visits.append(0)
        self.known[_identity(prefix)] = state
        if 0 < self.value(state) < 1:
            wrong = [(state, i, r.n_tokens) for i, r in enumerate(made) if r.finished and r.outcome <= 0.5 and r.steps]
            self.pool = np.concatenate([self.pool, np.array(wrong, np.int64).reshape(-1, 3)])
        return state

    def pop(self, **constants: float) -> tuple[int, tuple[Step, ...]] | None:
        """Takes the rollout of highest priority out of the pool: its state and its full steps; None if none is left."""
        while len(self.pool):
            states, _, length = self.pool.T
            counted, visits = np.array(self.counted, np.float64)[states], np.array(self.visits, np.float64)
            value = counted[:, 1] / counted[:, 0]
            order = priority(value, length.astype(np.float64), visits[states], float(visits.sum()), **constants)
            best = int(order.argmax())
            state, i, _ = self.pool[best].tolist()
            self.pool = np.delete(self.pool, best, axis=0)
            steps = self.prefixes[state] + self.made[state][i].steps
            if _identity(steps) not in self.searched:
                self.searched.add(_identity(steps))
                self.visits[state] += 1
                return state, steps
        return None

    def tree(self) -> StepTree:
        """All rollouts as one tree with the columns of `omega_prm`."""
        trajectories, states = [], []
        for state, (prefix, made) in enumerate(zip(self.prefixes, self.made, strict=True)):
            for rollout in made:
                trajectories.append(Trajectory(self.problem, prefix + rollout.steps, rollout.outcome, rollout.finished))
                states.append(state)
        tree = StepTree.from_trajectories(trajectories, self.problem)
        first = {state: row for row, state in reversed([*enumerate(states)])}
        node = np.array(
            [tree.paths[first[s], len(prefix) - 1] if prefix else 0 for s, prefix in enumerate(self.prefixes)], np.int64
        )
        return self._with_columns(tree, node)

    def _with_columns(self, tree: StepTree, node: NDArray[np.int64]) -> StepTree:
        columns = {name: np.zeros(tree.n) for name in ("n_rollouts", "n_correct", "visits")}
        counted = np.array(self.counted, np.float64).reshape(-1, 2)
        columns["n_rollouts"][node], columns["n_correct"][node] = counted.T
        columns["visits"][node] = self.visits
        low, high = wilson(columns["n_correct"], columns["n_rollouts"])
        measured = columns["n_rollouts"] > 0
        with np.errstate(invalid="ignore"):
            share = columns["n_correct"] / columns["n_rollouts"]
        value = np.where(measured, share, np.where(tree.terminal, tree.outcome, np.nan))
        for name, column in {"value": value, **columns, "low": low, "high": high}.items():
            tree = tree.with_column(name, column)
        return tree


def _identity(prefix: Sequence[Step]) -> tuple[object, ...]:
    return tuple(step.identity for step in prefix)


@estimate.method(
    "omegaprm",
    paper="arXiv:2406.06592",
    equation="Algorithm 1, Eqs. 1 to 3",
    note="bisects at steps rather than tokens, from what earlier states on the path have shown; each wrong rollout is "
    "searched once; the exploration term sums visits over all states, in the paper over those of the pool",
)
def omega_prm(
    problem: Problem,
    key: Key,
    *,
    n: Count = 8,
    searches: Count = 100,
    alpha: float = 0.5,
    beta: float = 0.9,
    length_scale: float = 500.0,
    c_puct: float = 0.125,
    unfinished: Unfinished = "wrong",
) -> Flow[StepTree]:
    """Grows a tree whose wrong branches are each bisected to the first step after which no rollout succeeds.

    The bare problem and every probed prefix become states with `n` rollouts; MC(s) is the share of right ones. Wrong
    finished rollouts of states with 0 < MC < 1 wait in a pool ordered by `priority`. Each search takes the best and
    bisects between its state, which is winnable, and its wrong end, which is not (MC 0, without rollouts). A prefix
    that is a state already narrows the search and is not sampled again. Rollouts that merely pass through a prefix do
    not count for it: the one that led there was chosen for being wrong, and would bias the value down.

    Args:
        problem: the problem.
        key: randomness; under the same key and `n`, prefixes share their rollouts with the other estimators.
        n: rollouts a state, k of the paper.
        searches: most rollouts to bisect.
        alpha, beta: bases of Q, in (0, 1].
        length_scale: tokens, L of the paper.
        c_puct: weight of U.
        unfinished: what a cut rollout counts as; it never enters the pool.

    Returns:
        The tree of all rollouts as trajectories, with columns value (MC; the outcome at terminal nodes; NaN where not
        measured), n_rollouts, n_correct, low, high (Wilson, 95 %) and visits. A spent budget returns what there is.

    Raises:
        ValueError: `alpha` or `beta` is outside (0, 1], or `length_scale` is not positive.
    """
    if not (0 < alpha <= 1 and 0 < beta <= 1 and length_scale > 0):
        raise ValueError(f"omegaprm needs alpha, beta in (0, 1], scale > 0; got {alpha}, {beta}, {length_scale}")
    search = _Search(problem)
    constants = {"alpha": alpha, "beta": beta, "scale": length_scale, "c_puct": c_puct}
    try:
        search.add((), (yield from rollouts(problem, (), n, key, unfinished=unfinished)))
        for _ in range(searches):
            chosen = search.pop(**constants)
            if chosen is None:
                break
            yield from _bisect(search, *chosen, n, key, unfinished)
    except BudgetExhausted:
        pass
    return search.tree()


def _bisect(
    search: _Search, state: int, steps: tuple[Step, ...], n: int, key: Key, unfinished: Unfinished
) -> Flow[None]:
    """Finds the first lost step of a wrong solution between a state's prefix and the solution's end."""
    ends = [t + 1 for t in range(len(search.prefixes[state]), len(steps)) if steps[t].kind == "action"]
    # The wrong end itself needs no probe; where an observation ends the solution, even its last action may be winnable.
    inner = ends if not ends or ends[-1] < len(steps) else ends[:-1]
    known = np.array([search.look_up(steps[:end]) for end in inner], np.float64)
    lost = int(np.r_[np.flatnonzero(known == 0), len(inner)][0])
    alive = int(np.r_[-1, np.flatnonzero(known[:lost] > 0)][-1])
    while lost - alive > 1:
        middle = (alive + lost) // 2
        prefix = steps[: inner[middle]]
        made = yield from rollouts(search.problem, prefix, n, key, unfinished=unfinished)
        value = search.value(search.add(prefix, made))
        if math.isnan(value):
            return
        alive, lost = (middle, lost) if value > 0 else (alive, middle)


def tree_labels(tree: StepTree, provenance: Provenance, *, located: bool = False) -> list[Labels]:
    """The labels of a measured tree, one entry a distinct trajectory, for transforms, filters and training.

    Args:
        tree: with the columns of `omega_prm`.
        provenance: how it was measured.
        located: keep only trajectories whose end says where they were lost: right ones, and wrong ones with a measured
            winnable prefix directly before the first node of value 0.

    Returns:
        Labels with NaN at nodes that were not measured, in order of first appearance.
    """
    value = tree.column("value")
    paths, mask = tree.paths, tree.mask
    rows = np.sort(np.unique(tree.ends, return_index=True)[1])
    keep = mask[rows].any(axis=1) & (find_lost(tree)[rows] if located else np.ones(len(rows), bool))
    trajectories = tree.trajectories()
    made = []
    for row in rows[keep]:
        path = paths[row][mask[row]]
        columns = {name: tree.column(name)[path] for name in ("n_rollouts", "n_correct", "low", "high")}
        counts = {name: columns.pop(name).astype(np.int64) for name in ("n_rollouts", "n_correct")}
        values: dict[str, Any] = {"value": value[path], "label": value[path].copy()}
        made.append(
            Labels(trajectories[row], **values, **counts, **columns, root_value=float(value[0]), provenance=provenance)
        )
    return made


def find_lost(tree: StepTree) -> NDArray[np.bool_]:
    """(B,) True where a trajectory's first error is known: it ends right, or a value above 0 precedes its first 0."""
    value = tree.column("value")
    found = tree.outcomes > 0.5
    for row, path in enumerate(tree.paths):
        nodes = path[path >= 0]
        chain = value[np.r_[0, nodes[tree.action[nodes]]]]
        dead = np.flatnonzero(chain == 0)
        found[row] |= bool(dead.size and dead[0] > 0 and chain[dead[0] - 1] > 0)
    return found
