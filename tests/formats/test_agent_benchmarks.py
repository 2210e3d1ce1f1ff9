"""AgentRewardBench, TRAIL and MAST: verdicts by hand, and folders and files as their authors lay them out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepreward.cli.benchmark import Recorded
from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Scored
from stepreward.formats.preferences.tr_bench import choice
from stepreward.formats.registry import by_name, read, read_comparisons
from tests.cli.running import invoke

from .examples import EXAMPLES, items

NAN = math.nan
JUDGMENT = EXAMPLES["agent-reward-bench-judgment"][1]


def says(judge: str, text: str | None, **options: Any) -> float:
    response = None if text is None else {"choices": [{"message": {"content": text}}]}
    row = {**JUDGMENT, "judge": judge, "response": response}
    (item,) = by_name("agent-reward-bench-judgment").read(row, 1, **options)
    return float(item.scores[judge][0])


@pytest.mark.parametrize(
    ("judge", "text", "verdict"),
    [
        ("gpt-4o", "<success>Successful</success>", 1),
        ("gpt-4o", "<success> 'Unsuccessful' </success> <success>Successful</success>", 0),  # the first, as the authors
        ("gpt-4o", "It was successful.", 0),  # no tag: the authors count a failure
        ("aer", "Thoughts: fine\nStatus: success", 1),
        ("aerv", "Status: failure\n", 0),
        ("nnetnav", "Thought: fine.\nReward: 4", 1),
        ("nnetnav", "Thought: fine.\nReward: 3", 0),
        ("gpt-4o", None, NAN),  # never answered: left out
    ],
)
def test_a_judge_is_read_as_its_authors_do(judge: str, text: str | None, verdict: float) -> None:
    np.testing.assert_equal(says(judge, text), verdict)


def test_unread_verdicts_may_count_as_unknown() -> None:
    assert math.isnan(says("gpt-4o", "It was successful.", unread="nan"))
    with pytest.raises(InputError, match="neither yes nor no"):
        says("gpt-4o", "<success>Partly</success>")


def test_a_run_is_read_with_its_expert() -> None:
    (run,) = items("agent-reward-bench")
    assert [step.kind for step in run.steps] == ["observation", "action"] * 2
    assert run.steps[1].text == "Reasoning: Search.\nAction: fill('3', 'cup')\n"
    assert "RootWebArea" not in run.text
    (seen,) = items("agent-reward-bench", page=True)
    assert "RootWebArea 'Cup'" in seen.steps[2].text
    assert (run.outcome, run.facts["subset"], run.facts["split"]) == (1.0, "webarena", "test")
    assert items("agent-reward-bench-judgment", 2)[0].facts["subset"] == "workarena++"


HEAD = "annotator_name,benchmark,task_id,model_name,exp_name,trajectory_success,trajectory_side_effect"
RUNS = {
    "webarena.1": ("Successful", 1.0), "webarena.2": ("Unsuccessful", 0.0), "webarena.3": ("Successful", 0.0),
    "webarena.4.resized": ("Unsure", 1.0), "webarena.5": ("Unsuccessful", 1.0), "webarena.6": ("Successful", 1.0),
}  # fmt: skip
"""What the first expert says of each run, and the environment's reward."""


