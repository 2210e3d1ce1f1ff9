"""Token weights by hidden rewards (THR, arXiv:2510.03669) in TRL: what a token's update does to right solutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.credit.hidden import hidden_rewards, steered_token_weights


class HiddenRewardWeights:
    """Weighs the advantages of tokens by whether their update makes the group's right solutions likelier.

        StepGRPOTrainer(..., token_weights=HiddenRewardWeights(lean=0.1))

    One more forward pass a batch, and the distributions of a group's tokens in memory. Groups without a right solution
    keep their advantages.

    Args:
        lean: in [-1, 1]: above 0 for exploitation, below for exploration; the paper has 0.1 either way.
        least: tokens whose hidden reward is not larger than it, up or down, are left out.
        right: outcomes above it are right.
    """

    def __init__(self, *, lean: float = 0.1, least: float = 0.0, right: float = 0.5) -> None:
        self.lean, self.least, self.right = lean, least, right
        self._trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """Attaches the trainer whose policy is read; the trainer calls it once."""
        self._trainer = trainer

    @torch.no_grad()
    def __call__(
        self, out: dict[str, Any], own: NDArray[np.bool_], advantages: NDArray[np.float64], outcome: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """(B, T) weights of this process's completions.

        Args:
            out: TRL's batch: ids and masks of prompts and completions.
            own: (B, T) True where the policy wrote the token.
            advantages: (B, T).
            outcome: (B,).

        Raises:
            InputError: a group is parted between processes.
        """
        size = self._trainer.num_generations
        if len(outcome) % size:
            what = f"{len(outcome)} completions are no whole groups of {size}"
            raise InputError(what, remedy="make the batch of a process a multiple of num_generations")
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        ids = torch.cat([out["prompt_ids"], out["completion_ids"]], dim=1)
        mask = torch.cat([out["prompt_mask"], out["completion_mask"]], dim=1)
        was_training = model.training
        model.eval()
        width = out["completion_ids"].shape[1]
        # The state before a token predicts it.
        hidden = model.base_model(input_ids=ids, attention_mask=mask)[0][:, -width - 1 : -1].float()
        model.train(was_training)
        unembedding = model.get_output_embeddings().weight.float()
        weights = np.ones(own.shape)
        for first in range(0, len(outcome), size):
            rows = range(first, first + size)
            right = [row for row in rows if outcome[row] > self.right]
            if not right:
                continue
            states = {row: hidden[row][torch.as_tensor(own[row])] for row in rows}
            chosen = {row: out["completion_ids"][row][torch.as_tensor(own[row])] for row in rows}
            gradients = {row: _gradients(states[row], chosen[row], unembedding) for row in rows}
            to = [torch.cat([part[row] for row in right]) for part in (gradients, states)]
            shares = torch.cat([torch.full((len(states[row]),), 1 / max(len(states[row]), 1)) for row in right])
            for row in rows:
                found = hidden_rewards(gradients[row], states[row], *to, to_weights=shares.to(hidden.device))
                given = torch.as_tensor(advantages[row][own[row]])
                made = steered_token_weights(found.double().cpu(), given, lean=self.lean, least=self.least)
                weights[row, own[row]] = made.numpy()
        return weights


def _gradients(states: torch.Tensor, ids: torch.Tensor, unembedding: torch.Tensor) -> torch.Tensor:
    """(T, V) of each token's log-likelihood by the logits: one-hot less the distribution."""
    made = -(states @ unembedding.T).softmax(-1)
    made[torch.arange(len(ids), device=made.device), ids] += 1
    return made
