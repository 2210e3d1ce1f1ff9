"""A linear head with other outputs and the same scores: one logit for two labels, two labels for one logit.

one logit z:            softmax((0, z))[1] = sigmoid(z)
labels (z_0, z_1):      sigmoid(z_1 - z_0) = softmax((z_0, z_1))[1]
through ReLU:           z = relu(z) - relu(-z)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from stepreward.score.encode.readout import Readout


@dataclass(frozen=True)
class LinearHead:
    """The weights of a linear head, and how its outputs become a score."""

    weight: torch.Tensor
    """(n_labels, hidden)."""
    bias: torch.Tensor
    """(n_labels,); zeros for a head without one."""
    readout: Readout

    @classmethod
    def of(cls, head: nn.Module, readout: Readout) -> LinearHead | None:
        """The weights of a head; None for one that is more than a linear layer."""
        if type(head) is not nn.Linear:
            return None
        weight = head.weight.detach()
        bias = weight.new_zeros(len(weight)) if head.bias is None else head.bias.detach()
        # Label tokens say where the rows came from: from now on they are a head of their own.
        return cls(weight, bias, replace(readout, label_tokens=()))

    def one(self) -> LinearHead | None:
        """The head of one logit with the same scores; None where there is none."""
        if self.readout.n_labels == 1 and self.readout.kind in ("sigmoid", "tanh", "value"):
            return self
        if self.readout.n_labels != 2 or not self.readout.compares:
            return None
        # 2 sigmoid(z) - 1 = tanh(z / 2).
        kind, scale = ("sigmoid", 1.0) if self.readout.kind == "softmax" else ("tanh", 0.5)
        right = self.readout.positive
        weight, bias = (scale * (part[right] - part[1 - right])[None] for part in (self.weight, self.bias))
        return LinearHead(weight, bias, Readout(kind))  # type: ignore[arg-type]

    def two(self) -> LinearHead | None:
        """The head of a wrong and a right label, in this order, with the same scores; None where there is none."""
        if self.readout.n_labels == 2 and self.readout.compares:
            order = [1 - self.readout.positive, self.readout.positive]
            return LinearHead(self.weight[order], self.bias[order], replace(self.readout, positive=1))
        if self.readout.n_labels != 1 or self.readout.kind not in ("sigmoid", "tanh"):
            return None
        kind, scale = ("softmax", 1.0) if self.readout.kind == "sigmoid" else ("difference", 2.0)
        weight, bias = (torch.cat([0 * part, scale * part]) for part in (self.weight, self.bias))
        return LinearHead(weight, bias, Readout(kind, n_labels=2, positive=1))  # type: ignore[arg-type]

    def through_relu(self) -> dict[str, torch.Tensor]:
        """The same outputs by two layers with a ReLU between them, as wide as the hidden states: `0.weight` and so on.

        Raises:
            ValueError: the hidden states have fewer numbers than two for each output.
        """
        outputs, width = self.weight.shape
        if width < 2 * outputs:
            raise ValueError(f"{outputs} outputs need {2 * outputs} hidden units, and there are {width}")
        first, second = self.weight.new_zeros(width, width), self.weight.new_zeros(outputs, width)
        shift = self.bias.new_zeros(width)
        for k in range(outputs):
            for unit, sign in ((2 * k, 1.0), (2 * k + 1, -1.0)):
                first[unit], shift[unit], second[k, unit] = sign * self.weight[k], sign * self.bias[k], sign
        return {"0.weight": first, "0.bias": shift, "2.weight": second, "2.bias": torch.zeros_like(self.bias)}
