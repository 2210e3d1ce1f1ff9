"""GSM8K (arXiv:2110.14168): questions with a reference solution, and its file of four models' solutions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, need

MARK = "####"
"""The mark before the final answer of a GSM8K solution."""
_ANSWER = re.compile(r"(?:####|^A:)[ \t]*([^\n]*)", re.MULTILINE)


def answer_of(solution: str) -> str | None:
    """The text after the last `####` or `A:`, without commas and currency; None if nothing does."""
    found = _ANSWER.findall(solution)
    return found[-1].replace(",", "").strip(" $.") or None if found else None


def is_question(row: Row) -> bool:
    """Whether a row looks like train.jsonl or test.jsonl."""
    return {"question", "answer"} <= row.keys() and isinstance(row["answer"], str) and MARK in row["answer"]


def is_solutions(row: Row) -> bool:
    """Whether a row looks like example_model_solutions.jsonl."""
    return "ground_truth" in row and any(isinstance(v, Mapping) and "solution" in v for v in row.values())


def _lines(text: str) -> tuple[Step, ...]:
    if not text.strip():
        raise InputError("the solution is empty")
    return tuple(Step(line) for line in text.splitlines(keepends=True))


def read_question(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads `question` and `answer`: the reference solution, a line a step; its steps have no labels.

    Raises:
        InputError: a field is missing or empty.
    """
    solution = need(row, "answer")
    answer = answer_of(solution)
    problem = Problem(f"gsm8k-{number}", need(row, "question"), reference=answer)
    steps = _lines(solution)
    yield annotated(problem, steps, None, "gsm8k reference", policy="people", outcome=1.0, answer=answer)


def read_solutions(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads the solutions of four models, a line a step, with `is_correct` as their outcome.

    Raises:
        InputError: a field is missing or empty.
    """
    problem = Problem(f"gsm8k-{number}", need(row, "question"), reference=answer_of(need(row, "ground_truth")))
    for policy, made in row.items():
        if not isinstance(made, Mapping):
            continue
        right, solution = need(made, "is_correct", bool), need(made, "solution")
        steps = _lines(solution)
        yield annotated(
            problem, steps, None, "gsm8k grader", policy=policy, outcome=float(right),
            answer=answer_of(solution),
        )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("gsm8k-solutions", "four models' GSM8K solutions", is_solutions, read_solutions),
    Format("gsm8k", "questions with a reference solution", is_question, read_question),
)
