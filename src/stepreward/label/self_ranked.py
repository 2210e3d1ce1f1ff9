"""The best and the worst solution of each problem by totals that somebody gave them: pairs without known outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stepreward.core.types import LABEL, Floats, Trajectory


def best_and_worst(rows: Sequence[Trajectory], totals: Floats) -> list[Trajectory]:
    """Keeps of each problem the solution of the highest total, as right, and that of the lowest, as wrong.

    Self-rewarding's pairs (arXiv:2401.10020), by any totals: a problem whose known totals are fewer than two, or all
    equal, has none; of equal totals the first counts. What was known of the outcome becomes the fact `graded`.

    Args:
        rows: in any order.
        totals: (B,) of each; NaN where not known.
    """
    groups: dict[str, list[int]] = {}
    for row, one in enumerate(rows):
        if not np.isnan(totals[row]):
            groups.setdefault(one.problem.id, []).append(row)
    made = []
    for some in groups.values():
        known = totals[some]
        if known.max() > known.min():
            made += [_ranked(rows[some[int(known.argmax())]], 1.0), _ranked(rows[some[int(known.argmin())]], 0.0)]
    return made


def _ranked(one: Trajectory, outcome: float) -> Trajectory:
    columns = {name: values for name, values in one.columns.items() if name != LABEL}
    graded = {} if np.isnan(one.outcome) else {"graded": one.outcome}
    return replace(one, outcome=outcome, first_error=None, columns=columns, facts={**one.facts, **graded})


def agreement(rows: Sequence[Trajectory]) -> float:
    """Share of ranked solutions whose graded outcome is that of their rank, NaN where none was graded."""
    known = [(one.outcome > 0.5) == (one.facts["graded"] > 0.5) for one in rows if "graded" in one.facts]
    return float(np.mean(known)) if known else float("nan")
