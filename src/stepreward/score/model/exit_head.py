"""A head that reads the backbone after several of its layers, and says at each whether it has seen enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import nn

from stepreward.core.errors import ModelError

_WIDTH = 128
"""Numbers inside the network that decides to leave."""
_TINY = 1e-6
"""Least mean square that is divided by."""


def exit_layers(layers: int, exits: int) -> list[int]:
    """After how many layers a head reads a backbone, in equal steps; the last is all of them.

    Raises:
        ModelError: there are more exits than layers.
    """
    if exits > layers:
        raise ModelError(f"a backbone of {layers} layers has no {exits} exits: take fewer (--set exits={layers})")
    return [round(k * layers / exits) for k in range(1, exits + 1)]


class ExitHead(nn.Module):
    """A value and a logit of leaving at each exit, by hidden states h_k after its layers.

        z_k = <v_k, h_k> + c_k,    x_k = MLP([h_k; h_{k-1}]),    h_0 = 0

    After PALBERT (arXiv:2204.03276; `src/modeling/palbert_fast.py` of tinkoff-ai/palbert): one network of three layers
    with tanh and an output decides at all exits. Hidden states are divided by their root mean square, since those of
    most backbones grow from layer to layer. Each exit has values of its own, where ALBERT's layers share one.

    Args:
        hidden: numbers of a hidden state.
        exits: E.
        seed: of the weights.
    """

    def __init__(self, hidden: int, exits: int, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.value = nn.Linear(hidden, exits)
            width = min(_WIDTH, 2 * hidden)
            sizes = [2 * hidden, width, width, width]
            inner = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
            self.leave = nn.Sequential(*inner, nn.Linear(width, 1))
            with torch.no_grad():
                self.value.weight.normal_(0, 0.02)
                self.value.bias.zero_()

    @classmethod
    def of(cls, state: Mapping[str, torch.Tensor]) -> ExitHead:
        """The head of a checkpoint.

        Raises:
            ModelError: these are other weights.
        """
        if "value.weight" not in state:
            raise ModelError(f"a head with exits has weights of values and of leaving, got {', '.join(sorted(state))}")
        exits, hidden = state["value.weight"].shape
        made = cls(hidden, exits)
        try:
            made.load_state_dict(dict(state))
        except RuntimeError as error:
            raise ModelError(f"a head with {exits} exits has other weights: {error}") from error
        return made.to(state["value.weight"].dtype)

    @property
    def exits(self) -> int:
        """E."""
        return len(self.value.weight)

    def joined(self, states: Sequence[torch.Tensor]) -> torch.Tensor:
        """(..., E hidden) what the head reads, of (..., hidden) after each layer, the embeddings first."""
        return torch.cat([states[k] for k in exit_layers(len(states) - 1, self.exits)], -1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(..., 2 E) values at all exits, then logits of leaving, of (..., E hidden) states one behind another."""
        each = states.reshape(*states.shape[:-1], self.exits, -1)
        size = each.float().square().mean(-1, keepdim=True)
        each = (each * torch.rsqrt(size + _TINY)).to(states.dtype)
        values = (each * self.value.weight).sum(-1) + self.value.bias
        before = torch.cat([torch.zeros_like(each[..., :1, :]), each[..., :-1, :]], -2)
        leave = self.leave(torch.cat([each, before], -1))[..., 0]
        return torch.cat([values, leave], -1)
