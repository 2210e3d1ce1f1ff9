"""Selection accuracy against the number of samples, with intervals over problems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.keys import Key
from stepreward.core.measure.selection import best_of_n, majority, oracle, weighted_vote
from stepreward.core.measure.statistics import Estimate, known_mean
from stepreward.core.types import Floats
from stepreward.evaluate.data.solution_arrays import Pool


def hits(pool: Pool, n: int, key: Key, *, draws: int = 16) -> dict[str, Floats]:
    """(G,) chance of each selector to be right with `n` samples, over random subsets of the pool.

    Args:
        pool: samples.
        n: samples used, at most M.
        key: randomness of the subsets.
        draws: subsets a problem; one, the whole pool, where n = M.

    Returns:
        NaN where no choice could be graded.
        For "majority", "oracle", and "best-of-n" and "weighted-vote" with each of the pool's totals
        ("weighted-vote:min").

    Raises:
        ValueError: `n` exceeds the pool.
    """
    problems, size = pool.outcome.shape
    if not 0 < n <= size:
        raise ValueError(f"n must be between 1 and the {size} samples of the pool, got {n}")
    draws = 1 if n == size else draws
    order = key.fold("subset", n).rng().random((draws, problems, size)).argsort(axis=2)[..., :n]
    # Back in the order of the pool: ties go to the earliest sample.
    order = np.sort(order, axis=2)
    rows = (np.arange(problems)[:, None] * size + order).reshape(-1)
    group = np.repeat(np.arange(draws * problems), n)
    answers, outcome = pool.answers.ravel()[rows], pool.outcome.ravel()[rows]
    chosen = {"majority": majority(answers, group), "oracle": oracle(outcome, group)}
    for name, values in pool.totals.items():
        totals = values.ravel()[rows]
        chosen[f"best-of-n:{name}"] = best_of_n(totals, group)
        chosen[f"weighted-vote:{name}"] = weighted_vote(totals, answers, group)
    rates = {name: outcome[rows_].reshape(draws, problems) for name, rows_ in chosen.items()}
    # A sample that could not be graded may be right: only a known right one decides.
    open_ = np.isnan(outcome).reshape(draws, problems, n).any(axis=2)
    rates["oracle"] = np.where(open_ & ~(rates["oracle"] > 0.5), np.nan, rates["oracle"])
    return {name: _mean_known(rate) for name, rate in rates.items()}


def _mean_known(rates: Floats) -> Floats:
    """(G,) means of (draws, G) over draws that are known; NaN where none is."""
    known = ~np.isnan(rates)
    with np.errstate(invalid="ignore"):
        made: Floats = np.where(known, rates, 0.0).sum(axis=0) / known.sum(axis=0)
    return made


def curves(pool: Pool, sizes: Sequence[int], key: Key) -> dict[str, list[Estimate]]:
    """Accuracy of every selector at every number of samples, with a 95 % bootstrap interval over problems."""
    made: dict[str, list[Estimate]] = {}
    for n in sizes:
        for name, rate in hits(pool, n, key).items():
            made.setdefault(name, []).append(known_mean(rate, key.fold("bootstrap", name, n)))
    return made
