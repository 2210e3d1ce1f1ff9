"""Estimators along one trajectory: the value of each step, by rollouts of a policy that continues from there.

The last step of a graded trajectory leaves nothing that a rollout could continue, so its value is the outcome. An open
trajectory (not terminal, no outcome) has its last step measured like any other. Observations are never measured. Past a
spent budget each estimator returns what it has, NaN elsewhere. A rollout is right if its outcome is above 1/2; one
whose grader cannot tell counts as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted, InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Floats, Step, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.rollouts import Counts, Rollout, Unfinished, rollouts

Order = Literal["middle", "uncertainty"]
"""Which of the open steps a search for the first error probes next."""


def uncertainty(step: Step, *, temperature: float = 5.0) -> float:
    """Entropy of the softmax of a step's token log-probabilities, divided by a temperature: UnPRM's uncertainty.

    It grows with the number of tokens, up to its logarithm. The released code of arXiv:2508.01773.

    Raises:
        InputError: the step has no log-probabilities.
    """
    if not step.logprobs:
        what = f"a step has no log-probabilities: {step.text[:60]!r}"
        raise InputError(what, remedy="take order=middle, or solutions of a policy that reports them")
    scaled = np.asarray(step.logprobs) / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    return float(-(p * np.log(p)).sum())


def likelihoods(made: Sequence[Rollout]) -> Floats:
    """(n,) exponential of each rollout's mean log-probability of a token, 1 where it ended without a step.

    Raises:
        InputError: a step has no log-probabilities.
    """
    found = []
    for rollout in made:
        logprobs = [one for step in rollout.steps if step.kind == "action" for one in step.logprobs or (np.nan,)]
        found.append(float(np.exp(np.mean(logprobs))) if logprobs else 1.0)
    if np.isnan(found).any():
        what = "a rollout has no log-probabilities, which weigh it"
        raise InputError(what, remedy="take weighted=False, or a policy that reports them")
    return np.array(found)


def actions_of(trajectory: Trajectory) -> list[int]:
    """Indices of the actions that rollouts can continue: not the last step of a graded trajectory.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded.
    """
    name = trajectory.problem.id
    if not len(trajectory):
        raise InputError(f"a trajectory of problem {name!r} has no step", remedy="drop it")
    graded = not np.isnan(trajectory.outcome)
    if trajectory.terminal and not graded:
        raise InputError(f"a finished trajectory of problem {name!r} has no outcome", remedy="grade it first")
    inner = trajectory.steps[:-1] if graded else trajectory.steps
    return [i for i, step in enumerate(inner) if step.kind == "action"]


def _start(trajectory: Trajectory) -> tuple[Counts, list[int]]:
    """Counts with the value of a graded end set, and the indices of the actions that rollouts can continue."""
    actions, counts = actions_of(trajectory), Counts(trajectory)
    if not np.isnan(trajectory.outcome):
        counts.value[-1] = trajectory.outcome
    return counts, actions


def _walk(
    counts: Counts, steps: list[int], n: int, key: Key, unfinished: Unfinished, *, until_lost: bool = False
) -> Flow[None]:
    """Values the prefixes that end in these steps, one after another; -1 is the bare problem.

    Args:
        until_lost: stop at the first step of value 0; nothing after it is measured.
    """
    trajectory = counts.trajectory
    try:
        for index in steps:
            made = yield from rollouts(trajectory.problem, trajectory.prefix(index + 1), n, key, unfinished=unfinished)
            # A problem of value 0 loses no step: that none of its rollouts succeeded may be chance.
            if counts.record(index, made) == 0 and until_lost and index >= 0:
                # The graded end has its outcome already: behind the error it is not measured either.
                counts.value[index + 1 :] = np.nan
                break
    except BudgetExhausted:
        pass


@estimate.method(
    "math-shepherd",
    paper="arXiv:2312.08935",
    equation="Eqs. 3 and 4",
    note="keeps the fraction of correct rollouts; the paper's hard labels are the transform 'hard'",
    asks=("policy", "grader"),
    transform="hard",
)
def monte_carlo(
    trajectory: Trajectory, key: Key, *, n: Count = 8, root: bool = False, unfinished: Unfinished = "wrong"
) -> Flow[Trajectory]:
    """Values every step by the share of rollouts from it that succeed.

        value_t = (correct rollouts of steps 1..t) / n

    Unbiased for the chance that the policy solves the problem from there; standard error sqrt(p (1 - p) / n).

    Args:
        trajectory: graded, or open.
        key: randomness.
        n: rollouts a prefix.
        root: value the bare problem too.
        unfinished: what a cut rollout counts as.

    Returns:
        The trajectory with a value at every action; n rollouts for each action but a graded last step.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded.
    """
    counts, actions = _start(trajectory)
    yield from _walk(counts, [-1, *actions] if root else actions, n, key, unfinished)
    return counts.labels("math-shepherd", key, {"n": n, "root": root, "unfinished": unfinished})


@estimate.method(
    "scan",
    paper="arXiv:2509.16548",
    equation="section 3",
    note="the walk alone; the paper's soft labels before the error are the transform 'scan-denoise'. The authors' code "
    "probes the last step of a wrong solution too, and drops what no probe finds lost; here its outcome counts",
    asks=("policy", "grader"),
    transform="hard",
)
def first_error_walk(
    trajectory: Trajectory, key: Key, *, n: Count = 8, root: bool = False, unfinished: Unfinished = "wrong"
) -> Flow[Trajectory]:
    """Finds the first step after which no rollout succeeds, walking forward; a right solution costs no rollout.

    The rollouts are those that `monte_carlo` draws under the same key, so both name the same first error.

    Args:
        trajectory: graded, or open.
        key: randomness.
        n: rollouts a prefix.
        root: value the bare problem of a wrong solution too, which the transform 'scan-denoise' divides by.
        unfinished: what a cut rollout counts as.

    Returns:
        The trajectory with values: all 1 without rollouts if the outcome is right; else the measured ones up to the
        first 0, and NaN after it.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded.
    """
    counts, actions = _start(trajectory)
    if trajectory.outcome > 0.5:
        counts.value[:] = 1.0
    else:
        yield from _walk(counts, [-1, *actions] if root else actions, n, key, unfinished, until_lost=True)
    return counts.labels("scan", key, {"n": n, "root": root, "unfinished": unfinished})


@estimate.method(
    "bisection",
    paper="arXiv:2406.06592",
    equation="section 3.2, the binary search on one solution",
    note="assumes that a lost trajectory stays lost; a right solution costs no rollout",
    asks=("policy", "grader"),
    transform="hard",
)
def first_error_bisection(
    trajectory: Trajectory, key: Key, *, n: Count = 8, at_once: int = 0, order: Order = "middle",
    relative: bool = False, weighted: bool = False, unfinished: Unfinished = "wrong",
) -> Flow[Trajectory]:  # fmt: skip
    """Finds the first step after which no rollout succeeds, by bisection: at most ceil(log2 S) probes.

    An open trajectory may also have no error: at most ceil(log2 (S + 1)) probes.

    Args:
        trajectory: graded, or open, of S actions.
        key: randomness.
        n: rollouts a probe.
        at_once: rollouts requested at a time; none after one succeeded. The error found is the same for any number, at
            fewer rollouts for small ones; values of probes that stopped early are too high, and only their sign is
            meant. 0 requests all `n` together.
        order: the step to probe next among those that are open: the middle one, or that whose tokens the policy was
            least sure of; then up to S probes.
        relative: a prefix is lost where its value is below that of the bare problem, which is measured first, and not
            only where it is 0; the transform 'relative' makes labels of such values.
        weighted: rollouts weigh by the exponential of their mean log-probability.
        unfinished: what a cut rollout counts as.

    Returns:
        The trajectory with values: measured where probed; 1 inferred before a probe that succeeded, 0 inferred after
        the error (`n_rollouts` is 0 where a value was inferred). Values between probes stay NaN if the budget ends the
        search, or if no rollout of a probe has a known outcome.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded.
    """
    counts, actions = _start(trajectory)
    settings: dict[str, Any] = {"n": n, "at_once": at_once, "unfinished": unfinished}
    settings |= {"order": order, "relative": relative, "weighted": weighted}
    if at_once and (relative or weighted):
        what = "at_once stops at a success, after which a value is not one that another is compared with"
        raise InputError(what, remedy="drop at_once, or relative and weighted")
    alive, lost, least = -1, len(actions), 0.0
    doubt = [uncertainty(trajectory.steps[i]) for i in actions] if order == "uncertainty" else []
    try:
        if relative:
            made = yield from rollouts(trajectory.problem, (), n, key, unfinished=unfinished)
            least = counts.record(-1, made, likelihoods(made) if weighted else None)
        if trajectory.outcome > 0.5:
            counts.value[:] = 1.0
            return counts.labels("bisection", key, settings)
        while not np.isnan(least) and lost - alive > 1:
            middle = (alive + lost) // 2
            if doubt:
                middle = max(range(alive + 1, lost), key=doubt.__getitem__)
            prefix = trajectory.prefix(actions[middle] + 1)
            made = yield from rollouts(trajectory.problem, prefix, n, key, at_once=at_once, unfinished=unfinished)
            value = counts.record(actions[middle], made, likelihoods(made) if weighted else None)
            if np.isnan(value):
                break
            alive, lost = (middle, lost) if value > 0 and value >= least else (alive, middle)
    except BudgetExhausted:
        if trajectory.outcome > 0.5:
            counts.value[:] = 1.0
    # A success shows that every earlier prefix can still be right, and a lost prefix that every later one is lost:
    # this gives values to the steps that bisection did not probe.
    unmeasured = np.isnan(counts.value)
    index = np.arange(len(unmeasured))
    first_lost = actions[lost] if lost < len(actions) else len(unmeasured)
    last_alive = actions[alive] if alive >= 0 else -1
    counts.value[unmeasured & (index <= last_alive)] = 1.0
    counts.value[unmeasured & (index >= first_lost)] = 0.0
    return counts.labels("bisection", key, settings)


estimate.preset(
    "unprm",
    of="bisection",
    paper="arXiv:2508.01773",
    note="its order by uncertainty, and likelihood-weighted shares relative to the bare problem's, with 48 rollouts; "
    "the released code takes the first prefix that it finds lost for the error, here the search goes on to the "
    "earliest",
    asks=("logprobs",),
    transform="relative",
    n=48, order="uncertainty", relative=True, weighted=True,
)  # fmt: skip
