"""Rollouts along one trajectory that several of its prefixes share.

A rollout that happens to go on with the trajectory's own next step is a rollout of the next prefix as well: it was not
chosen for how it ended. So a prefix draws only what it does not inherit, and what is known of the next prefix makes its
own value more exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted, InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Floats, Provenance, Step, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.estimators import actions_of
from stepreward.label.rollouts import Rollout, Unfinished, count, labelled, rollouts

Weights = Literal["counts", "logprobs"]
"""What says how likely the rollouts of a prefix are: how often they were drawn, or the policy's log-probabilities."""
_Draw = tuple[tuple[Step, ...], float, bool]
"""A rollout: the steps behind a prefix, its outcome, and whether it finished."""


@estimate.method(
    "shared-rollouts",
    note="ours; the idea of several expectations from one sample, with importance weights and control variates, is "
    "that of arXiv:2212.00568",
    asks=("policy", "grader"),
    transform="hard",
)
def shared_rollouts(
    trajectory: Trajectory, key: Key, *, n: Count = 8, root: bool = False, until_lost: bool = False,
    weights: Weights = "counts", unfinished: Unfinished = "wrong",
) -> Flow[Trajectory]:  # fmt: skip
    """Values every step by rollouts that prefixes share: those of one that go on as the trajectory does, and its own.

        V_t = w_t V_{t+1} + (1 - w_t) mean outcome of the rollouts of t that leave the trajectory

    w_t is the share of the rollouts of prefix t that go on with the trajectory's next step, and V_{t+1} is measured
    with all rollouts of the longer prefix: unbiased where every rollout counts once. With `logprobs`, each distinct
    next step of probability p, the trajectory's own among them, weighs p / (1 - (1 - p)^m) of m draws instead of how
    often it was drawn, divided by the sum of those weights, and so on below it: few and likely steps count by their
    exact probability, many and unlikely ones alike. Of many draws it is unbiased, of few nearly.

    Args:
        trajectory: graded, or open.
        key: randomness; rollouts are the first of those that `math-shepherd` draws.
        n: rollouts that each prefix has at least, inherited ones included.
        root: value the bare problem too.
        until_lost: where none of the rollouts of a prefix succeeds, all later steps have the value 0, inferred; not in
            a right solution.
        weights: what rollouts weigh.
        unfinished: what a cut rollout counts as.

    Returns:
        The trajectory with a value at every action. `n_rollouts` is the number of independent rollouts that would be as
        exact, by the variance of the formula, and `n_correct` its right part: low and high are of these.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded; or log-probabilities are missing.
    """
    actions = actions_of(trajectory)
    starts = [-1, *actions] if root else actions
    drawn: list[list[_Draw]] = []
    lost = len(starts)
    try:
        for at, index in enumerate(starts):
            mine = _inherited(trajectory, drawn[-1], starts[at - 1], index) if at else []
            drawn.append(mine)
            if len(mine) < n:
                prefix, left = trajectory.prefix(index + 1), n - len(mine)
                made = yield from rollouts(trajectory.problem, prefix, left, key, unfinished=unfinished)
                mine += [(one.steps, one.outcome, one.finished) for one in made]
            known, right = _count(mine)
            if until_lost and index >= 0 and known and not right and not trajectory.outcome > 0.5:
                lost = at
                break
    except BudgetExhausted:
        pass
    value, exact = _values(trajectory, starts, drawn, weights)
    return _labelled(trajectory, key, starts, value, exact, lost, {
        "n": n, "root": root, "until_lost": until_lost, "weights": weights, "unfinished": unfinished,
    })  # fmt: skip


def _inherited(trajectory: Trajectory, draws: Sequence[_Draw], start: int, end: int) -> list[_Draw]:
    """Rollouts of the prefix behind step `start` that go on as the trajectory does to step `end`: the rest of each."""
    own = [step.identity for step in trajectory.steps[start + 1 : end + 1]]
    return [
        (steps[len(own) :], outcome, finished)
        for steps, outcome, finished in draws
        if [step.identity for step in steps[: len(own)]] == own
    ]  # fmt: skip


def _values(
    trajectory: Trajectory, starts: Sequence[int], drawn: Sequence[Sequence[_Draw]], weights: Weights
) -> tuple[Floats, Floats]:
    """(P,) value of each prefix with rollouts, and the number of independent rollouts that are as exact."""
    value, exact = np.full(len(starts), np.nan), np.zeros(len(starts))
    mean = _drawn_mean if weights == "counts" else partial(_weighted_mean, trajectory)
    longer: _Longer | None = None
    for at in range(len(drawn) - 1, -1, -1):
        known = [(steps, float(outcome > 0.5), ended) for steps, outcome, ended in drawn[at] if not np.isnan(outcome)]
        if not _count(drawn[at])[0]:
            longer = None
            continue
        found, variance = mean(known, longer)
        value[at], exact[at] = found, _alike(found, variance, len(known))
        longer = _Longer(trajectory.steps[starts[at - 1] + 1 : starts[at] + 1] if at else (), found, variance)
    return value, exact


