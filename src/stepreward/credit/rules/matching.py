"""Tool calls compared with the calls of a gold solution: a reward for each call made.

A pair of calls has a similarity; an assignment says which gold call each made call is rewarded for, so that no gold
call pays twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp

from stepreward.core.types import Floats

Call = tuple[str, Mapping[str, Any]]
"""A tool's name and its arguments."""


def overlap(one: Iterable[Any], other: Iterable[Any]) -> float:
    """Jaccard similarity of two collections in which things may be repeated; 1 for two empty ones."""
    # A Counter of a mapping would read its values as counts: its keys are what is compared.
    mine, theirs = Counter(iter(one)), Counter(iter(other))
    union = (mine | theirs).total()
    return (mine & theirs).total() / union if union else 1.0


def similarity(made: Call, gold: Call) -> float:
    """Says how alike two calls are, in [0, 1].

        (1 + Jaccard of argument names + number of equal arguments) / (2 + number of the gold's arguments)

    MatchTIR (arXiv:2601.10712), section 3.1. Calls of different tools are not alike at all, whatever their arguments.
    Two calls without arguments have the same argument names.

    Args:
        made: the call made.
        gold: a call of the gold solution.
    """
    if made[0] != gold[0]:
        return 0.0
    names, wanted = set(made[1]), set(gold[1])
    equal = sum(bool(made[1][name] == gold[1][name]) for name in names & wanted)
    return (1 + overlap(names, wanted) + equal) / (2 + len(wanted))


def similarities(made: list[Call], gold: list[Call]) -> Floats:
    """(M, K) similarity of each call made with each gold call."""
    flat = [similarity(one, other) for one in made for other in gold]
    return np.array(flat, dtype=np.float64).reshape(len(made), len(gold))


def assigned(scores: ArrayLike) -> Floats:
    """Rewards each call by the gold call that the best one-to-one assignment gives it; 0 without one.

    The true optimum of the sum (Hungarian). Taking the best pair first, as public code does, may miss it.

    Args:
        scores: (M, K) similarity of each call made with each gold call.

    Returns:
        (M,) rewards.
    """
    table = np.asarray(scores, dtype=np.float64)
    rows, columns = linear_sum_assignment(table, maximize=True)
    made = np.zeros(len(table))
    made[rows] = table[rows, columns]
    return made


def transported(scores: ArrayLike, *, regularisation: float = 0.1, rounds: int = 200) -> Floats:
    """Rewards each call by its mean similarity under an optimal transport plan with entropy, so that ties are shared.

        r_i = M sum_j P_ij s_ij,    P = argmax sum P s + regularisation H(P),  rows sum to 1/M, columns to 1/K

    As the regularisation tends to 0 with as many calls as gold ones, this is `assigned`, where that is unique.

    Args:
        scores: (M, K) similarity of each call made with each gold call.
        regularisation: > 0.
        rounds: of Sinkhorn's scaling, in logarithms.

    Returns:
        (M,) rewards; all 0 where there is no gold call.

    Raises:
        ValueError: `regularisation` is not positive.
    """
    if regularisation <= 0:
        raise ValueError(f"regularisation must be positive, got {regularisation}")
    table = np.asarray(scores, dtype=np.float64)
    calls, golds = table.shape
    if not table.size:
        return np.zeros(calls)
    kernel = table / regularisation
    row, column = np.zeros((calls, 1)), np.zeros((1, golds))
    for _ in range(rounds):
        column = -np.log(golds) - logsumexp(kernel + row, axis=0, keepdims=True)
        row = -np.log(calls) - logsumexp(kernel + column, axis=1, keepdims=True)
    made: Floats = calls * (np.exp(kernel + row + column) * table).sum(axis=1)
    return made
