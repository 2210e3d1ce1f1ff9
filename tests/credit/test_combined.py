"""Sums of credits, against the rules that are such sums, and against what they are declared as."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.credit.test_credit_contract import GROUP, SIZES, batch
from tests.effort import scaled

import stepreward
from stepreward.connect.engines.engine_rollouts import EngineRollout, StepCredit
from stepreward.core.catalog import credit
from stepreward.core.errors import InputError, MissingDataError, UnknownNameError
from stepreward.credit.combined import Term, combined, credit_of
from stepreward.credit.verify import verify
from stepreward.testing import check_method

WEIGHT = st.floats(-2, 2).map(lambda one: round(one, 3))


def same(one: str, other: str, data: dict[str, Any], **options: Any) -> None:
    np.testing.assert_allclose(credit_of(one).take(data), credit_of(other).take(data, **options), atol=1e-9)


@given(seed=st.integers(0, 999), weight=WEIGHT)
@settings(max_examples=scaled(15), deadline=None)
def test_rules_that_are_sums_equal_the_sum_of_their_parts(seed: int, weight: float) -> None:
    data = batch(SIZES, GROUP, seed)
    same(f"rloo + {weight}*vineppo", "pav", data, weight=weight)
    same(f"rloo + {weight}*step-rloo(outcome_weight=0)", "step-rloo", data, weight=weight)
    same(f"0*prime + {weight}*pure", f"{weight}*pure", data)
    # PPO's advantage is the generalised one whitened over tokens; a shared prefix counts once in lambda-GRPO.
    same("batch(gae(discount=0.9, decay=0.5))", "ppo", data, discount=0.9, decay=0.5)
    same("once(grpo)", "lambda-grpo", data)


@given(seed=st.integers(0, 999), weight=WEIGHT)
@settings(max_examples=scaled(15), deadline=None)
def test_gigpo_is_its_level_of_episodes_and_its_level_of_states(seed: int, weight: float) -> None:
    data = batch(SIZES, GROUP, seed)
    # R less the mean of all three of a group is 2/3 of R less the mean of the other two.
    same(f"{2 / 3}*total-rloo + {weight}*hgpo(history=0, discount=0.9)", "gigpo", data, weight=weight, discount=0.9)
    # Without step rewards its first level is the centred outcome.
    bare = {**data, "rewards": np.zeros(sum(SIZES))}
    same(f"dr-grpo + {weight}*hgpo(history=0)", "gigpo", bare, weight=weight)


@pytest.mark.parametrize("name", ["grpo", "pure", "gigpo", "treerl"])
def test_a_weight_of_nought_leaves_the_other_alone(name: str) -> None:
    data = batch(SIZES, GROUP)
    np.testing.assert_array_equal(credit_of(f"{name} + 0*kevin").take(data), credit[name].take(data))
    np.testing.assert_array_equal(credit_of(f"0*kevin + {name}").take(data), credit[name].take(data))


def test_norms_before_and_after_the_sum_by_hand() -> None:
    # One group, two solutions of one step each, of 1 and 3 tokens; outcomes 1 and 0.
    data = {"outcome": [1.0, 0.0], "rewards": [4.0, 0.0], "group": [0, 0], "offsets": [0, 1, 2], "lengths": [1, 3]}
    # dr-grpo: 1/2, -1/2. Over four tokens: mean (1/2 - 3/2) / 4 = -1/4; squares (3/4)^2 + 3 (1/4)^2 = 3/4, over 3: 1/4.
    np.testing.assert_allclose(credit_of("group(dr-grpo)").take(data), [1.5, -0.5], atol=1e-5)
    np.testing.assert_allclose(credit_of("batch(dr-grpo)").take(data), [1.5, -0.5], atol=1e-5)
    # The other credit is (4, -4) less nothing of the outcome; before the sum its scale goes, after it only the whole's.
    before = credit_of("dr-grpo + 0.5*group(step-rloo(outcome_weight=0))")
    np.testing.assert_allclose(before.take(data), [0.5 + 0.75, -0.5 - 0.25], atol=1e-5)
    after = credit_of("group(dr-grpo + 0.5*step-rloo(outcome_weight=0))")
    # 1/2 + 2 and -1/2 - 2: standardised over tokens these are the same as one half and minus one half.
    np.testing.assert_allclose(after.take(data), [1.5, -0.5], atol=1e-5)


def test_text_mapping_and_terms_declare_the_same() -> None:
    data = batch(SIZES, GROUP)
    text = "batch(grpo(epsilon=1e-6) + 0.5*group(step-rloo(outcome_weight=0, shape=clip-delta)) + -1*reinforce++)"
    shaped = {"outcome_weight": 0.0, "shape": "clip-delta"}
    declared = {
        "norm": "batch",
        "terms": [
            {"credit": "grpo", "settings": {"epsilon": 1e-6}},
            {"credit": "step-rloo", "weight": 0.5, "norm": "group", "settings": shaped},
            {"credit": "reinforce++", "weight": -1.0},
        ],
    }
    made = combined(
        [Term("grpo", settings={"epsilon": 1e-6}), Term("step-rloo", 0.5, "group", shaped), Term("reinforce++", -1)],
        norm="batch",
    )
    expected = made.take(data)
    np.testing.assert_allclose(credit_of(text).take(data), expected, atol=1e-12)
    np.testing.assert_allclose(credit_of(declared).take(data), expected, atol=1e-12)
    # The name of a combination is a text that declares it.
    np.testing.assert_allclose(credit_of(made.name).take(data), expected, atol=1e-12)
    np.testing.assert_allclose(stepreward.credit(text, **{d: data[d] for d in made.data}), expected, atol=1e-12)


def test_the_weights_are_a_setting() -> None:
    data = batch(SIZES, GROUP)
    made = credit_of("grpo + 0.5*pure")
    assert made.settings == {"term_weights": (1.0, 0.5)}
    found = made.take(data, term_weights=(0.25, 2.0))
    np.testing.assert_allclose(found, credit_of("0.25*grpo + 2*pure").take(data), atol=1e-12)
    with pytest.raises(InputError, match="3 term_weights for 2 credits"):
        made.take(data, term_weights=(1, 1, 1))


@pytest.mark.parametrize("text", ["grpo + 0.5*pure", "group(rloo + 2*kevin)", "once(0.5*treerl + gigpo)"])
def test_a_sum_keeps_the_contract_of_the_family(text: str) -> None:
    check_method(credit_of(text))
    check_method(credit_of(f"batch({text})"), batch_wide=True)


def test_a_step_that_one_term_cannot_score_is_unscored() -> None:
    data = batch(SIZES, GROUP)
    data["rewards"][1] = np.nan
    assert credit_of("grpo + 0.5*kevin").take(data)[1] == 0
    assert credit["grpo"].take(data)[1] != 0


def test_what_a_sum_climbs_is_stated_where_its_terms_agree() -> None:
    assert credit_of("grpo + 0.5*vineppo").objective == "outcome"
    assert verify(credit_of("grpo + 0.5*vineppo")).limit["outcome"] > 0.999
    for other in ("grpo + -0.5*vineppo", "group(grpo + vineppo)", "grpo + gae"):
        assert credit_of(other).objective == "none"
    assert "PORTool" in credit_of("grpo + fork-and-trajectory").unverified


@pytest.mark.parametrize(
    ("declared", "error", "match"),
    [
        ("grpo + grppo", UnknownNameError, "grppo"),
        ("grpo + 0.5*pure(heat=1)", UnknownNameError, "heat"),
        ("grpo + half*pure", InputError, "'half\\*pure' is no term"),
        ("grpo + ", InputError, "'' is no term"),
        ("group()", InputError, "is no term"),
        ({"terms": []}, InputError, "no terms"),
        ({"terms": [{"credit": "grpo", "wait": 1}]}, InputError, "cannot be read: .*wait"),
        ({"credits": ["grpo"]}, InputError, "cannot be read"),
        ({"terms": [{"credit": "grpo", "norm": "batches"}]}, UnknownNameError, "batches"),
        ({"terms": [{"credit": "grpo", "settings": {"heat": 1}}]}, UnknownNameError, "heat"),
    ],
)  # fmt: skip
def test_what_is_no_combination_is_told(declared: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        credit_of(declared)


def test_data_that_one_term_lacks_are_named() -> None:
    with pytest.raises(MissingDataError, match="values"):
        credit_of("grpo + vineppo").take({"outcome": [1.0], "group": [0], "offsets": [0, 1]})


def test_engines_take_a_sum_where_they_take_a_credit() -> None:
    rollouts = [EngineRollout("p", [0.5, 0.25], outcome, [(0, 2), (2, 3)], 3) for outcome in (1.0, 0.0)]
    found = StepCredit("rloo + 2*step-rloo(outcome_weight=0)")(rollouts)
    expected = StepCredit("step-rloo", {"weight": 2.0})(rollouts)
    np.testing.assert_allclose(found, expected)
