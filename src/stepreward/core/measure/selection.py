"""Choosing one trajectory a problem, vectorised over problems.

Totals (B,), answers (B,) as integer ids that are equal within a problem iff the answers are equal (-1 for none), group
(B,) the problem of each row. Every method returns (G,) row indices, one a problem in ascending order of group; ties go
to the earliest row. Both search and evaluation select, and neither imports the other: so selection lives in core.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import select
from stepreward.core.types import Groups

Totals = NDArray[np.float64]
Answers = NDArray[np.integer[Any]]
Chosen = NDArray[np.int64]


def answer_ids(answers: Sequence[Hashable | None], group: Sequence[Hashable]) -> NDArray[np.int64]:
    """Integer ids of answers, distinct between problems; -1 where there is no answer."""
    table: dict[tuple[Hashable, Hashable], int] = {}
    return np.array(
        [-1 if a is None else table.setdefault((g, a), len(table)) for a, g in zip(answers, group, strict=True)],
        dtype=np.int64,
    )


def _best_row(values: Totals, group: Groups) -> Chosen:
    """The row with the largest value of each group, the earliest of equals; NaN loses to everything."""
    filled = np.where(np.isnan(values), -np.inf, values)
    order = np.lexsort((np.arange(len(group)), -filled, group))
    # Rows are sorted by group, value and number: the first row of each group is its best.
    first = np.r_[True, group[order][1:] != group[order][:-1]] if len(group) else np.zeros(0, bool)
    return order[first]


def _answer_of(answers: Answers, group: Groups) -> Chosen:
    """(B,) number of each row's answer: equal where group and answer are."""
    # NumPy 2.0 gives the inverse of an axis another shape than the releases before and after it.
    return np.unique(np.stack([group, answers]), axis=1, return_inverse=True)[1].ravel()


_TIE = 1e-12
"""Relative difference up to which two sums of weights are equal."""


def _vote(weights: Totals, answers: Answers, group: Groups) -> Chosen:
    """The first row of the answer with the most weight; rows without an answer count only where none has one."""
    real, index = answers >= 0, _answer_of(answers, group)
    mass = np.where(real, np.bincount(index, weights=np.where(np.isnan(weights), 0.0, weights))[index], -np.inf)
    # Sums of the same weights in another order differ in their last digits: a tie is none of rounding's to break.
    _, problem = np.unique(group, return_inverse=True)
    top = np.full(problem.max(initial=-1) + 1, -np.inf)
    np.maximum.at(top, problem, mass)
    with np.errstate(invalid="ignore"):  # an infinite sum is its own tie
        tied = mass >= top[problem] - _TIE * np.abs(top[problem])
    return _best_row(np.where(real & tied, top[problem], mass), group)


@select.method("best-of-n", paper="arXiv:2110.14168", equation="section 4.2")
def best_of_n(totals: Totals, group: Groups) -> Chosen:
    """Chooses the trajectory with the highest total."""
    return _best_row(totals, group)


@select.method("majority", paper="arXiv:2203.11171", equation="section 2, the unweighted sum")
def majority(answers: Answers, group: Groups) -> Chosen:
    """Chooses the answer given most often (self-consistency)."""
    return _vote(np.ones(len(answers)), answers, group)


@select.method("weighted-vote", paper="arXiv:2206.02336", equation="section 2.2, Eq. 2")
def weighted_vote(totals: Totals, answers: Answers, group: Groups) -> Chosen:
    """Chooses the answer whose trajectories have the largest sum of totals.

    Totals must not be negative for the sum to mean support; shift or calibrate others first.
    """
    return _vote(totals, answers, group)


@select.method("first", note="no selection: what one sample gives")
def first(group: Groups) -> Chosen:
    """Chooses the first trajectory: the accuracy of a single sample."""
    return _best_row(np.zeros(len(group)), group)


@select.method("oracle", note="an upper bound: needs the outcomes")
def oracle(outcome: Totals, group: Groups) -> Chosen:
    """Chooses a right trajectory wherever there is one (pass@N)."""
    return _best_row(outcome, group)


@select.method(
    "hybrid-vote",
    unverified="hybrid majority reward vote, HMR (arXiv:2508.01773): neither the paper's formula nor its authors' code "
    "could be read; the definition is a secondary source's, with the threshold as a parameter",
)
def hybrid_vote(totals: Totals, answers: Answers, group: Groups, *, threshold: float = 0.5) -> Chosen:
    """Chooses the majority's answer where its share of the trajectories exceeds `threshold`, else the best rewarded.

    The best rewarded answer has the largest mean total. Trajectories without an answer count in the share's
    denominator. At threshold 0 it is the majority vote, at 1 the vote by mean total.
    """
    count, mean = _support(totals, answers, group)
    _, index, rows = np.unique(group, return_inverse=True, return_counts=True)
    share = np.zeros(len(rows))
    np.maximum.at(share, index, np.where(answers >= 0, count, 0.0) / rows[index])
    return _best_row(np.where(answers >= 0, np.where(share[index] > threshold, count, mean), -np.inf), group)


