"""Rows that a model cannot score: named, counted, left out; the job goes on unless it is strict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stepreward.cli.rows.row_by_row import GIVEN_UP, RowByRow, shown
from stepreward.cli.terminal.progress import StageProgress
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.model_sources import resolve
from stepreward.score.encode.record import EncoderRecord, PerStep
from stepreward.score.model.step_reward_model import StepRewardModel
from tests.cli.running import invoke, refused

pytestmark = pytest.mark.xdist_group("commands")
LONG = "1 + 1 = 2\n" * 40


class Short:
    """Refuses texts of more than ten characters."""

    name, batch_size = "short", 4

    def __init__(self) -> None:
        self.asked = 0

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        self.asked += 1
        for one in questions:
            if any(len(step.text) > 10 for step in one.steps):
                raise InputError(f"problem {one.problem.id} is too long", remedy="raise max_length")
        return [Scored(np.full(len(one.steps), 0.5)) for one in questions]


def asked(*texts: str) -> list[Score]:
    return [Score(Problem(f"p{i}", "?"), (Step(text),)) for i, text in enumerate(texts)]


def test_one_row_costs_no_other_and_is_named() -> None:
    told: list[int] = []
    scorer = RowByRow(Short(), {"p2": ("rows.jsonl", 7)}, on_progress=told.append)
    made = scorer.score_many(asked(*["short"] * 2, "much too long", *["short"] * 40))
    assert [bool(np.isnan(one.scores).any()) for one in made] == [i == 2 for i in range(43)]
    assert [str(error) for _, error in scorer.bad] == ["rows.jsonl, row 7: problem p2 is too long; raise max_length"]
    assert told == [32, 43]


def test_strict_ends_at_the_row() -> None:
    scorer = RowByRow(Short(), {"p2": ("rows.jsonl", 7)}, strict=True)
    with pytest.raises(InputError, match=r"rows.jsonl, row 7: problem p2 is too long"):
        scorer.score_many(asked("short", "short", "much too long"))


def test_where_nothing_can_be_scored_the_fault_is_no_rows() -> None:
    inner = Short()
    with pytest.raises(InputError, match="too long"):
        RowByRow(inner, {}).score_many(asked(*["much too long"] * 300))
    assert inner.asked < 4 * GIVEN_UP


def test_progress_is_told_of_what_takes_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StageProgress() as progress:
        RowByRow(Short(), {}, on_progress=shown(progress, "m", 3)).score_many(asked(*["short"] * 3))
        assert capsys.readouterr().err == ""
        monkeypatch.setattr("stepreward.cli.rows.row_by_row.SECONDS_TO_JUDGE", -1.0)
        RowByRow(Short(), {}, on_progress=shown(progress, "m", 3)).score_many(asked(*["short"] * 3))
    assert capsys.readouterr().err.startswith("m: 3 of 3")


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three solutions, the second of which is too long for the model beside them."""
    monkeypatch.chdir(tmp_path)
    record = EncoderRecord(PerStep(max_length=120))
    StepRewardModel.from_backbone(resolve("builtin:arithmetic"), record).save_pretrained(tmp_path / "model")
    made = [
        {"id": str(i), "problem": "2 + 3?", "steps": ["2 + 3 = 5\n", LONG if i == 1 else "Answer: 5\n"], "label": i - 1}
        for i in range(3)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def test_a_row_too_long_for_the_model_is_left_out_and_counted(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"evaluate --data {rows} --benchmark first-error-accuracy --scorer model"
    made = json.loads(invoke(f"{line} --json"))["scorers"]["model"]
    assert (made["rows"], made["bad_rows"], made["unscored"], made["metrics"]["accuracy"]["n"]) == (3, 1, 1, 2)
    assert "1 of 3 rows lack a score" in invoke(line)
    plain = json.loads(invoke(f"evaluate --data {rows} --model model --threshold 0.5 --json"))["scorers"]["model"]
    assert (plain["solutions"], plain["unscored"], plain["first_error"]["f1"]["n"]) == (3, 1, 2)


def test_strict_names_the_row(rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"evaluate --data {rows} --benchmark first-error-accuracy --scorer model --strict"
    assert "rows.jsonl, row 2: a trajectory of problem '1' has" in refused(line, capsys, monkeypatch)
