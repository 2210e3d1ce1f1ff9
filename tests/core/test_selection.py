"""Selection against the obvious loop, with ties, missing answers and missing totals."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.measure.selection import answer_ids, best_of_n, first, majority, oracle, weighted_vote

ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([None, "a", "b", "c"]), st.sampled_from([0.0, 0.25, 0.5, math.nan])),
    min_size=1,
    max_size=12,
)


def slow_vote(rows: list[int], answers: list[str | None], weights: list[float]) -> int:
    mass = {a: sum(weights[i] for i in rows if answers[i] == a) for a in {answers[i] for i in rows} if a is not None}
    if not mass:
        return rows[0]
    return next(i for i in rows if answers[i] is not None and mass[answers[i]] == max(mass.values()))


@given(ROWS)
def test_every_selector_equals_its_loop(rows: list[tuple[int, str | None, float]]) -> None:
    group = np.array([r[0] for r in rows])
    answers, totals = [r[1] for r in rows], np.array([r[2] for r in rows])
    ids = answer_ids(answers, group.tolist())
    weights = np.nan_to_num(totals).tolist()
    for at, g in enumerate(np.unique(group)):
        mine = np.flatnonzero(group == g).tolist()
        filled = [-math.inf if math.isnan(totals[i]) else totals[i] for i in range(len(rows))]
        assert best_of_n(totals, group)[at] == max(mine, key=lambda i: (filled[i], -i))
        assert oracle(totals, group)[at] == max(mine, key=lambda i: (filled[i], -i))
        assert first(group)[at] == mine[0]
        assert majority(ids, group)[at] == slow_vote(mine, answers, [1.0] * len(rows))
        assert weighted_vote(totals, ids, group)[at] == slow_vote(mine, answers, weights)


def test_equal_answers_of_different_problems_do_not_vote_together() -> None:
    ids = answer_ids(["a", "a", None], ["p", "q", "q"])
    assert ids.tolist() == [0, 1, -1]
