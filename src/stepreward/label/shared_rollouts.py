"""Values by rollouts that prefixes share: along one solution, or over all solutions of a problem."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.rollouts import Unfinished, counted_columns, labelled
from stepreward.label.samples import graded_samples
from stepreward.label.shared_draws import Weights, draw, measure, points_of

_IDEA = (
    "ours; the idea of several expectations from one sample, with importance weights and control variates, is that of "
    "arXiv:2212.00568"
)


@estimate.method("shared-rollouts", note=_IDEA, asks=("policy", "grader"), transform="hard")
def shared_rollouts(
    trajectory: Trajectory, key: Key, *, n: Count = 8, root: bool = False, until_lost: bool = False,
    weights: Weights = "counts", unfinished: Unfinished = "wrong",
) -> Flow[Trajectory]:  # fmt: skip
    """Values every step by rollouts that prefixes share: those of one that go on as the trajectory does, and its own.

        V_t = w_t V_{t+1} + (1 - w_t) mean outcome of the rollouts of t that leave the trajectory

    w_t is the share of the rollouts of prefix t that go on with the trajectory's next step, and V_{t+1} is measured
    with all rollouts of the longer prefix: unbiased. With `logprobs`, w_t is the policy's probability of that step, and
    other next steps that two rollouts have count by theirs: unbiased too where a rollout leaves, and more exact; where
    none does, the value is that of the steps that are known. What `until_lost` infers may be too low.

    Args:
        trajectory: graded, or open.
        key: randomness; rollouts are the first of those that `math-shepherd` draws.
        n: rollouts that each prefix has at least, inherited ones included.
        root: value the bare problem too.
        until_lost: where none of the rollouts of a prefix succeeds, all later steps have the value 0, inferred; not in
            a right solution.
        weights: what says how likely a step is; log-probabilities must be those of the distribution that is sampled.
        unfinished: what a cut rollout counts as.

    Returns:
        The trajectory with a value at every action. `n_rollouts` is the number of independent rollouts that would be as
        exact, by the variance of the formula, and `n_correct` its right part: low and high are of these.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded; or log-probabilities are missing.
    """
    top, points = points_of([trajectory])
    with suppress(BudgetExhausted):
        yield from draw(trajectory.problem, top, n, key, root=root, until_lost=until_lost, unfinished=unfinished)
    measure(top, weights)
    values, counts = np.full(len(trajectory), np.nan), np.zeros(len(trajectory))
    for point in points.values():
        if point is not top and point.open:
            values[len(point.prefix) - 1], counts[len(point.prefix) - 1] = point.value, point.exact
    if not np.isnan(trajectory.outcome) and trajectory.steps[-1].kind == "action":
        values[-1] = trajectory.outcome
    settings = {"n": n, "root": root, "until_lost": until_lost, "weights": weights, "unfinished": unfinished}
    by = Provenance("shared-rollouts", seed=key.bits, settings=settings)
    return labelled(trajectory, values, counts, counts * np.nan_to_num(values), top.value if root else float("nan"), by)


@estimate.method("pooled-rollouts", note=_IDEA, asks=("policy", "grader"), transform="hard")
def pooled_rollouts(
    problem: Problem, key: Key, *, solutions: Count = 16, n: Count = 8, root: bool = False, until_lost: bool = True,
    weights: Weights = "counts", unfinished: Unfinished = "wrong",
) -> Flow[StepTree]:  # fmt: skip
    """Samples solutions of a problem and values all their steps by rollouts that all their prefixes share.

        V(x) = sum of w_a V(x, a) over next steps a of solutions + (1 - sum of w_a) mean outcome of rollouts that leave

    It is `shared-rollouts` on the tree of the solutions: a prefix of several is measured once, and where solutions
    part, what is known of one counts for what they share.

    Args:
        problem: the problem.
        key: randomness.
        solutions: sampled first, equal ones once.
        n: rollouts that each prefix has at least, inherited ones included.
        root: value the bare problem too.
        until_lost: where none of the rollouts of a prefix succeeds, and no right solution goes through it, all later
            steps have the value 0, inferred.
        weights: as in `shared-rollouts`.
        unfinished: what a cut rollout counts as.

    Returns:
        The tree of the solutions with the columns of rollouts: value, n_rollouts, n_correct, low, high, as there.

    Raises:
        InputError: log-probabilities are missing.
    """
    found: list[Trajectory] = yield from graded_samples(problem, key, n=solutions)
    known = [one for one in found if not np.isnan(one.outcome)]
    tree = StepTree.from_trajectories(known, problem)
    top, points = points_of(known)
    with suppress(BudgetExhausted):
        yield from draw(problem, top, n, key, root=root, until_lost=until_lost, unfinished=unfinished)
    measure(top, weights)
    counts, values = np.zeros(tree.n), np.full(tree.n, np.nan)
    for node, name in enumerate(tree.names):
        point = points.get(name)
        if point is not None and point.open:
            values[node], counts[node] = point.value, point.exact
    columns = counted_columns(tree, counts, counts * np.nan_to_num(values))
    columns["value"] = np.where(np.isnan(values), columns["value"], values)
    return replace(tree, columns=columns)
