"""Names of what objectives read of a model and of data, and the shapes of their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepreward.core.optional import Deferred
from stepreward.train.objectives.loss import at_end

if TYPE_CHECKING:
    import torch
else:
    torch = Deferred("torch")

LAGGING = ("lagging_outputs", "lagging_logits", "lagging_features")
"""What a lagging copy of the model says of a batch, or detached the model itself where there is none."""
OUTPUTS = (
    "logits", "outputs", "ends", "totals", "token_rewards", "token_values", "users", "latents", "features", "views",
    "slopes", *LAGGING,
)  # fmt: skip
"""What a model says of a batch; the other names that an objective takes are data. The `logits` of a log-ratio model are
the rewards of steps, `totals` their sums; it alone has `token_rewards`, and a head with an entry for each next token
alone `token_values`."""
OF_FEATURES = ("features", "views", "slopes")
"""What a head with a last layer says beside its outputs."""
OF_TOKENS = ("token_rewards", "guide", "token_values", "token_targets")
"""Arrays of the tokens of each trajectory's steps."""
COLUMNS = {"labels": "label", "judged": "judged", "cells": "cell", "rewards": "reward"}
"""The step column that each (B, S) data comes from, where no other is named."""
OF_ROWS = ("outcome", "log_weights", "group", "pairs", "strength", "siblings", "gap", "annotator", "draws")
"""Data of whole trajectories and of pairs."""
OF_PAIRS = ("pairs", "strength", "siblings", "gap", "annotator")
"""Data with an entry for each pair."""
INDICES = ("pairs", "group", "siblings", "annotator")
"""Data that are whole numbers."""


def at_ends(outputs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, ...) the outputs at each trajectory's last step, NaN for a trajectory without steps."""
    ends, some = at_end(outputs, mask)
    return torch.where(some.reshape(-1, *[1] * (ends.ndim - 1)), ends, torch.nan)


def zeros(names: Sequence[str], rows: int, steps: int, width: int, tokens: int = 1) -> dict[str, torch.Tensor]:
    """Data of zeros by name, probabilities of a half, without pairs."""
    shapes: dict[str, tuple[int, ...]] = {
        **dict.fromkeys(("outputs", "targets", "features", "views"), (rows, steps, width)), "draws": (rows, width),
        **dict.fromkeys(("lagging_outputs", "lagging_features"), (rows, steps, width)),
        **dict.fromkeys(("outcome", "totals", "group", "log_weights"), (rows,)),
        "ends": (rows, width), "strength": (0,), "pairs": (0, 2), "gap": (0,), "siblings": (0, 4),
        "annotator": (0,), "users": (0, width), "latents": (0, 2 * width),
        **dict.fromkeys(OF_TOKENS, (rows, tokens)),
    }  # fmt: skip
    made = {name: torch.zeros(shapes.get(name, (rows, steps))) + 0.5 * (name == "judged") for name in names}
    return {name: array.long() if name in INDICES else array for name, array in made.items()}
