"""Numbers of docs/results/checkers.md, computed again from the raw files by loops that share no code with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from benchmarks import checkers

from stepreward.score.tools.equations import equations

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.exists(), reason="needs the real data")]


def test_first_errors_that_equations_show() -> None:
    rows = json.loads((DATA / "processbench" / "gsm8k.json").read_text())
    hits: dict[bool, list[bool]] = {True: [], False: []}
    said = []
    for row in rows:
        holds = [[one.holds for one in equations(step)] for step in row["steps"]]
        said += [bool(one) for one in holds]
        first = next((at for at, one in enumerate(holds) if not all(one)), -1)
        hits[row["label"] >= 0].append(first == row["label"])
    wrong, right = (sum(one) / len(one) for one in (hits[True], hits[False]))
    found = checkers.measured(checkers.solutions("ProcessBench GSM8K"), "equations")
    assert found["coverage"] == pytest.approx(sum(said) / len(said))
    assert (found["wrong"], found["right"]) == (pytest.approx(wrong), pytest.approx(right))
    line = f"| equations | {100 * found['coverage']:.1f} | {100 * wrong:.1f} | {100 * right:.1f} |"
    part = re.split(r"^## ", checkers.PAGE.read_text(), flags=re.MULTILINE)[1]
    assert part.startswith("ProcessBench GSM8K")
    assert line in part