@pytest.fixture
def judgments(tmp_path: Path) -> Path:
    """Six runs of one agent: one is of the split dev, and of one the expert is unsure; a second expert disagrees."""
    root = tmp_path / "trajectories"
    folder = root / "judgments" / "webarena" / "GenericAgent-m"
    lines = [f"A,webarena,{task},GenericAgent-m,e,{said},No" for task, (said, _) in RUNS.items()]
    lines.append("B,webarena,webarena.1,GenericAgent-m,e,Unsuccessful,No")
    root.mkdir()
    (root / "annotations.csv").write_text("\n".join([HEAD, *lines]) + "\n")
    splits = [f"webarena.{i},webarena,{'dev' if i == 6 else 'test'}" for i in range(1, 7)]
    (root / "splits.csv").write_text("\n".join(["task_id,benchmark,split", *splits]) + "\n")
    for judge in ("functional", "gpt-4o-noscreen"):
        (folder / judge).mkdir(parents=True)
        for task, (_, reward) in RUNS.items():
            row = {
                "benchmark": "webarena", "goal": "Go.", "agent": "GenericAgent-m", "judge": judge,
                "trajectory_info": {"summary_info": {"cum_reward": reward}},
                "response": {"choices": [{"message": {"content": "<success>Successful</success>"}}]},
            }  # fmt: skip
            name = f"{task}_error.json" if judge != "functional" and task == "webarena.2" else f"{task}.json"
            if name.endswith("_error.json"):
                row = {"error": "too long", "trajectory_info": row["trajectory_info"]}
            (folder / judge / name).write_text(json.dumps(row))
    return root / "judgments"


def test_one_command_measures_a_folder_of_judgments(judgments: Path) -> None:
    made = json.loads(invoke(f"evaluate --benchmark agent-reward-bench --data {judgments} --json"))
    rule, judge = (made["scorers"][name] for name in ("functional", "gpt-4o-noscreen"))
    # Of the runs 1, 2, 3 and 5 the reward calls 1 and 5 a success; 1 and 3 are.
    assert [rule["metrics"][name]["value"] for name in ("precision", "recall", "f1", "accuracy")] == [0.5] * 4
    assert rule["groups"]["webarena"]["success"]["value"] == 0.5
    # Who always says success has the share of successes as precision; the run without an answer is left out.
    assert [judge["metrics"][name]["value"] for name in ("precision", "recall", "success")] == [2 / 3, 1, 2 / 3]
    assert (judge["unscored"], judge["metrics"]["precision"]["n"]) == (1, 3)
    every = json.loads(invoke(f"evaluate --benchmark agent-reward-bench --data {judgments} --set split= --json"))
    assert every["scorers"]["functional"]["metrics"]["precision"]["value"] == 2 / 3


def test_judgments_need_their_experts(judgments: Path) -> None:
    (judgments.parent / "annotations.csv").unlink()
    with pytest.raises(InputError, match="needs the experts' judgments"):
        list(read(next(judgments.rglob("webarena.1.json"))))


def test_spans_of_a_trace_are_its_steps() -> None:
    (nested,), (alone,) = items("trail", 0), items("trail", 1)
    assert [step.meta["span"] for step in nested.steps] == ["a", "b", "c"]
    assert '"span_name": "step b"' in nested.steps[1].text
    assert "step b" not in nested.steps[0].text
    assert nested.labels.tolist() == [1, 0, 0]
    assert nested.scores["m"].tolist() == [0, 0, 1]
    assert nested.facts["errors:m"] == [["b", "formatting errors"], ["a", "Tool-related"]]
    assert ([step.text for step in alone.steps], alone.facts["errors:m"]) == (["span x\n"], [])


def test_trail_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "trail.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in EXAMPLES["trail"]))
    made = json.loads(invoke(f"evaluate --benchmark trail --data {path} --scorer m --json"))["scorers"]
    # Trace 1: b of b and c, and its category; trace 2: nothing. F1 of one of two with two named is 1/2.
    values = {name: one["value"] for name, one in made["m"]["metrics"].items()}
    assert values == pytest.approx(
        {"location_accuracy": 1 / 4, "location_f1": 1 / 4, "joint_accuracy": 1 / 4, "joint_f1": 1 / 4,
         # Each category is in one trace: formatting and tool-related are found, goal deviation is not.
         "category_f1": 2 / 3}
    )  # fmt: skip
    assert set(made["position"]["metrics"]) == {"location_accuracy", "location_f1"}  # a scorer names no category
    everywhere = json.loads(invoke(f"evaluate --benchmark trail --data {path} --scorer constant --threshold 1 --json"))
    assert everywhere["scorers"]["constant"]["metrics"]["location_accuracy"]["value"] == 1  # blames all, finds all
    assert everywhere["scorers"]["constant"]["metrics"]["location_f1"]["value"] == pytest.approx((4 / 5 + 1) / 2)


