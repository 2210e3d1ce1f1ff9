"""The simulation of many workers, held against closed forms."""

from __future__ import annotations

import math

import pytest
from benchmarks import scale


@pytest.fixture(autouse=True)
def immortal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "LIFE", 1e30)


def seconds(workers: int, parts: int, each: float, driver: float) -> float:
    return 3600 * scale.simulated(workers, parts, [each], driver)["hours"]


def test_one_worker_waits_for_the_driver_before_each_part() -> None:
    assert seconds(1, 7, 2.0, 0.5) == pytest.approx(7 * 2.5)


@pytest.mark.parametrize(("workers", "parts"), [(1, 5), (3, 7), (4, 8), (10, 3)])
def test_without_cost_of_the_driver_parts_come_in_rounds(workers: int, parts: int) -> None:
    assert seconds(workers, parts, 2.0, 0.0) == pytest.approx(2 * math.ceil(parts / workers))


def test_beyond_its_knee_only_the_driver_counts() -> None:
    # 2 / 0.1 = 20 workers keep the driver busy; with 50 it hands out a part each 0.1 s to the end.
    found = scale.simulated(50, 400, [2.0], 0.1)
    assert 3600 * found["hours"] == pytest.approx(400 * 0.1 + 2.0)
    assert found["driver"] == pytest.approx(40 / 42)
    assert found["efficiency"] == pytest.approx(400 * 2 / (50 * 42))
    assert found["problems_per_second"] == pytest.approx(400 * scale.PART / 42)


def test_workers_that_die_cost_their_part_and_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "LIFE", 20.0)
    found = scale.simulated(3, 3000, [2.0], 0.0)
    # A part of 2 s is outlived with probability exp(-1/10): 1 - exp(-1/10) tries are lost, and so many more are made.
    lost = 1 - math.exp(-0.1)
    assert found["died"] == pytest.approx(3000 * lost / (1 - lost), rel=0.2)
    assert 3600 * found["hours"] == pytest.approx((3000 * 2.0 + found["died"] * (60 + 1.0)) / 3, rel=0.05)
