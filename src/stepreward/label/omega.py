"""OmegaPRM: a tree of rollouts in which each search step bisects the wrong rollout of highest priority.

A *state* is a prefix with rollouts of its own. A search step takes one wrong rollout and finds its first error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.rollout_priority import priority
from stepreward.core.prefix_names import Name, Prefix
from stepreward.core.runtime.flows import Flow
from stepreward.core.search_tree import SearchTree
from stepreward.core.tree import StepTree
from stepreward.core.types import COLUMNS, Problem, Provenance, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.rollouts import Rollout, Unfinished, count, counted_columns, labelled, rollouts


@dataclass
class State:
    """A prefix with rollouts of its own."""

    prefix: Prefix
    rollouts: Sequence[Rollout] = ()
    n: int = 0
    """Rollouts with a known outcome."""
    correct: int = 0
    """The right ones among them."""

    @property
    def value(self) -> float:
        """MC of the prefix: the share of right rollouts, NaN where none is known."""
        return self.correct / self.n if self.n else float("nan")


class WrongRollouts:
    """The states of one search, and the wrong rollouts that it may still bisect."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.states = SearchTree(State(Prefix()), float("nan"))
        """The states; visits count the rollouts of each that were bisected."""
        self.waiting = np.empty((0, 3), np.int64)
        """(R, 3) state, rollout and tokens of wrong finished rollouts of states with 0 < MC < 1; each enters once."""
        self.bisected: set[Name] = set()
        """Solutions that were bisected: an equal rollout is not searched again."""

    def value_of(self, prefix: Prefix) -> float:
        """MC of a prefix, NaN where it is no state."""
        node = self.states.node_of.get(prefix.name)
        return float("nan") if node is None else float(self.states.own[node])

    def measure(self, parent: int, prefix: Prefix, made: Sequence[Rollout]) -> float:
        """Records the rollouts of a state below another, or of the root (parent -1), and returns its MC."""
        state = State(prefix, made, *count(made))
        if parent < 0:
            node, self.states.items[0], self.states.own[0] = 0, state, state.value
        else:
            (node,) = self.states.expand(parent, [state], [prefix.name], [state.value]).tolist()
        if 0 < state.value < 1:
            wrong = [(node, i, r.n_tokens) for i, r in enumerate(made) if r.finished and r.outcome <= 0.5 and r.steps]
            self.waiting = np.concatenate([self.waiting, np.array(wrong, np.int64).reshape(-1, 3)])
        return state.value

    def take(self, **constants: float) -> tuple[int, Prefix] | None:
        """Removes the waiting rollout of highest priority: its state and its full solution; None if none is left.

        All priorities are computed afresh, since they depend on the visits of every state.
        """
        states = self.states
        while len(self.waiting):
            node, _, length = self.waiting.T
            visits = states.visits
            order = priority(states.own[node], length.astype(float), visits[node], float(visits.sum()), **constants)
            best = int(order.argmax())
            state, i, _ = self.waiting[best].tolist()
            self.waiting = np.delete(self.waiting, best, axis=0)
            steps = states.items[state].prefix.then(states.items[state].rollouts[i].steps)
            if steps.name not in self.bisected:
                self.bisected.add(steps.name)
                states.visits[state] += 1
                return state, steps
        return None

    def tree(self) -> StepTree:
        """All rollouts as one tree, with the columns that `omega_prm` returns."""
        states = self.states.items
        tree = StepTree.from_trajectories(
            [
                Trajectory(self.problem, state.prefix.then(rollout.steps), rollout.outcome, rollout.finished)
                for state in states
                for rollout in state.rollouts
            ],
            self.problem,
        )
        node = self.states.nodes(tree.names)
        counted = np.array([(state.n, state.correct) for state in states], np.float64)
        # Nodes that are no state have node -1, which reads the last state: 0 replaces it.
        n, correct, visits = np.where(node >= 0, np.array([*counted.T, self.states.visits])[:, node], 0.0)
        return replace(tree, columns={**counted_columns(tree, n, correct), "visits": visits})


