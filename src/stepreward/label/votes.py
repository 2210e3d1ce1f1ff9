"""Labels out of votes: what several judges, prompts or samples of one say of each step, merged in one of a few ways.

A vote is a step column, such as those that `score` writes of each answer of a verifier that writes (`score:vote1`), or
the scores of several verifiers (`score:NAME`). A vote at or below the threshold calls the step wrong, NaN says nothing.
One that says nothing of any step could not be read: it is missing, never right.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from stepreward.core.catalog import transform
from stepreward.core.measure.first_error import first_error
from stepreward.core.types import LABEL, Floats, Provenance, Trajectory
from stepreward.core.vocabulary import Count
from stepreward.label.transforms import AfterError, rewritten

VOTES = "score*:vote[0-9]*"
"""The columns that are votes, where no other name is given."""
_ROUNDING = 1e-9


def _read(trajectory: Trajectory, votes: str, threshold: float) -> tuple[Floats, int, list[str]]:
    """(K, S) readable votes, 1 right and 0 wrong, the number of those that could not be read, and all their names."""
    names = [name for name in trajectory.columns if fnmatchcase(name, votes)]
    said = np.array([trajectory.columns[name] for name in names], np.float64).reshape(len(names), len(trajectory))
    said = np.where(np.isnan(said) | ~trajectory.action, np.nan, said > threshold)
    readable = ~np.isnan(said).all(1)
    return said[readable], int((~readable).sum()), names


def _merged(
    trajectory: Trajectory, name: str, labels: Floats, after_error: AfterError, told: dict[str, int], names: list[str]
) -> Trajectory:
    """The trajectory with labels made of votes, the numbers of votes among its facts, and who voted."""
    made = rewritten(trajectory, name, labels, after_error, labels)
    judges = [one.estimator for one in trajectory.provenance if set(one.what) & set(names)]
    by = Provenance(name, policy="; ".join(judges), settings={"votes": names})
    return replace(made, facts={**made.facts, "votes": told}).with_columns({LABEL: made.labels}, by)


def _first_errors(said: Floats, trajectory: Trajectory) -> tuple[list[int], int]:
    """The steps that votes call the first error, S for none, and how many votes name no error but leave steps out."""
    found = [int(first_error(one, 0.0)) for one in said]
    whole = [not np.isnan(one[trajectory.action]).any() for one in said]
    # A vote that stopped early without an error says nothing of what comes after.
    stated = [at if at >= 0 else len(trajectory) for at, told in zip(found, whole, strict=True) if at >= 0 or told]
    return stated, len(found) - len(stated)


@transform.method(
    "first-error-vote",
    note="the majority of votes on the first wrong step, after arXiv:2412.06559 and arXiv:2502.06737, who take one; no "
    "paper says what a tie is: here the earliest step wins, and no error loses against any",
)
def first_error_vote(
    trajectory: Trajectory,
    *,
    votes: str = VOTES,
    threshold: float = 0.5,
    share: float = 0.0,
    least: Count = 1,
    after_error: AfterError = "mask",
) -> Trajectory:
    """Labels steps by the first wrong step that most votes name.

        label = 1 before the step t that most votes call the first error, 0 at t;  1 everywhere if most name none

    Of steps with equally many votes the earliest counts, before none at all. A vote without an error that leaves steps
    out is missing.

    Args:
        trajectory: with votes.
        votes: columns that are votes, with `*` for any letters.
        threshold: a vote at or below it calls a step wrong.
        share: least share of the votes that can be read that must name the same step, in [0, 1]; 1 is all.
        least: votes that can be read, at least; with fewer no step has a label.
        after_error: see `AfterError`; no vote says anything of what comes after the error that it names.

    Raises:
        ValueError: `share` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie in [0, 1], got {share}")
    said, unread, names = _read(trajectory, votes, threshold)
    stated, incomplete = _first_errors(said, trajectory)
    counts = Counter(stated)
    winner = min(counts, key=lambda step: (-counts[step], step), default=0)
    agree = counts[winner]
    made = np.full(len(trajectory), np.nan)
    if len(stated) >= least and agree >= share * len(stated) - _ROUNDING:
        made = np.where(np.arange(len(trajectory)) < winner, 1.0, np.nan)
        made[winner : winner + 1] = 0.0
    told = {"read": len(stated), "unread": unread + incomplete, "agree": agree}
    made[~trajectory.action] = np.nan
    return _merged(trajectory, "first-error-vote", made, after_error, told, names)


