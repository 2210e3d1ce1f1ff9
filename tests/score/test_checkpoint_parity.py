"""The page of parity: every row of the table stands on it, and what it says is measured."""

from __future__ import annotations

import re

import pytest
from benchmarks.checkpoint_parity import PAGE, TOLERANCE, compared, page
from tests.score.literal_recipes import RECIPES

from stepreward.score.checkpoints.known_checkpoints import by_name, checkpoints


def test_the_page_tells_every_row_and_no_difference_above_the_tolerance() -> None:
    rows = re.findall(r"^\| (\S+) \|.*\| (\S+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    shown = [name for name, _ in rows]
    assert shown == [row.name for row in checkpoints.values() for _ in RECIPES[row.name].families]
    assert all(float(difference) <= TOLERANCE for _, difference in rows)


@pytest.mark.parametrize("name", ["URSA-MATH/URSA-RM-8B", "PRIME-RL/EurusPRM-Stage2"])
def test_a_row_is_compared_and_written(name: str) -> None:
    made = compared(by_name(name), "qwen", quick=True)
    assert made.steps == 3
    assert made.unscored == 0
    assert made.difference <= TOLERANCE
    text = page([{**vars(made)}])
    assert f"| {name} | {made.names} | Qwen2 | 3 | 0 | " in text
    assert "3 step scores" in text.replace("\n", " ")
