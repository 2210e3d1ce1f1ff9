"""Implicit PRM (arXiv:2412.01981): whole responses that are right or wrong, as published and as trained on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, cut_steps, need, other_fields, shown, steps_of, text_or_none


def _outcome(value: object, where: str) -> float:
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise InputError(f"{where} must be right or wrong, got {shown(value)}", remedy="write true, false or a chance")
    return float(value)


def is_rollouts(row: Row) -> bool:
    """Whether a row looks like the published rollouts."""
    return {"prompt", "steps", "correctness"} <= row.keys() or {"prompt", "completions", "correctness"} <= row.keys()


def read_rollouts(row: Row, number: int, *, separator: str = "\n\n") -> Iterator[Trajectory]:
    """Reads `prompt`, `reference`, several responses in `steps`, or else `completions`, and their `correctness`.

    Steps have no labels; the response's correctness is its outcome.

    Args:
        number: its 1-based number; the problem's id.
        separator: put at the end of each step, or where completions are cut.

    Raises:
        InputError: a field is missing, or a response is neither right nor wrong.
    """
    # In a table with both columns, the one that a row does not use is null or empty.
    key = "steps" if row.get("steps") else "completions"
    made, right = need(row, key, list), need(row, "correctness", list)
    if len(right) < len(made) or not made:
        raise InputError(f"{len(made)} responses have {len(right)} entries of 'correctness'")
    problem = Problem(
        f"implicit-prm-{number}", need(row, "prompt"), reference=text_or_none(row.get("reference")),
        meta={"dataset": row.get("dataset")},
    )  # fmt: skip
    for sample, (parts, correct) in enumerate(zip(made, right, strict=False)):
        is_text = isinstance(parts, str) and parts
        steps = cut_steps(parts, separator) if is_text else steps_of(parts, separator, name=key)
        outcome = _outcome(correct, f"'correctness' of response {sample}")
        yield annotated(problem, steps, None, "implicit-prm grader", outcome=outcome)


def is_labelled(row: Row) -> bool:
    """Whether a row looks like those that Implicit PRM trains on."""
    turns = row.get("response")
    return (
        "label" in row and isinstance(turns, list) and bool(turns) and all(isinstance(turn, Mapping) for turn in turns)
    )


def read_labelled(row: Row, number: int, *, separator: str = "\n\n") -> Iterator[Trajectory]:
    """Reads `response`, a chat whose last turn is the assistant's, and `label`, its outcome.

    Args:
        number: its 1-based number, used where the row has no `id`.
        separator: the response is cut after each; '' leaves it whole.

    Raises:
        InputError: a field is missing, the chat does not end in a response, or the label is neither right nor wrong.
    """
    turns = need(row, "response", list)
    for turn in turns:
        said = [turn.get(name) if isinstance(turn, Mapping) else None for name in ("role", "content")]
        if not all(isinstance(value, str) for value in said):
            raise InputError(f"a turn needs 'role' and 'content', got {shown(turn)}")
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise InputError("the chat must be a question and end in a response of the assistant")
    prompt = tuple({"role": turn["role"], "content": turn["content"]} for turn in turns[:-1])
    plain = len(prompt) == 1 and prompt[0]["role"] == "user"
    yield annotated(
        Problem(str(row.get("id", f"implicit-prm-{number}")), prompt[0]["content"] if plain else prompt),
        cut_steps(turns[-1]["content"], separator), None, "implicit-prm grader",
        outcome=_outcome(row.get("label"), "'label'"), facts=other_fields(row, "id", "response", "label"),
    )  # fmt: skip


def write_labelled(item: Trajectory) -> dict[str, Any]:
    """One row with the whole response and its outcome.

    Raises:
        InputError: the outcome is not known.
    """
    outcome = item.outcome
    if math.isnan(outcome):
        raise InputError(f"problem {item.problem.id} has a solution of unknown outcome", remedy="grade it first")
    turns = [dict(message) for message in item.problem.messages]
    return {
        **item.facts,
        "response": [*turns, {"role": "assistant", "content": item.text}],
        "id": item.problem.id,
        "label": outcome > 0.5 if outcome in (0.0, 1.0) else outcome,
    }


FORMATS: tuple[Format, ...] = (
    Format("implicit-prm-rollouts", "responses of a problem, right or wrong", is_rollouts, read_rollouts),
    Format("implicit-prm", "one response, right or wrong", is_labelled, read_labelled, write_labelled),
)
