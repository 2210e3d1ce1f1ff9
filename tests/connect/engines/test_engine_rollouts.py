"""The shared core of the adapters: batches to flat arrays, credit, tokens, and the step-reward contract."""

from __future__ import annotations

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import scaled

from stepreward.connect.engines.engine_rollouts import (
    EngineRollout,
    StepCredit,
    from_record,
    mask_spans,
    read_rewards,
    to_record,
    turns_of,
)
from stepreward.core.catalog import credit
from stepreward.core.errors import InputError, MissingDataError, UnknownNameError
from stepreward.formats.registry import by_name
from stepreward.formats.samples.step_rewards import schema

VALIDATOR = jsonschema.Draft202012Validator(schema())
PAIR = [
    EngineRollout("p", [0.5, 1.0], 1.0, [(0, 2), (3, 5)], 6),
    EngineRollout("p", [0.25], 0.0, [(1, 4)], 4),
]


def test_advantages_stand_at_their_steps_tokens() -> None:
    # Step-RLOO: reward to go, outcome included, less the mean total of the others: totals 2.5 and 0.25.
    first, second = StepCredit("step-rloo")(PAIR)
    np.testing.assert_allclose(first, [2.5 - 0.25, 2.0 - 0.25])
    np.testing.assert_allclose(second, [0.25 - 2.5])
    by_token = StepCredit("step-rloo").by_token(PAIR)
    np.testing.assert_allclose(by_token[0], [2.25, 2.25, 0, 1.75, 1.75, 0])
    np.testing.assert_allclose(by_token[1], [0, -2.25, -2.25, -2.25])


def test_groups_are_problems_and_unscored_rollouts_change_nobody_else() -> None:
    others = [EngineRollout(7, [1.0], 1.0, [(0, 1)], 1), EngineRollout(7, [3.0], 0.0, [(0, 1)], 1)]
    unscored = EngineRollout("p", [None, 0.5], None, [(0, 1), (2, 3)], 3)
    made = StepCredit("step-rloo")([PAIR[0], others[0], unscored, PAIR[1], others[1]])
    alone = StepCredit("step-rloo")(PAIR)
    np.testing.assert_array_equal(made[0], alone[0])
    np.testing.assert_array_equal(made[3], alone[1])
    np.testing.assert_array_equal(made[2], [0, 0])
    np.testing.assert_allclose([made[1][0], made[4][0]], [2 - 3, 3 - 2])


def test_data_of_steps_and_rollouts_reach_the_method() -> None:
    valued = [EngineRollout("p", [0.0, 0.0], o, [(0, 1), (1, 2)], 2, {"values": [0.5, v]})
              for o, v in ((1.0, 0.75), (0.0, 0.25))]  # fmt: skip
    made = np.concatenate(StepCredit("gae", {"discount": 1.0})(valued))
    np.testing.assert_allclose(made, [0.5, 0.25, -0.5, -0.25])
    prior = [EngineRollout("p", [0.0], o, [(0, 1)], 1, {"prior": 0.25}) for o in (0.75, 0.5)]
    expected = credit["rlpr"].take({"outcome": [0.75, 0.5], "prior": [0.25] * 2, "group": [0, 0], "offsets": [0, 1, 2]})
    np.testing.assert_allclose(np.concatenate(StepCredit("rlpr")(prior)), expected)
    with pytest.raises(MissingDataError, match="values"):
        StepCredit("gae")(PAIR)
    with pytest.raises(UnknownNameError, match="step-rlo"):
        StepCredit("step-rlo")(PAIR)
    assert StepCredit()([]) == []


def test_a_wrong_number_of_rewards_is_named() -> None:
    with pytest.raises(InputError, match="a rollout of 'p' has 1 rewards for 2 steps"):
        EngineRollout("p", [0.5], 1.0, [(0, 1), (1, 2)], 2)
    with pytest.raises(InputError, match="has 1 values for 2 steps"):
        EngineRollout("p", [0.5, 1], 1.0, [(0, 1), (1, 2)], 2, {"values": [0.5]})
    assert read_rewards(None, "step_rewards", 2) == read_rewards({}, "x", 2) == [None, None]


def test_turns_are_runs_of_the_mask_and_steps_that_touch_are_of_one_turn() -> None:
    assert mask_spans([0, 1, 1, 0, 1, 0, 0, 1]) == [(1, 3), (4, 5), (7, 8)]
    assert mask_spans([]) == []
    assert turns_of([(1, 3), (3, 4), (6, 7), (7, 7)]).tolist() == [0, 0, 1, 1]
    assert turns_of([]).tolist() == []


@st.composite
def rollouts(draw: st.DrawFn) -> EngineRollout:
    sizes = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=4))
    spans, at = [], 0
    for gap, size in sizes:
        spans.append((at + gap, at + gap + size))
        at += gap + size
    number = st.none() | st.floats(-5, 5)
    rewards = [draw(number) for _ in spans]
    return EngineRollout(
        draw(st.sampled_from("pqr")), rewards, draw(number), spans, at + draw(st.integers(0, 2)),
        {"entropy": [draw(st.floats(0, 3)) for _ in spans], "state": [draw(st.sampled_from("xy")) for _ in spans]},
    )  # fmt: skip


@settings(max_examples=scaled(100), deadline=None)
@given(batch=st.lists(rollouts(), min_size=1, max_size=6))
def test_the_contract_carries_all_that_credit_needs(batch: list[EngineRollout]) -> None:
    for name in ("step-rloo", "pure", "mt-grpo", "grpo", "empg", "gigpo"):
        made = StepCredit(name)(batch)
        records = [to_record(one, advantages=found) for one, found in zip(batch, made, strict=True)]
        for record in records:
            VALIDATOR.validate(record)
        again = StepCredit(name).by_token([from_record(record) for record in records])
        for one, other in zip(again, StepCredit(name).by_token(batch), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_record_with_texts_is_a_row_of_the_table() -> None:
    record = to_record(PAIR[0], prompt="2 + 3?", texts=["2 + 3\n", "= 5"], tokens=range(6), advantages=[0.5, -0.5])
    VALIDATOR.validate(record)
    (item,) = by_name("step-rewards").read(record, 1)
    assert [step.tokens for step in item.steps] == [(0, 1), (3, 4)]
    assert item.columns["reward"].tolist() == [0.5, 1.0]
    assert item.columns["advantage"].tolist() == [0.5, -0.5]
    record["steps"][0]["span"] = None
    with pytest.raises(InputError, match="action 0 of a rollout of 'p' has no span"):
        from_record(record)
