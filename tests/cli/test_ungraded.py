"""Answers that cannot be graded: counted and told by `label`, `search`, `evaluate`, never wrong, not paid twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Step
from stepreward.tasks.mathematics import MathGrader
from tests.cli.running import invoke, solved

pytestmark = pytest.mark.xdist_group("commands")
UNREADABLE = r"So \boxed{\int_0^1 e^{-x^2}\,dx}"
QUESTIONS = ["What is 5 + 6?", "What is 6 + 5?", "What is 4 + 7?"]


class Writes:
    """Answers one problem beyond grading and the others right."""

    name, batch_size, concurrency = "writes", 8, 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[self._one(question)] * question.n for question in questions]

    @staticmethod
    def _one(question: Propose) -> Continuation:
        text = UNREADABLE if question.problem.text == QUESTIONS[0] else r"So \boxed{11}"
        return Continuation((Step(text),), True, 3)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder with problems and solutions; the solutions that the grader was asked to grade."""
    monkeypatch.chdir(tmp_path)
    problems = [{"id": str(i), "prompt": text, "reference": "11"} for i, text in enumerate(QUESTIONS)]
    texts = [UNREADABLE, r"So \boxed{11}", r"So \boxed{12}"]
    solutions: list[dict[str, Any]] = [
        {"schema": "stepreward/trajectories/1", "problem": str(i), "prompt": text, "reference": "11",
         "steps": ["Add.\n", said], "score": [0.5, 0.5], "label": [1.0, 0.0]}
        for i, (text, said) in enumerate(zip(QUESTIONS, texts, strict=True))
    ]  # fmt: skip
    for name, rows in (("problems", problems), ("solutions", solutions)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    seen: list[str] = []
    grade = MathGrader.grade

    def noted(self: MathGrader, problem: Problem, steps: Sequence[Step]) -> float:
        seen.append(steps[-1].text)
        return grade(self, problem, steps)

    monkeypatch.setattr(MathGrader, "grade", noted)
    monkeypatch.setattr("stepreward.cli.flags.policies.policy_at", lambda *_, **how: Writes())
    return seen


def test_label_grades_given_solutions_once_and_counts_what_it_could_not(asked: list[str]) -> None:
    line = "label --data solutions.jsonl --estimator math-shepherd --rollouts 2 --out labels --json"
    made = json.loads(invoke(line))
    assert (made["ungraded"], made["trajectories"]) == (1, 2)
    assert asked.count(UNREADABLE) == 1
    asked.clear()
    made = json.loads(invoke(line))
    assert (made["ungraded"], made["trajectories"]) == (1, 2)
    assert UNREADABLE not in asked, "the log holds that it could not be graded"


def test_label_leaves_out_samples_that_it_could_not_grade(asked: list[str]) -> None:
    line = "label --problems problems.jsonl --estimator math-shepherd --samples 1 --rollouts 2 --out labels"
    assert "1 answers could not be graded" in invoke(line)
    assert json.loads(invoke(f"{line} --json"))["trajectories"] == 2


def test_search_counts_it_and_leaves_it_out_of_the_accuracy(asked: list[str]) -> None:
    line = "search --problems problems.jsonl --method majority --samples 2 --out found.jsonl"
    made = json.loads(invoke(f"{line} --json"))
    assert made["ungraded"] == made["bill"]["ungraded"] == 1
    assert made["accuracy"]["value"] == 1.0
    assert [row.get("outcome") for row in solved(Path("found.jsonl"))] == [None, 1.0, 1.0]
    assert "1 could not be graded" in invoke(line)


def test_evaluate_counts_it(asked: list[str]) -> None:
    made = json.loads(invoke("evaluate --data solutions.jsonl --grader mathematics --json"))
    assert made["ungraded"] == 1
    assert "1 solutions could not be graded" in invoke("evaluate --data solutions.jsonl --grader mathematics")
