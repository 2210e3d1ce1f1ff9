"""The public face: every name, light to import, and each verb with a path, an address and an object."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stepreward
from stepreward.core.errors import IncompleteWarning, InputError, PolicyError, SteprewardError, UnknownNameError
from stepreward.core.optional import EXTRAS
from stepreward.core.runtime.flows import Continuation, Propose, Score, Scored
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.policies.scripted import ScriptedPolicy
from stepreward.score.baselines import WITHOUT_MODEL
from tests.docs import README
from tests.forked import coded

NAMES = {
    "Problem", "Provenance", "Step", "Trajectory", "StepTree", "Key", "load", "read", "write", "label", "train",
    "score", "search", "credit", "evaluate", "serve", "policy", "grader", "methods", "view", "compose", "testing",
    "export", "rounds", "Monitor", "fit_monitor", "evaluate_monitor", "compare_agents", "score_log",
}  # fmt: skip
PROBLEM = Problem("p", "Mia has 12 apples and buys 5 more. How many?", reference="17")
RIGHT = Trajectory(PROBLEM, (Step("12 + 5 = 17\n"), Step("Answer: 17")))
WRONG = Trajectory(PROBLEM, (Step("12 + 5 = 16\n"), Step("Answer: 16")))


def test_every_name_is_public_and_listed() -> None:
    assert set(stepreward.__all__) == NAMES
    assert set(dir(stepreward)) >= NAMES
    for name in sorted(NAMES):
        assert callable(getattr(stepreward, name)) or name in ("methods", "testing"), name
    with pytest.raises(AttributeError, match="nothing"):
        _ = stepreward.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "code",
    [
        "import stepreward; dir(stepreward)",
        'import stepreward; assert stepreward.load("tool").score("?", ["1 + 1 = 3"]).tolist() == [0]',
        "import stepreward; stepreward.methods['credit']['pure']",
        "from stepreward import score, search, credit, read, write, policy, grader, view",
        "import stepreward; from stepreward.serve import http_app, launch, service; "
        "http_app.build(service.Served(stepreward.policy('http://127.0.0.1:1/v1#m'), stepreward.load('tool')))",
    ],
)
def test_what_needs_no_model_loads_no_torch(code: str, tmp_path: Path) -> None:
    code += "; import sys; assert 'torch' not in sys.modules"
    done = coded(code, tmp_path, without=EXTRAS)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("first", ["import stepreward.score.load", "import stepreward.verbs.score_rows", "pass"])
def test_a_verb_can_be_called_whichever_way_its_folder_was_imported(first: str, tmp_path: Path) -> None:
    code = (
        f"import stepreward; {first}\n"
        "from stepreward.score.baselines import WITHOUT_MODEL\n"
        "from stepreward import score, Problem, Step, Trajectory\n"
        "(one,) = score(Trajectory(Problem('p', '?'), (Step('1 + 1 = 3'),)), 'tool')\n"
        "assert one.scores['score'].tolist() == [0.0]\n"
        "assert stepreward.score is score and stepreward.score.baselines.WITHOUT_MODEL is WITHOUT_MODEL\n"
    )
    done = coded(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_score_takes_objects_and_paths(tmp_path: Path) -> None:
    # Equations of WRONG: 12 + 5 = 16 is false, an answer without an equation is neutral (0.8).
    made = stepreward.score([RIGHT, WRONG], "tool")
    assert [one.scores["score"].tolist() for one in made] == [[1.0, 0.8], [0.0, 0.8]]
    assert made[0].provenance[-1].what == ("score",)
    assert stepreward.write(tmp_path / "rows.jsonl", [RIGHT, WRONG]) == []
    again = stepreward.score(tmp_path / "rows.jsonl", WITHOUT_MODEL["tool"](), out=tmp_path / "scored.parquet")
    assert [one.scores["score"].tolist() for one in again] == [[1.0, 0.8], [0.0, 0.8]]
    assert [one.text for one in stepreward.read(tmp_path / "scored.parquet")] == [RIGHT.text, WRONG.text]
    both = stepreward.score(tmp_path / "scored.parquet", "constant", column="score:even")
    assert both[1].scores["even"].tolist() == [0.5, 0.5]
    assert both[1].scores["score"].tolist() == [0.0, 0.8]


def script(question: Propose, i: int) -> Any:
    """After a wrong sum the policy never recovers, after a right one it always ends well."""
    wrong = i % 2 if not question.prefix else "16" in question.prefix[0].text
    lines = ("12 + 5 = 16\n", "Answer: 16") if wrong else ("12 + 5 = 17\n", "Answer: 17")
    return Continuation(tuple(map(Step, lines[len(question.prefix) :])), True, 2)


def test_label_takes_problems_and_solutions(tmp_path: Path) -> None:
    policy = ScriptedPolicy(script)
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"id": PROBLEM.id, "prompt": PROBLEM.text, "reference": PROBLEM.reference})
    )
    of_file = stepreward.label(tmp_path / "p.jsonl", policy=policy, grader="arithmetic", samples=4)
    sampled = stepreward.label(PROBLEM, policy=policy, grader="arithmetic", samples=4)
    assert [(one.steps, one.labels.tolist()) for one in of_file] == [
        (one.steps, one.labels.tolist()) for one in sampled
    ]
    assert {one.text: one.labels.tolist() for one in sampled} == {RIGHT.text: [1, 1], WRONG.text: [0, 0]}
    stepreward.write(tmp_path / "rows.jsonl", [WRONG])
    for rows in (WRONG, [WRONG], tmp_path / "rows.jsonl"):
        (one,) = stepreward.label(rows, policy=policy, grader="arithmetic", method="math-shepherd", n=2)
        assert one.labels.tolist() == [0, 0]
        assert one.outcome == 0
    kept = tmp_path / "kept"
    stepreward.label(PROBLEM, policy=policy, grader="arithmetic", samples=4, folder=kept)
    policy.questions.clear()
    stepreward.label(PROBLEM, policy=policy, grader="arithmetic", samples=4, folder=kept)
    assert policy.questions == []
    with pytest.raises(UnknownNameError, match="rollout"):
        stepreward.label(PROBLEM, policy=policy, rollout=3)


def test_search_takes_names_and_objects(tmp_path: Path) -> None:
    policy = ScriptedPolicy(script)
    (one,) = stepreward.search(PROBLEM, policy=policy, scorer="tool", grader="arithmetic", method="best-of-n", budget=4)
    assert (one.answer, one.outcome, one.bill.proposals) == ("17", 1.0, 4)
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps({"prompt": PROBLEM.prompt, "reference": "17"}) + "\n")
    (other,) = stepreward.search(path, policy=policy, grader=stepreward.grader("arithmetic"), n=3)
    assert other.answer == "17"
    with pytest.raises(InputError, match="occur twice"):
        stepreward.search([PROBLEM, PROBLEM], policy=policy)


HARD = Problem("hard", "Too long.", reference="1")
BAD_ROW = '{"problem": "b", "prompt": "?", "steps": 7}\n'


class Refusing(ScriptedPolicy):
    """A server that refuses the prompt of one problem."""

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        if any(question.problem.id == HARD.id for question in questions):
            raise PolicyError("the prompt is too long")
        return super().propose(questions)


def test_label_keeps_the_good_rows_and_names_what_failed(tmp_path: Path) -> None:
    how: dict[str, Any] = {"grader": "arithmetic", "samples": 4, "folder": tmp_path / "kept"}
    with pytest.warns(IncompleteWarning, match="1 could not be labelled, hard first: the prompt is too long"):
        rows = stepreward.label([HARD, PROBLEM], policy=Refusing(script), **how)
    assert {one.text: one.labels.tolist() for one in rows} == {RIGHT.text: [1, 1], WRONG.text: [0, 0]}
    assert [(name, str(error)) for name, error in rows.failed] == [("hard", "the prompt is too long")]
    with pytest.raises(SteprewardError, match="hard could not be labelled: the prompt is too long"):
        stepreward.label([HARD, PROBLEM], policy=Refusing(script), strict=True, **how)
    # What failed is tried again by the next call, and what was labelled is kept.
    policy = ScriptedPolicy(script)
    again = stepreward.label([HARD, PROBLEM], policy=policy, **how)
    assert {one.problem.id for one in again} == {"hard", "p"}
    assert again.failed == []
    assert {question.problem.id for question in policy.questions} == {"hard"}


def test_label_names_rows_that_cannot_be_read_or_graded(tmp_path: Path) -> None:
    stepreward.write(tmp_path / "rows.jsonl", [WRONG])
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(BAD_ROW)
    how: dict[str, Any] = {"policy": ScriptedPolicy(script), "grader": "arithmetic", "method": "math-shepherd", "n": 2}
    with pytest.warns(IncompleteWarning, match=r"1 could not be labelled, row 2 first: .*'steps' must be a list"):
        rows = stepreward.label(tmp_path / "rows.jsonl", **how)
    assert [one.labels.tolist() for one in rows] == [[0, 0]]
    with pytest.raises(InputError, match="row 2"):
        stepreward.label(tmp_path / "rows.jsonl", strict=True, **how)
    unknown = Trajectory(Problem("u", "?"), RIGHT.steps)
    with pytest.warns(IncompleteWarning, match="labelled, u first: the grader gave its solution no grade"):
        rows = stepreward.label([unknown, WRONG], **how)
    assert [one.problem.id for one in rows] == ["p"]
    with pytest.raises(InputError, match="no solution could be graded, 'u' first"):
        stepreward.label([unknown], **how)


def test_score_keeps_the_good_rows_and_names_what_failed(tmp_path: Path) -> None:
    class Short:
        name, batch_size = "short", 8

        def score_many(self, questions: Sequence[Score]) -> list[Scored]:
            if any(question.problem.id == HARD.id for question in questions):
                raise InputError("3 steps are too many")
            return [Scored(np.ones(len(question.steps))) for question in questions]

    long = Trajectory(HARD, RIGHT.steps)
    with pytest.warns(IncompleteWarning, match="1 could not be scored, hard first: 3 steps are too many"):
        rows = stepreward.score([RIGHT, long, WRONG], Short())
    assert [one.column("score").tolist() for one in rows] == [[1, 1], [1, 1]]
    assert [name for name, _ in rows.failed] == ["hard"]
    with pytest.raises(InputError, match="3 steps are too many"):
        stepreward.score([RIGHT, long, WRONG], Short(), strict=True)
    path = tmp_path / "rows.jsonl"
    stepreward.write(path, [RIGHT])
    path.write_text(BAD_ROW + path.read_text())
    with pytest.warns(IncompleteWarning, match="1 could not be scored, row 1 first"):
        made = stepreward.score(path, "tool", out=tmp_path / "scored.parquet")
    assert [one.text for one in made] == [RIGHT.text]
    with pytest.raises(InputError, match="row 1"):
        stepreward.score(path, "tool", strict=True)


def test_search_keeps_the_good_rows_and_names_what_failed() -> None:
    how: dict[str, Any] = {"policy": Refusing(script), "grader": "arithmetic", "n": 3}
    with pytest.warns(IncompleteWarning, match="1 could not be searched, hard first: the prompt is too long"):
        found = stepreward.search([HARD, PROBLEM], **how)
    assert [(one.answer, one.error) for one in found] == [(None, "the prompt is too long"), ("17", "")]
    assert [name for name, _ in found.failed] == ["hard"]
    assert repr(found) == "<2 solutions, 1 of 1 graded right; 1 failed>"
    assert found.to_pandas()[["problem", "candidates", "error"]].to_numpy().tolist() == [
        ["hard", 0, "the prompt is too long"], ["p", 3, ""]
    ]  # fmt: skip
    assert found._repr_html_().count("<tr>") == 3
    with pytest.raises(SteprewardError, match="hard could not be searched: the prompt is too long"):
        stepreward.search([HARD, PROBLEM], strict=True, **how)


def test_rows_that_cannot_be_read_are_counted_wherever_a_path_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    marked = [Trajectory(PROBLEM, one.steps, first_error=at) for one, at in ((RIGHT, -1), (WRONG, 0))]
    stepreward.write(path, marked)
    path.write_text(path.read_text() + BAD_ROW)
    with pytest.warns(IncompleteWarning, match="1 could not be read, row 3 first"):
        result = stepreward.evaluate(path, "tool", threshold=0.5)
    assert result.metrics["f1"].value == 1.0


def test_credit_takes_data_and_settings_by_name() -> None:
    # One group of two with outcomes 1 and 0: leave-one-out baselines are 0 and 1.
    made = stepreward.credit("rloo", outcome=[1.0, 0.0], group=[0, 0], offsets=[0, 2, 3])
    assert np.asarray(made).tolist() == [1, 1, -1]
    with pytest.raises(UnknownNameError, match="temprature"):
        stepreward.credit("grpo", outcome=[0.5], group=[0], offsets=[0, 1], temprature=1.0)


def test_evaluate_finds_first_errors() -> None:
    rows = [
        Trajectory(PROBLEM, RIGHT.steps, first_error=-1),
        Trajectory(PROBLEM, WRONG.steps, first_error=0),
    ]
    result = stepreward.evaluate(rows, "tool", threshold=0.5)
    assert result.to_json()["metrics"]["f1"]["value"] == 1.0


def test_policies_and_graders_pass_through() -> None:
    policy = ScriptedPolicy(script)
    assert stepreward.policy(policy) is policy
    grader = stepreward.grader("arithmetic")
    assert (grader.name, stepreward.grader(grader)) == ("arithmetic", grader)
    assert stepreward.policy("builtin:arithmetic", max_tokens=7).max_tokens == 7  # type: ignore[attr-defined]
    with pytest.raises(UnknownNameError, match="warmth"):
        stepreward.policy("builtin:arithmetic", warmth=1)


def test_serve_refuses_others_without_keys() -> None:
    with pytest.raises(InputError, match=r"0\.0\.0\.0 can be reached by others and there is no API key; pass keys="):
        stepreward.serve("tool", host="0.0.0.0")


def test_view_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no report"):
        stepreward.view(tmp_path)
    (tmp_path / "report.html").write_text("")
    assert stepreward.view(tmp_path).startswith("file://")


def test_train_gives_a_scorer(tmp_path: Path) -> None:
    rows = [
        Trajectory(one.problem, one.steps, one.outcome, columns={"label": np.array(values)})
        for one, values in ((RIGHT, [1.0, 1.0]), (WRONG, [0.0, 0.0]))
    ]
    scorer = stepreward.train(rows, tmp_path / "model", held_out=0, epochs=1)
    assert scorer.score(PROBLEM.text, ["12 + 5 = 17\n"]).shape == (1,)


def test_the_first_lines_of_the_readme_give_what_they_say() -> None:
    (given, said), *_ = re.findall(r"^scorer\.score\((.*)\)  # array\((.*)\)$", README.read_text(), re.MULTILINE)
    question, steps = ast.literal_eval(f"({given})")
    assert stepreward.load("tool").score(question, steps).tolist() == ast.literal_eval(said)
