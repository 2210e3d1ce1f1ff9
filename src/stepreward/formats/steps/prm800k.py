"""PRM800K (arXiv:2305.20050): ratings -1, 0, 1 of several candidates for each next step, one of them chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.labels import AfterError, Neutral, labelled, neutral_value
from stepreward.formats.rows import Row, need, shown, text_or_none, texts_of

Pair = tuple[str, float]
"""A step's text and its label."""


def matches(row: Row) -> bool:
    """Whether a row looks like PRM800K."""
    label, question = row.get("label"), row.get("question")
    return isinstance(label, Mapping) and "steps" in label and isinstance(question, Mapping) and "problem" in question


def _pair(completion: object, neutral: float, where: str) -> Pair:
    if not isinstance(completion, Mapping) or not isinstance(completion.get("text"), str):
        raise InputError(f"{where} needs a 'text', got {shown(completion)}")
    rating = completion.get("rating")
    if rating not in (None, -1, 0, 1):
        raise InputError(f"{where} must be rated -1, 0 or 1, got {shown(rating)}", remedy="null if it was not rated")
    return completion["text"], {None: float("nan"), -1: 0.0, 0: neutral, 1: 1.0}[rating]


def _step(step: object, index: int, neutral: float) -> tuple[Pair | None, list[Pair]]:
    """The step by which the solution continues, None if it ends here, and the candidates that were not chosen."""
    if not isinstance(step, Mapping):
        raise InputError(f"step {index} must be an object, got {shown(step)}")
    pairs = [
        _pair(completion, neutral, f"completion {j} of step {index}")
        for j, completion in enumerate(step.get("completions") or [])
    ]
    chosen = step.get("chosen_completion")
    if chosen is not None:
        if not isinstance(chosen, int) or not 0 <= chosen < len(pairs):
            raise InputError(f"'chosen_completion' of step {index} is {shown(chosen)} of {len(pairs)} candidates")
        return pairs.pop(chosen), pairs
    # In phase 1 an annotator wrote the step where no candidate was good; it has no rating.
    human = step.get("human_completion")
    return (None if human is None else _pair(human, neutral, f"human completion of step {index}")), pairs


def read(
    row: Row,
    number: int,
    *,
    separator: str = "\n",
    neutral: Neutral = "right",
    alternatives: bool = True,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads one labelling session: the chosen path, then every other candidate at the end of the chosen prefix.

    The prefix of a candidate carries its ratings, so a tree of them is complete, and merging them counts each rating
    once. A step that a person wrote in place of the candidates is not rated: its label is NaN.

    Args:
        row: the row, of either phase.
        number: its 1-based number.
        separator: put at the end of each step.
        neutral: rating 0, "neither helps nor harms": right by default, as the paper scores solutions.
        alternatives: whether to give the candidates that were not chosen.
        after_first_error: labels after the first 0.

    Raises:
        InputError: a field is missing, nothing is rated, or a rating is not -1, 0 or 1.
    """
    value = neutral_value(neutral)
    question, label = need(row, "question", dict), need(row, "label", dict)
    problem = Problem(
        f"prm800k-{number}", need(question, "problem"), text_or_none(question.get("ground_truth_answer")),
        {"finish_reason": label.get("finish_reason")},
    )  # fmt: skip
    path: list[Pair] = []
    others: list[list[Pair]] = []
    for index, step in enumerate(need(label, "steps", list)):
        taken, rest = _step(step, index, value)
        others += [[*path, pair] for pair in rest]
        if taken is None:
            break
        path.append(taken)
    if not path and not others:
        raise InputError("no step of the row is rated")
    # "found_error", "give_up" and "bad_problem" end a session before its solution ends.
    whole = label.get("finish_reason") == "solution"
    for pairs in ([path] if path else []) + (others if alternatives else []):
        item = labelled(
            problem, tuple(Step(text + separator) for text, _ in pairs), np.array([value for _, value in pairs]),
            "prm800k annotators", after_first_error=after_first_error, settings={"neutral": neutral},
        )  # fmt: skip
        yield replace(item, terminal=whole and pairs is path)


def write(item: Trajectory, *, separator: str = "\n") -> dict[str, Any]:
    """One row in PRM800K's layout, with one candidate a step: 1, 0 and 1/2 are rated 1, -1 and 0, NaN is null.

    Args:
        separator: taken from the end of each step.

    Raises:
        InputError: a label is none of these.
    """
    ratings = {1.0: 1, 0.0: -1, 0.5: 0}
    steps = []
    for text, value in zip(texts_of(item.steps, separator), item.labels.tolist(), strict=True):
        if value == value and value not in ratings:
            raise InputError(f"label {value} of problem {item.problem.id} has no rating", remedy="harden labels first")
        rated = {"text": text, "rating": ratings.get(value), "flagged": False}
        steps.append({"completions": [rated], "human_completion": None, "chosen_completion": 0})
    problem = item.problem
    finish = problem.meta.get("finish_reason") or ("solution" if item.terminal else "give_up")
    return {
        "question": {"problem": problem.text, "ground_truth_answer": problem.reference},
        "label": {"steps": steps, "finish_reason": finish if item.terminal else "give_up"},
    }


FORMATS: tuple[Format, ...] = (Format("prm800k", "ratings of candidate steps by people", matches, read, write),)