@select.method(
    "reward-frequency-vote",
    unverified="weighted reward frequency vote, WRF (arXiv:2508.01773): neither the paper's formula nor code of its "
    "authors could be read; the formula is that of public code by others (UCO-WRF), with alpha .75 to .85",
)
def reward_frequency_vote(totals: Totals, answers: Answers, group: Groups, *, alpha: float = 0.8) -> Chosen:
    """Chooses the answer with the best blend of mean total and number of votes, each scaled to [0, 1] over the answers.

        alpha minmax(mean total of a) + (1 - alpha) minmax(votes for a),    1 where all answers are equal

    Args:
        totals: (B,) one score a trajectory; NaN does not count in a mean.
        answers: (B,) ids.
        group: (B,) problem of each row.
        alpha: weight of the reward, in [0, 1]; 0 is the majority vote.
    """
    count, mean = _support(totals, answers, group)
    real = answers >= 0
    blend = alpha * _scaled(mean, real, group) + (1 - alpha) * _scaled(count, real, group)
    return _best_row(np.where(real, blend, -np.inf), group)


@select.method("borda", paper="arXiv:2502.18581", equation="section 4.3")
def borda_vote(totals: Totals, answers: Answers, group: Groups, *, power: float = 0.5) -> Chosen:
    """Chooses by votes that fall with the rank of a trajectory's total: only the order of totals matters.

        v(r) = (N - r + 1)^power,    r = 1 for the highest total of the problem's N; the earliest of equals first

    Args:
        totals: (B,) one score a trajectory, any scale; NaN ranks last.
        answers: (B,) ids.
        group: (B,) problem of each row.
        power: p of the paper; 0 is the majority vote, infinity best-of-n.
    """
    filled = np.where(np.isnan(totals), -np.inf, totals)
    order = np.lexsort((np.arange(len(group)), -filled, group))
    _, first, size = np.unique(group[order], return_index=True, return_counts=True)
    place = np.arange(len(group)) - np.repeat(first, size)
    # Ranks are of the sorted rows: weights go back to the order given.
    weight = np.empty(len(group))
    # Relative to the winner's vote, so that a large power cannot overflow.
    weight[order] = (1 - place / np.repeat(size, size)) ** power
    return _vote(weight, answers, group)


def self_certainty(logits: NDArray[np.floating[Any]], start: int = 0) -> NDArray[np.float64]:
    """How far the distribution of each written token was from uniform: KL(uniform || p), 0 for uniform.

        -1/V sum_j log(V p_j)    (Eq. 7 of arXiv:2502.18581)

    Args:
        logits: (T, V) a causal model's outputs at each position of prompt and solution: row t predicts token t + 1.
        start: position of the solution's first token. The rows that predicted it and those after it are read, so not
            the last row, which predicts what was never written; 0 reads all rows, where the caller has cut them out.

    Returns:
        (T - start,) certainties in nats, at least 0, one a token of the solution; (T,) if `start` is 0.
    """
    rows = np.asarray(logits, np.float64)
    rows = rows[start - 1 : -1] if start else rows
    top = rows.max(axis=1, keepdims=True)
    normal = top[:, 0] + np.log(np.exp(rows - top).sum(axis=1))
    certainty: NDArray[np.float64] = normal - rows.mean(axis=1) - np.log(rows.shape[1])
    return certainty


def _support(totals: Totals, answers: Answers, group: Groups) -> tuple[Totals, Totals]:
    """(B,) votes for each row's answer, and the mean total of those votes; 0 where no total is known."""
    index = _answer_of(answers, group)
    known = ~np.isnan(totals)
    mass = np.bincount(index, weights=np.where(known, totals, 0.0))[index]
    return np.bincount(index)[index].astype(np.float64), mass / np.maximum(np.bincount(index, weights=known)[index], 1)


def _scaled(values: Totals, real: NDArray[np.bool_], group: Groups) -> Totals:
    """Values scaled to [0, 1] over the real rows of their group; 1 where those are equal."""
    _, index = np.unique(group, return_inverse=True)
    low, high = np.full(int(index.max(initial=-1)) + 1, np.inf), np.full(int(index.max(initial=-1)) + 1, -np.inf)
    np.minimum.at(low, index[real], values[real])
    np.maximum.at(high, index[real], values[real])
    span = np.where(high > low, high - low, 1.0)
    return np.where((high > low)[index], (values - np.where(real, low[index], values)) / span[index], 1.0)
