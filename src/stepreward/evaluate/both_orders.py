"""Judges of pairs that are shown in both orders: a verdict that follows the place is no verdict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Comparison, Floats
from stepreward.evaluate.comparison_benches import preferred_and_others
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import candidate_scores, rows_of_subsets
from stepreward.evaluate.measures.counts import bootstrap_sums, interval

BETTER_FIRST = "better_first"
"""Key of a comparison's meta: whether the better candidate was shown first, as a judge of pairs saw them."""


@bench.method(
    "both-orders",
    paper="arXiv:2510.26167",
    equation="the product of both orders; eval/eval_trbench_local_genrm.py of the authors",
    note="the authors find the two orders of a pair by place in the file, here by what is compared",
)
def both_orders(scorer: Scorer, data: Sequence[Comparison], *, aggregate: str = "last", seed: int = 0) -> BenchResult:
    """Counts the pairs that a judge gets right whichever of the two is shown first.

    Whoever names a place and not a candidate is right in half of all rows, and here in none.

    Args:
        scorer: whose verdicts are measured, mostly recorded ones; those that cannot be read are NaN.
        data: each pair twice, `better_first` in `meta` true and false.
        aggregate: how the scores of a candidate's steps become one.
        seed: of the bootstrap over pairs.

    Raises:
        InputError: a row does not say which candidate was shown first, a pair is there twice in one order, or no pair
            is there in both.
    """
    pairs, alone = _pairs(data)
    scores = candidate_scores(scorer, [data[row] for pair in pairs for row in pair], aggregate)
    both = [data[row] for pair in pairs for row in pair]
    right = np.array([float(good.min() > bad.max()) for good, bad in preferred_and_others(both, scores)]).reshape(-1, 2)
    unread = np.array([np.isnan(row).any() for row in scores]).reshape(-1, 2)
    first = [data[pair[0]] for pair in pairs]
    key = Key.seed(seed).fold("both-orders")
    groups = {
        name: _measured(right[rows], unread[rows], key.fold(name)) for name, rows in rows_of_subsets(first).items()
    }
    protocol = (
        "A pair is right if the better candidate wins in both orders (both_right); a tie and an answer without a "
        "verdict (unread) are wrong. accuracy is the mean over single rows; swayed pairs are right in one order and "
        "read in both. Rows without their other order are left out. Bootstrap over pairs."
    )
    metrics = _measured(right, unread, key)
    return BenchResult("both-orders", "both_right", metrics, protocol, groups, unscored=alone)


def _measured(right: Floats, unread: Floats, key: Key) -> dict[str, Estimate]:
    """The shares of pairs (P, 2), the better candidate first and then second."""
    units = np.column_stack(
        [
            right.prod(axis=1),
            right.mean(axis=1),
            right,
            (right[:, 0] != right[:, 1]) & ~unread.any(axis=1),
            unread.mean(axis=1),
        ]
    )
    names = ("both_right", "accuracy", "better_first", "better_second", "swayed", "unread")
    shares = bootstrap_sums(units, key) / len(units)
    return {name: interval(shares[:, at], len(units)) for at, name in enumerate(names)}


def _pairs(data: Sequence[Comparison]) -> tuple[list[tuple[int, int]], int]:
    """Rows of each pair, the better candidate first and then second, and how many rows lack their other order."""
    rows: dict[object, dict[bool, int]] = defaultdict(dict)
    for at, item in enumerate(data):
        order = item.meta.get(BETTER_FIRST)
        if not isinstance(order, bool):
            what = f"a row of problem {item.problem.id!r} must have {BETTER_FIRST!r} true or false in 'meta'"
            raise InputError(what, remedy="say which candidate the judge saw first")
        # The same candidates of one problem, in whichever order the file has them.
        worth = zip(item.preferred, (one.steps for one in item.candidates), strict=True)
        pair = rows[item.problem.id, item.problem.text, frozenset(worth)]
        if order in pair:
            what = f"a pair of problem {item.problem.id!r} is there twice with {BETTER_FIRST} {str(order).lower()}"
            raise InputError(what, remedy="keep one verdict for each order, or give the pairs ids of their own")
        pair[order] = at
    whole = [(pair[True], pair[False]) for pair in rows.values() if len(pair) == 2]
    if not whole:
        raise InputError("no pair is there in both orders", remedy="pass both rows of each pair")
    return whole, len(data) - 2 * len(whole)
