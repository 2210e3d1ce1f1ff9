"""Step rewards by rule for edits of code, from what a language server or a linter said after each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from stepreward.core.catalog import reward
from stepreward.core.types import Floats, Problem, Step


@reward.method(
    "diagnostics",
    paper="Lanser-CLI, yifanzhang-pro/lanser-cli",
    equation="process reward of an edit, weights .5, .4, .1",
    note="diagnostics, safety and confidence are data of an environment. The paper's second example prints -.4 "
    "where its own formula gives -.038: ours follows the formula",
)
def diagnostic_delta(
    problem: Problem,
    steps: Sequence[Step],
    *,
    fixed: float = 0.5,
    safety: float = 0.4,
    doubt: float = 0.1,
) -> Floats:
    """Rewards an edit for the diagnostics that it removes, for safety, and for a place that was found for sure.

        r_t = a (D_{t-1} - D_t) + b S_t - g (1 - c_t)

    D_t counts diagnostics after step t, S_t is 1 where the edit was safe to apply, c_t in [0, 1] is the confidence that
    its place was found. Each is in the meta of the action or of an observation behind it, before the next action:
    `diagnostics`, `safe`, `confidence`. D stays what it was where it is not counted again.

    Args:
        problem: not read.
        steps: of one trajectory.
        fixed: a, of each diagnostic removed.
        safety: b.
        doubt: g.

    Returns:
        (S,), NaN at observations, at actions that were no edits, without `safe` or `confidence`, and where diagnostics
        were counted only after or only before.
    """
    made, counted = np.full(len(steps), np.nan), np.nan
    starts = [at for at, step in enumerate(steps) if step.kind == "action"]
    for shown in steps[: starts[0] if starts else 0]:
        counted = float(shown.meta.get("diagnostics", counted))
    for at, end in pairwise([*starts, len(steps)]):
        meta = {key: value for step in steps[at:end] for key, value in step.meta.items()}
        after = float(meta.get("diagnostics", np.nan))
        if "safe" in meta and "confidence" in meta:
            sure = float(meta["confidence"])
            made[at] = fixed * (counted - after) + safety * float(meta["safe"]) - doubt * (1 - sure)
        counted = counted if np.isnan(after) else after
    return made
