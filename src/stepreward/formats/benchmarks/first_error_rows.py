"""Benchmarks that mark the first wrong step: MR-GSM8K, BIG-Bench Mistake and Hard2Verify."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Floats, Problem, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import (
    AfterError,
    AfterMarked,
    known_first_error,
    label_array,
    labelled,
    labels_to_first_error,
)
from stepreward.formats.rows import Row, annotated, need, other_fields, shown, steps_of, text_or_none, texts_of

JUDGED = {"correct": 1.0, "wrong": 0.0, "incorrect": 0.0}


def judged(row: Row, name: str) -> float:
    """Whether a solution or an answer is right, 1 or 0.

    Raises:
        InputError: it is neither "correct" nor "wrong" nor "incorrect".
    """
    said = need(row, name)
    if said not in JUDGED:
        raise InputError(f"'{name}' must be one of {', '.join(JUDGED)}, got {shown(said)}")
    return JUDGED[said]


def counted_from_one(value: object, steps: int, name: str) -> int:
    """A step number that counts from 1, or its digits as text, as an index from 0.

    Raises:
        InputError: it is no step.
    """
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= steps):
        raise InputError(f"'{name}' must be a step from 1 to {steps}, got {shown(value)}")
    return int(text) - 1


def read_mr_gsm8k(
    row: Row, number: int, *, separator: str = "\n", after_first_error: AfterMarked = "mask"
) -> Iterator[Trajectory]:
    """Reads a solution of MR-GSM8K (arXiv:2312.17080); steps count from 1 there.

    Args:
        number: its 1-based number, used where the row has no `uuid`.
        separator: put at the end of each step.
        after_first_error: steps after the first error were not judged: "mask", or "wrong".

    Raises:
        InputError: a field is missing, or a wrong solution has no first error among its steps.
    """
    steps = steps_of(row.get("model_output_steps"), separator, name="model_output_steps")
    # A right solution has "N/A" there.
    name = "model_output_solution_first_error_step"
    right = judged(row, "model_output_solution_correctness")
    first = -1 if right else counted_from_one(row.get(name), len(steps), name)
    problem = Problem(
        str(row.get("uuid", f"mr-gsm8k-{number}")), need(row, "question"),
        reference=text_or_none(row.get("ground_truth_answer")),
    )  # fmt: skip
    yield annotated(
        problem, steps, labels_to_first_error(first, len(steps), after=after_first_error), "mr-gsm8k annotators",
        outcome=judged(row, "model_output_answer_correctness"), first_error=first,
        scores=_recorded(row.get("prm_scores"), len(steps)),
        facts=other_fields(row, "uuid", "question", "model_output_steps", "prm_scores"),
    )  # fmt: skip


def _recorded(scores: object, steps: int) -> dict[str, Floats]:
    """Recorded step scores that are one number a step; some verifiers have three."""
    made = {}
    for name, values in scores.items() if isinstance(scores, Mapping) else ():
        if isinstance(values, list) and len(values) == steps and all(isinstance(v, int | float) for v in values):
            made[name] = np.array(values, dtype=np.float64)
    return made


def write_mr_gsm8k(item: Trajectory, *, separator: str = "\n", threshold: float = 0.5) -> dict[str, Any]:
    """One row of MR-GSM8K.

    Args:
        separator: taken from the end of each step.
        threshold: where the first error is unknown, it is the first label at or below this.

    Raises:
        InputError: the first error is unknown because a label before it is.
    """
    first = known_first_error(item, threshold=threshold)
    problem, outcome = item.problem, item.outcome
    right = first < 0
    return {
        "ground_truth_answer": problem.reference,
        **item.facts,
        "uuid": problem.id,
        "question": problem.text,
        "model_output_steps": texts_of(item.steps, separator),
        "model_output_answer_correctness": "correct" if (right if outcome != outcome else outcome > 0.5) else "wrong",
        "model_output_solution_correctness": "correct" if right else "wrong",
        "model_output_solution_first_error_step": "N/A" if right else first + 1,
    }


def read_mistake(
    row: Row, number: int, *, separator: str = "\n", after_first_error: AfterMarked = "mask"
) -> Iterator[Trajectory]:
    """Reads `input`, `steps`, `target`, `answer`, `mistake_index` (arXiv:2311.08516): from 0, null where none is.

    Args:
        number: its 1-based number; the problem's id.
        separator: put at the end of each step.
        after_first_error: steps after the first mistake were not judged: "mask", or "wrong".

    Raises:
        InputError: a field is missing, or the index is no step.
    """
    steps = steps_of(row.get("steps"), separator)
    first = -1 if row.get("mistake_index") is None else need(row, "mistake_index", int)
    if row.get("mistake_index") is not None and not 0 <= first < len(steps):
        what = f"'mistake_index' must be null or a step below {len(steps)}, got {first}"
        raise InputError(what, remedy="count from 0, and write null if no step is wrong")
    target, answer = text_or_none(row.get("target")), text_or_none(row.get("answer"))
    problem = Problem(f"bigbench-mistake-{number}", need(row, "input"), reference=target)
    outcome = float("nan") if target is None or answer is None else float(target.strip() == answer.strip())
    labels = labels_to_first_error(first, len(steps), after=after_first_error)
    yield annotated(problem, steps, labels, "bigbench-mistake annotators", policy="PaLM 2", outcome=outcome,
                    first_error=first, answer=answer)  # fmt: skip


def write_mistake(item: Trajectory, *, separator: str = "\n", threshold: float = 0.5) -> dict[str, Any]:
    """One row of BIG-Bench Mistake.

    Args:
        separator: taken from the end of each step.
        threshold: where the first error is unknown, it is the first label at or below this.

    Raises:
        InputError: the first error is unknown because a label before it is.
    """
    first = known_first_error(item, threshold=threshold)
    return {
        "input": item.problem.text,
        "target": item.problem.reference,
        "answer": item.answer,
        "steps": texts_of(item.steps, separator),
        "mistake_index": None if first < 0 else first,
    }


def read_hard2verify(
    row: Row, number: int, *, separator: str = "\n\n", after_first_error: AfterError = "keep"
) -> Iterator[Trajectory]:
    """Reads a decrypted row of Hard2Verify (arXiv:2510.13744): `human_labels` are 1 or 0 for every step.

    A step that builds on a wrong one was judged wrong.

    Args:
        number: its 1-based number, used where the row has no `unique_id`.
        separator: put at the end of each step.
        after_first_error: labels after the first wrong step.

    Raises:
        InputError: the row is still encrypted, a field is missing, or there is not one label a step.
    """
    texts = row.get("model_response_by_step")
    if isinstance(texts, str):
        raise InputError(
            "the row is encrypted", remedy="decrypt it with `decrypt_sample` of the benchmark's repository"
        )
    steps = steps_of(texts, separator, name="model_response_by_step")
    labels = label_array(row.get("human_labels"), len(steps), name="human_labels")
    problem = Problem(str(row.get("unique_id", f"hard2verify-{number}")), need(row, "question"))
    # The canary, by which filters of training text find the file, says nothing about the row.
    own = ("unique_id", "question", "model_response_by_step", "human_labels", "canary")
    yield labelled(problem, steps, labels, "hard2verify annotators", after_first_error=after_first_error,
                   facts=other_fields(row, *own))  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("mr-gsm8k", "first errors from 1 in GSM8K solutions",
           has("model_output_steps", "model_output_solution_first_error_step"), read_mr_gsm8k, write_mr_gsm8k),
    Format("bigbench-mistake", "first mistakes from 0 in five tasks", has("input", "steps", "mistake_index"),
           read_mistake, write_mistake),
    Format("hard2verify", "every step judged by people", has("question", "model_response_by_step", "human_labels"),
           read_hard2verify),
)  # fmt: skip
