"""Pairs of a better and a worse candidate, out of the trajectories of a problem that were labelled or graded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from stepreward.core.errors import UnknownNameError
from stepreward.core.tree import StepTree
from stepreward.core.types import LABEL, Comparison, Floats, Step, Trajectory

_RIGHT = 0.5
"""A label above it is right."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class _Pair:
    """Two candidates, the better one first."""

    better: Sequence[Step]
    worse: Sequence[Step]
    high: float
    """Value of the better one."""
    margin: float
    strength: float
    step: int = -1
    """0-based step in which they differ; -1 for whole solutions."""
    whole: tuple[str, str] | None = None
    """Texts of the candidates' last steps and of what follows them in a whole solution."""


def siblings(tree: StepTree, column: str) -> Iterator[_Pair]:
    """Two next steps after the same prefix, of which one has the higher value."""
    for better, worse, high, margin, strength in _siblings(tree, column):
        yield _Pair(tree.prefix(better), tree.prefix(worse), high, margin, strength, int(tree.depth[better]) - 1)


def extremes(tree: StepTree, column: str) -> Iterator[_Pair]:
    """One of the best and one of the worst next steps after the same prefix, at most four of each.

    MASPRM's pairs (arXiv:2510.24803, the released code): of u siblings the last max(1, u // 2) are worse, the first
    max(1, u - those) better. It keeps at most 8 a tree, and of the last agent's turns those that end it alone.
    """
    values = _values(tree, column)
    for some in _children(tree, values).values():
        order = sorted(some, key=lambda node: -values[node])
        worst = min(4, max(1, len(order) // 2))
        best = min(4, max(1, len(order) - worst))
        for better in order[:best]:
            for worse in order[len(order) - worst :]:
                if (margin := float(values[better] - values[worse])) > _ROUNDING:
                    at = int(tree.depth[better]) - 1
                    high = float(values[better])
                    yield _Pair(tree.prefix(better), tree.prefix(worse), high, margin, margin, at)


def pareto(tree: StepTree, column: str) -> Iterator[_Pair]:
    """One of the next steps that no sibling dominates, and one that it dominates, by several columns.

    A step dominates another if it is worse in no column and better in one. DG-PRM's pairs (arXiv:2507.17849); its
    criteria are a judge's. Values and margins are means over the columns.

    Args:
        tree: of the trajectories of a problem.
        column: names of columns with commas between them; steps that lack a value of one are left out.
    """
    values = np.stack([_values(tree, name) for name in column.split(",")], axis=1)
    for some in _children(tree, values.sum(axis=1)).values():
        gap = values[some][:, None] - values[some][None]
        dominates = np.logical_and((gap >= 0).all(axis=2), (gap > _ROUNDING).any(axis=2))
        for i in np.flatnonzero(~dominates.any(axis=0)).tolist():
            for j in np.flatnonzero(dominates[i]).tolist():
                at = int(tree.depth[some[i]]) - 1
                high, margin = float(values[some[i]].mean()), float(gap[i, j].mean())
                yield _Pair(tree.prefix(some[i]), tree.prefix(some[j]), high, margin, margin, at)


def step_dpo(tree: StepTree, column: str) -> Iterator[_Pair]:
    """A right and a wrong next step after a prefix of right steps, with a whole solution through each."""
    right = _values(tree, column) > _RIGHT
    for better, worse, high, margin, strength in _siblings(tree, column):
        above = [node for node in _above(tree, better) if tree.action[node]]
        if right[better] and not right[worse] and right[above].all():
            at, rows = int(tree.depth[better]) - 1, (_through(tree, better)[-1], _through(tree, worse)[0])
            first, second = ("".join(step.text for step in tree.attempts[row].steps[at:]) for row in rows)
            whole = first, second
            yield _Pair(tree.prefix(better), tree.prefix(worse), high, margin, strength, at, whole)


def degraded(tree: StepTree, column: str) -> Iterator[_Pair]:
    """A solution, and the same with one step replaced by a sibling of a lower value."""
    known = {tree.attempts[row].steps: tree.outcomes[row] for row in range(len(tree.ends))}
    for better, worse, high, margin, strength in _siblings(tree, column):
        row, at = _through(tree, better)[-1], int(tree.depth[better]) - 1
        steps = tree.attempts[row].steps
        replaced = (*steps[:at], tree.step(worse), *steps[at + 1 :])
        # Where the replaced solution was sampled too, its own outcome must not contradict the pair.
        if not known.get(replaced, -math.inf) >= tree.outcomes[row]:
            yield _Pair(steps, replaced, high, margin, strength, at)


def by_outcome(tree: StepTree, column: str) -> Iterator[_Pair]:
    """Two whole solutions, of which one has the higher outcome."""
    return _whole(tree, {int(end): float(tree.outcome[end]) for end in tree.ends})


def by_end(tree: StepTree, column: str) -> Iterator[_Pair]:
    """Two whole solutions, of which one has the higher value at its last step that has one."""
    values = _values(tree, column)
    paths = (path[path >= 0] for path in tree.paths)
    known = {int(path[-1]): values[path][~np.isnan(values[path])] for path in paths if path.size}
    return _whole(tree, {end: float(some[-1]) for end, some in known.items() if some.size})


PAIRS: Mapping[str, Callable[[StepTree, str], Iterator[_Pair]]] = {
    "siblings": siblings,
    "extremes": extremes,
    "pareto": pareto,
    "outcomes": by_outcome,
    "ends": by_end,
    "degraded": degraded,
    "step-dpo": step_dpo,
}
"""The kinds of pairs: of next steps, of the best and the worst of them, by several columns, of whole solutions, of a
solution made worse, of a right and a wrong step."""


def pairs_of(
    rows: Sequence[Trajectory],
    by: str = "siblings",
    *,
    column: str = LABEL,
    margin: float = 0.0,
    above: float = -math.inf,
    below: float = math.inf,
    most: int = 0,
) -> list[Comparison]:
    """The pairs of one problem, each a comparison of two candidates, the better one first.

    The `meta` of a pair has its kind, `by`; `margin`, the difference of the two values; `strength`, how clear it is:
    2 p - 1, where p is the probability that the better one is better, by the posteriors of the rollouts behind the
    values, or else the margin; and `step`, the 0-based step in which the candidates differ, -1 for whole solutions.

    Args:
        rows: all of one problem; steps that several of them share have the mean of their values.
        by: a kind of `PAIRS`.
        column: the step column with the values; not read for outcomes.
        margin: least difference; equal values are never a pair.
        above, below: the better one's value is above the one, and the worse one's below the other.
        most: pairs with the largest margins that are kept, of equal ones the first; 0 keeps all.

    Raises:
        UnknownNameError: there is no such kind.
    """
    if by not in PAIRS:
        raise UnknownNameError("kind of pairs", by, PAIRS)
    tree = StepTree.from_trajectories(rows)
    made = [
        pair for pair in PAIRS[by](tree, column)
        if pair.margin >= margin - _ROUNDING
        and pair.high > above + _ROUNDING
        and pair.high - pair.margin < below - _ROUNDING
    ]  # fmt: skip
    if most:
        kept = sorted(range(len(made)), key=lambda i: (-made[i].margin, i))[:most]
        made = [made[i] for i in sorted(kept)]
    return [_compared(tree, pair, by, str(rows[0].facts.get("domain", ""))) for pair in made]


def _compared(tree: StepTree, pair: _Pair, by: str, domain: str) -> Comparison:
    meta = {"by": by, "margin": pair.margin, "strength": pair.strength, "step": pair.step}
    whole = by in ("outcomes", "ends", "degraded")
    candidates = (
        Trajectory(tree.problem, tuple(steps), outcome, terminal=whole)
        for steps, outcome in ((pair.better, 1.0), (pair.worse, 0.0))
    )
    more = {} if pair.whole is None else {"full_chosen": pair.whole[0], "full_rejected": pair.whole[1]}
    return Comparison(tree.problem, tuple(candidates), (1.0, 0.0), domain, meta=meta | more)


def _values(tree: StepTree, column: str) -> Floats:
    """(n,) the value of each node: the mean of what its trajectories say."""
    return tree.scatter_mean(tree.step_column(column))


def _whole(tree: StepTree, values: Mapping[int, float]) -> Iterator[_Pair]:
    """Two whole solutions, of which one has the higher value; the values are by the node in which a solution ends."""
    first = {int(end): row for row, end in reversed([*enumerate(tree.ends)])}
    for better, worse in permutations(sorted(values), 2):
        if (margin := values[better] - values[worse]) > 0:
            chosen, rejected = (tree.attempts[first[end]].steps for end in (better, worse))
            yield _Pair(chosen, rejected, values[better], margin, margin)


def _siblings(tree: StepTree, column: str) -> Iterator[tuple[int, int, float, float, float]]:
    """A better and a worse node after the same prefix, with the better one's value, margin and strength."""
    values, rollouts = _values(tree, column), _values(tree, "n_rollouts")
    for some in _children(tree, values).values():
        for better, worse in permutations(some, 2):
            if (margin := float(values[better] - values[worse])) > 0:
                counts = float(rollouts[better]), float(rollouts[worse])
                high, low = float(values[better]), float(values[worse])
                yield better, worse, high, margin, _strength(high, low, counts)


def _children(tree: StepTree, values: Floats) -> dict[int, list[int]]:
    """Actions with a value after each prefix."""
    children: dict[int, list[int]] = {}
    for node in np.flatnonzero(tree.action & np.isfinite(values)).tolist():
        children.setdefault(int(tree.parent[node]), []).append(node)
    return children


def _strength(better: float, worse: float, rollouts: tuple[float, float]) -> float:
    """2 P(better > worse) - 1 for two success rates with uniform priors, normal approximation; else the difference."""
    if not (min(rollouts) > 0 and worse >= 0 and better <= 1):
        return better - worse
    mean, variance = 0.0, 0.0
    for rate, n, sign in ((better, rollouts[0], 1), (worse, rollouts[1], -1)):
        a, b = n * rate + 1, n * (1 - rate) + 1
        mean += sign * a / (a + b)
        variance += a * b / ((a + b) ** 2 * (a + b + 1))
    return math.erf(mean / math.sqrt(2 * variance))


def _above(tree: StepTree, node: int) -> list[int]:
    """The nodes between the root and a node."""
    made = []
    while (node := int(tree.parent[node])) > 0:
        made.append(node)
    return made


def _through(tree: StepTree, node: int) -> list[int]:
    """The trajectories through a node, those with the lowest outcomes first, the best of equal ones in their order."""
    rows = np.flatnonzero((tree.paths == node).any(1)).tolist()
    return sorted(rows, key=lambda row: (np.nan_to_num(tree.outcomes[row], nan=0.5), -row))
