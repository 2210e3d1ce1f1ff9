"""`stepreward evaluate` on recorded scores, against numbers worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepreward import formats
from tests.cli.running import invoke

pytestmark = pytest.mark.xdist_group("commands")
SCORES = Path(__file__).parents[3] / "shared" / "data" / "processbench_prm_scores" / "gsm8k.jsonl.gz"


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Four ProcessBench solutions under one verifier."""
    solutions = [("a", 2, -1, [0.9, 0.8]), ("b", 2, -1, [0.9, 0.4]), ("c", 3, 1, [0.9, 0.2]), ("d", 2, 0, [0.3])]
    texts = [{"id": i, "problem": f"problem {i}", "steps": ["step"] * n, "label": e} for i, n, e, _ in solutions]
    scored = [{"id": i, "label": e, "n_scored": len(s), "scores": {"v": s}} for i, _, e, s in solutions]
    write(tmp_path / "processbench" / "four.json", texts)
    write(tmp_path / "scores" / "four.jsonl", scored)
    return tmp_path / "scores" / "four.jsonl"


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two problems with three samples each under one verifier."""
    kai = {"problem_id": "kai", "question": "10 + 1?", "gold": "11", "answers": ["11", "9", "9"], "n_steps": [2, 2, 1]}
    ali = {"problem_id": "ali", "question": "5 - 4?", "gold": "1", "answers": ["1", "1", "2"], "n_steps": [1, 1, 1]}
    rows: list[dict[str, object]] = [
        {**kai, "is_correct": [1, 0, 0], "scores": {"v": [[0.9, 0.8], [0.2, 0.4], [0.3]]}},
        {**ali, "is_correct": [1, 1, 0], "scores": {"v": [[0.9], [0.7], [0.6]]}},
    ]
    write(tmp_path / "p_scores.jsonl", rows)
    write(
        tmp_path / "p_steps_text.jsonl",
        [
            {"problem_id": "kai", "steps": [["a", "b"], ["c", "d"], ["e"]]},
            {"problem_id": "ali", "steps": [["f"], ["g"], ["h"]]},
        ],
    )
    return tmp_path / "p_scores.jsonl"


def test_first_errors_and_calibration_of_recorded_scores(recorded: Path) -> None:
    made = json.loads(invoke(f"evaluate --data {recorded} --threshold 0.5 --json"))["scorers"]["v"]
    # Below 0.5 is wrong: a is left whole, b and c are blamed at step 1, d at step 0. Of the right ones (a, b) half are
    # kept, of the wrong ones (c, d) all are found: F1 = 2 * 1 * 0.5 / 1.5.
    found = made["first_error"]
    assert found["erroneous"]["value"] == 1.0
    assert found["correct"]["value"] == 0.5
    assert found["f1"]["value"] == pytest.approx(2 / 3)
    assert (found["threshold"], found["threshold_from"]) == (0.5, "given")
    # Right steps score 0.9 0.8 0.9 0.4 0.9, wrong ones 0.2 and 0.3, all below: AUROC 1. Squares of the gaps:
    # 0.01 + 0.04 + 0.01 + 0.36 + 0.01 + 0.04 + 0.09 = 0.56 over 7 steps.
    assert made["steps"]["auroc"] == 1.0
    assert made["steps"]["brier"] == pytest.approx(0.08)
    # At 0.35 nothing right is blamed any more.
    lower = json.loads(invoke(f"evaluate --data {recorded} --threshold 0.35 --json"))["scorers"]["v"]
    assert lower["first_error"]["f1"]["value"] == 1.0


def test_a_threshold_that_cannot_be_chosen_is_told(recorded: Path) -> None:
    # Only a and b are left, and both are right: no part has a wrong one to choose a threshold with.
    recorded.write_text("".join(recorded.read_text().splitlines(keepends=True)[:2]))
    line = f"evaluate --data {recorded}"
    made = json.loads(invoke(f"{line} --json"))["scorers"]["v"]
    assert "first_error" not in made
    assert made["no_first_error"].endswith("pass --threshold")
    assert made["steps"]["brier"] == pytest.approx(0.42 / 4)
    assert "v, no first error: 2 problems" in invoke(line)


def test_selection_against_the_number_of_samples(pool: Path) -> None:
    made = json.loads(invoke(f"evaluate --data {pool} --json"))["scorers"]["v"]["selection"]
    assert made["sizes"] == [1, 2, 3]
    at_three = {name: row[-1]["value"] for name, row in made["accuracy"].items()}
    # Kai: most say 9, which is wrong; the right one has the best worst step, 0.8, and its vote beats 0.2 + 0.3. Ali:
    # any of them chooses a right one.
    assert at_three == {"majority": 0.5, "oracle": 1.0, "best-of-n:min": 1.0, "weighted-vote:min": 1.0}
    assert made["versus_majority"]["weighted-vote:min"]["value"] == 0.5
    assert "v, majority of 3: 50.0%" in invoke(f"evaluate --data {pool}")


def test_selection_that_cannot_be_measured_is_told(pool: Path) -> None:
    rows = [json.loads(line) for line in pool.read_text().splitlines()]
    rows[1] = {**rows[1], **{name: rows[1][name][:2] for name in ("answers", "is_correct", "n_steps")}}
    rows[1]["scores"]["v"] = rows[1]["scores"]["v"][:2]
    write(pool, rows)
    texts = pool.with_name("p_steps_text.jsonl")
    lines = [json.loads(line) for line in texts.read_text().splitlines()]
    write(texts, [lines[0], {**lines[1], "steps": lines[1]["steps"][:2]}])
    made = json.loads(invoke(f"evaluate --data {pool} --json"))["scorers"]["v"]
    assert made["no_selection"] == "problems have 2 to 3 solutions, selection needs the same number of each"


def test_a_grader_reads_answers_that_rows_do_not_state(tmp_path: Path, inside: Path) -> None:
    problem = {"id": "kai", "problem": "10 + 1?"}
    rows: list[dict[str, object]] = [
        {**problem, "steps": [f"10 + 1 = {n}", f"Answer: {n}"], "label": e, "final_answer_correct": e < 0}
        for n, e in ((11, -1), (9, 0), (9, 0))
    ]
    write(tmp_path / "rows.jsonl", rows)
    line = f"evaluate --data {tmp_path / 'rows.jsonl'} --model model --threshold 0.5 --json"
    without = json.loads(invoke(line))["scorers"]["model"]
    assert without["no_selection"] == "no solution states its answer; pass --grader"
    made = json.loads(invoke(f"{line} --grader arithmetic"))["scorers"]["model"]["selection"]
    assert made["accuracy"]["majority"][-1]["value"] == 0.0
    assert made["accuracy"]["oracle"][-1]["value"] == 1.0


@pytest.mark.real
@pytest.mark.skipif(not SCORES.exists(), reason="real data is not here")
def test_real_verifiers_are_all_measured() -> None:
    made = json.loads(invoke(f"evaluate --data {SCORES} --json"))
    assert made["solutions"] == 250
    position = made["scorers"].pop("position")
    assert len(made["scorers"]) == 21
    assert position["first_error"]["f1"]["value"] < 0.6
    for one in made["scorers"].values():
        assert 0.2 < one["first_error"]["f1"]["value"] < 0.95
        assert one["first_error"]["threshold_from"].startswith("best F1 on")
        assert one["steps"]["auroc"] > 0.6


def test_rows_are_written_with_what_was_computed_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tool` says 1 of a true equation, 0 of a false one; recorded scores `v` have a gap at the second row's end."""
    monkeypatch.setattr("stepreward.cli.rows.evaluated_rows._AT_ONCE", 2)
    table = {"schema": "stepreward/trajectories/1", "facts": '{"subset": "sums"}', "mine": [1.0, 2.0]}
    rows = [
        {**table, "problem": "a", "prompt": "?", "steps": ["1 + 1 = 2", "2 + 2 = 4"], "score:v": [0.9, 0.1],
         "first_error": -1},
        {**table, "problem": "b", "prompt": "?", "steps": ["1 + 1 = 3", "2 + 2 = 4"], "score:v": [0.9, None],
         "first_error": 0},
        {**table, "problem": "c", "prompt": "?", "steps": ["1 + 1 = 2", "2 + 2 = 5"], "first_error": 1},
    ]  # fmt: skip
    write(tmp_path / "rows.jsonl", rows)
    line = f"evaluate --data {tmp_path}/rows.jsonl --model tool --threshold 0.5 --json"
    told = json.loads(invoke(f"{line} --out {tmp_path}/out.parquet"))
    assert told["scorers"]["model"]["first_error"]["f1"]["value"] == 1.0
    made = list(formats.read(tmp_path / "out.parquet"))
    assert [one.column("score:model").tolist() for one in made] == [[1, 1], [0, 1], [1, 0]]
    assert [one.steps[0].text for one in made] == ["1 + 1 = 2", "1 + 1 = 3", "1 + 1 = 2"]
    assert [one.column("mine").tolist() for one in made] == [[1, 2]] * 3
    found = [one.facts["predicted_first_error"] for one in made]
    # Position: 0.75 / (0.75 + 1/4) = 0.75, then 0.75 / (0.75 + 3/4) = 0.5, which is wrong: not above the threshold.
    assert found == [
        {"v": 1, "model": -1, "position": 1}, {"v": None, "model": 0, "position": 1}, {"model": 1, "position": 1},
    ]  # fmt: skip
    assert [one.facts.get("unscored") for one in made] == [None, ["v"], None]
    assert {one.facts["subset"] for one in made} == {"sums"}
    assert made[0].provenance[-1].what == ("score:model",)
    invoke(f"{line} --out {tmp_path}/parts --rows-per-part 2")
    assert len(list((tmp_path / "parts").glob("*.parquet"))) == 2
    assert [one.facts["predicted_first_error"] for one in formats.read(tmp_path / "parts")] == found
    # A benchmark takes the folder as one, too: its parts are no subsets.
    measured = "evaluate --data {} --benchmark first-error-accuracy --model tool --threshold 0.5 --json"
    whole, parts = (json.loads(invoke(measured.format(tmp_path / name))) for name in ("out.parquet", "parts"))
    assert parts["scorers"] == whole["scorers"]
    assert parts["scorers"]["tool"]["metrics"]["accuracy"]["value"] == 1.0