transform.preset(
    "unanimous-vote",
    of="first-error-vote",
    note="all votes that can be read name the same first error, or no step has a label; filter `labelled` drops those",
    share=1.0,
    least=2,
)


@transform.method(
    "step-vote",
    paper="arXiv:2512.03244",
    equation="step consistency, by the abstract and the README",
    note="a step on which as many votes say right as wrong is left out: the tie rule is not known",
)
def step_vote(
    trajectory: Trajectory,
    *,
    votes: str = VOTES,
    threshold: float = 0.5,
    soft: bool = False,
    least: Count = 1,
    after_error: AfterError = "keep",
) -> Trajectory:
    """Labels each step by the majority of the votes that reach it.

        label_t = 1 if more votes call step t right than wrong, 0 if fewer

    Steps at which there are as many of both, and those that no vote reaches, are not supervised.

    Args:
        trajectory: with votes.
        votes: columns that are votes, with `*` for any letters.
        threshold: a vote at or below it calls a step wrong.
        soft: the label is the share of votes that call the step right, ties among them.
        least: votes that reach a step, at least.
        after_error: see `AfterError`.
    """
    said, unread, names = _read(trajectory, votes, threshold)
    told = {"read": len(said), "unread": unread}
    return _merged(trajectory, "step-vote", _by_step(said, soft=soft, least=least), after_error, told, names)


transform.preset("mean-vote", of="step-vote", note="the mean of what the votes say, kept as it is", soft=True)


@transform.method(
    "outcome-vote",
    paper="arXiv:2512.03244",
    equation="outcome consistency, by the abstract and the README",
    note="the votes that agree with the majority on the whole solution, merged step by step; which of them the authors "
    "train on is not known, nor their tie rule: here a tie gives no label",
)
def outcome_vote(
    trajectory: Trajectory,
    *,
    votes: str = VOTES,
    threshold: float = 0.5,
    soft: bool = False,
    least: Count = 1,
    after_error: AfterError = "keep",
) -> Trajectory:
    """Labels steps by those votes that say of the whole solution what most votes say.

    A vote calls a solution wrong if it calls any of its steps wrong, and right if it calls every step right. Of the
    votes that agree with the majority, the majority at each step is its label, as in `step-vote`.

    Args:
        trajectory: with votes.
        votes: columns that are votes, with `*` for any letters.
        threshold: a vote at or below it calls a step wrong.
        soft: the label is the share of votes that call the step right, ties among them.
        least: votes that reach a step, at least.
        after_error: see `AfterError`.
    """
    said, unread, names = _read(trajectory, votes, threshold)
    wrong = (said == 0).any(1)
    stated = wrong | ~np.isnan(said[:, trajectory.action]).any(1)
    for_wrong, for_right = int(wrong[stated].sum()), int((~wrong[stated]).sum())
    kept = said[:0] if for_wrong == for_right else said[stated & (wrong == (for_wrong > for_right))]
    told = {"read": int(stated.sum()), "unread": unread + int((~stated).sum()), "agree": len(kept)}
    return _merged(trajectory, "outcome-vote", _by_step(kept, soft=soft, least=least), after_error, told, names)


def _by_step(said: Floats, *, soft: bool, least: int) -> Floats:
    """(S,) the majority, or the share of right, among those of (K, S) votes that reach each step."""
    reached, right = (~np.isnan(said)).sum(0), (said == 1).sum(0)
    share = np.where(reached >= least, right / np.maximum(reached, 1), np.nan)
    return share if soft else np.where(np.isnan(share) | (share == 0.5), np.nan, share > 0.5)


@transform.method(
    "agreed-steps",
    paper="arXiv:2505.19706",
    equation="repository PathFinder-PRM src/data_generation: what contradicts the human label is discarded",
    note="step by step, where the authors discard the result",
)
def agreed_steps(trajectory: Trajectory, *, column: str = "score", threshold: float = 0.5) -> Trajectory:
    """Keeps the label of a step only where a second source says the same of it.

    Unlike other transforms it reads the labels that are there, such as a person's.

    Args:
        trajectory: with labels and a column of the other source.
        column: of the other source; at a step of which it says nothing no label is left.
        threshold: a label, or a number of the column, at or below it is wrong.
    """
    labels, other = trajectory.labels, trajectory.column(column)
    same = ~np.isnan(labels) & ~np.isnan(other) & ((labels > threshold) == (other > threshold))
    return rewritten(trajectory, "agreed-steps", np.where(same, labels, np.nan), "keep", labels)