def test_reports_are_found_in_a_judges_text() -> None:
    row = EXAMPLES["trail"][0]
    for text, expected in (('{broken {"errors": []} more', []), ("nothing", []), ("[1]", [])):
        (item,) = by_name("trail").read({**row, "judged": {"m": text}}, 1)
        assert item.facts["errors:m"] == expected
    for wrong in ({"labels": 3}, {"judged": [1]}, {"labels": {"errors": "x"}}):
        with pytest.raises(InputError):
            list(by_name("trail").read({**row, **wrong}, 1))


def test_half_a_trace_or_half_of_its_errors_is_no_row() -> None:
    row = {**EXAMPLES["trail"][0], "trace": json.dumps({"spans": [{"span_id": "b"}]})}
    row["labels"] = json.dumps({"errors": [{"location": "b", "category": "Goal"}]})
    (item,) = by_name("trail").read(row, 1)
    assert item.labels.tolist() == [0]
    for name in ("trace", "labels"):
        with pytest.raises(InputError, match=f"'{name}' is broken JSON"):
            list(by_name("trail").read({**row, name: row[name][:-3]}, 1))


def test_mast_by_hand(tmp_path: Path) -> None:
    (item,) = items("mast")
    assert (item.labels.tolist(), item.scores["m"].tolist()) == ([0], [0])
    assert (item.facts["modes"]["2.2"], item.facts["modes:m"]["2.1"]) == (1, None)
    row = EXAMPLES["mast"][0]
    clean = {**row, "trace_id": 4, "mast_annotation": dict.fromkeys(row["mast_annotation"], 0),
             "judged": {"m": dict.fromkeys(row["mast_annotation"], 0)}}  # fmt: skip
    path = tmp_path / "mast.json"
    path.write_text(json.dumps([row, clean]))
    made = json.loads(invoke(f"evaluate --benchmark mast --data {path} --scorer m --scorer constant --json"))["scorers"]
    # Known of both: 2.2 hit, 3.1 called in vain, 3.3 missed, 1.1 and the 14 modes of the clean trace rightly absent.
    values = {name: one["value"] for name, one in made["m"]["metrics"].items()}
    chance = (2 * 2 + 16 * 16) / 18**2
    half = dict.fromkeys(("precision", "recall", "f1"), 1 / 2)
    assert values == pytest.approx({"kappa": (16 / 18 - chance) / (1 - chance), "accuracy": 16 / 18, **half})
    assert made["m"]["groups"]["2.2"]["kappa"]["value"] == 1
    assert made["m"]["groups"]["2.1"]["kappa"]["value"] is None  # nobody names it: agreement says nothing
    # A scorer without modes says whether a trace fails at all: a constant one is at chance.
    assert made["constant"]["metrics"]["kappa"]["value"] == 0
    assert made["constant"]["metrics"]["accuracy"]["value"] == 1 / 2
    assert made["constant"]["groups"] == {}
    (sound,) = by_name("mast").read({**clean, "trace_id": 5}, 1)
    (open_,) = by_name("mast").read({**row, "mast_annotation": {"1.1": None}}, 1)

    class Sees:
        """Scores the last step of what fails at the threshold, of what is sound above it, and of the rest nothing."""

        name, batch_size = "sees", 9

        def score_many(self, questions: Any) -> list[Scored]:
            scores = {item.problem.id: 0.5, sound.problem.id: 0.75}
            return [
                Scored(np.array([NAN] * (len(one.steps) - 1) + [scores.get(one.problem.id, NAN)])) for one in questions
            ]

    made = bench["mast"].take({"scorer": Sees(), "data": [item, sound, open_]})
    assert {name: one.value for name, one in made.metrics.items()} == dict.fromkeys(values, 1.0)
    path.write_text(json.dumps([row]))
    (known,) = {tuple(json.loads(invoke(f"evaluate --benchmark mast --data {path} --json"))["scorers"]["m"]["groups"])}
    assert known == ("1.1", "2.2", "3.1", "3.3")  # a mode that one side leaves open is no group
    assert "kappa" in invoke(f"evaluate --benchmark mast --data {path}")


