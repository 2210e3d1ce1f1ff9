"""Credit by trees: the change of a node's value that a step made.

B trajectories, N steps of all of them. NumPy or torch in, the same out. A node is the prefix that a step completes, and
has an id of its own in each group: trajectories through the same node share all steps up to it. The value of a node is
the mean outcome of the trajectories through it, unless values are given.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from stepreward.core.catalog import credit
from stepreward.credit.segments import Array, Groups, Trajectories

BY_NODES = ("shift", "split")
"""Values of nodes do not change with scores; a step that only some trajectories have makes a node of its own."""


@credit.method(
    "vineppo",
    paper="arXiv:2410.01679",
    equation="Eq. 7: the value after the step less that before",
    note="values by rollouts come from the estimators of `label`",
    objective="outcome",
    invariant=("shift", "neutral"),
)
def value_differences(outcome: Array, values: Array, offsets: Array) -> Array:
    """Credits a step with the change of the chance of success.

        A_k = V(after k) - V(before k),    V(after the end) = o

    Args:
        outcome: (B,).
        values: (N,) value of the state before each step.
        offsets: (B + 1,).
    """
    trajectories = Trajectories(offsets, values.shape[0])
    ending = trajectories.spread(outcome)
    after = array_namespace(values).where(trajectories.ends, ending, trajectories.next(values))
    return after - values


credit.preset("spo", of="vineppo", paper="arXiv:2505.23564", note="the same by segments: pass segments as steps")


class _NodeOutcomes:
    """Values of nodes, (N,) at the steps that lead to them, by the outcomes of the trajectories through them."""

    def __init__(self, outcome: Array, group: Array, offsets: Array, node: Array) -> None:
        self.trajectories = Trajectories(offsets, node.shape[0])
        self.problem = self.trajectories.spread(group)
        self.nodes = Groups.of_pairs(self.problem, node)
        self.value = self.nodes.mean(self.trajectories.spread(outcome))
        root = Groups(group).mean(outcome)
        self.root = self.trajectories.spread(root)
        self.before = self.trajectories.previous(self.value, starts=root)
        """The value of the node before each step."""


@credit.method(
    "node-differences",
    note="values by the leaves below, and their differences",
    unverified="TreePS-RAG (arXiv:2601.06922): from its abstract; its normalisation is unknown, and its merging of "
    "siblings whose retrieved documents overlap is not here",
    objective="outcome",
    invariant=BY_NODES,
)
def node_differences(outcome: Array, group: Array, offsets: Array, node: Array) -> Array:
    """Credits a step with the mean outcome below its node less that below the node before.

        A_k = V(n_k) - V(n_{k-1}),    V(root) = mean of the group

    Args:
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        node: (N,) node that each step leads to.
    """
    forest = _NodeOutcomes(outcome, group, offsets, node)
    return forest.value - forest.before


@credit.method(
    "treerl",
    paper="arXiv:2506.11902",
    equation="Eq. 6: global and local advantage, over the root of the number of leaves",
    note="outcomes are not centred leave-one-out first, which only changes the scale",
    objective="none",
    invariant=BY_NODES,
)
def global_and_local(outcome: Array, group: Array, offsets: Array, node: Array, *, power: float = 0.5) -> Array:
    """Adds the change by a step to its node's lead over the root, divided by how many trajectories share the node.

        A_k = ((V(n_k) - V(root)) + (V(n_k) - V(n_{k-1}))) / L(n_k)^power

    L counts the trajectories through a node: training meets a shared step once for each of them.

    Args:
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        node: (N,) node that each step leads to.
        power: 1/2 as in the paper; 0 leaves shared steps their full weight.
    """
    forest = _NodeOutcomes(outcome, group, offsets, node)
    gained = (forest.value - forest.root) + (forest.value - forest.before)
    return gained / forest.nodes.count(forest.value) ** power


@credit.method(
    "tree-grpo",
    paper="arXiv:2509.21240",
    equation="section 3.3: the sum of intra-tree and inter-tree advantages",
    note="credit within a tree comes from prefixes that its trajectories share",
    objective="outcome",
    invariant=("shift", "split", "neutral"),
)
def inter_and_intra(outcome: Array, group: Array, offsets: Array, root: Array, *, epsilon: float = 1e-6) -> Array:
    """Adds the outcome standardised among the trajectories of one tree to that among all of the problem.

    Args:
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        root: (B,) tree of each, where a problem has several.
        epsilon: added to each deviation.
    """
    inter = Groups(group).standardised(outcome, epsilon=epsilon)
    intra = Groups.of_pairs(group, root).standardised(outcome, epsilon=epsilon)
    return Trajectories(offsets, int(offsets[-1])).spread(inter + intra)


@credit.method(
    "fork-and-trajectory",
    note="siblings at a fork, and the trajectory in its group",
    unverified="PORTool (arXiv:2510.26020): from its abstract; the weights of both terms are unknown, 1 is ours. Its "
    "outcome loses 5 % with every step, and a reward of format is part of a step's: neither is here",
    objective="outcome",
    invariant=BY_NODES,
)
def fork_and_trajectory(
    outcome: Array, group: Array, offsets: Array, node: Array, *, fork: float = 1.0, trajectory: float = 1.0
) -> Array:
    """Compares a step with its siblings at a fork, and its trajectory with the group.

        A_k = fork (V(n_k) - mean of V over the children of n_{k-1}) + trajectory (o - mean of the group)

    Each child counts once, however many trajectories pass through it. An only child gets 0 from its fork.

    Args:
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        node: (N,) node that each step leads to.
        fork: weight of the first term.
        trajectory: weight of the second.
    """
    forest = _NodeOutcomes(outcome, group, offsets, node)
    # Steps after the same node are a fork. A child occurs once for each trajectory through it: the weights 1 / L undo
    # that, so that each child counts once.
    forks = Groups.of_pairs(forest.problem, forest.trajectories.previous(forest.nodes.of, first=-1))
    siblings = forks.mean(forest.value, 1 / forest.nodes.count(forest.value))
    whole = forest.trajectories.spread(outcome) - forest.root
    return fork * (forest.value - siblings) + trajectory * whole


@credit.method(
    "lambda-grpo",
    paper="arXiv:2509.21154",
    equation="section 4: each token's loss over the number of completions that share its prefix",
    note="by step: the prefix is the whole of the step's node",
    objective="none",
    invariant=("shift", "split", "neutral"),
)
def shared_prefixes_once(outcome: Array, group: Array, offsets: Array, node: Array, *, epsilon: float = 1e-4) -> Array:
    """Divides the standardised outcome by the number of trajectories that share the step, so that a node counts once.

        A_k = (o - mean_group) / (std_group + epsilon) / L(n_k)

    Args:
        outcome: (B,).
        group: (B,) problem of each trajectory.
        offsets: (B + 1,).
        node: (N,) node that each step leads to.
        epsilon: added to the deviation.
    """
    trajectories = Trajectories(offsets, node.shape[0])
    whole = trajectories.spread(Groups(group).standardised(outcome, epsilon=epsilon))
    return whole / Groups.of_pairs(trajectories.spread(group), node).count(whole)
