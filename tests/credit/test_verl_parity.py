"""The same numbers as verl's own estimators give, where its files are: `pip install --no-deps verl` is enough.

Conventions: rewards stand at the last token of a response; verl divides by the unbiased deviation plus 1e-6 and whitens
over the tokens of the batch. Where we differ on purpose is the last test.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.verl_functions import verl_functions

from stepreward.connect.verl import estimator
from stepreward.core.catalog import credit

CORE = verl_functions()
pytestmark = pytest.mark.skipif(CORE is None, reason="verl is not installed")
PAIRS = [
    ("grpo-verl", "grpo"), ("grpo-verl", "grpo_vectorized"), ("rloo-verl", "rloo"),
    ("rloo-verl", "rloo_vectorized"),
    ("opo", "opo"), ("reinforce++", "reinforce_plus_plus"), ("reinforce++-baseline", "reinforce_plus_plus_baseline"),
]  # fmt: skip


def batch(seed: int, *, gaps: bool) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Rewards (12, 9), masks and prompts of responses in three groups; with tool output within them, if asked."""
    make = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 10, (12,), generator=make)
    mask = (torch.arange(9) < lengths[:, None]).long()
    if gaps:
        mask[:, 1] = 0
    rewards = torch.zeros(12, 9)
    rewards[torch.arange(12), lengths - 1] = torch.randint(0, 5, (12,), generator=make) / 4
    order = torch.randperm(12, generator=make).numpy()
    return rewards, mask, np.repeat(np.array(["a", "b", "c"], dtype=object), 4)[order]


def theirs(name: str, **given: Any) -> torch.Tensor:
    config = SimpleNamespace(gamma=1.0, get=lambda key, default=None: default)
    made, _ = CORE.get_adv_estimator_fn(name)(config=config, **given)
    return made * given["response_mask"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize(("ours", "name"), PAIRS)
def test_outcome_estimators(ours: str, name: str, gaps: bool, seed: int) -> None:
    rewards, mask, prompts = batch(seed, gaps=gaps)
    expected = theirs(name, token_level_rewards=rewards.clone(), response_mask=mask, index=prompts)
    made, _ = estimator(credit[ours])(rewards, mask, index=prompts)
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0)])
def test_ppo_where_each_token_is_a_step(discount: float, decay: float) -> None:
    rewards, mask, _ = batch(5, gaps=True)
    rewards = rewards + torch.rand(12, 9) * mask
    values = torch.rand(12, 9)
    expected, returns = CORE.compute_gae_advantage_return(rewards, values, mask, discount, decay)
    own = mask.bool()
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), own.sum(dim=1).cumsum(0)])
    data = {"rewards": rewards[own], "values": values[own], "offsets": offsets, "outcome": torch.zeros(12)}
    made = credit["ppo"].take({**data, "lengths": torch.ones_like(offsets[0:1]).expand(int(offsets[-1]))},
                              discount=discount, decay=decay)  # fmt: skip
    torch.testing.assert_close(made, expected[own], atol=2e-6, rtol=1e-5)
    plain = credit["gae"].take(data, discount=discount, decay=decay)
    torch.testing.assert_close(plain + values[own], returns[own], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(("ours", "name"), [("opo", "opo"), ("reinforce++-baseline", "reinforce_plus_plus_baseline")])
def test_a_group_of_one_is_where_we_differ(ours: str, name: str) -> None:
    rewards, mask = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]), torch.ones(3, 2, dtype=torch.long)
    prompts = np.array(["alone", "b", "b"], dtype=object)
    expected = theirs(name, token_level_rewards=rewards.clone(), response_mask=mask, index=prompts)
    made, _ = estimator(credit[ours])(rewards, mask, index=prompts)
    # verl takes its raw score for an advantage: the more, the easier the problem. Nothing tells that it did well.
    assert expected[0, 0] > made[0, 0]
    assert made[0, 0] == pytest.approx(0, abs=1e-6)
