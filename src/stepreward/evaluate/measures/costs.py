"""Accuracy against cost: which way of spending compute is worth it, on the same problems, with paired intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.files.atomic_files import plain
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate
from stepreward.core.types import Floats
from stepreward.evaluate.measures.counts import bootstrap_sums, interval


@dataclass(frozen=True)
class Spending:
    """One algorithm at one budget, on every problem."""

    algorithm: str
    budget: float
    """The units of cost: samples, tokens, seconds."""
    correct: Floats
    """(P,) 1 where the problem's answer is right, 0 where not; between them for a chance."""
    cost: Floats
    """(P,) what was spent, at least 0, one unit for all spendings."""


@dataclass(frozen=True)
class CostPoint:
    """An algorithm at a budget, as a point of the plane."""

    algorithm: str
    budget: float
    cost: Estimate
    """Mean over problems."""
    accuracy: Estimate
    on_front: bool
    """No other point is as cheap and as accurate, and better in one of the two."""
    front_share: float
    """Share of the bootstrap samples of problems in which it is on the front."""
    gain: Estimate | None
    """Accuracy above the reference at the same cost, paired; None for the reference, or without one. NaN where the
    reference was never run as cheaply."""


@dataclass(frozen=True)
class CostCurves:
    """All points, in the order of algorithms as given, cheapest first."""

    points: tuple[CostPoint, ...]
    reference: str | None = None
    front: tuple[CostPoint, ...] = field(default=())
    """Points on the Pareto front, cheapest first."""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, NaN as None."""
        return {"reference": self.reference, "points": [plain(asdict(point)) for point in self.points]}


def pareto(cost: Floats, accuracy: Floats) -> NDArray[np.bool_]:
    """Marks points that none beats: as cheap and as accurate, and better in one of the two. Equal points both stay.

    Args:
        cost: (R, ...) of each point; further axes are independent planes.
        accuracy: same shape.

    Returns:
        Same shape.
    """
    # (R, R, ...): the first axis is the point that may beat that of the second.
    cheaper, better = cost[:, None] <= cost[None], accuracy[:, None] >= accuracy[None]
    strictly = (cost[:, None] < cost[None]) | (accuracy[:, None] > accuracy[None])
    beaten: NDArray[np.bool_] = np.any(cheaper & better & strictly, axis=0)
    return np.logical_not(beaten)


def accuracy_against_cost(
    spendings: Sequence[Spending], key: Key, *, reference: str | None = None, draws: int = 1000
) -> CostCurves:
    """Puts algorithms and budgets in one plane: means, paired intervals, the Pareto front, gains at equal cost.

    All bootstrap samples draw the same problems for all points, so what makes problems hard cancels in differences.
    The reference's accuracy at a cost between two of its runs lies on the line between them, which is reached by
    tossing a coin between its budgets; above its dearest run it stays where it is.

    Args:
        spendings: algorithms at budgets, on the same P problems in the same order.
        key: randomness of the bootstrap over problems.
        reference: algorithm that gains are measured against, such as weighted best-of-n.
        draws: resamples.

    Raises:
        ValueError: there is nothing, problems differ in number, a number is NaN, a cost is negative, or no spending is
            of the reference.
    """
    correct, cost = _tables(spendings)
    if reference is not None and all(one.algorithm != reference for one in spendings):
        there = ", ".join(dict.fromkeys(one.algorithm for one in spendings))
        raise ValueError(f"no spending is of the reference {reference!r}; there are {there}")
    problems = correct.shape[1]
    # (R, 1 + draws) each: the means as they are, then of each sample of problems.
    accuracy, spent = (
        bootstrap_sums(np.stack([correct.T, cost.T], axis=1), key, draws=draws).transpose(1, 2, 0) / problems
    )
    front = pareto(spent, accuracy)
    gains = _gains(spendings, spent, accuracy, reference)
    order = {name: at for at, name in enumerate(dict.fromkeys(one.algorithm for one in spendings))}
    ranked = sorted(range(len(spendings)), key=lambda at: (order[spendings[at].algorithm], spent[at, 0]))
    points = tuple(
        CostPoint(
            spendings[at].algorithm,
            spendings[at].budget,
            interval(spent[at], problems, bounds=None),
            interval(accuracy[at], problems),
            bool(front[at, 0]),
            float(front[at, 1:].mean()),
            None if (gain := gains[at]) is None else interval(gain, problems, bounds=(-1.0, 1.0)),
        )
        for at in ranked
    )
    on_front = tuple(sorted((point for point in points if point.on_front), key=lambda point: point.cost.value))
    return CostCurves(points, reference, on_front)


def _tables(spendings: Sequence[Spending]) -> tuple[Floats, Floats]:
    """(R, P) of each."""
    shapes = {np.shape(part) for one in spendings for part in (one.correct, one.cost)}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1 or next(iter(shapes)) == (0,):
        raise ValueError(f"every spending needs (P,) results and costs of the same problems, got shapes {shapes}")
    correct, cost = (
        np.stack([np.asarray(part, np.float64) for part in parts])
        for parts in ([one.correct for one in spendings], [one.cost for one in spendings])
    )
    if np.isnan(correct).any() or np.isnan(cost).any() or (cost < 0).any():
        raise ValueError("results and costs must be numbers, costs at least 0: leave out problems that were not run")
    return correct, cost


def _gains(
    spendings: Sequence[Spending], spent: Floats, accuracy: Floats, reference: str | None
) -> list[Floats | None]:
    """For each point (1 + draws,) accuracy above the reference's at the same cost."""
    mine = [at for at, one in enumerate(spendings) if one.algorithm == reference]
    made: list[Floats | None] = []
    for at, one in enumerate(spendings):
        if reference is None or one.algorithm == reference:
            made.append(None)
        elif spent[at, 0] < spent[mine, 0].min() * (1 - 1e-12):
            # Cheaper than every run of the reference: there is no line to compare with.
            made.append(np.full(spent.shape[1], np.nan))
        else:
            made.append(accuracy[at] - _between(spent[at], spent[mine], accuracy[mine]))
    return made


def _between(at: Floats, cost: Floats, accuracy: Floats) -> Floats:
    """The reference's accuracy at each cost, in each sample of problems on its own."""
    order = np.argsort(cost, axis=0, kind="stable")
    xs, ys = np.take_along_axis(cost, order, axis=0), np.take_along_axis(accuracy, order, axis=0)
    # Below its cheapest run and above its dearest the accuracy stays: `interp` continues flat.
    return np.array([np.interp(x, xs[:, d], ys[:, d]) for d, x in enumerate(at)])
