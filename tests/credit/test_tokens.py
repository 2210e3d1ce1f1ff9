"""Spans of steps in token batches against a loop over tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepreward.core.errors import InputError
from stepreward.credit.tokens import TokenSpans, from_mask, to_tokens

LIBRARIES = pytest.mark.parametrize("give", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
ROWS = st.integers(1, 12).flatmap(
    lambda width: st.lists(
        st.lists(st.tuples(st.booleans(), st.booleans()), min_size=width, max_size=width), min_size=1, max_size=5
    )
)


def slow_spans(mask: np.ndarray, ends: np.ndarray) -> list[tuple[int, int, int]]:
    found = []
    for row in range(len(mask)):
        start = None
        for t in range(mask.shape[1]):
            if mask[row, t] and start is None:
                start = t
            last = t + 1 == mask.shape[1] or not mask[row, t + 1] or ends[row, t]
            if start is not None and mask[row, t] and last:
                found.append((row, start, t + 1))
                start = None
    return found


@LIBRARIES
@given(rows=ROWS)
def test_spans_are_those_of_the_loop(give: Callable[[Any], Any], rows: list[list[tuple[bool, bool]]]) -> None:
    both = np.array(rows)
    mask, ends = both[..., 0].astype(int), both[..., 1]
    spans = from_mask(give(mask), give(ends))
    found = np.stack([np.asarray(part) for part in (spans.row, spans.start, spans.end)], axis=1)
    expected = slow_spans(mask, ends)
    assert list(map(tuple, found.tolist())) == expected
    counts = np.bincount([row for row, _, _ in expected], minlength=len(mask))
    np.testing.assert_array_equal(np.asarray(spans.offsets), np.cumsum([0, *counts]))
    assert int(np.asarray(spans.lengths).sum()) == mask.sum()

    advantages = np.arange(1.0, len(expected) + 1)
    spread = np.asarray(to_tokens(give(advantages), spans))
    by_hand = np.zeros(mask.shape)
    for value, (row, start, end) in zip(advantages, expected, strict=True):
        by_hand[row, start:end] = value
    np.testing.assert_array_equal(spread, by_hand)
    assert ((spread != 0) == (mask != 0)).all()


def test_runs_are_turns_where_no_ends_are_given() -> None:
    spans = from_mask(np.array([[1, 1, 0, 1], [0, 0, 0, 0]]))
    assert [part.tolist() for part in (spans.row, spans.start, spans.end)] == [[0, 0], [0, 3], [2, 4]]
    assert spans.offsets.tolist() == [0, 2, 2]


def test_types_are_kept() -> None:
    spans = from_mask(torch.ones(1, 3, dtype=torch.int64))
    assert to_tokens(torch.ones(1, dtype=torch.bfloat16), spans).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("advantages", "end", "message"), [([1.0, 2.0], 2, "2 advantages for 1 steps"), ([1.0], 9, "outside its row of 4")]
)
def test_what_does_not_fit_is_an_error(advantages: list[float], end: int, message: str) -> None:
    spans = TokenSpans(np.array([0]), np.array([0]), np.array([end]), (1, 4))
    with pytest.raises(InputError, match=message):
        to_tokens(np.array(advantages), spans)


@LIBRARIES
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_a_batch_may_hold_no_step(give: Callable[[Any], Any], shape: tuple[int, int]) -> None:
    spans = from_mask(give(np.zeros(shape, np.int64)))
    assert len(spans) == 0
    assert np.asarray(spans.offsets).tolist() == [0] * (shape[0] + 1)
    spread = np.asarray(to_tokens(give(np.zeros(0)), spans))
    assert spread.shape == shape
    assert not spread.any()


@LIBRARIES
def test_a_step_may_hold_no_token(give: Callable[[Any], Any]) -> None:
    spans = TokenSpans(give(np.array([0, 0, 1])), give(np.array([0, 2, 1])), give(np.array([2, 2, 3])), (2, 4))
    spread = np.asarray(to_tokens(give(np.array([1.0, 5.0, 2.0])), spans))
    assert spread.tolist() == [[1, 1, 0, 0], [0, 2, 2, 0]]
    assert np.asarray(spans.offsets).tolist() == [0, 2, 3]
