"""Credit for engines that keep a reward at each token: verl's and SkyRL's batches to advantages of tokens.

Steps are runs of the response mask, that is turns of an agent, and within them spans that end at tokens with a reward:
such engines keep a step's reward at its last token. The reward at the last token of a response is its outcome, plus the
reward of the last step if both were added there; `outcome` in the batch's data separates them. NaN at a step or as an
outcome is unscored, and None in the data is NaN: such a step or trajectory gets 0 and does not affect others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from stepreward.core.errors import InputError
from stepreward.core.files.flat_data import OF_TRAJECTORIES, numbers
from stepreward.core.method import Method
from stepreward.credit.tokens import TokenSpans, from_mask, to_tokens

GIVEN = frozenset(("rewards", "outcome", "group", "offsets", "lengths", "turn"))
"""Data that follow from the rewards, the mask and the prompts of a batch."""
WHOLE = GIVEN - {"rewards", "turn"}
"""Data of methods that give all steps of a trajectory the same advantage, so that rows need not be cut into steps."""
BLOCK = 64
"""Most tokens that are counted together to find the last of a row."""


def dense_credit(
    method: Method[..., Any],
    rewards: torch.Tensor,
    mask: torch.Tensor,
    index: Any,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> torch.Tensor:
    """(B, T) advantages of tokens by a credit method.

    Args:
        method: of the family `credit`.
        rewards: (B, T), nonzero at the ends of steps; NaN where one is unscored.
        mask: (B, T), nonzero at the policy's tokens.
        index: (B,) identity of each row's prompt.
        data: more data of samples by name in the credit vocabulary; `outcome` (B,) states outcomes apart from rewards.
        settings: the method's hyper-parameters.

    Raises:
        InputError: the engine gave no prompts, or data do not fit the steps.
        MissingDataError: the method needs data that are not here.
    """
    if index is None:
        raise InputError("the engine gave no index of prompts", remedy="use a release that passes index to estimators")
    with torch.no_grad():
        group = torch.as_tensor(np.unique(np.asarray(index).astype(str), return_inverse=True)[1]).to(rewards.device)
        made = (_by_row if set(method.data) <= WHOLE else _by_step)(method, rewards, mask, group, data, settings)
        return made.to(rewards.dtype)


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
    further = {name: _of_steps(name, extra[name], spans) for name in set(method.data) & extra.keys() - GIVEN}
    turn = (spans.start != torch.cat([spans.start[:1], spans.end[:-1]])).cumsum(0)
    data = {**further, "rewards": steps, "outcome": outcome, "group": group, "offsets": offsets, "turn": turn,
            "lengths": spans.lengths}  # fmt: skip
    made: torch.Tensor = to_tokens(method.take(data, **settings), spans)
    return made


def _of_steps(name: str, given: Any, spans: TokenSpans) -> Any:
    """One number a step out of a sample's own list or JSON text, or out of the (B, T) numbers of tokens, as a critic's.

    A step begins in the state of its first token. Data of whole trajectories stay as they are.
    """
    if name in OF_TRAJECTORIES:
        return given
    if isinstance(given, torch.Tensor):
        return given[spans.row, spans.start]
    rows = [json.loads(row) if isinstance(row, str) else row for row in given]
    counts = (spans.offsets[1:] - spans.offsets[:-1]).tolist()
    for place, (row, count) in enumerate(zip(rows, counts, strict=True)):
        if len(row) != count:
            raise InputError(
                f"sample {place} has {len(row)} entries of {name!r} for {count} steps",
                remedy="steps are turns of the mask, cut after tokens with a reward: give one entry each",
            )
    return [value for row in rows for value in row]


def _stated(extra: Mapping[str, Any], rewards: torch.Tensor) -> torch.Tensor | None:
    """(B,) outcomes that the batch's metadata state, NaN where one is None; None where they state none."""
    if "outcome" not in extra:
        return None
    return torch.as_tensor(numbers("'outcome' of the batch", extra["outcome"])).to(rewards.device, torch.float64)
