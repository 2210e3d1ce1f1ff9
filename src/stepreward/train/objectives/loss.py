"""A loss that knows what it is a mean of, so that a part of a batch can be divided by the counts of the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stepreward.core.optional import Deferred

if TYPE_CHECKING:
    import torch
else:
    # The catalog lists the objectives also without torch, so that these modules must not import it.
    torch = Deferred("torch")

Per = Literal["step", "trajectory", "trajectory-sum"]
"""The unit of equal weight in a mean: every supervised entry of the batch, or every trajectory that has some, by the
mean or by the sum of its entries."""


@dataclass(frozen=True)
class Loss:
    """A sum of means: `sum_m totals[m] / counts[m]`.

    A batch that is spread over several passes or processes has the totals and counts that its parts have together; the
    mean of the parts' means would weigh an entry of a short part more than one of a long part.
    """

    totals: torch.Tensor
    """(M,) sum of the terms of each mean."""
    counts: torch.Tensor
    """(M,) number of its units; decided by the data alone, whatever the model says."""

    def over(self, counts: torch.Tensor) -> torch.Tensor:
        """This part of the loss of a whole batch with these (M,) counts; a mean of nothing is 0."""
        return (self.totals / torch.where(counts > 0, counts, 1)).sum()

    @property
    def value(self) -> torch.Tensor:
        """The loss where this is the whole batch, as a differentiable scalar."""
        return self.over(self.counts)

    def __float__(self) -> float:
        return float(self.value.detach())

    def __add__(self, other: Loss) -> Loss:
        return Loss(torch.cat([self.totals, other.totals]), torch.cat([self.counts, other.counts]))

    def __rmul__(self, weight: float | torch.Tensor) -> Loss:
        return Loss(weight * self.totals, self.counts)


def mean(terms: torch.Tensor, real: torch.Tensor, per: Per = "step") -> Loss:
    """Mean of terms over the entries that are real.

    Args:
        terms: any shape; the first axis is the trajectory, unless `per` is `step`.
        real: of the same shape. Other terms may be anything, NaN as well: they and their gradients count as 0, if they
            were computed from finite numbers (`only`).
        per: the unit of the mean.

    Raises:
        ValueError: there is no such unit.
    """
    kept = torch.where(real, terms, 0.0)
    if per == "step":
        return Loss(kept.sum()[None], real.sum()[None])
    if per not in ("trajectory", "trajectory-sum"):
        raise ValueError(f"per must be 'step', 'trajectory' or 'trajectory-sum', got {per!r}")
    kept, real = kept.flatten(1), real.flatten(1)
    rows = kept.sum(1) if per == "trajectory-sum" else kept.sum(1) / real.sum(1).clamp(min=1)
    return Loss(rows.sum()[None], real.any(1).sum()[None])


def only(real: torch.Tensor, array: torch.Tensor, other: float = 0.0) -> torch.Tensor:
    """An array with another number where it is not real.

    What is not supervised must be replaced before it enters a formula: NaN times a gradient of 0 would be NaN.
    """
    return torch.where(real, array, other)


def outputs_of(settings: Mapping[str, Any]) -> int:
    """Outputs of a step that the settings of an objective decide; 0 where they leave the number open."""
    if "value_bins" in settings:
        return int(settings["value_bins"]) * (len(settings["lengths"]) + 1)
    if "exits" in settings:
        return 2 * int(settings["exits"])
    if "critics" in settings:
        return 2 * int(settings["critics"])
    if "likelihood" in settings:
        # Two values, an advantage and a log-probability.
        return 4
    return int(settings.get("members", 0)) or len(settings.get("quantiles", ()))


def supervised(targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Which (B, S) or (B, S, K) targets are known, at steps that are real."""
    return ~targets.isnan() & (mask if targets.ndim == mask.ndim else mask[..., None])


def at_end(outputs: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, ...) the outputs at each trajectory's last real step out of (B, S, ...), and which (B,) have such a step."""
    steps = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    last = (mask * steps).amax(1) if mask.shape[1] else mask.new_zeros(len(mask), dtype=torch.long)
    rows = torch.arange(len(mask), device=mask.device)
    if not mask.shape[1]:
        return outputs.new_zeros((len(mask), *outputs.shape[2:])), last > 0
    return outputs[rows, (last - 1).clamp(min=0)], last > 0
