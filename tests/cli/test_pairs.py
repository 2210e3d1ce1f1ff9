"""`stepreward pairs`, and training on what it and others write of preferences."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from typer.testing import CliRunner

import stepreward
from stepreward.cli.app import app
from stepreward.cli.terminal import progress
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.registry import read_comparisons
from tests.cli.running import invoke, refused
from tests.train.toy import toy_labels


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two problems: one has siblings, the other one solution."""
    monkeypatch.chdir(tmp_path)
    problem = Problem("sum", "2 + 3, doubled?", reference="10")
    rows = []
    for second, value in (("5 * 2 = 10\n", 1.0), ("5 * 2 = 12\n", 0.25)):
        steps = (Step("2 + 3 = 5\n"), Step(second), Step("Done.\n"))
        columns = {"label": np.array([1.0, value, value])}
        rows.append(Trajectory(problem, steps, float(value == 1), columns=columns, facts={"domain": "sums"}))
    alone = Trajectory(Problem("alone", "1 + 1?"), (Step("2\n"),), 1.0, columns={"label": np.ones(1)})
    # The rows of a problem need not be neighbours.
    stepreward.write("rows.parquet", [rows[0], alone, rows[1]])
    return tmp_path


def lines(path: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_each_kind_is_written_as_trl_reads_it(inside: Path) -> None:
    said = invoke("pairs --data rows.parquet --out pairs.jsonl --to trl-preference --write layout=text")
    assert said == "pairs.jsonl: 1 pairs by siblings, of 1 of 2 problems\n"
    assert lines("pairs.jsonl") == [
        {"prompt": "2 + 3, doubled?\n2 + 3 = 5\n", "chosen": "5 * 2 = 10\n", "rejected": "5 * 2 = 12\n",
         "margin": 0.75, "strength": 0.75}
    ]  # fmt: skip
    invoke("pairs --data rows.parquet --out whole.jsonl --by outcomes --to trl-preference")
    (row,) = lines("whole.jsonl")
    assert row["prompt"] == [{"role": "user", "content": "2 + 3, doubled?"}]
    assert row["rejected"] == [{"role": "assistant", "content": "2 + 3 = 5\n5 * 2 = 12\nDone.\n"}]
    assert row["margin"] == 1.0
    invoke("pairs --data rows.parquet --out ends.jsonl --by ends --margin 0.7 --to trl-preference")
    assert lines("ends.jsonl")[0] == {**row, "margin": 0.75, "strength": 0.75}
    invoke("pairs --data rows.parquet --out pareto.jsonl --by pareto --column label,label --to trl-preference")
    assert lines("pareto.jsonl")[0]["margin"] == 0.75
    invoke("pairs --data rows.parquet --out bad.jsonl --by degraded --to trl-preference --write layout=text")
    (row,) = lines("bad.jsonl")
    assert (row["chosen"], row["rejected"]) == ("5 * 2 = 10\nDone.\n", "5 * 2 = 12\nDone.\n")
    done = json.loads(invoke("pairs --data rows.parquet --out steps.jsonl --by step-dpo --to step-dpo --json"))
    assert (done["pairs"], done["problems"], done["problems_with_pairs"], done["refused"]) == (1, 2, 1, 0)
    assert lines("steps.jsonl") == [
        {"dataset": "sums", "prompt": "2 + 3, doubled?", "initial_reason_steps": "2 + 3 = 5\n",
         "chosen": "5 * 2 = 10\n", "rejected": "5 * 2 = 12\n", "full_chosen": "5 * 2 = 10\nDone.\n",
         "full_rejected": "5 * 2 = 12\nDone.\n", "answer": "10"}
    ]  # fmt: skip
    invoke("pairs --data rows.parquet --out single.parquet --by outcomes --to trl-unpaired")
    made = load_dataset("parquet", data_files="single.parquet", split="train", cache_dir="cache")
    assert made["label"] == [True, False]


def test_the_own_table_has_a_row_for_each_candidate_that_training_reads(inside: Path) -> None:
    invoke("pairs --data rows.parquet --out pairs.parquet")
    better, worse = stepreward.read("pairs.parquet")
    assert (better.outcome, worse.outcome) == (1.0, 0.0)
    assert better.problem == worse.problem
    assert better.steps[:1] == worse.steps[:1]
    assert better.facts == {"margin": 0.75, "strength": 0.75, "by": "siblings", "step": 1, "domain": "sums"}
    invoke("pairs --data rows.parquet --out kept.jsonl --to comparisons")
    (item,) = read_comparisons("kept.jsonl")
    assert item.meta["strength"] == 0.75
    assert [one.steps for one in item.candidates] == [better.steps, worse.steps]
    # The same rows, from comparisons.
    invoke("convert kept.jsonl again.parquet")
    assert [(one.steps, one.outcome, one.facts) for one in stepreward.read("again.parquet")] == [
        (one.steps, one.outcome, one.facts) for one in (better, worse)
    ]


def test_what_cannot_become_a_pair_is_said(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for line, said in (
        (
            "pairs --data rows.parquet --out o.jsonl --margin 0.8",
            "no problem has two candidates for --by siblings with different",
        ),
        ("pairs --data rows.parquet --out o.jsonl --column value", "pass several solutions of a problem, a --column"),
        ("pairs --data rows.parquet --out o.jsonl --to gsm8k", "format gsm8k can only be read"),
        ("pairs --data rows.parquet --out o.jsonl --by twins", "no kind of pairs is called 'twins'"),
    ):
        assert said in refused(line, capsys, monkeypatch)
    assert not Path("o.jsonl").exists()


def preferences(n: int) -> list[dict[str, object]]:
    """Pairs as UltraFeedback's binarised rows are: which words are good is learnable."""
    rows: list[dict[str, object]] = []
    for i, row in enumerate(toy_labels(n, 0)[::4]):
        ask = {"role": "user", "content": row.problem.text}
        sides = {name: [ask, {"role": "assistant", "content": f"{word}\n"}] for name, word in
                 (("chosen", "good"), ("rejected", "bad"))}  # fmt: skip
        rows.append({"prompt": row.problem.text, **sides, "score_chosen": 8.0 + i % 2, "score_rejected": 5.0})
    return rows


def test_preference_data_trains_as_it_is(inside: Path) -> None:
    Path("feedback.jsonl").write_text("".join(json.dumps(row) + "\n" for row in preferences(20)))
    flags = "--backbone scratch --batch-tokens 512 --row-tokens 128 --held-out 0.2 --json"
    for objective in ("bradley-terry", "preference-strength"):
        line = f"train --data feedback.jsonl --objective {objective} --epochs 20 --learning-rate 3e-3 {flags}"
        done = json.loads(invoke(f"{line} --out {objective}"))
        assert done["trees"] > 10
    scorer = stepreward.load("bradley-terry")
    good, bad = (scorer.score("Say something good fine", [f"{word}\n"])[0] for word in ("good", "bad"))
    assert good > bad
    # The same in Python.
    rows = [replace(row, facts={}) for row in toy_labels(4, 0)]
    scorer = stepreward.train("feedback.jsonl", "again", objective="bradley-terry", backbone="scratch", epochs=1)
    assert np.isfinite(scorer.score(rows[0].problem.text, ["good\n"])).all()


def test_strength_and_annotator_stay_with_the_candidates(inside: Path) -> None:
    help_steer = {"prompt": "Hi", "response_1": "Hello.", "response_2": "No.", "preference_strength": -2,
                  "annotator": "kai"}  # fmt: skip
    scored = [{"response": text, "overall_score": score} for text, score in (("a", 8.5), ("b", 3.5), ("c", 6))]
    ultra = {"instruction": "Hi", "source": "chat", "completions": scored}
    for name, row in (("steer", help_steer), ("ultra", ultra)):
        Path(f"{name}.jsonl").write_text(json.dumps(row) + "\n")
        invoke(f"convert {name}.jsonl {name}.parquet")
    first, second = stepreward.read("steer.parquet")
    assert (first.outcome, second.outcome) == (1.0, 0.0)
    assert first.facts == second.facts == {"strength": 2.0, "annotator": "kai"}
    made = list(stepreward.read("ultra.parquet"))
    assert [one.outcome for one in made] == [1.0, 0.0, 0.5]
    assert [one.facts["preferred"] for one in made] == [8.5, 3.5, 6.0]
    assert {one.facts["domain"] for one in made} == {"chat"}


def test_long_reading_says_how_far_it_is(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    some = [Trajectory(Problem(str(i), "Hi"), (Step("a"),), columns={"label": np.ones(1)}) for i in range(1100)]
    stepreward.write("many.parquet", some)
    line = "train --data many.parquet --out m --backbone scratch --epochs 0.01 --held-out 0"
    done = CliRunner().invoke(app, shlex.split(line))
    assert done.exit_code == 0, done.output
    for stage in ("read rows", "prepare problems"):
        assert re.search(rf"^{stage}: 1,024 at [\d,.]+/s$", done.stderr, re.MULTILINE)


def test_a_flag_that_may_be_repeated_takes_one_value_of_a_configuration(inside: Path) -> None:
    given = {"data": "rows.parquet", "out": "m", "backbone": "scratch", "epochs": 1, "held-out": 0}
    Path("c.yaml").write_text(json.dumps({"train": given}))
    assert json.loads(invoke("--config c.yaml train --json"))["model"] == "m"


def test_the_best_and_the_worst_of_what_was_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points 3, 5, 4 and none: the second beside the first; all equal, or fewer than two: no pair."""
    monkeypatch.chdir(tmp_path)
    points = {"p": [3, 5, 4, np.nan], "q": [4, 4, 4], "r": [5, np.nan]}
    rows = [
        Trajectory(Problem(name, f"{name}?"), (Step(f"{name} {i}"),), columns={"score": np.array([one]) / 5})
        for name, some in points.items()
        for i, one in enumerate(some)
    ]
    stepreward.write("judged.parquet", rows)
    invoke("pairs --data judged.parquet --by ends --column score --most 1 --out pairs.parquet")
    assert [(one.text, one.outcome) for one in stepreward.read("pairs.parquet")] == [("p 1", 1), ("p 0", 0)]
