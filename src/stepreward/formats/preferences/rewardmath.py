"""RewardMATH (arXiv:2410.01729) and RewardBench's maths pairs: solutions, and the scores of judges and verifiers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Floats, Problem, Step, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, compared, need, other_fields, shown, steps_of, text_or_none

CHOSEN = "human_to_GPT-4"
"""Who wrote the solution that is right; all others are wrong."""


def _problem(row: Row, number: int) -> Problem:
    return Problem(
        f"rewardmath-{row.get('problem_id', number)}", need(row, "problem"), reference=text_or_none(row.get("answer")),
        meta=other_fields(row, "problem", "answer", "scores", "score", "output", "eval_solution", "eval_solution_A",
                     "eval_solution_B"),
    )  # fmt: skip


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{where} must be a number, got {shown(value)}")
    return float(value)


def read_solution(row: Row, number: int, *, separator: str = "\n\n", scorer: str = "recorded") -> Iterator[Trajectory]:
    """Reads one solution, chosen or rejected, with the verifier's step scores where the file has them.

    Args:
        number: its 1-based number, used where the row has no `problem_id`.
        separator: put at the end of each step.
        scorer: what to call the verifier; the file does not name it.

    Raises:
        InputError: a field is missing, the type is neither chosen nor rejected, or scores and steps differ in number.
    """
    steps = steps_of(row.get("eval_solution"), separator, name="eval_solution")
    kind = need(row, "solution_type")
    if kind not in ("chosen", "rejected"):
        raise InputError(f"'solution_type' must be chosen or rejected, got {shown(kind)}")
    output, scores = row.get("output"), dict[str, Floats]()
    if output is not None:
        values = output.get("step_scores") if isinstance(output, Mapping) else None
        if not isinstance(values, list) or len(values) != len(steps):
            raise InputError(f"'output' must hold one of 'step_scores' a step, got {shown(output)}")
        scores[scorer] = np.array([_number(value, "a step score") for value in values])
    yield annotated(
        _problem(row, number), steps, None, "rewardmath annotators", policy=str(row.get("solution_reference", "")),
        outcome=float(kind == "chosen"), scores=scores, facts={"subset": str(row.get("subject", ""))},
    )  # fmt: skip


def is_scores(row: Row) -> bool:
    """Whether a row looks like the scores of all solutions of a problem."""
    return {"problem", "solution_reference"} <= row.keys() and bool({"scores", "score"} & row.keys())


def read_scores(row: Row, number: int, *, scorer: str = "recorded") -> Iterator[Comparison]:
    """Reads the scores that judges gave to one right and several wrong solutions; the texts are not in the file.

    A verifier of steps has a list of scores a solution; the benchmark aggregates them.

    Args:
        number: its 1-based number; the problem's id.
        scorer: what to call the judge where the row has one `score` and no name.

    Raises:
        InputError: a field is missing, or a judge has not one score a solution.
    """
    writers = need(row, "solution_reference", list)
    given = row.get("scores") if "scores" in row else {scorer: row.get("score")}
    if not isinstance(given, Mapping) or len(writers) < 2:
        raise InputError("'scores' must name judges, and there must be two solutions")
    problem = _problem(row, number)
    scores: dict[str, tuple[float, ...]] = {}
    by_step: dict[str, tuple[Floats, ...]] = {}
    for name, values in given.items():
        if not isinstance(values, list) or len(values) != len(writers):
            raise InputError(f"{name} must have {len(writers)} scores, got {shown(values)}")
        where = f"a score of {name}"
        if any(isinstance(value, list) for value in values):
            # Beside lists, a number is the score of one step, and null those of none.
            lists = [value if isinstance(value, list) else [] if value is None else [value] for value in values]
            by_step[name] = tuple(np.array([_number(one, where) for one in some], np.float64) for some in lists)
        else:
            scores[name] = tuple(math.nan if value is None else _number(value, where) for value in values)
    candidates = [[Step("", meta={"writer": str(writer)})] for writer in writers]
    right = [float(writer == CHOSEN) for writer in writers]
    yield compared(problem, candidates, right, scores=scores, step_scores=by_step)


def read_pair(row: Row, number: int, *, separator: str = "\n\n") -> Iterator[Comparison]:
    """Reads two solutions in the order shown to a judge.

    Args:
        number: its 1-based number, used where the row has no `problem_id`.
        separator: put at the end of each step.

    Raises:
        InputError: a field is missing, or the chosen one is neither A nor B.
    """
    chosen = need(row, "chosen_position")
    if chosen not in ("A", "B"):
        raise InputError(f"'chosen_position' must be A or B, got {shown(chosen)}")
    pair = [steps_of(row.get(name), separator, name=name) for name in ("eval_solution_A", "eval_solution_B")]
    yield compared(_problem(row, number), pair, [float(chosen == side) for side in "AB"], str(row.get("subject", "")))


FORMATS: tuple[Format, ...] = (
    Format("rewardmath", "one solution, chosen or rejected", has("problem", "eval_solution", "solution_type"),
           read_solution),
    Format("rewardmath-scores", "scores of judges without texts", is_scores, read_scores, kind="comparisons"),
    Format("rewardmath-pairs", "two solutions, one chosen",
           has("problem", "eval_solution_A", "eval_solution_B", "chosen_position"), read_pair, kind="comparisons"),
)  # fmt: skip
