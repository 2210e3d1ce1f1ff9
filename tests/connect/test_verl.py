"""Estimators for verl, called exactly as its trainer calls them, and registered in a registry of its shape."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch

from stepreward.connect.engines.token_rewards import spans_of
from stepreward.connect.verl import PREFIX, estimator, estimators
from stepreward.core.catalog import credit
from stepreward.core.errors import InputError, MissingDataError, UnknownNameError

FOUND = dict(estimators())
METHOD = {PREFIX + m.name.replace("-", "_").replace("+", "p"): m for m in credit}
MASK = torch.tensor([[1, 1, 0, 1, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0]])
REWARDS = torch.zeros(3, 6)
REWARDS[0, 1], REWARDS[0, 4] = 0.5, 1.0
REWARDS[1, 0], REWARDS[1, 2] = 0.25, 0.0
REWARDS[2, 3] = 1.0
UID = np.array(["a", "a", "a"], dtype=object)


def call(name: str, **more: object) -> torch.Tensor:
    """As `compute_advantage` of verl's trainer: keywords alone, the configuration among them."""
    given = {"token_level_rewards": REWARDS, "response_mask": MASK, "config": {}, "index": UID, **more}
    advantages, returns = FOUND[PREFIX + name](**given)
    assert advantages.shape == returns.shape == REWARDS.shape
    assert advantages.dtype == REWARDS.dtype
    assert not advantages[MASK == 0].any()
    return advantages


def test_steps_are_turns_and_rewarded_spans_and_a_turn_without_reward_keeps_its_place() -> None:
    spans = spans_of(REWARDS, MASK)
    found = list(zip(spans.row.tolist(), spans.start.tolist(), spans.end.tolist(), strict=True))
    assert found == [(0, 0, 2), (0, 3, 5), (1, 0, 1), (1, 1, 3), (2, 0, 1), (2, 2, 4)]


def test_outcomes_at_the_last_token_are_told_from_step_rewards() -> None:
    advantages = call("rloo")
    # Outcomes 1, 0, 1: one less the mean of the other two.
    for row, value in enumerate([0.5, -1.0, 0.5]):
        assert advantages[row][MASK[row] == 1].tolist() == [value] * int(MASK[row].sum())


def test_step_rewards_count_to_the_end() -> None:
    advantages = call("step_rloo")
    totals = [1.5, 0.25, 1.0]
    base = [np.mean([t for j, t in enumerate(totals) if j != i]) for i in range(3)]
    assert advantages[0].tolist() == pytest.approx([1.5 - base[0]] * 2 + [0] + [1.0 - base[0]] * 2 + [0])
    assert advantages[1].tolist() == pytest.approx([0.25 - base[1], -base[1], -base[1], 0, 0, 0])


def test_an_outcome_stated_apart_leaves_the_last_step_its_own_reward() -> None:
    mixed = REWARDS.clone()
    mixed[0, 4] = 1.0 + 0.75
    stated = {"outcome": np.array([1.0, 0.0, 1.0])}
    apart = call("step_rloo", token_level_rewards=mixed, non_tensor_batch=stated)
    assert apart[0, 3] - apart[2, 2] == pytest.approx(1.75 - 1.0 + np.mean([2.25, 0.25]) - np.mean([0.25, 1.0]))


def test_prompts_are_groups_and_hyper_parameters_come_from_the_configuration() -> None:
    alone = call("rloo_verl", index=np.array(["a", "b", "c"], dtype=object))
    assert alone[0].max() == 1
    light = call("step_rloo", config={"stepreward": {"weight": 0.0}})
    torch.testing.assert_close(light, call("rloo"))
    with pytest.raises(UnknownNameError, match="weight"):
        call("step_rloo", config={"stepreward": {"wieght": 0.0}})
    with pytest.raises(InputError, match="no index"):
        call("rloo", index=None)


@pytest.mark.parametrize("name", FOUND)
def test_every_estimator_takes_a_batch_with_an_empty_response(name: str) -> None:
    rewards, mask = torch.cat([REWARDS, torch.zeros(1, 6)]), torch.cat([MASK, torch.zeros(1, 6, dtype=MASK.dtype)])
    uid = np.array(["a", "a", "b", "b"], dtype=object)
    made, _ = FOUND[name](token_level_rewards=rewards, response_mask=mask, config=None, index=uid)
    assert torch.isfinite(made).all()
    assert not made[3].any()


def test_what_verl_does_not_pass_is_named_with_the_way_to_get_it() -> None:
    of_gae = estimator(credit["gae"])
    given = {"token_level_rewards": REWARDS, "response_mask": MASK, "config": {}, "index": UID}
    with pytest.raises(MissingDataError, match=r"gae needs 'values'.*adv_estimator=gdpo and stepreward\.credit=gae"):
        of_gae(**given)
    values = torch.arange(18.0).reshape(3, 6)
    made, _ = of_gae(**given, batch={"values": values})
    # Steps of row 0 begin at tokens 0 and 3, rewards .5 and outcome 1: 0.5 + 3 - 0 + (1 - 3), and 1 - 3.
    assert made[0].tolist() == [1.5, 1.5, 0, -2, -2, 0]
    steps = {"entropy": ["[0.5, 1]", [1, 0], [0.25, 0.5]]}
    assert estimator(credit["empg"])(**given, non_tensor_batch=steps)[0].isfinite().all()
    with pytest.raises(InputError, match="sample 1 has 1 entries of 'entropy' for 2 steps"):
        estimator(credit["empg"])(**given, non_tensor_batch={"entropy": [[0.5, 1], [1], [0.25, 0.5]]})


