"""Objectives that fit a distribution over cells: a joint one of several quantities, cut into bins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from stepreward.core.catalog import loss
from stepreward.core.optional import Deferred
from stepreward.core.vocabulary import Flag
from stepreward.train.objectives.loss import Loss, Per, mean, only, supervised
from stepreward.train.objectives.reading import OutputReading, Settings

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")


@loss.method(
    "grid",
    paper="arXiv:2512.01457",
    note="its cross-entropy alone, without the divergence from the first policy",
    reading=OutputReading(softmax=True, score=lambda settings: -1),
)
def joint_cells(outputs: torch.Tensor, cells: torch.Tensor, mask: torch.Tensor, *, per: Per = "step") -> Loss:
    """Fits a distribution over cells, such as bins of the final value by bins of the remaining length.

        mean_s -log softmax(z_s)[c_s]

    Args:
        outputs: (B, S, K) z, one output a cell.
        cells: (B, S) c, the number of the true cell in [0, K), NaN where not supervised.
        mask: True at real steps.
        per: the unit of the mean.

    Returns:
        The mean, in nats.

    Raises:
        ValueError: a cell is outside [0, K).
    """
    real = supervised(cells, mask)
    index = only(real, cells).long()
    if len(index) and not ((index >= 0) & (index < outputs.shape[-1])).all():
        raise ValueError(f"cells must be in [0, {outputs.shape[-1]}), got up to {int(index.max())}")
    z = only(real[..., None], outputs)
    return mean(-z.log_softmax(-1).gather(-1, index[..., None])[..., 0], real, per)


def _mean_value(settings: Settings, names: Sequence[str]) -> str:
    return value_and_length_formula(settings["value_bins"], settings["lengths"])


@loss.method(
    "value-and-length", paper="arXiv:2512.01457",
    note="its cross-entropy alone, at step ends instead of every token, on labels in place of a critic's values",
    reading=OutputReading(softmax=True, formula=_mean_value),
)  # fmt: skip
def value_and_length(
    outputs: torch.Tensor,
    labels: torch.Tensor,
    remaining: torch.Tensor,
    mask: torch.Tensor,
    *,
    value_bins: Annotated[int, Flag(low=1)] = 8,
    lengths: Sequence[float] = (16, 32, 64, 128, 256, 512, 1024),
    per: Per = "trajectory",
) -> Loss:
    """Fits the joint distribution of how a solution will end and how long that takes.

        mean_s -log softmax(z_s)[b T + t],    b the bin of the value y_s, t that of the tokens still to come

    With a single bin of values it is a classifier of lengths; with no edges of lengths and two bins it is the
    cross-entropy of a sigmoid of z_1 - z_0.

    Args:
        outputs: (B, S, V T) z, one output a cell: all lengths of the first bin of values first.
        labels: (B, S) y in [0, 1], such as the success rate of a few rollouts, NaN where not supervised.
        remaining: (B, S) tokens of the solution behind each step, NaN where it was cut.
        mask: True at real steps.
        value_bins: V bins of equal width.
        lengths: rising edges in tokens between T bins; the last bin has no end.
        per: the unit of the mean; the steps of a solution are close to each other.

    Raises:
        ValueError: the edges do not rise, or there are not as many outputs as cells.
    """
    edges = torch.as_tensor(list(lengths), dtype=torch.float64, device=outputs.device)
    cells = value_bins * (len(edges) + 1)
    if cells < 2 or (edges.diff() <= 0).any() or outputs.shape[-1] != cells:
        raise ValueError(
            f"lengths must rise, with {cells} > 1 cells, got {tuple(lengths)} and {outputs.shape[-1]} outputs"
        )
    known = supervised(labels, mask) & ~remaining.isnan()
    value = (only(known, labels) * value_bins).long().clamp(max=value_bins - 1)
    length = torch.bucketize(only(known, remaining).double(), edges, right=True)
    cell = only(known, (value * (len(edges) + 1) + length).to(outputs.dtype), torch.nan)
    return joint_cells(outputs, cell, mask, per=per)


def value_and_length_formula(value_bins: int, lengths: Sequence[float]) -> str:
    """The expected value, with `value` and `length` defined: the means of the middles of bins.

    The last bin of lengths counts as if it were as wide as the one before it.
    """
    edges = [0.0, *lengths]
    edges.append(2 * edges[-1] - edges[-2] if lengths else 0.0)
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    values = [f"{(b + 0.5) / value_bins:g}" for b in range(value_bins) for _ in middles]
    tokens = [f"{middle:g}" for _ in range(value_bins) for middle in middles]
    return f"value = weighted({', '.join(values)}); length = weighted({', '.join(tokens)}); value"