def test_modes_are_zero_one_or_unknown() -> None:
    row = EXAMPLES["mast"][0]
    bad = ({"mast_annotation": {"1.1": 2}}, {"judged": {"m": 1}}, {"trace": {"trajectory": " "}}, {"judged": "m"})
    for wrong in bad:
        with pytest.raises(InputError):
            list(by_name("mast").read({**row, **wrong}, 1))


def test_tr_bench_counts_a_pair_once_and_a_tie_as_wrong(tmp_path: Path) -> None:
    """The authors' files hold every pair twice, for a judge that sees both orders."""
    (row,) = EXAMPLES["tr-bench"]
    other = {**row, "reject_response": "It is 12.", "extra_info": {"index": 1, "task_source": "chat"}}
    again = [{**one, "reward_model": {"ground_truth": "2"}} for one in (row, other)]
    path = tmp_path / "trbench_test_think.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (row, other, *again)))
    (item, *_) = read_comparisons(path)
    assert [message["role"] for message in item.problem.messages] == ["system", "user"]
    assert [one.text for one in item.candidates] == [row["chosen_response"] + "\n", "It is 4.\n"]
    assert (item.problem.id, item.subset) == ("tr-bench-7", "simple")
    assert len(list(read_comparisons(path, twice=False))) == 4
    line = f"evaluate --benchmark pairs --data {path} --aggregate last --json --scorer"
    made = json.loads(invoke(f"{line} constant"))
    assert (made["rows"], made["scorers"]["constant"]["metrics"]["accuracy"]["value"]) == (2, 0)
    assert set(made["scorers"]["constant"]["groups"]) == {"simple", "chat"}
    with pytest.raises(InputError, match="must hold messages"):
        list(by_name("tr-bench").read({**row, "chat_history": [1]}, 1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("so\n<choice>\n1\n</choice>", "1"),
        ("<choice> 2 </choice>", "2"),
        ("<choice>1</choice> then\n<choice>\n2\n</choice>", "2"),
        ("<choice>3</choice> <choice>1</choice>", None),
        ("first: 1", None),
        ("", None),
    ],
)
def test_a_choice_is_read_as_its_authors_do(text: str, said: str | None) -> None:
    """The form with lines of its own comes before any other, then the first mark counts and no later one."""
    assert choice(text) == said