def test_methods_whose_data_verl_lacks_are_left_out() -> None:
    assert PREFIX + "gae" not in FOUND
    assert {PREFIX + "grpo", PREFIX + "pure", PREFIX + "reinforcepp_baseline"} <= FOUND.keys()
    assert len(FOUND) == sum(set(m.data) <= {"rewards", "outcome", "group", "offsets", "lengths"} for m in credit)


def test_a_registry_of_verl_s_shape_is_filled_by_the_entry_point(tmp_path: Path) -> None:
    # verl itself needs a GPU stack; its registry is a decorator by name in this module (core_algos.py).
    package = tmp_path / "verl" / "trainer" / "ppo"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").write_text("")
    (package / "core_algos.py").write_text(
        textwrap.dedent(
            """
            ADV_ESTIMATOR_REGISTRY = {}

            def register_adv_est(name_or_enum):
                def decorator(fn):
                    if name_or_enum in ADV_ESTIMATOR_REGISTRY and ADV_ESTIMATOR_REGISTRY[name_or_enum] != fn:
                        raise ValueError(name_or_enum)
                    ADV_ESTIMATOR_REGISTRY[name_or_enum] = fn
                    return fn
                return decorator
            """
        )
    )
    code = (
        "from importlib.metadata import entry_points\n"
        "[e.load() for e in entry_points(group='verl.plugins') if e.name == 'stepreward']\n"
        "from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as r\n"
        "assert 'stepreward_pure' in r, sorted(r)\n"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)


# One problem of four rows, three steps of two tokens each; outcomes stand at the last token.
LACKING = torch.tensor([[1, 1, 1, 1, 1, 1]] * 4)
LAST = torch.zeros(4, 6)
LAST[:, 1] = torch.tensor([0.5, 0.25, 0.75, 0.1])
LAST[:, 5] = torch.tensor([1.0, 0.0, 1.0, 1.0])
ONE = np.array(["a"] * 4, dtype=object)


def four(name: str, rewards: torch.Tensor, rows: list[int] | None = None, **more: object) -> torch.Tensor:
    rows = [*range(4)] if rows is None else rows
    made, _ = FOUND[name](
        token_level_rewards=rewards[rows], response_mask=LACKING[rows], config=None, index=ONE[rows], **more
    )
    return made


def test_an_outcome_that_is_nan_is_unscored() -> None:
    given = LAST.clone()
    given[2, 5] = torch.nan
    # Of 1, 0, 1: mean 2/3, deviation 1/sqrt 3; the mean of the others is 1/2, 1, 1/2.
    for name, values in (
        ("grpo", [0.57725, -1.1545, 0, 0.57725]), ("dr_grpo", [1 / 3, -2 / 3, 0, 1 / 3]), ("rloo", [0.5, -1, 0, 0.5]),
    ):  # fmt: skip
        made = four(PREFIX + name, given)
        torch.testing.assert_close(made, torch.tensor(values)[:, None].expand(4, 6), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("said", [None, float("nan")], ids=["none", "nan"])
def test_an_unscored_outcome_enters_no_estimator(name: str, said: float | None) -> None:
    lacking = LAST.clone()
    lacking[2, 5] = torch.nan
    stated = {"outcome": np.array([1.0, 0.0, said, 1.0], dtype=object)}
    known = {"outcome": np.array([1.0, 0.0, 1.0], dtype=object)}
    here, apart = four(name, lacking), four(name, LAST, non_tensor_batch=stated)
    if "outcome" in METHOD[name].data:
        assert not here[2].any()
        assert not apart[2].any()
        torch.testing.assert_close(here[[0, 1, 3]], four(name, LAST, [0, 1, 3]))
        torch.testing.assert_close(apart[[0, 1, 3]], four(name, LAST, [0, 1, 3], non_tensor_batch=known))
    else:
        torch.testing.assert_close(here, four(name, LAST))
        assert torch.isfinite(apart).all()


@pytest.mark.parametrize("name", FOUND)
def test_an_unscored_step_gets_nothing_and_its_trajectory_keeps_its_outcome(name: str) -> None:
    lacking = LAST.clone()
    lacking[0, 1] = torch.nan
    made = four(name, lacking)
    if "rewards" not in METHOD[name].data:
        torch.testing.assert_close(made, four(name, LAST))
        return
    assert torch.isfinite(made).all()
    assert not made[0, :2].any()
    if not {"lengths", "place"} & set(signature(METHOD[name].function).parameters):
        # But for its number and its length, a step that is not scored is as if the policy had not written it.
        mask = LACKING.clone()
        mask[0, :2] = 0
        expected, _ = FOUND[name](token_level_rewards=LAST * mask, response_mask=mask, config=None, index=ONE)
        torch.testing.assert_close(made, expected)


def test_an_outcome_that_is_no_number_is_told() -> None:
    with pytest.raises(InputError, match="'outcome' of the batch is no array of numbers"):
        four(PREFIX + "rloo", LAST, non_tensor_batch={"outcome": np.array(["right"] * 4, dtype=object)})
