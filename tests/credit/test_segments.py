"""Segment arithmetic against slow loops, on NumPy and torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.errors import InputError
from stepreward.credit.segments import Groups, Trajectories, whitened

SIZES = st.lists(st.integers(0, 9) | st.integers(0, 70), min_size=1, max_size=6)
LIBRARIES = pytest.mark.parametrize("give", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])


def cut(sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *sizes])
    return offsets, np.random.default_rng(sum(sizes)).normal(size=offsets[-1])


@LIBRARIES
@given(sizes=SIZES, discount=st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_sums_and_least_values_to_go(give: Callable[[Any], Any], sizes: list[int], discount: float) -> None:
    offsets, values = cut(sizes)
    trajectories = Trajectories(give(offsets), len(values))
    expected, least = np.empty_like(values), np.empty_like(values)
    for start, end in itertools.pairwise(offsets):
        running, lowest = 0.0, np.inf
        for k in reversed(range(start, end)):
            running = values[k] + discount * running
            lowest = min(lowest, values[k])
            expected[k], least[k] = running, lowest
    np.testing.assert_allclose(np.asarray(trajectories.to_go(give(values), discount=discount)), expected, atol=1e-12)
    np.testing.assert_array_equal(np.asarray(trajectories.least_to_go(give(values))), least)


@LIBRARIES
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@given(sizes=SIZES, data=st.data())
def test_what_is_not_finite_stays_in_its_trajectory(
    give: Callable[[Any], Any], bad: float, sizes: list[int], data: st.DataObject
) -> None:
    offsets, values = cut(sizes)
    if not len(values):
        return
    place = data.draw(st.integers(0, len(values) - 1))
    values[place] = bad
    trajectories = Trajectories(give(offsets), len(values))
    before = np.array(
        [start <= k <= place < end for start, end in itertools.pairwise(offsets) for k in range(start, end)]
    )
    sums = np.asarray(trajectories.to_go(give(values), discount=0.5))
    np.testing.assert_array_equal(np.isfinite(sums), ~before)
    least = np.asarray(trajectories.least_to_go(give(values)))
    # Infinity is more than anything that comes after it, so that it is the least where nothing does.
    assert np.isfinite(least[~before]).all()
    np.testing.assert_array_equal(np.isnan(least), before & np.isnan(bad))


def test_sums_to_go_pass_gradients_on() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    Trajectories(torch.tensor([0, 3, 4]), 4).to_go(values, discount=0.5).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 1.5, 1.75, 1.0]


@LIBRARIES
@given(sizes=SIZES)
def test_neighbours_totals_and_ends(give: Callable[[Any], Any], sizes: list[int]) -> None:
    offsets, values = cut(sizes)
    t = Trajectories(give(offsets), len(values))
    rows = [values[a:b] for a, b in itertools.pairwise(offsets)]
    flat = np.concatenate
    np.testing.assert_allclose(np.asarray(t.total(give(values))), [row.sum() for row in rows], atol=1e-12)
    means = [row.mean() if len(row) else 0.0 for row in rows]
    np.testing.assert_allclose(np.asarray(t.mean(give(values))), means, atol=1e-12)
    np.testing.assert_allclose(np.asarray(t.mean(give(values), give(np.full(len(values), 2.0)))), np.array(means) / 2)
    np.testing.assert_array_equal(
        np.asarray(t.next(give(values), last=7.0)), flat([[*r[1:], 7.0][: len(r)] for r in rows])
    )
    np.testing.assert_array_equal(
        np.asarray(t.previous(give(values), first=7.0)), flat([[7.0, *r][: len(r)] for r in rows])
    )
    starts = np.arange(len(sizes), dtype=float)
    by_row = np.asarray(t.previous(give(values), starts=give(starts)))
    np.testing.assert_array_equal(by_row, flat([[s, *r][: len(r)] for s, r in zip(starts, rows, strict=True)]))
    ends = np.asarray(t.at_end(give(starts)))
    np.testing.assert_array_equal(
        ends, flat([[*[0.0] * (len(r) - 1), s][-len(r) :] if len(r) else [] for s, r in zip(starts, rows, strict=True)])
    )
    np.testing.assert_array_equal(np.asarray(t.remaining), flat([np.arange(n, 0, -1) for n in sizes]))


@LIBRARIES
@given(ids=st.lists(st.integers(-3, 3), min_size=1, max_size=12), alone=st.sampled_from(["zero", "raw"]))
def test_statistics_of_groups(give: Callable[[Any], Any], ids: list[int], alone: Any) -> None:
    values = np.random.default_rng(len(ids)).normal(size=len(ids))
    groups, index = Groups(give(np.array(ids))), np.array(ids)
    for i, value in enumerate(values):
        mine = values[index == ids[i]]
        others = np.delete(values, i)[np.delete(index, i) == ids[i]]
        deviation = mine.std(ddof=1) if len(mine) > 1 else 0.0
        single = len(mine) == 1 and alone == "raw"
        expected = {
            "count": len(mine), "mean": mine.mean(), "others": others.mean() if len(others) else 5.0,
            "deviation": deviation, "centred": value if single else value - mine.mean(),
            "standardised": value if single else (value - mine.mean()) / (deviation + 0.1),
        }  # fmt: skip
        v = give(values)
        found = {
            "count": groups.count(v), "mean": groups.mean(v), "others": groups.mean_of_others(v, alone=5.0),
            "deviation": groups.deviation(v), "centred": groups.centred(v, alone=alone),
            "standardised": groups.standardised(v, epsilon=0.1, alone=alone),
        }  # fmt: skip
        for name, number in expected.items():
            assert float(found[name][i]) == pytest.approx(number, abs=1e-12), name


def test_weighted_means_and_pairs() -> None:
    groups = Groups(np.array([4, 4, 9]))
    np.testing.assert_allclose(groups.mean(np.array([1.0, 4.0, 5.0]), np.array([2.0, 1.0, 3.0])), [2, 2, 5])
    pairs = Groups.of_pairs(np.array([0, 0, 1, 1]), np.array([7, 8, 7, 7]))
    np.testing.assert_array_equal(pairs.count(np.zeros(4)), [1, 1, 2, 2])


@LIBRARIES
def test_whitening_counts_tokens(give: Callable[[Any], Any]) -> None:
    values, tokens = np.array([1.0, 2.0, 5.0]), np.array([3, 1, 2])
    long = np.repeat(values, tokens)
    expected = (values - long.mean()) / np.sqrt(long.var(ddof=1) + 1e-8)
    np.testing.assert_allclose(np.asarray(whitened(give(values), give(tokens))), expected)
    kept = np.asarray(whitened(give(values), give(tokens), centre=False))
    np.testing.assert_allclose(kept, expected + long.mean())


def test_float32_stays_float32_and_devices_are_kept() -> None:
    values = torch.ones(3, dtype=torch.float32)
    t = Trajectories(torch.tensor([0, 3]), 3)
    assert t.to_go(values, discount=0.5).dtype == t.total(values).dtype == torch.float32
    assert Groups(np.zeros(3, np.int64)).mean(np.ones(3, np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    ("offsets", "message"),
    [([1, 3], "start at 0"), ([0, 2, 1, 3], "never decrease"), ([0, 2], "end at 2 but there are 3 steps")],
)
def test_offsets_that_cannot_be_are_errors(offsets: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Trajectories(np.array(offsets), 3)


def test_unsigned_offsets_that_decrease_are_seen() -> None:
    with pytest.raises(InputError, match="never decrease"):
        Trajectories(np.array([0, 2, 1, 3], np.uint32), 3)


@LIBRARIES
@given(ids=st.lists(st.one_of(st.integers(-3, 9), st.integers(-(2**40), 2**40)), max_size=8))
def test_groups_are_numbered_in_order_of_their_ids(give: Callable[[Any], Any], ids: list[int]) -> None:
    names, inverse = np.unique(np.array(ids, np.int64), return_inverse=True)
    groups = Groups(give(np.array(ids, np.int64)))
    assert groups.n == len(names)
    np.testing.assert_array_equal(np.asarray(groups.of), inverse)


@LIBRARIES
def test_weighted_statistics_are_those_of_repeated_members(give: Callable[[Any], Any]) -> None:
    values, weights, index = np.array([1.0, 4.0, 5.0, 7.0]), np.array([2, 1, 3, 0]), np.array([4, 4, 9, 9])
    groups, v, w = Groups(give(index)), give(values), give(weights)
    long, ids = np.repeat(values, weights), np.repeat(index, weights)
    for i, value in enumerate(values):
        mine = long[ids == index[i]]
        others = np.repeat(np.delete(values, i), np.delete(weights, i))[
            np.repeat(np.delete(index, i), np.delete(weights, i)) == index[i]
        ]
        assert float(groups.mean(v, w)[i]) == pytest.approx(mine.mean())
        assert float(groups.centred(v, w)[i]) == pytest.approx(value - mine.mean())
        assert float(groups.deviation(v, w)[i]) == pytest.approx(mine.std(ddof=1))
        assert float(groups.standardised(v, w)[i]) == pytest.approx((value - mine.mean()) / (mine.std(ddof=1) + 1e-6))
        assert float(groups.mean_of_others(v, w, alone=9.0)[i]) == pytest.approx(others.mean() if len(others) else 9)


@LIBRARIES
@pytest.mark.parametrize("kind", ["float32", "float64"])
@given(value=st.floats(-10, 10, width=32), n=st.integers(1, 50))
def test_equal_members_differ_by_exactly_nothing(give: Callable[[Any], Any], kind: str, value: float, n: int) -> None:
    values = give(np.full(n, value, kind))
    groups = Groups(give(np.arange(n) % 2))
    assert not np.asarray(groups.standardised(values, epsilon=1e-9)).any()
    assert not np.asarray(whitened(values)).any()


def test_counts_do_not_stop_where_the_type_does() -> None:
    # 256 + 1 is 256 in bfloat16.
    groups = Groups(torch.zeros(600, dtype=torch.int64))
    values = torch.ones(600, dtype=torch.bfloat16)
    assert float(groups.total(values)[0]) == 600
    assert float(groups.mean_of_others(values)[0]) == 1
    assert float(Trajectories(torch.tensor([0, 600]), 600).mean(values)[0]) == 1


@LIBRARIES
def test_values_of_another_number_are_errors(give: Callable[[Any], Any]) -> None:
    t, groups = Trajectories(give(np.array([0, 2, 3])), 3), Groups(give(np.array([0, 0, 1])))
    four = give(np.ones(4))
    for make, what in (
        (t.total, "members"), (t.mean, "members"), (t.spread, "trajectories"), (t.at_end, "trajectories"),
        (t.next, "steps"), (t.previous, "steps"), (t.to_go, "steps"), (groups.mean, "members"),
        (groups.standardised, "members"), (lambda v: Groups.of_pairs(groups.of, v), "members"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"4 values for \d {what}"):
            make(four)
