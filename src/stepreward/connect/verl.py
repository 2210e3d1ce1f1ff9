"""Step credit in verl: advantage estimators for its registry.

    algorithm.adv_estimator=stepreward_pure

verl loads this module by the entry point `verl.plugins` and registers every credit method whose data it has, as
`stepreward_` and the method's name with underscores for dashes. Importing the module without verl is no error:
`estimators()` can be used alone.

Steps are runs of the response mask, that is turns of an agent, and within them spans that end at tokens with a reward:
verl keeps a step's reward at its last token. The reward at the last token of a response is its outcome, plus the reward
of the last step if both were added there; `outcome` in the batch's metadata separates them. NaN at a step or as an
outcome is unscored, and None in the metadata is NaN: such a step or trajectory gets 0 and does not affect others.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from stepreward.core.catalog import credit
from stepreward.core.errors import InputError
from stepreward.core.files.flat_data import numbers
from stepreward.core.method import Method
from stepreward.credit.tokens import TokenSpans, from_mask, to_tokens

GIVEN = frozenset(("rewards", "outcome", "group", "offsets", "lengths"))
"""Data in verl's batches."""
WHOLE = GIVEN - {"rewards"}
"""Data of methods that give all steps of a trajectory the same advantage, so that rows need not be cut into steps."""
PREFIX = "stepreward_"
BLOCK = 64
"""Most tokens that are counted together to find the last of a row."""
Estimator = Callable[..., tuple[torch.Tensor, torch.Tensor]]
_log = logging.getLogger(__name__)


def estimators() -> Iterator[tuple[str, Estimator]]:
    """Name and function of every credit method whose data verl has."""
    for method in credit:
        if set(method.data) <= GIVEN:
            yield PREFIX + method.name.replace("-", "_").replace("+", "p"), estimator(method)


def estimator(method: Method[..., Any]) -> Estimator:
    """An advantage estimator of verl's signature.

    Its hyper-parameters are read from `algorithm.stepreward`, a table of names and values, where the configuration has
    one; unknown names are an error.
    """

    def compute(
        token_level_rewards: torch.Tensor,
        response_mask: torch.Tensor,
        config: Any = None,
        index: Any = None,
        non_tensor_batch: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns, both (B, T).

        Args:
            token_level_rewards: (B, T), nonzero at the ends of steps; NaN where one is unscored.
            response_mask: (B, T), 1 at the policy's tokens.
            config: verl's algorithm configuration.
            index: (B,) identity of each row's prompt.
            non_tensor_batch: the batch's metadata; `outcome` (B,) states outcomes apart from step rewards.
        """
        if index is None:
            raise InputError("verl gave no index of prompts", remedy="use a release that passes index to estimators")
        # verl passes its own configuration as an object of omegaconf or as a dataclass, by release.
        table = config.get("stepreward") if hasattr(config, "get") else getattr(config, "stepreward", None)
        settings = dict(table) if table else {}
        with torch.no_grad():
            group = torch.as_tensor(np.unique(np.asarray(index).astype(str), return_inverse=True)[1])
            group = group.to(token_level_rewards.device)
            parts = (method, token_level_rewards, response_mask, group, non_tensor_batch or {}, settings)
            made = _by_row(*parts) if set(method.data) <= WHOLE else _by_step(*parts)
            advantages = made.to(token_level_rewards.dtype)
        return advantages, advantages

    return compute


def spans_of(token_level_rewards: torch.Tensor, response_mask: torch.Tensor) -> TokenSpans:
    """Steps of a batch: runs of the mask, cut after tokens with a reward.

    A turn whose reward is zero is still a step, for the mask ends there.
    """
    return from_mask(response_mask, token_level_rewards != 0)


def _by_row(
    method: Method[..., Any],
    rewards: torch.Tensor,
    mask: torch.Tensor,
    group: torch.Tensor,
    extra: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> torch.Tensor:
    """(B, T) advantages by a method that treats a trajectory as one long step."""
    # The only (B, T) array is a copy of the mask, into which the advantages are written.
    own = mask.to(torch.promote_types(rewards.dtype, torch.float32), copy=True)
    blocks = own.view(len(own), -1, math.gcd(own.shape[1], BLOCK))
    counts = blocks.sum(dim=2)
    lengths = counts.sum(dim=1)
    outcome = _stated(extra, rewards)
    if outcome is None:
        outcome = rewards.gather(1, _last(blocks, counts)[:, None])[:, 0].double() * (lengths > 0)
    offsets = torch.arange(mask.shape[0] + 1, device=rewards.device)
    data = {"outcome": outcome, "group": group, "offsets": offsets, "lengths": lengths.long()}
    made: torch.Tensor = method.take(data, **settings)
    return own.mul_(made.to(own.dtype)[:, None])


def _last(blocks: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(B,) place of the policy's last token of each row, the first where it has none.

    Args:
        blocks: (B, T / size, size) the mask.
        counts: (B, T / size) its sums.
    """
    size = blocks.shape[2]
    block = ((counts > 0) * torch.arange(counts.shape[1], device=counts.device)).amax(dim=1)
    inside = blocks[torch.arange(len(blocks), device=counts.device), block]
    return block * size + (inside * torch.arange(size, device=counts.device)).amax(dim=1).long()


def _by_step(
    method: Method[..., Any],
    rewards: torch.Tensor,
    mask: torch.Tensor,
    group: torch.Tensor,
    extra: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> torch.Tensor:
    """(B, T) advantages by a method that treats steps separately."""
    spans = spans_of(rewards, mask)
    row, last = spans.row, spans.end - 1
    steps = rewards.double()[row, last]
    offsets = spans.offsets
    ends = offsets[1:] - 1
    real = offsets[1:] > offsets[:-1]
    outcome = _stated(extra, rewards)
    if outcome is not None:
        # The trainer adds the outcome to the last token, which also has the last step's own reward.
        steps[ends[real]] -= outcome[real]
    else:
        outcome = torch.zeros(rewards.shape[0], dtype=torch.float64, device=rewards.device)
        outcome[real] = steps[ends[real]]
        steps[ends[real]] = 0.0
    data = {"rewards": steps, "outcome": outcome, "group": group, "offsets": offsets, "lengths": spans.lengths}
    made: torch.Tensor = to_tokens(method.take(data, **settings), spans)
    return made


def _stated(extra: Mapping[str, Any], rewards: torch.Tensor) -> torch.Tensor | None:
    """(B,) outcomes that the batch's metadata state, NaN where one is None; None where they state none."""
    if "outcome" not in extra:
        return None
    return torch.as_tensor(numbers("'outcome' of the batch", extra["outcome"])).to(rewards.device, torch.float64)


def register() -> list[str]:
    """Adds every estimator to verl's registry; returns their names.

    Raises:
        ModuleNotFoundError: verl is not installed.
    """
    algorithms = importlib.import_module("verl.trainer.ppo.core_algos")
    names = []
    for name, function in estimators():
        algorithms.register_adv_est(name)(function)
        names.append(name)
    return names


try:
    register()
except ModuleNotFoundError:
    _log.debug("verl is not installed: its registry is left alone")
