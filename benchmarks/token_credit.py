"""Advantages of whole responses in verl's call: our estimators against verl's own, on the same tensors.

    pip download --no-deps verl, unpack it, and set PYTHONPATH to where it lies; then
    python -m benchmarks.token_credit [--quick]

Skips where verl's files are not to be found. verl works on its rewards in place, so each call gets a copy of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks import SKIPPED
from benchmarks.verl_functions import verl_functions
from stepreward.connect.verl import estimator
from stepreward.core.catalog import credit

ROWS, GROUP = 1024, 8
TOKENS: tuple[int, ...] = (2048, 8192)
PAIRS = (
    ("grpo-verl", "grpo"),
    ("grpo-verl", "grpo_vectorized"),
    ("rloo", "rloo"),
    ("rloo", "rloo_vectorized"),
    ("opo", "opo"),
    ("reinforce++-baseline", "reinforce_plus_plus_baseline"),
    ("reinforce++", "reinforce_plus_plus"),
)
Advantages = torch.Tensor


def best(run: Callable[[], Advantages], rounds: int = 31) -> tuple[float, Advantages]:
    """Best time of the rounds, and the result."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        made = run()
        times.append(time.perf_counter() - start)
    return min(times), made


def token_steps(core: Any, rewards: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    """PPO's advantages with each token a step of its own."""
    values = torch.rand(mask.shape)

    def ours() -> Advantages:
        own = mask.bool()
        offsets = torch.nn.functional.pad(own.sum(dim=1).cumsum(0), (1, 0))
        ones = torch.ones(int(offsets[-1]))
        data = {"rewards": rewards[own], "values": values[own], "offsets": offsets, "outcome": torch.zeros(len(mask))}
        made = torch.zeros_like(rewards)
        made[own] = credit["ppo"].take({**data, "lengths": ones}, discount=1.0, decay=0.95)
        return made

    seconds, made = best(ours)
    given, expected = best(lambda: core.compute_gae_advantage_return(rewards, values, mask, 1.0, 0.95)[0])
    torch.testing.assert_close(made, expected * mask, atol=1e-4, rtol=1e-4)
    return {"seconds": seconds, "verl_seconds": given, "faster": given / seconds}


def main(core: Any, tokens: int) -> dict[str, Any]:
    """Seconds and ratios, each pair on the same inputs: responses of at most so many tokens."""
    make = torch.Generator().manual_seed(0)
    lengths = torch.randint(tokens // 2, tokens + 1, (ROWS,), generator=make)
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    rewards = torch.zeros(ROWS, tokens)
    rewards[torch.arange(ROWS), lengths - 1] = torch.randint(0, 2, (ROWS,), generator=make).float()
    prompts = np.repeat(np.array([f"prompt-{i}" for i in range(ROWS // GROUP)], dtype=object), GROUP)
    config = SimpleNamespace(gamma=1.0, get=lambda key, default=None: default)
    found = {}
    for ours, name in PAIRS:
        own, verl = estimator(credit[ours]), core.get_adv_estimator_fn(name)
        given = {"response_mask": mask, "index": prompts, "config": config}
        seconds, made = best(lambda: own(rewards.clone(), **given)[0])  # noqa: B023 - called here
        theirs, expected = best(lambda: verl(token_level_rewards=rewards.clone(), **given)[0])  # noqa: B023
        torch.testing.assert_close(made, expected * mask, atol=1e-5, rtol=1e-5)
        found[name] = {"ours": ours, "seconds": seconds, "verl_seconds": theirs, "faster": theirs / seconds}
    return {"tokens": ROWS * tokens, **found, "gae": token_steps(core, rewards, mask)}


if __name__ == "__main__":
    if "--quick" in sys.argv:
        ROWS, TOKENS = 64, (128,)
    functions = verl_functions()
    if functions is None:
        print("verl is not installed", file=sys.stderr)
        sys.exit(SKIPPED)
    torch.set_num_threads(1)
    print(json.dumps([main(functions, tokens) for tokens in TOKENS], indent=2))
