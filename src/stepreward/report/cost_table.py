"""The plot of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence

from stepreward.evaluate.measures.costs import CostCurves
from stepreward.report.svg import Series, curves


def cost_plot(made: CostCurves, *, cost_label: str, oracle: Series | None = None) -> str:
    """Draws each algorithm's accuracy with its interval over what it cost, and the Pareto front.

    Args:
        made: points, as `evaluate.measures.costs.accuracy_against_cost` returns them.
        cost_label: what was spent, with its unit.
        oracle: accuracy of a perfect choice at costs, drawn beside them.

    Returns:
        One SVG figure; costs are on a scale of powers of two where all are positive.
    """
    algorithms: dict[str, list[int]] = {}
    for at, point in enumerate(made.points):
        algorithms.setdefault(point.algorithm, []).append(at)
    series = [_series(made, name, rows) for name, rows in algorithms.items()]
    front = [(point.cost.value, point.accuracy.value) for point in made.front]
    series.append(Series("Pareto front", [x for x, _ in front], [y for _, y in front]))
    if oracle is not None:
        series.append(oracle)
    positive = all(x > 0 for one in series for x in one.x)
    return curves(series, x_label=cost_label, y_label="accuracy", log_x=positive)


def _series(made: CostCurves, name: str, rows: Sequence[int]) -> Series:
    points = [made.points[at] for at in rows]
    return Series(
        name,
        [point.cost.value for point in points],
        [point.accuracy.value for point in points],
        [point.accuracy.low for point in points],
        [point.accuracy.high for point in points],
    )
