"""Objectives of a reward model that is trained with a policy, on outcomes of the rollouts that it scored.

An objective yields the terms of a loss, a group of trajectories at a time, so that only one group's graph is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stepreward.core.errors import InputError, ModelError
from stepreward.core.runtime.flows import Score
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory
from stepreward.score.discriminative import DiscriminativeScorer
from stepreward.score.encode.packing import narrow, pack
from stepreward.score.implicit import ImplicitScorer

Objective = Callable[[Any, Sequence[Trajectory]], Iterator[Tensor]]
"""From a scorer and graded trajectories to the terms of the loss."""


def implicit_cross_entropy(scorer: ImplicitScorer, trajectories: Sequence[Trajectory]) -> Iterator[Tensor]:
    """Fits the log-ratio of the whole solution to its outcome: the update of PRIME's implicit PRM.

        mean_i -[ o_i log sigmoid(R_i) + (1 - o_i) log(1 - sigmoid(R_i)) ],    R_i = beta sum_t log pi / pi_ref (y_t)

    arXiv:2502.01456. Trajectories without an outcome or without a step are left out.

    Args:
        scorer: its model learns, its reference does not.
        trajectories: with outcomes in [0, 1].
    """
    graded = _graded(trajectories)
    questions = [Score(t.problem, t.steps) for t in graded]
    for group, merged, passes, ratio in scorer.log_ratios(questions):
        totals = [
            ratio[torch.from_numpy(path[one.counted()]).to(ratio.device)].sum()
            for path, one in zip(merged.paths, passes, strict=True)
        ]
        outcome = torch.tensor([graded[i].outcome for i in group], dtype=ratio.dtype, device=ratio.device)
        logits = scorer.record.readout.beta * torch.stack(totals)
        yield functional.binary_cross_entropy_with_logits(logits, outcome, reduction="sum") / len(graded)


def outcome_cross_entropy(scorer: DiscriminativeScorer, trajectories: Sequence[Trajectory]) -> Iterator[Tensor]:
    """Fits the last step's score to the outcome: an outcome reward model that is read at every step.

        mean_i -[ o_i log p_i + (1 - o_i) log(1 - p_i) ],    p_i the score of the last action

    Args:
        scorer: its model learns; its readout must be a function of one logit.
        trajectories: with outcomes in [0, 1].
    """
    graded = _graded(trajectories)
    for group, logits in _last_logits(scorer, graded):
        outcome = torch.tensor([graded[i].outcome for i in group], dtype=logits.dtype, device=logits.device)
        yield functional.binary_cross_entropy_with_logits(logits, outcome, reduction="sum") / len(graded)


def right_over_wrong(
    scorer: DiscriminativeScorer,
    trajectories: Sequence[Trajectory],
    *,
    corrupt: Callable[[Trajectory], Trajectory | None] | None = None,
    pairs: Literal["all", "first"] = "all",
) -> Iterator[Tensor]:
    """Ranks a right solution above a wrong one of its problem, as a reward model that is trained beside its policy.

        mean over problems of the mean over their pairs (i, j) of -log sigmoid(z_i - z_j),    o_i > 1/2 >= o_j

    A problem without a pair enters neither mean. Pairs do not see a number that is added to every z: nothing holds the
    zero of the score, so that a threshold of 1/2 may drift as the model learns, which `outcome_cross_entropy` prevents.

    Cooper (arXiv:2508.05613) takes as positives rollouts that a rule found right and has an assistant model write the
    negatives; pass that model as `corrupt`. Without it, negatives are the wrong rollouts of the same problem. Cooper's
    code takes one pair a problem, `pairs="first"`, and its model reads the problem's reference (`prompt_format`).

    Args:
        scorer: its model learns.
        trajectories: with outcomes.
        corrupt: from a right solution to a wrong one of the same problem; None where it wrote no wrong one, which makes
            no pair.
        pairs: every right solution with every wrong one, or the first of each alone.

    Raises:
        ValueError: `pairs` is neither.
    """
    if pairs not in ("all", "first"):
        raise ValueError(f"pairs must be 'all' or 'first', got {pairs!r}")
    graded = _graded(trajectories)
    if pairs == "first":
        graded = _first_of_each(graded)
    if corrupt is not None:
        made = [(t, corrupt(t)) for t in graded if t.outcome > 0.5]
        # Whatever outcome the corruption carried along, it is a wrong solution now.
        pairs_made = [(right, Trajectory(w.problem, w.steps, 0.0, w.terminal)) for right, w in made if w is not None]
        graded = [one for pair in pairs_made for one in pair]
    problems: dict[str, list[Trajectory]] = {}
    for trajectory in graded:
        problems.setdefault(trajectory.problem.id, []).append(trajectory)
    # A problem with right solutions alone, or wrong ones alone, makes no pair.
    mixed = [rows for rows in problems.values() if len({t.outcome > 0.5 for t in rows}) == 2]
    for rows in mixed:
        found = {i: z for group, logits in _last_logits(scorer, rows) for i, z in zip(group, logits, strict=True)}
        # All logits of a problem are needed at once, as every right solution is compared with every wrong one.
        z = torch.stack([found[i] for i in range(len(rows))])
        right = torch.tensor([t.outcome > 0.5 for t in rows], device=z.device)
        yield functional.softplus(z[~right][None] - z[right][:, None]).mean() / len(mixed)


def online_objective(name: str, scorer: Any) -> Objective:
    """The objective of a name, `outcomes`, `pairs` or `one-pair`, for the kind of model that a scorer has.

    Raises:
        InputError: the scorer has no model to train so.
    """
    if isinstance(scorer, ImplicitScorer) and name == "outcomes":
        return implicit_cross_entropy
    known: dict[str, Objective] = {
        "outcomes": outcome_cross_entropy,
        "pairs": right_over_wrong,
        "one-pair": partial(right_over_wrong, pairs="first"),
    }
    if not isinstance(scorer, DiscriminativeScorer):
        what = f"{getattr(scorer, 'name', scorer)!r} cannot learn by {name}"
        remedy = "take a checkpoint with a head, without a calibrator; a model of log-ratios learns by outcomes"
        raise InputError(what, remedy=remedy)
    return known[name]


def _graded(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    return [t for t in trajectories if t.steps and not np.isnan(t.outcome)]


def _first_of_each(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The first right and the first wrong trajectory of each problem."""
    found: dict[tuple[str, bool], Trajectory] = {}
    for trajectory in trajectories:
        found.setdefault((trajectory.problem.id, trajectory.outcome > 0.5), trajectory)
    return list(found.values())


def _last_logits(
    scorer: DiscriminativeScorer, trajectories: Sequence[Trajectory]
) -> Iterator[tuple[list[int], Tensor]]:
    """Indices of some trajectories, and the logits of their last actions."""
    problems: dict[tuple[str, str, str | None, str], list[int]] = {}
    for i, trajectory in enumerate(trajectories):
        problems.setdefault(trajectory.problem.read_by_scorers, []).append(i)
    model = scorer.model
    if model.record.both_ways:
        raise ModelError(
            "a model that reads steps in both directions is not trained with a policy: train one that is not"
        )
    for rows in problems.values():
        tree = StepTree.from_trajectories([trajectories[i] for i in rows])
        for keep, part, tokens in narrow(tree, model.encoder, scorer.row_tokens):
            batch = pack([tokens]).to(scorer.device)
            logits = model.step_logits(model(batch))
            # Nodes that are read, in the batch's order: observations and steps past the limit have no read.
            at = {int(node): k for k, node in enumerate(batch.node)}
            ends = [[at[int(node)] for node in path if int(node) in at][-1:] for path in part.paths]
            kept = [k for k, end in enumerate(ends) if end]
            yield [rows[keep[k]] for k in kept], logits[[ends[k][0] for k in kept]]
