"""The page of searches: its sentences follow from the numbers, whatever these are."""

from __future__ import annotations

from typing import Any

from benchmarks.searches import page

from tests.pages import assert_page


def point(name: str, budget: int, accuracy: tuple[float, float, float], gain: tuple[float, float, float] | None) -> Any:
    """A row of `compare.json`."""
    value, low, high = accuracy
    beside = None if gain is None else dict(zip(("value", "low", "high"), gain, strict=True))
    return {
        "algorithm": name, "budget": budget, "cost": {"value": 10.0 * budget}, "scored_tokens": 5.0 * budget,
        "accuracy": {"value": value, "low": low, "high": high}, "gain": beside, "on_front": name == "good",
    }  # fmt: skip


def test_who_beats_who_loses_and_who_falls() -> None:
    results = {
        "problems": 7, "aggregate": "min", "settings": {"good": {"tokens": 4}},
        "oracle": [{"k": 1, "pass_at_k": 0.2}, {"k": 4, "pass_at_k": 0.9}],
        "points": [
            point("weighted-vote", 2, (0.5, 0.4, 0.6), None),
            point("good", 2, (0.7, 0.6, 0.8), (0.2, 0.1, 0.3)),
            point("good", 4, (0.72, 0.62, 0.82), (0.2, 0.1, 0.3)),
            point("falls", 2, (0.7, 0.65, 0.75), (0.1, -0.1, 0.3)),
            point("falls", 4, (0.5, 0.45, 0.55), (-0.2, -0.3, -0.1)),
        ],
    }  # fmt: skip
    assert_page(
        page(results),
        "**2 of 5 runs beat** `weighted-vote`: `good` at 2, 4.",
        "**1 of 5 runs lose to** `weighted-vote`: `falls` at 4.",
        "finds where it errs: `falls` from 70.0 to 50.0 %.",
        "right in 90.0 % (pass@4)",
        "3 searches",
        "`good.tokens=4`",
        "| `falls` | 4 | 40 | 20 | 50.0 [45.0, 55.0] | -20.0 [-30.0, -10.0] | loses to |  |",
        "| `weighted-vote` | 2 | 20 | 10 | 50.0 [40.0, 60.0] |  |  |  |",
    )