@estimate.method(
    "omegaprm",
    paper="arXiv:2406.06592",
    equation="Algorithm 1, Eqs. 1 to 3",
    note="bisects at steps rather than tokens, from what earlier states on the path have shown; each wrong rollout is "
    "searched once; the exploration term sums visits over all states, in the paper over those of the pool",
    asks=("policy", "grader"),
    transform="hard",
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
    search = WrongRollouts(problem)
    constants = {"alpha": alpha, "beta": beta, "scale": length_scale, "c_puct": c_puct}
    try:
        search.measure(-1, Prefix(), (yield from rollouts(problem, (), n, key, unfinished=unfinished)))
        for _ in range(searches):
            chosen = search.take(**constants)
            if chosen is None:
                break
            yield from _bisect(search, *chosen, n, key, unfinished)
    except BudgetExhausted:
        pass
    return search.tree()


def _bisect(search: WrongRollouts, state: int, steps: Prefix, n: int, key: Key, unfinished: Unfinished) -> Flow[None]:
    """Finds the first lost step of a wrong solution between a state's prefix and the solution's end."""
    start = len(search.states.items[state].prefix)
    ends = [t + 1 for t in range(start, len(steps)) if steps[t].kind == "action"]
    # The wrong end itself needs no probe; where an observation ends the solution, even its last action may be winnable.
    inner = ends if not ends or ends[-1] < len(steps) else ends[:-1]
    # Prefixes of this path that earlier searches have probed narrow the interval before the first probe.
    known = np.array([search.value_of(steps.first(end)) for end in inner], np.float64)
    lost = int(first_error(known, 0.0))
    lost = lost if lost >= 0 else len(inner)
    alive = int(np.r_[-1, np.flatnonzero(known[:lost] > 0)][-1])
    while lost - alive > 1:
        middle = (alive + lost) // 2
        prefix = steps.first(inner[middle])
        made = yield from rollouts(search.problem, prefix, n, key, unfinished=unfinished)
        value = search.measure(state, prefix, made)
        if math.isnan(value):
            return
        alive, lost = (middle, lost) if value > 0 else (alive, middle)


def labels_of(measured: Trajectory | StepTree, by: Provenance) -> list[Trajectory]:
    """What an estimator measured as labelled trajectories, those of a tree with their provenance."""
    return tree_labels(measured, by) if isinstance(measured, StepTree) else [measured]


def tree_labels(tree: StepTree, provenance: Provenance, *, located: bool = False) -> list[Trajectory]:
    """The distinct trajectories of a measured tree with its columns, for transforms, filters and training.

    Args:
        tree: with the columns of `omega_prm`.
        provenance: how it was measured.
        located: keep only trajectories whose end says where they were lost: right ones, and wrong ones with a measured
            winnable prefix directly before the first node of value 0.

    Returns:
        Labelled trajectories, NaN at nodes that were not measured, in order of first appearance.
    """
    value = tree.column("value")
    paths, mask = tree.paths, tree.mask
    # Equal trajectories end in one node: the first graded one stands for all, else the first.
    order = np.argsort(np.isnan(tree.outcomes) | ~tree.complete, kind="stable")
    rows = np.sort(order[np.unique(tree.ends[order], return_index=True)[1]])
    keep = mask[rows].any(axis=1) & (find_lost(tree)[rows] if located else np.ones(len(rows), bool))
    trajectories = tree.trajectories()
    made = []
    for row in rows[keep]:
        path = paths[row][mask[row]]
        one = trajectories[row]
        n, correct = tree.column("n_rollouts")[path], tree.column("n_correct")[path]
        more = {name: tree.column(name)[path] for name in tree.columns if name not in COLUMNS}
        values = np.where(one.action, value[path], np.nan)
        if one.terminal and one.action[-1] and not np.isnan([one.outcome, values[-1]]).any():
            # Other trajectories may go on from there: this one ended, and how is known.
            values[-1], n[-1], correct[-1] = one.outcome, 0, 0
        made.append(labelled(one, values, n, correct, float(value[0]), provenance, more))
    return made


def find_lost(tree: StepTree) -> NDArray[np.bool_]:
    """(B,) True where a trajectory's first error is known: it ends right, or a value above 0 precedes its first 0."""
    value = tree.column("value")
    found = tree.outcomes > 0.5
    for row, path in enumerate(tree.paths):
        nodes = path[path >= 0]
        # Values along the path, that of the bare problem first: entry i is after i actions.
        chain = value[np.r_[0, nodes[tree.action[nodes]]]]
        lost = first_error(chain, 0.0)
        found[row] |= bool(lost > 0 and chain[lost - 1] > 0)
    return found