def test_judges_of_tr_bench_are_measured_in_both_orders(tmp_path: Path) -> None:
    """Three pairs, by `fair`: right in both; right in the second alone; first unread. `place` names the first place."""
    (row,) = EXAMPLES["tr-bench"]
    answers = [("1", "2"), ("2", "2"), ("", "2")]
    rows = []
    for better in ("1", "2"):
        for at, one in enumerate(answers):
            fair = f"<choice>{one[int(better) - 1]}</choice>"
            extra = {"index": len(rows), "original_index": at, "task_source": ["simple", "chat", "chat"][at]}
            judged = {"fair": fair, "place": "<choice>\n1\n</choice>"}
            rows.append({**row, "reward_model": {"ground_truth": better}, "extra_info": extra, "judged": judged})
    path = tmp_path / "trbench_test_think.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    made = json.loads(invoke(f"evaluate --benchmark both-orders --data {path} --json"))
    fair, place = ({name: one["value"] for name, one in made["scorers"][judge]["metrics"].items()} for judge in
                   ("fair", "place"))  # fmt: skip
    assert fair == pytest.approx(
        {"both_right": 1 / 3, "accuracy": 4 / 6, "better_first": 1 / 3, "better_second": 1, "swayed": 1 / 3,
         "unread": 1 / 6}
    )  # fmt: skip
    assert place == pytest.approx(
        {"both_right": 0, "accuracy": 0.5, "better_first": 1, "better_second": 0, "swayed": 1, "unread": 0}
    )
    groups = made["scorers"]["fair"]["groups"]
    assert {name: one["both_right"]["value"] for name, one in groups.items()} == {"simple": 1, "chat": 0}
    path.write_text("".join(json.dumps(one) + "\n" for one in rows[:-1]))
    cut = json.loads(invoke(f"evaluate --benchmark both-orders --data {path} --json"))["scorers"]["fair"]
    assert (cut["unscored"], cut["metrics"]["both_right"]["value"]) == (1, 0.5)
    for wrong, message in ((rows[:3], "no pair is there in both orders"), ([*rows, rows[0]], "there twice with")):
        path.write_text("".join(json.dumps(one) + "\n" for one in wrong))
        with pytest.raises(InputError, match=message):
            bench["both-orders"].take({"scorer": Recorded("fair"), "data": list(read_comparisons(path))})
    for bad in ({**rows[0], "judged": {"fair": 1}}, {**rows[0], "reward_model": {"ground_truth": "3"}}):
        with pytest.raises(InputError, match=r"'judged'"):
            list(by_name("tr-bench").read(bad, 1))


def test_scorers_have_no_order_and_rows_without_one_are_refused(tmp_path: Path) -> None:
    row = {"id": "p", "prompt": "2 + 3?", "chosen": "5 is it", "rejected": "6", "scores": {"j": [1, 0]}}
    path = tmp_path / "orders.jsonl"
    path.write_text("".join(json.dumps({**row, "better_first": first}) + "\n" for first in (True, False)))
    made = json.loads(invoke(f"evaluate --benchmark both-orders --data {path} --scorer length --scorer j --json"))
    assert {name: one["metrics"]["both_right"]["value"] for name, one in made["scorers"].items()} == {
        "length": 0,
        "j": 1,
    }
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match="must have 'better_first' true or false"):
        bench["both-orders"].take({"scorer": Recorded("j"), "data": list(read_comparisons(path))})


def test_fc_reward_bench_is_measured_by_kind_of_error(tmp_path: Path) -> None:
    """Values as objects and as JSON in texts; a wrong call may be no JSON at all."""
    first, second = (one for at in range(2) for one in items("fc-reward-bench", at))
    assert first.problem.id == "fc-reward-bench-simple_7"
    assert first.problem.messages == ({"role": "user", "content": "What is 2 + 3?"},)
    assert first.problem.meta["tools"][0]["name"] == second.problem.meta["tools"][0]["name"] == "add"
    assert [one.text for one in first.candidates] == [
        '[{"name": "add", "arguments": {"a": 2, "b": 3}}]\n', '[{"name": "add", "arguments": {"a": 2, "b": 2}}]\n',
    ]  # fmt: skip
    assert [one.text for one in second.candidates] == [
        '[{"name": "add", "arguments": {"a": 4, "b": 4}}]\n', "add(4\n",
    ]  # fmt: skip
    assert second.meta == {"error_type": "Parsing error", "model_name": "n", "test_category": "simple"}
    path = tmp_path / "fc.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in EXAMPLES["fc-reward-bench"]))
    line = f"evaluate --benchmark pairs --data {path} --aggregate last --scorer length --json"
    made = json.loads(invoke(line))["scorers"]["length"]
    rates = {name: one["accuracy"]["value"] for name, one in made["groups"].items()}
    assert rates == {"Parameter value error": 0, "Parsing error": 0}, "a tie is wrong, and the right call is longer"
    row = EXAMPLES["fc-reward-bench"][0]
    for wrong in ({"conversation": []}, {"conversation": [{"role": "user"}]}, {"chosen_output": ""}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            list(by_name("fc-reward-bench").read({**row, **wrong}, 1))
