"""Labels out of votes: what several judges, prompts or samples of one say of each step, merged in one of a few ways.

A vote is a step column, such as those that `score` writes of each answer of a verifier that writes (`score:vote1`), or
the scores of several verifiers (`score:NAME`). A vote at or below the threshold calls the step wrong, NaN says nothing.
One that says nothing of any step could not be read: it is missing, never right.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal, get_args

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


About = Literal["steps", "first-error"]
"""What votes are counted on: each step by itself, or where the first wrong one is."""
Voters = Literal["all", "majority"]
"""Whose votes count: all, or those that say of the whole solution what most say."""


@transform.method("vote", note="the merges of papers are presets of it; `first-error` with `soft` is ours")
def vote(
    trajectory: Trajectory,
    *,
    about: About = "steps",
    voters: Voters = "all",
    soft: bool = False,
    votes: str = VOTES,
    threshold: float = 0.5,
    share: float = 0.0,
    least: Count = 1,
    after_error: AfterError = "keep",
) -> Trajectory:
    """Labels steps by what most votes say of them, or of where the first error is.

        steps:        label_t = 1 if more votes call step t right than wrong, 0 if fewer
        first-error:  label = 1 before the step t that most votes call the first error, 0 at t;  1 if most name none

    A step on which as many votes say right as wrong, or that no vote reaches, is not supervised. Of steps that equally
    many votes call the first error the earliest counts, before none at all; a vote without an error that leaves steps
    out is missing. A vote calls a solution wrong if it calls any of its steps wrong, and right if it calls every step
    right: where as many say either, no voter is of the majority.

    Args:
        trajectory: with votes.
        about: what is counted.
        voters: whose votes are.
        soft: the label is the share of votes that call the step right, ties among them; of the first error, of those
            that find none up to the step.
        votes: columns that are votes, with `*` for any letters.
        threshold: a vote at or below it calls a step wrong.
        share: least share of the votes that must say the same of the step, or of the first error, in [0, 1].
        least: votes that reach the step, or say where the first error is, at least.
        after_error: see `AfterError`.

    Raises:
        ValueError: `share` is outside [0, 1], or `about` or `voters` is neither.
    """
    if not 0 <= share <= 1 or about not in get_args(About) or voters not in get_args(Voters):
        what = f"share in [0, 1], about of {get_args(About)} and voters of {get_args(Voters)}"
        raise ValueError(f"expected {what}, got {share}, {about!r} and {voters!r}")
    said, unread, names = _read(trajectory, votes, threshold)
    tally = {"read": len(said), "unread": unread}
    if voters == "majority":
        stated, said = _of_majority(said, trajectory)
        tally = {"read": stated, "unread": unread + tally["read"] - stated, "agree": len(said)}
    if about == "steps":
        made = _by_step(said, soft, share, least)
    else:
        firsts = _first_errors(said, trajectory)
        made, agree = _by_first_error(firsts, trajectory, soft, share, least)
        missing = len(said) - len(firsts)
        tally = {"read": tally["read"] - missing, "unread": tally["unread"] + missing, "agree": agree}
    name = "outcome-vote" if about == "steps" and voters == "majority" else f"{about.removesuffix('s')}-vote"
    labelled = rewritten(trajectory, name, made, after_error, made)
    judges = [one.settings.get("scorer", one.estimator) for one in trajectory.provenance if set(one.what) & set(names)]
    by = Provenance(name, policy="; ".join(judges), settings={"votes": names})
    return replace(labelled, facts={**labelled.facts, "votes": tally}).with_columns({LABEL: labelled.labels}, by)


def _of_majority(said: Floats, trajectory: Trajectory) -> tuple[int, Floats]:
    """How many votes say of the whole solution whether it is right, and those that say what most say."""
    wrong = (said == 0).any(1)
    stated = wrong | ~np.isnan(said[:, trajectory.action]).any(1)
    for_wrong, for_right = int(wrong[stated].sum()), int((~wrong[stated]).sum())
    kept = said[:0] if for_wrong == for_right else said[stated & (wrong == (for_wrong > for_right))]
    return int(stated.sum()), kept


def _first_errors(said: Floats, trajectory: Trajectory) -> list[int]:
    """The step that each vote calls the first error, S for none; not of votes that name none but leave steps out."""
    found = [int(first_error(one, 0.0)) for one in said]
    whole = [not np.isnan(one[trajectory.action]).any() for one in said]
    # A vote that stopped early without an error says nothing of what comes after.
    return [at if at >= 0 else len(trajectory) for at, read in zip(found, whole, strict=True) if at >= 0 or read]


def _by_first_error(
    firsts: list[int], trajectory: Trajectory, soft: bool, share: float, least: int
) -> tuple[Floats, int]:
    """(S,) labels by the first error that most name, and how many of them name it."""
    counts, at = Counter(firsts), np.arange(len(trajectory))
    winner = min(counts, key=lambda step: (-counts[step], step), default=0)
    agree = counts[winner]
    made = np.full(len(trajectory), np.nan)
    if len(firsts) >= least and agree >= share * len(firsts) - _ROUNDING:
        hard = np.where(at < winner, 1.0, np.where(at == winner, 0.0, np.nan))
        made = (np.array(firsts)[:, None] > at).mean(0) if soft else hard
    made[~trajectory.action] = np.nan
    return made, agree


def _by_step(said: Floats, soft: bool, share: float, least: int) -> Floats:
    """(S,) the majority, or the share of right, among those of (K, S) votes that reach each step."""
    reached, right = (~np.isnan(said)).sum(0), (said == 1).sum(0)
    agree = np.maximum(right, reached - right)
    enough = (reached >= max(least, 1)) & (agree >= share * reached - _ROUNDING)
    of_right = np.where(enough, right / np.maximum(reached, 1), np.nan)
    return of_right if soft else np.where(np.isnan(of_right) | (of_right == 0.5), np.nan, of_right > 0.5)


transform.preset(
    "first-error-vote",
    of="vote",
    note="the majority of votes on the first wrong step, after arXiv:2412.06559 and arXiv:2502.06737, who take one; no "
    "paper says what a tie is: here the earliest step wins, and no error loses against any",
    about="first-error",
    after_error="mask",
)
transform.preset(
    "unanimous-vote",
    of="first-error-vote",
    note="all votes that can be read name the same first error, or no step has a label; filter `labelled` drops those",
    share=1.0,
    least=2,
)
transform.preset(
    "step-vote",
    of="vote",
    paper="arXiv:2512.03244",
    note="step consistency, by the abstract and the README; a step on which as many votes say right as wrong is left "
    "out: the tie rule is not known",
    about="steps",
)
transform.preset("mean-vote", of="step-vote", note="the mean of what the votes say, kept as it is", soft=True)
transform.preset(
    "outcome-vote",
    of="step-vote",
    paper="arXiv:2512.03244",
    note="outcome consistency, by the abstract and the README: the votes that agree with the majority on the whole "
    "solution, merged step by step; which of them the authors train on is not known, nor their tie rule: here a tie "
    "gives no label",
    voters="majority",
)


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
