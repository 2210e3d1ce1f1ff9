"""How nouns and results show themselves: one line, a short table of escaped text, data frames and data sets."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from tests.docs import ROOT

from stepreward.core.errors import ModelError
from stepreward.core.html_table import html_table
from stepreward.core.measure.statistics import Estimate
from stepreward.core.results import TrajectoryList
from stepreward.core.table import item_of
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.evaluate.data.result import BenchResult

NAN = float("nan")
HOSTILE = "<script>alert('x')</script> & \"<b>\""
PROBLEM = Problem("p<1>", HOSTILE)
STEPS = (Step(HOSTILE), Step("seen\n", kind="observation"), Step("2 + 2 = 4"))
SCORED = Trajectory(PROBLEM, STEPS, 1.0, answer="4", columns={"score": np.array([0.25, NAN, 1.0])})
EMPTY = Trajectory(Problem("e", "?"), (), terminal=False)
TREE = StepTree.from_trajectories([SCORED]).with_column("score", [NAN, 0.25, NAN, 1.0])
RESULT = BenchResult("<bench>", "f1", {"f1": Estimate(0.5, 0.25, 0.75, 8)}, "Protocol <p>.",
                     {"<easy>": {"f1": Estimate(NAN, NAN, NAN, 0)}}, unscored=2)  # fmt: skip
ALL: list[Any] = [SCORED, EMPTY, TREE, RESULT, TrajectoryList([SCORED, EMPTY]), TrajectoryList()]


def cells(html: str) -> list[list[str]]:
    """Texts of a table's cells, by row."""
    return [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)
    ]


def test_one_line_says_what_it_is() -> None:
    assert repr(SCORED) == "<Trajectory of 'p<1>': 3 steps, outcome 1, answer '4'; columns: score>"
    assert repr(EMPTY) == "<Trajectory of 'e': 0 steps, outcome nan, cut; columns: none>"
    assert repr(TREE) == "<StepTree of 'p<1>': 4 nodes, 1 trajectories, at most 3 steps; columns: score>"
    assert repr(StepTree.from_trajectories([], PROBLEM)).endswith(
        "1 nodes, 0 trajectories, at most 0 steps; columns: none>"
    )
    assert repr(RESULT) == "<BenchResult of <bench>: f1 0.5 [0.25, 0.75], 1 metrics, 1 groups; 2 rows unscored>"
    rows = TrajectoryList([SCORED, SCORED, EMPTY], [("q", ValueError("no"))])
    assert repr(rows) == "<3 trajectories of 2 problems, 6 steps; columns: score; 1 failed>"
    assert repr(TrajectoryList()) == "<0 trajectories of 0 problems, 0 steps; columns: none>"


@pytest.mark.parametrize("shown", ALL, ids=lambda one: type(one).__name__)
def test_text_is_escaped(shown: Any) -> None:
    html = shown._repr_html_()
    left = re.sub(
        r"</?(table|caption|thead|tbody|tr)>|<t[hd]( style=\"[^\"]*\")?>|</t[hd]>|<td colspan=\"\d+\">", "", html
    )
    assert "<" not in left
    assert ">" not in left


def test_a_table_has_a_row_a_step_and_a_dash_where_nothing_was_measured() -> None:
    head, *rows = cells(SCORED._repr_html_())
    assert head == ["step", "kind", "text", "score"]
    assert [(row[0], row[1], row[3]) for row in rows] == [
        ("0", "action", "0.25"),
        ("1", "observation", "\u2013"),
        ("2", "action", "1"),
    ]
    assert cells(EMPTY._repr_html_()) == [["step", "kind", "text"]]
    assert [row[1:] for row in cells(RESULT._repr_html_())[1:]] == [
        ["f1", "0.5", "0.25", "0.75"], ["f1", "\u2013", "\u2013", "\u2013"]
    ]  # fmt: skip
    assert [row[-1] for row in cells(TrajectoryList([SCORED, EMPTY])._repr_html_())[1:]] == ["0.25 \u2013 1", ""]


def test_a_long_table_is_cut_and_counts_what_is_left_out() -> None:
    long = Trajectory(PROBLEM, tuple(Step(f"step {i}") for i in range(1000)))
    rows = cells(long._repr_html_())
    assert len(rows) == 1 + 50 + 1
    assert rows[-1] == ["\u2026 950 more"]
    assert len(cells(html_table(["a"], [["x"]] * 50))) == 1 + 50
    assert cells(html_table(["a"], [["x" * 5000]]))[1] == ["x" * 300 + "\u2026"]
    numbers = long.with_columns({"score": np.full(1000, 0.5)})
    assert cells(TrajectoryList([numbers])._repr_html_())[1][-1] == " ".join(["0.5"] * 12) + " \u2026"


def test_data_frames_have_a_row_a_step() -> None:
    one = SCORED.to_pandas()
    assert [*one.columns] == ["step", "kind", "text", "score"]
    assert one["score"].isna().tolist() == [False, True, False]
    both = TrajectoryList([EMPTY, SCORED]).to_pandas()
    assert both[["trajectory", "problem", "step"]].to_numpy().tolist() == [
        [1, "p<1>", 0],
        [1, "p<1>", 1],
        [1, "p<1>", 2],
    ]
    assert both["text"].tolist() == [step.text for step in STEPS]
    assert [*TrajectoryList().to_pandas().columns] == ["trajectory", "problem", "step", "kind", "text"]
    assert len(EMPTY.to_pandas()) == 0
    nodes = TREE.to_pandas()
    assert nodes["parent"].tolist() == [-1, 0, 1, 2]
    assert nodes.loc[3, "text"] == "2 + 2 = 4"
    metrics = RESULT.to_pandas()
    assert metrics[["group", "metric"]].to_numpy().tolist() == [["", "f1"], ["<easy>", "f1"]]
    assert metrics.loc[0, ["value", "low", "high"]].tolist() == [0.5, 0.25, 0.75]


def test_without_pandas_the_error_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModelError, match=r"^pandas is not installed: pip install 'stepreward\[pandas\]'$"):
        SCORED.to_pandas()


def test_a_data_set_has_the_rows_of_the_table() -> None:
    made = TrajectoryList([SCORED, EMPTY]).to_dataset()
    back = [item_of(row) for row in made]
    assert [(one.problem, one.steps, one.terminal) for one in back] == [
        (one.problem, one.steps, one.terminal) for one in (SCORED, EMPTY)
    ]
    assert np.array_equal(back[0].column("score"), SCORED.column("score"), equal_nan=True)
    assert len(TrajectoryList().to_dataset()) == 0


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    code = "import stepreward.core.results, sys; assert not {'pandas', 'datasets'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100, cwd=ROOT)
