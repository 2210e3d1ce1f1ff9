"""`stepreward compare` as a user types it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import stepreward
from stepreward.core.types import Problem, Step, Trajectory
from tests.cli.running import invoke, refused
from tests.score.agent_runs import made_runs


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    stepreward.write("a.jsonl", made_runs(30, 1))
    stepreward.write("b.parquet", made_runs(31, 2))
    return tmp_path


def test_json_is_what_python_returns() -> None:
    told = json.loads(invoke("compare a.jsonl b.parquet --json"))
    made = stepreward.compare_agents("a.jsonl", "b.parquet")
    assert told == {"a": "a.jsonl", "b": "b.parquet", **made.to_json(), "left_out": 0}
    assert told["problems"] == 30
    assert told["only"]["b"] == {"problems": 1, "first": ["task-30"]}
    assert set(told["measures"]) == {"outcome", "actions", "tool_errors"}


def test_it_says_how_problems_were_joined_and_who_won(inside: Path) -> None:
    shown = invoke("compare a.jsonl b.parquet --show 1")
    assert "joined by id: 30 problems, 60 runs of A and 60 of B" in shown
    assert "left out, B alone has them: 1 problems, task-30" in shown
    rows = stepreward.compare_agents("a.jsonl", "b.parquet").rows()
    won = {who: [row for row in rows if row["result"] == who] for who in ("a", "b", "tie")}
    assert f"A wins {len(won['a'])} problems, B {len(won['b'])}, {len(won['tie'])} are ties" in shown
    most = max(won["b"], key=lambda row: -row["outcome_difference"])["problem"]
    assert f"B wins {most} (" in shown


@pytest.mark.parametrize("name", ["problems.jsonl", "problems.parquet"])
def test_out_has_a_row_a_problem(name: str) -> None:
    invoke(f"compare a.jsonl b.parquet -o {name} --json")
    path = Path(name)
    text = path.suffix == ".jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if text else pq.read_table(path).to_pylist()
    assert rows == stepreward.compare_agents("a.jsonl", "b.parquet").rows()
    assert len(rows) == 30


def test_a_model_scores_both_and_scores_that_are_there_are_compared() -> None:
    told = json.loads(invoke("compare a.jsonl b.parquet --model length --json"))
    for name in ("a", "b"):
        invoke(f"score --model length --data {name}.{'jsonl' if name == 'a' else 'parquet'} --out {name}s.parquet "
               "--column score:long")  # fmt: skip
    again = json.loads(invoke("compare as.parquet bs.parquet --json"))
    assert again["measures"] == told["measures"]
    assert "worst_score" in told["measures"]
    assert (
        json.loads(invoke("compare as.parquet bs.parquet --column score:long --json"))["measures"] == told["measures"]
    )


def test_scores_of_two_models_are_never_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, model in (("x", "score:one"), ("y", "score:two")):
        rows = [one.with_columns({model: np.ones(len(one))}) for one in made_runs(4)]
        stepreward.write(f"{name}.jsonl", rows)
    assert "several columns of scores, score:one, score:two" in refused("compare x.jsonl y.jsonl", capsys, monkeypatch)
    assert "no run has the step column 'score:on'" in refused(
        "compare x.jsonl y.jsonl --column score:on", capsys, monkeypatch
    )
    assert "drop it, or --model" in refused(
        "compare x.jsonl y.jsonl --column score:one --model tool", capsys, monkeypatch
    )


def test_logs_of_two_layouts_are_joined_by_text() -> None:
    chat = [{"role": "user", "content": "Halve 8."}, {"role": "assistant", "content": "8 / 2 = 5"}]
    Path("chat.jsonl").write_text(json.dumps({"messages": chat, "reward": 0}) + "\n")
    step = {"step_id": 1, "source": "user", "message": "Halve 8."}
    said = {"step_id": 2, "source": "agent", "message": "8 / 2 = 4", "metrics": {"cost_usd": 0.5}}
    log = {"schema_version": "ATIF-v1.4", "session_id": "s", "agent": {"name": "n", "version": "1"},
           "steps": [step, said], "reward": 1}  # fmt: skip
    Path("atif.json").write_text(json.dumps(log))
    told = json.loads(invoke("compare atif.json chat.jsonl --model tool --json"))
    assert (told["by"], told["problems"]) == ("text", 1)
    assert told["measures"]["outcome"]["difference"]["value"] == 1
    assert told["measures"]["worst_score"]["difference"]["value"] == 1
    assert "cost" not in told["measures"]
    shown = invoke("compare atif.json chat.jsonl")
    assert "joined by text" in shown
    assert "1 [-, -]" not in shown


def test_what_is_not_told_and_other_texts_are_told(inside: Path) -> None:
    rows = made_runs(3, 1, runs=1)
    other = [replace(rows[0], outcome=float("nan")), replace(rows[1], problem=Problem("task-1", "Another."))]
    stepreward.write("c.jsonl", [*other, Trajectory(rows[2].problem, (Step("a"),), 1.0)])
    shown = invoke("compare a.jsonl c.jsonl")
    assert "1 problems have other texts in A than in B" in shown
    assert "outcome: missing in 0 runs of A and 1 of B; over 2 problems" in shown
    assert "1 without an outcome of both" in shown


def test_nothing_in_common_and_bad_names_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stepreward.write("c.jsonl", [Trajectory(Problem("else", "Other."), (Step("a"),), 1.0)])
    assert "no problem is in both, by their text" in refused("compare a.jsonl c.jsonl", capsys, monkeypatch)
    assert "no format for the ending" in refused("compare a.jsonl a.jsonl -o out.txt", capsys, monkeypatch)
    assert "no problem is in both, by their nothing" in refused(
        "compare a.jsonl a.jsonl --by nothing", capsys, monkeypatch
    )


def test_bad_rows_are_named_and_cost_no_other(inside: Path) -> None:
    with Path("a.jsonl").open("a") as file:
        file.write('{"schema": "stepreward/trajectories/1"}\n')
    told = json.loads(invoke("compare a.jsonl b.parquet --json"))
    assert (told["problems"], told["left_out"]) == (30, 1)


def test_a_seed_that_no_run_names_and_what_one_agent_alone_tells_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = refused("compare a.jsonl b.parquet --seeds nope", capsys, monkeypatch)
    assert "no run has the field 'nope'" in told
    stepreward.write("blank.jsonl", [replace(one, outcome=float("nan")) for one in made_runs(30, 1)])
    assert "not compared, as no problem tells it of both: outcome" in invoke("compare blank.jsonl b.parquet")
