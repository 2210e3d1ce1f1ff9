"""Selection accuracy against the number of samples, with intervals over problems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stepreward.core.keys import Key
from stepreward.core.measure.selection import best_of_n, majority, oracle, weighted_vote
from stepreward.core.measure.statistics import Estimate, known_mean
from stepreward.core.types import Floats
from stepreward.evaluate.data.solution_arrays import Pool

_CELLS = 1 << 20
"""Samples that are drawn at the same time, at least one draw of each problem."""


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
    draws, rng = 1 if n == size else draws, key.fold("subset", n).rng()
    # Drawn in parts, from one stream: the result is that of one large draw, in bounded memory.
    at_once = max(_CELLS // max(problems * size, 1), 1)
    total, known = dict[str, Floats](), dict[str, Floats]()
    for some in (min(at_once, draws - at) for at in range(0, draws, at_once)):
        for name, rates in _drawn(pool, n, rng.random((some, problems, size))).items():
            measured = ~np.isnan(rates)
            total[name] = total.get(name, 0.0) + np.where(measured, rates, 0.0).sum(axis=0)
            known[name] = known.get(name, 0) + measured.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return {name: total[name] / known[name] for name in total}


def _drawn(pool: Pool, n: int, order: Floats) -> dict[str, Floats]:
    """(draws, G) whether each selector is right with the `n` samples of lowest order (draws, G, M); NaN: not known."""
    draws, problems, size = order.shape
    # Back in the order of the pool: ties go to the earliest sample.
    chosen_n = np.sort(order.argsort(axis=2)[..., :n], axis=2)
    rows = (np.arange(problems)[:, None] * size + chosen_n).reshape(-1)
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
    return rates


def curves(pool: Pool, sizes: Sequence[int], key: Key) -> dict[str, list[Estimate]]:
    """Accuracy of every selector at every number of samples, with a 95 % bootstrap interval over problems."""
    made: dict[str, list[Estimate]] = {}
    for n in sizes:
        for name, rate in hits(pool, n, key).items():
            made.setdefault(name, []).append(known_mean(rate, key.fold("bootstrap", name, n)))
    return made