@dataclass(frozen=True)
class _Longer:
    """What is known of the next prefix."""

    steps: tuple[Step, ...]
    """That lead to it."""
    value: float
    variance: float

    def follows(self, steps: Sequence[Step]) -> bool:
        """Whether a rollout leads to it."""
        return [s.identity for s in steps[: len(self.steps)]] == [s.identity for s in self.steps]


def _alike(value: float, variance: float, most: int) -> float:
    """Number of independent rollouts whose mean has this variance, at the value moved towards 1/2 by two of them."""
    p = (most * value + 1) / (most + 2)
    return p * (1 - p) / variance if variance > 0 else float(most)


def _binomial(mean: float, n: int) -> float:
    """Variance of a share of n, at the share moved towards 1/2 by two more: never 0."""
    p = (n * mean + 1) / (n + 2)
    return p * (1 - p) / n


def _drawn_mean(draws: Sequence[_Draw], longer: _Longer | None) -> tuple[float, float]:
    """Value of a prefix and its variance, every rollout counting once."""
    follows = np.array([longer is not None and longer.follows(steps) for steps, *_ in draws])
    outcomes = np.array([outcome for _, outcome, _ in draws])
    if longer is None or not follows.any():
        return float(outcomes.mean()), _binomial(float(outcomes.mean()), len(draws))
    share, rest = float(follows.mean()), outcomes[~follows]
    if not rest.size:
        return longer.value, longer.variance
    mean, n = float(rest.mean()), len(draws)
    variance = share**2 * longer.variance + (1 - share) ** 2 * _binomial(mean, rest.size)
    return share * longer.value + (1 - share) * mean, variance + share * (1 - share) * (longer.value - mean) ** 2 / n


def _weighted_mean(trajectory: Trajectory, draws: Sequence[_Draw], longer: _Longer | None) -> tuple[float, float]:
    """Value of a prefix and its variance, distinct next steps counting by their probability, and so on below them."""
    below: dict[object, list[_Draw]] = {}
    for draw in draws:
        # An end has no next step: all ends are one.
        below.setdefault(tuple(step.identity for step in _next(draw[0])), []).append(draw)
    p, value, variance = (np.empty(len(below)) for _ in range(3))
    for i, some in enumerate(below.values()):
        first = _next(some[0][0])
        rest = [(steps[len(first) :], outcome, finished) for steps, outcome, finished in some]
        if longer is not None and longer.follows(first):
            value[i], variance[i] = longer.value, longer.variance
        elif not any(steps for steps, *_ in rest):
            value[i], variance[i] = float(np.mean([outcome for _, outcome, _ in rest])), 0.0
        else:
            value[i], variance[i] = _weighted_mean(trajectory, rest, None)
        p[i] = np.exp(_logprob(trajectory, first)) if first else len(some) / len(draws)
    p = np.minimum(p, 1.0)
    # Chance that a step is among the draws; its weight is p over it, which is 1 / draws for very unlikely ones.
    seen = np.where(p < 1, -np.expm1(len(draws) * np.log1p(-np.minimum(p, 1 - 1e-16))), 1.0)
    weight = np.where(seen > 0, p / np.where(seen > 0, seen, 1.0), 1 / len(draws))
    weight /= weight.sum()
    mean = float(weight @ value)
    spread = weight**2 * (variance + (1 - seen) * (value - mean) ** 2)
    # Nothing is known of steps that were not drawn: their value may be anything between 0 and 1.
    missing = max(0.0, 1.0 - float(p.sum()))
    return mean, float(spread.sum()) + missing**2 / 4


def _next(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The next action with the observations before it; all that is left where none follows."""
    at = next((i for i, step in enumerate(steps) if step.kind == "action"), len(steps) - 1)
    return steps[: at + 1]


def _count(draws: Sequence[_Draw]) -> tuple[int, int]:
    return count([Rollout(steps, outcome, finished, 0) for steps, outcome, finished in draws])


def _logprob(trajectory: Trajectory, steps: Sequence[Step]) -> float:
    """Log-probability of steps under the policy that wrote them.

    Raises:
        InputError: a step has none.
    """
    total = 0.0
    for step in steps:
        if step.kind == "action":
            if not step.logprobs:
                what = f"a step of problem {trajectory.problem.id!r} has no log-probabilities: {step.text[:60]!r}"
                raise InputError(what, remedy="take weights=counts, or a policy that reports them")
            total += sum(step.logprobs)
    return total


def _labelled(
    trajectory: Trajectory, key: Key, starts: Sequence[int], value: Floats, exact: Floats, lost: int,
    settings: dict[str, object],
) -> Trajectory:  # fmt: skip
    size, offset = len(trajectory), int(bool(starts) and starts[0] == -1)
    values, counts = np.full(size, np.nan), np.zeros(size)
    if not np.isnan(trajectory.outcome):
        values[-1] = trajectory.outcome
    values[starts[offset:]], counts[starts[offset:]] = value[offset:], exact[offset:]
    values[list(starts[lost + 1 :])] = 0.0
    action = trajectory.action
    values, counts = np.where(action, values, np.nan), np.where(action, counts, 0.0)
    root_value = float(value[0]) if offset else float("nan")
    by = Provenance("shared-rollouts", seed=key.bits, settings=settings)
    return labelled(trajectory, values, counts, counts * np.nan_to_num(values), root_value, by)
