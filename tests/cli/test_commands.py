"""The commands on a user's files: the documented examples in a chain, killed and resumed."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import numpy as np
import pytest

from stepreward import formats
from stepreward.core.table import read_table
from stepreward.tasks.arithmetic import generate
from tests.cli.running import FAST, example, invoke, run_command, solved
from tests.forked import started

pytestmark = pytest.mark.xdist_group("commands")


def told(inside: Path, command: str) -> dict[str, object]:
    made: dict[str, object] = json.loads((inside / f"{command}.json").read_text())
    return made


def test_label_writes_labels_with_provenance(inside: Path) -> None:
    made = list(read_table(inside / "labels/labels.parquet"))
    assert len(made) == told(inside, "label")["trajectories"] > 12
    assert {one.provenance[-1].estimator for one in made} == {"bisection"}
    assert {one.provenance[-1].grader for one in made} == {"arithmetic"}
    assert {tuple(one.facts["transforms"]) for one in made} == {("hard",)}
    assert max(one.column("n_rollouts").max() for one in made) == 4
    assert {float(v) for one in made for v in one.labels if not np.isnan(v)} <= {0.0, 1.0}


def test_labels_once_made_cost_nothing(inside: Path) -> None:
    again = json.loads(invoke(f"{example('label')} {FAST['label']} --json"))
    assert again["trajectories"] == told(inside, "label")["trajectories"]
    assert again["bill"]["proposals"] == 0


def test_train_writes_a_model_that_scores(inside: Path) -> None:
    assert "auroc" in told(inside, "train")["metrics"]  # type: ignore[operator]
    (inside / "rows.jsonl").write_text('{"question": "1 + 1?", "steps": ["1 + 1 = 2", "Answer: 2"]}\n')
    made = json.loads(invoke("score --model model --data rows.jsonl"))
    assert len(made["scores"]) == 2
    assert all(0 < score < 1 for score in made["scores"])


def test_search_writes_a_row_for_each_problem_and_its_bill(inside: Path) -> None:
    rows = solved(inside / "found.jsonl")
    outcome = told(inside, "search")
    assert [row["problem"] for row in rows] == [p.id for p in generate("train", 12, seed=5)]
    right = np.mean([row["outcome"] for row in rows])
    assert outcome["accuracy"]["value"] == pytest.approx(right)  # type: ignore[index]
    spent = sum(row["bill"]["generated_tokens"] for row in rows)
    assert outcome["bill"]["generated_tokens"] == spent > 0  # type: ignore[index]
    for row in rows:
        assert [one["candidate"] for one in row["candidates"]] == list(range(len(row["candidates"])))
        assert sum(one["chosen"] for one in row["candidates"]) == 1
        # What is known of the whole problem is in one row, so that it is not counted twice.
        assert [sum(name in one for one in row["candidates"]) for name in ("bill", "outcome")] == [1, 1]
    again = json.loads(invoke(f"{example('search')} {FAST['search']} --json"))
    assert again["bill"]["generated_tokens"] == 0
    assert again["accuracy"] == outcome["accuracy"]


def test_majority_needs_no_model(inside: Path) -> None:
    line = "search --problems problems.jsonl --grader arithmetic --method majority --set n=4 --out voted.jsonl --json"
    assert json.loads(invoke(line))["bill"]["scored_tokens"] == 0


def test_evaluate_measures_a_model_and_recorded_scores(inside: Path) -> None:
    made = json.loads(invoke(f"{example('evaluate')} {FAST['evaluate']} --json"))["scorers"]["model"]
    assert 0 <= made["first_error"]["f1"]["value"] <= 1
    assert made["first_error"]["threshold"] == 0.5
    assert {"auroc", "brier", "ece"} <= set(made["steps"])
    assert "AUROC" in invoke(f"{example('evaluate')} {FAST['evaluate']}")


def test_convert_there_and_back_keeps_steps_and_labels(inside: Path) -> None:
    invoke("convert labels/labels.parquet rows.trl.jsonl --to trl")
    assert json.loads(invoke("convert rows.trl.jsonl back.parquet --json"))["refused"] == 0
    before, after = (list(read_table(inside / name)) for name in ("labels/labels.parquet", "back.parquet"))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        assert [s.text.strip() for s in one.steps] == [s.text.strip() for s in other.steps]
    row = {"prompt": "1 + 1?", "completions": ["1 + 1 = 2"], "labels": [True]}
    (inside / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert json.loads(invoke("convert rows.jsonl labels.parquet --json"))["written"] == 1


def test_a_folder_of_labels_means_its_transformed_labels(inside: Path) -> None:
    first, second = (
        json.loads(invoke(f"evaluate --data {data} --model model --threshold 0.5 --json"))
        for data in ("labels", "labels/labels.parquet")
    )
    assert first == second


def test_another_transform_is_applied_without_a_rollout(inside: Path) -> None:
    line = f"{example('label')} {FAST['label']} --json".replace("--out labels", "--out soft.jsonl")
    (inside / "soft.run").mkdir()
    for path in (inside / "labels").iterdir():
        (inside / "soft.run" / path.name).write_bytes(path.read_bytes())
    made = json.loads(invoke(f"{line} --transform hard --set threshold=0.5"))
    assert made["labels"] == "soft.jsonl"
    assert made["bill"]["proposals"] == 0
    for one in formats.read(inside / "soft.jsonl"):
        known = ~np.isnan(one.column("value"))
        np.testing.assert_array_equal(one.labels[known], one.column("value")[known] > 0.5)


def test_label_takes_problems_or_solutions_as_data(inside: Path) -> None:
    line = f"{example('label')} {FAST['label']} --json".replace("--problems", "--data")
    assert json.loads(invoke(line))["trajectories"] == told(inside, "label")["trajectories"]
    problem = "Mia has 12 apples. Mia buys 5 more. How many apples does Mia have now?"
    rows = [
        {"problem": problem, "steps": ["12 + 5 = 17", "Answer: 17"], "label": -1, "final_answer_correct": True},
        {"problem": problem, "steps": ["12 - 5 = 7", "Answer: 7"], "label": 0, "final_answer_correct": False},
    ]
    (inside / "solutions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (inside / "references.jsonl").write_text(json.dumps({"prompt": problem, "reference": "17"}) + "\n")
    invoke(
        "label --data solutions.jsonl --references references.jsonl --grader arithmetic --out solutions.parquet"
        " --rollouts 2 --json"
    )
    right, wrong = read_table(inside / "solutions.parquet")
    assert right.problem.reference == "17"
    assert [right.outcome, wrong.outcome] == [1.0, 0.0]
    assert right.labels.tolist() == [1.0, 1.0]
    assert wrong.labels[-1] == 0.0


def test_budgets_of_a_solution_are_kept(inside: Path) -> None:
    line = f"{example('label')} --samples 4 --estimator math-shepherd --rollouts 4 --max-rollouts 4 --json"
    invoke(line.replace("--out labels", "--out few"))
    spent = [int(one.column("n_rollouts").sum()) for one in read_table(inside / "few/labels.parquet")]
    assert max(spent) == 4


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("method", "flags"), [("dvts", "--beams 2 --width 2"), ("best-of-n", "--samples 3")])
def test_search_flags_reach_the_method(inside: Path, method: str, flags: str) -> None:
    line = f"search --problems problems.jsonl --grader arithmetic --model model --method {method} --out {method}.jsonl"
    told_ = json.loads(invoke(f"{line} {flags} --aggregate last --json"))
    rows = solved(inside / f"{method}.jsonl")
    assert told_["problems"] == 12
    assert max(len(row["candidates"]) for row in rows) == {"dvts": 2, "best-of-n": 3}[method]
    for row in rows:
        assert len(row["score"]) == len(row["steps"])
        # The search says how the solution came about; the scorer alone measured something of its steps.
        assert [one["what"] for one in json.loads(row["provenance"])] == [[], ["score"]]
        # The total of a candidate under `last` is the score of its last step.
        for one in row["candidates"]:
            assert one["total"] == pytest.approx(one["score"][-1], rel=1e-4)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("log", ["samples.sqlite", "answers.sqlite"])
def test_labelling_killed_anywhere_ends_with_equal_labels(inside: Path, log: str) -> None:
    command = shlex.split(f"{example('label')} {FAST['label']}")
    killed = f"killed-{log}"
    command[command.index("labels")] = killed
    process = started(run_command, command)
    written, deadline = inside / killed / f"{log}-wal", time.monotonic() + 200
    while process.is_alive() and time.monotonic() < deadline:
        if written.exists() and written.stat().st_size:
            process.kill()
            break
        time.sleep(0.002)
    process.join()
    assert not (inside / killed / "labels.parquet").exists(), "killed too late to show anything"
    assert "labelled solutions" in invoke(shlex.join(command))
    for one, other in zip(*(read_table(inside / name / "labels.parquet") for name in ("labels", killed)), strict=True):
        assert one.text == other.text
        for name in ("value", "label", "n_rollouts", "n_correct"):
            np.testing.assert_array_equal(one.column(name), other.column(name))
