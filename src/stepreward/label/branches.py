"""Other next steps beside those of a trajectory, each valued by rollouts: pairs along what an expert did."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.errors import BudgetExhausted
from stepreward.core.keys import Key
from stepreward.core.prefix_names import Name, Prefix
from stepreward.core.runtime.flows import Flow
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.estimators import actions_of
from stepreward.label.rollouts import Unfinished, count, counted_columns, rollouts_of


@estimate.method(
    "ipr",
    paper="arXiv:2406.11176",
    equation="section 3.2: step rewards, and the agent's own actions along expert trajectories",
    note="the released code has the agent of the first round measure rewards in all rounds, and makes pairs of whole "
    "suffixes whose outcomes and step rewards differ alike; here one policy does both, and `pairs --by siblings` makes "
    "pairs of next steps",
    asks=("policy", "grader"),
    transform="soft",
)
def branches(
    trajectory: Trajectory, key: Key, *, n: Count = 5, width: Count = 1, unfinished: Unfinished = "wrong"
) -> Flow[StepTree]:
    """Lets the policy take over before each step of a trajectory, and values its next step beside the trajectory's own.

    Args:
        trajectory: graded, or open; an expert's, or any.
        key: randomness; rollouts of a prefix are those that `math-shepherd` draws.
        n: rollouts of each step, the trajectory's and the policy's; a step that ends a solution has its outcome.
        width: times that the policy takes over before each step.
        unfinished: what a cut rollout counts as.

    Returns:
        The tree of the trajectory and of all that the policy went on to, with columns value, n_rollouts, n_correct, low
        and high at the trajectory's steps and at the first steps of the others. A spent budget returns what there is.

    Raises:
        InputError: the trajectory has no step, or is finished but not graded.
    """
    problem = trajectory.problem
    steps = Prefix(trajectory.steps)
    actions = [i for i, step in enumerate(steps) if step.kind == "action"]
    open_ = [steps.first(i + 1) for i in actions_of(trajectory)]
    others: list[Trajectory] = []
    counts: dict[Name, tuple[int, int]] = {}
    try:
        before = [steps.first(i) for i in actions]
        # Not the rollouts that value a prefix: what is valued must not be chosen with the same draws.
        taken = yield from rollouts_of(
            problem, before, [width] * len(before), key.fold("branches"), unfinished=unfinished
        )
        for prefix, some in zip(before, taken, strict=True):
            # What a limit cut may have a step that was not written to its end.
            for one in (rollout for rollout in some if rollout.steps and rollout.finished):
                others.append(Trajectory(problem, prefix.then(one.steps), one.outcome))
                if len(one.steps) > 1:
                    open_.append(prefix.then(one.steps[:1]))
        for prefix in {prefix.name: prefix for prefix in open_}.values():
            (made,) = yield from rollouts_of(problem, [prefix], [n], key, unfinished=unfinished)
            counts[prefix.name] = count(made)
    except BudgetExhausted:
        pass
    tree = StepTree.from_trajectories([trajectory, *others], problem)
    number, correct = np.array([counts.get(name, (0, 0)) for name in tree.names], np.float64).T
    return replace(tree, columns=counted_columns(tree, number, correct))
