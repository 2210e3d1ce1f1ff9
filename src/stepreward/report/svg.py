"""Plots as inline SVG: colours come from the page's style sheet, so one drawing serves light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 40, 52
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Series:
    """A named curve, with an interval where there is one."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Axis:
    """A scale from data to pixels, linear or by powers of two."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: Sequence[float] | NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Pixels of data values."""
        v, low, high = (np.log2(a) if self.log else np.asarray(a, float) for a in (values, self.low, self.high))
        placed: NDArray[np.float64] = self.start + (v - low) / max(float(high - low), 1e-12) * (self.end - self.start)
        return placed

    @property
    def ticks(self) -> list[float]:
        """About six round numbers within the range, or the powers of two."""
        if self.log:
            return [2.0**k for k in range(int(np.ceil(np.log2(self.low))), int(np.floor(np.log2(self.high))) + 1)]
        raw = max(self.high - self.low, 1e-12) / 5
        unit = 10.0 ** np.floor(np.log10(raw))
        step = next(s * unit for s in _STEPS if s * unit >= raw - 1e-12)
        first = np.ceil(self.low / step - 1e-9) * step
        # Adding 0 makes a zero of -0, which would read "-0%".
        return [float(t) + 0.0 for t in np.arange(first, self.high + step * 1e-6, step)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _points(xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))


def _frame(x: Axis, y: Axis, x_label: str, y_label: str, percent: bool) -> list[str]:
    parts = []
    for tick in y.ticks:
        at = float(y(tick))
        text = f"{tick:.0%}" if percent else _number(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    for tick in x.ticks:
        at = float(x(tick))
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{_number(tick)}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="axis" x="4" y="18">{escape(y_label)}</text>')
    return parts


def curves(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    percent: bool = True,
    y_range: tuple[float, float] | None = None,
    diagonal: bool = False,
) -> str:
    """Curves with shaded intervals, a legend below, and every number in a tooltip.

    Args:
        series: the curves; NaN points are left out.
        log_x: powers of two on the x axis; all x must be positive.
        percent: ticks of y as percentages.
        y_range: limits of y; fitted to the data where None.
        diagonal: draws y = x, the line of perfect calibration.

    Raises:
        ValueError: there is no finite point to draw.
    """
    xs = np.concatenate([np.asarray(s.x, float) for s in series]) if series else np.empty(0)
    ys = np.concatenate([np.asarray(v, float) for s in series for v in (s.y, s.low, s.high) if v is not None] or [xs])
    if not np.isfinite(ys).any():
        raise ValueError(f"nothing to draw in {y_label!r} against {x_label!r}: no finite value")
    low, high = y_range or (float(np.nanmin(ys)), float(np.nanmax(ys)))
    pad = 0.0 if y_range else 0.06 * max(high - low, 1e-3)
    x = Axis(float(xs.min()), float(xs.max()), LEFT + 8, WIDTH - RIGHT - 8, log_x)
    y = Axis(low - pad, high + pad, HEIGHT - BOTTOM, TOP)
    parts = _frame(x, y, x_label, y_label, percent)
    if diagonal:
        ends = np.array([max(x.low, y.low), min(x.high, y.high)])
        parts.append(f'<polyline class="diagonal" points="{_points(x(ends), y(ends))}"/>')
    for i, one in enumerate(series):
        parts += _curve(one, i, x, y, percent)
    label = escape(f"{y_label} against {x_label}")
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    items = "".join(f'<li class="s{i % 8}">{escape(one.name)}</li>' for i, one in enumerate(series))
    return f'<figure>{drawing}<ul class="legend">{items}</ul></figure>'


def _curve(one: Series, index: int, x: Axis, y: Axis, percent: bool) -> list[str]:
    xs, ys = np.asarray(one.x, float), np.asarray(one.y, float)
    real = np.isfinite(ys)
    parts = []
    if one.low is not None and one.high is not None:
        low, high = np.asarray(one.low, float), np.asarray(one.high, float)
        band = real & np.isfinite(low) & np.isfinite(high)
        outline = _points(np.r_[x(xs[band]), x(xs[band])[::-1]], np.r_[y(low[band]), y(high[band])[::-1]])
        parts.append(f'<polygon class="band s{index % 8}" points="{outline}"/>')
    parts.append(f'<polyline class="line s{index % 8}" points="{_points(x(xs[real]), y(ys[real]))}"/>')
    radius = 3.5 if real.sum() <= 20 else 1.5  # many points are a line with numbers, not a string of pearls
    for a, b in zip(xs[real], ys[real], strict=True):
        value = f"{b:.1%}" if percent else _number(b)
        title = f"{escape(one.name)}: {value} at {_number(a)}"
        parts.append(
            f'<circle class="dot s{index % 8}" cx="{float(x(a)):.1f}" cy="{float(y(b)):.1f}" r="{radius}">'
            f"<title>{title}</title></circle>"
        )
    return parts


def bars(values: Sequence[tuple[str, float]], *, label: str) -> str:
    """Horizontal bars of named amounts, largest first, each with its number.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not values:
        raise ValueError(f"nothing to draw in {label!r}: no value")
    rows = sorted(values, key=lambda pair: -pair[1])
    largest = max(value for _, value in rows) or 1.0
    row, left = 28, 200
    parts = []
    for i, (name, value) in enumerate(rows):
        width = (WIDTH - left - 72) * value / largest
        middle = i * row + 19
        parts.append(f'<text class="tick" x="{left - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="bar s0" x="{left}" y="{i * row + 5}" width="{width:.1f}" height="18" rx="3"/>')
        parts.append(f'<text class="tick" x="{left + width + 6:.1f}" y="{middle}">{_number(value)}</text>')
    box = f'viewBox="0 0 {WIDTH} {len(rows) * row + 8}"'
    return f'<figure><svg {box} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg></figure>'
