"""Completions that trainers dump while they train: TRL's and verl's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.agents.messages import message_list, prompt_of, step_of, turns_of
from stepreward.formats.fields import first_value, json_text, outcome_or_nan, text_at
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, id_of, need, other_fields, text_or_none

_TOOL = re.compile(
    r"(?:(?:<\|im_end\|>)?\s*(?:<\|im_start\|>)?\b(?:user|tool)\n)?"
    r"(?:<tool_response>.*?</tool_response>\s*)+(?:(?:<\|im_end\|>)?\s*(?:<\|im_start\|>)?assistant\n)?"
    r"|<information>.*?</information>\s*",
    re.DOTALL,
)
"""What the environment wrote inside a decoded rollout: results of tools, and what a search found."""
# A run logs several rewards, of layout, of length and of the answer: the outcome is the answer's.
_RIGHT = re.compile(r"accura|correct|outcome|exact_match|answer|solved")
_TRL = ("step", "prompt", "completion", "advantage", "advantages", "mode", "images", "reward", "rewards")


def cut(text: str) -> tuple[Step, ...]:
    """A decoded rollout as actions, and observations where the environment's marks are; all text is kept."""
    steps: list[Step] = []
    at = 0
    for found in _TOOL.finditer(text):
        if found.start() > at:
            steps.append(Step(text[at : found.start()]))
        steps.append(Step(found[0], "observation", "tool"))
        at = found.end()
    if at < len(text) or not steps:
        steps.append(Step(text[at:]))
    return tuple(steps)


def completed(value: object) -> tuple[Step, ...]:
    """A completion as steps: a text, or messages.

    Raises:
        InputError: it is neither, or empty.
    """
    if isinstance(value, str):
        if not value:
            raise InputError("the completion is empty")
        return cut(value)
    return tuple(step_of(turn) for turn in turns_of(message_list(value, "completion")))


def _rewards(row: Row) -> dict[str, Any]:
    """Columns of a TRL dump that are rewards: those named so, or numbers that are no other column."""
    found = {
        name: value for name, value in row.items()
        if name not in _TRL and (value is None or (isinstance(value, int | float) and not isinstance(value, bool)))
    }  # fmt: skip
    named = {name: value for name, value in found.items() if "reward" in name or _RIGHT.search(name)}
    return named or found


def is_trl(row: Row) -> bool:
    """Whether a row looks like a completion that TRL logged."""
    if not {"step", "prompt", "completion"} <= row.keys() or {"task", "example_id", "labels"} & row.keys():
        return False
    return bool({"advantage", "advantages", "reward", "rewards"} & row.keys() or _rewards(row))


def read_trl(row: Row, number: int, *, outcome_of: str = "", scale: float = 1.0) -> Iterator[Trajectory]:
    """Reads `prompt` and `completion`, texts or messages, with the rewards and the `advantage` in meta.

    Completions of one prompt are trajectories of one problem. The outcome is the reward named, else `reward`, else the
    only one, else one named for accuracy or correctness; NaN where that is no number from 0 to `scale`.

    Args:
        number: its 1-based number.
        outcome_of: the column of the reward that is the outcome.
        scale: the largest reward; outcomes are rewards divided by it.

    Raises:
        InputError: a field is missing or of another shape, or there is no such reward.
    """
    rewards = _rewards(row)
    if outcome_of and outcome_of not in row:
        raise InputError(f"no column {outcome_of!r}", remedy=f"the row's rewards are {', '.join(rewards)}")
    right = [name for name in rewards if _RIGHT.search(name)]
    name = outcome_of or ("reward" if "reward" in row else next(iter(rewards)) if len(rewards) == 1 else
                          right[0] if len(right) == 1 else "")  # fmt: skip
    prompt, steps = prompt_of(row.get("prompt"), "prompt"), completed(row.get("completion"))
    meta = {"rewards": rewards} | other_fields(row, "prompt", "completion", *rewards)
    yield annotated(
        Problem(id_of("trl", prompt), prompt, text_or_none(first_value(row, "solution", "answer"))), steps,
        None, "trl completions", outcome=outcome_or_nan(row.get(name), scale), facts=meta,
    )  # fmt: skip


def is_verl(row: Row) -> bool:
    """Whether a row looks like a generation that verl dumped."""
    return {"input", "output", "score"} <= row.keys() and isinstance(row["output"], str) and bool(
        {"step", "gts", "acc", "reward", "ground_truth", "data_source"} & row.keys()
    )  # fmt: skip


def read_verl(row: Row, number: int, *, scale: float = 1.0) -> Iterator[Trajectory]:
    """Reads `input` and `output`; results of tools and searches inside the output are observations.

    Outputs to one input are trajectories of one problem, `gts` its reference. The outcome is `acc`, or else `score`;
    NaN where that is no number from 0 to `scale`. All numbers stay in meta.

    Args:
        number: its 1-based number.
        scale: the largest score; outcomes are scores divided by it.

    Raises:
        InputError: a field is missing or of another shape.
    """
    prompt, gold = need(row, "input"), first_value(row, "gts", "ground_truth")
    steps = completed(need(row, "output"))
    # `acc` is the accuracy in [0, 1]; `score` may add rewards for length and layout, in any range.
    won = row["acc"] if isinstance(row.get("acc"), bool | int | float) else row.get("score")
    problem = Problem(id_of("verl", prompt), prompt, None if gold is None else json_text(gold))
    yield annotated(
        problem, steps, None, "verl rollouts", policy=text_at(row, "model"),
        outcome=outcome_or_nan(won, 1.0 if won is row.get("acc") else scale),
        answer=text_or_none(row.get("pred")) or None, facts=other_fields(row, "input", "output"),
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("trl-completions", "completions logged by TRL's trainers", is_trl, read_trl),
    Format("verl", "rollouts and validation generations dumped by verl", is_verl, read_verl),
)
