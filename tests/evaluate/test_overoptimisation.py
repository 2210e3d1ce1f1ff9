"""Over-optimisation curves against all subsets, one by one."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.core.keys import Key
from stepreward.evaluate.measures.overoptimisation import chance_of_rank, overoptimisation

KEY = Key.seed(0)


@pytest.mark.parametrize(("samples", "n"), [(1, 1), (5, 1), (5, 3), (5, 5), (40, 7)])
def test_chances_of_ranks_are_ratios_of_binomials(samples: int, n: int) -> None:
    expected = [comb(samples - 1 - r, n - 1) / comb(samples, n) for r in range(samples)]
    np.testing.assert_allclose(chance_of_rank(samples, n), expected, atol=1e-12)
    assert chance_of_rank(samples, n).sum() == pytest.approx(1)


def test_a_pool_of_thousands_does_not_overflow() -> None:
    assert chance_of_rank(5000, 2500).sum() == pytest.approx(1)


@given(
    rows=st.lists(
        st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.5, 0.9]), st.sampled_from([0.0, 1.0])), min_size=5, max_size=5),
        min_size=1, max_size=4,
    )
)  # fmt: skip
@settings(max_examples=scaled(30))
def test_means_over_all_subsets_ties_shared(rows: list[list[tuple[float, float]]]) -> None:
    proxy, gold = np.array(rows)[..., 0], np.array(rows)[..., 1]
    made = overoptimisation(proxy, gold, [1, 3, 5], KEY, draws=10)
    for place, n in enumerate((1, 3, 5)):
        expected = []
        for scores, truth in zip(proxy, gold, strict=True):
            for subset in combinations(range(5), n):
                top = max(scores[i] for i in subset)
                tied = [truth[i] for i in subset if scores[i] == top]
                expected.append(np.mean(tied))
        assert made.gold[place].value == pytest.approx(np.mean(expected), abs=1e-9)
    tops = np.mean([[max(s[list(c)]) for c in combinations(range(5), 3)] for s in proxy])
    assert made.proxy[1].value == pytest.approx(tops, abs=1e-9)


def test_a_proxy_with_a_fault_peaks_and_falls() -> None:
    rng = np.random.default_rng(0)
    gold = rng.random((200, 64))
    proxy = gold.copy()
    # One sample in 64 is a hack: the proxy loves it, the gold reward does not.
    proxy[:, 0], gold[:, 0] = 2.0, 0.0
    made = overoptimisation(proxy, gold, [1, 2, 4, 8, 16, 32, 64], KEY, draws=200)
    assert 1 < made.peak < 64
    assert made.gold[-1].value == 0
    assert made.proxy[-1].value == 2
    assert list(made.divergence) == sorted(made.divergence)
    assert made.divergence[2] == pytest.approx(np.log(4) - 0.75)
    assert made.to_json()["peak"] == made.peak


@pytest.mark.parametrize(("shape", "sizes"), [((2, 4), [5]), ((2, 4), [0]), ((2, 4), []), ((2, 3), [1])])
def test_sizes_and_shapes_that_do_not_fit(shape: tuple[int, int], sizes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"between 1 and|alike"):
        overoptimisation(np.zeros((2, 4)), np.zeros(shape), sizes, KEY)
