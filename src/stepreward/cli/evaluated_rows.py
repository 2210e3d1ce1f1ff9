"""Rows of `evaluate`: read in parts, kept without their text, and written again with what was computed of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.row_by_row import RowByRow, shown
from stepreward.cli.terminal.left_out import tell_left_out
from stepreward.cli.terminal.progress import StageProgress
from stepreward.core.measure.first_error import first_error
from stepreward.core.runtime.flows import Grader, Score, Scorer
from stepreward.core.types import LABEL, SCORE, Problem, Provenance, Step, Trajectory, score_column
from stepreward.evaluate.data.scoring import unmeasured
from stepreward.evaluate.data.solution_arrays import score_rows

MODEL = "model"
_AT_ONCE = 4096
"""Rows whose texts are in memory at the same time."""
_STEP = {"action": Step("-"), "observation": Step("-", "observation")}


def read_and_score(
    path: Path, reading: ReadFlags, load: Callable[[], Scorer] | None, grader: Grader | None, *, quiet: bool
) -> list[Trajectory]:
    """The solutions of a file with a model's scores beside the recorded ones, without their texts.

    Args:
        path: read in parts, so that memory holds the numbers of all rows and the texts of few.
        reading: how.
        load: loads the model, once the first rows are read; None for recorded scores alone.
        grader: reads the answers and outcomes that the rows do not state.
        quiet: show no progress.

    Raises:
        InputError: nothing can be read, or the model refuses everything.
    """
    source = reading.solutions(path)
    part = list(islice(source, _AT_ONCE))
    scorer = None if load is None else load()
    made: list[Trajectory] = []
    with StageProgress(quiet=quiet) as progress:
        total = len(part) if len(part) < _AT_ONCE else 0
        patient = None
        if scorer is not None:
            patient = RowByRow(scorer, {}, on_progress=shown(progress, "evaluate", total), strict=reading.strict)
        while part:
            if grader is not None:
                part = [_judged(item, grader) for item in part]
            if patient is not None:
                patient.places = {item.problem.id: (path, None) for item in part}
                part = with_scores(part, patient)
            made += map(_without_text, part)
            part = list(islice(source, _AT_ONCE))
    if patient is not None:
        tell_left_out(patient.bad, f"by {patient.name}")
    return made


def with_scores(items: Sequence[Trajectory], scorer: Scorer, name: str = MODEL) -> list[Trajectory]:
    """The solutions with the scorer's scores beside others."""
    answers = scorer.score_many([Score(item.problem, item.steps) for item in items])
    return [item.with_columns({score_column(name): one.scores}) for item, one in zip(items, answers, strict=True)]


def gradable(item: Trajectory) -> bool:
    """Whether a grader can say if the solution is right."""
    return item.problem.reference is not None


def _judged(item: Trajectory, grader: Grader) -> Trajectory:
    """The solution with the answer and the outcome that the grader reads, where the data set states none."""
    answer = item.answer or (grader.answer(item.problem, item.steps) if item.terminal else None)
    unknown = np.isnan(item.outcome) and gradable(item)
    outcome = grader.grade(item.problem, item.steps) if unknown else item.outcome
    return replace(item, outcome=outcome, answer=answer)


def _without_text(item: Trajectory) -> Trajectory:
    """The numbers of a solution, its answer, and whether it has a reference."""
    problem = Problem(item.problem.id, "", "" if gradable(item) else None)
    columns = {name: values for name, values in item.columns.items() if name.split(":")[0] in (LABEL, SCORE)}
    steps = tuple(_STEP[step.kind] for step in item.steps)
    return replace(item, problem=problem, steps=steps, columns=columns, facts={}, provenance=())


def with_measured(
    rows: Iterator[Trajectory], items: Sequence[Trajectory], thresholds: Mapping[str, float], scorer: str | None
) -> Iterator[Trajectory]:
    """The rows of the file again, with what was computed of each, and all that they had.

    Args:
        rows: of the file, as they were read the first time.
        items: their numbers, in the same order.
        thresholds: by name of the scores; of each name, the fact `predicted_first_error` has the first step at or below
            it, -1 if none is, and null where a step without a score decides: the fact `unscored` lists those names.
        scorer: name of the model that scored; None for recorded scores alone.
    """
    predicted = {name: _predicted(items, name, threshold) for name, threshold in thresholds.items()}
    column = score_column(MODEL)
    for at, (row, item) in enumerate(zip(rows, items, strict=True)):
        found = {name: first[at] for name, first in predicted.items() if name in item.scores}
        facts = {"predicted_first_error": found} if found else {}
        lost = [name for name in found if found[name] is None]
        made = replace(
            row, outcome=item.outcome, answer=item.answer,
            facts={**row.facts, **facts, **({"unscored": lost} if lost else {})},
        )  # fmt: skip
        if scorer is not None:
            made = made.with_columns({column: item.columns[column]}, Provenance(scorer, what=(column,)))
        yield made


def _predicted(items: Sequence[Trajectory], name: str, threshold: float) -> list[int | None]:
    """The first step of each solution at or below the threshold, -1 if none is; None where a gap decides."""
    at = [i for i, item in enumerate(items) if name in item.scores]
    mine = [items[i] for i in at]
    scores = score_rows(mine, name)
    first: NDArray[np.int64] = first_error(scores, threshold)
    lost = unmeasured(scores, mine, first)
    made: list[int | None] = [None] * len(items)
    for i, step, unknown in zip(at, first.tolist(), lost.tolist(), strict=True):
        made[i] = None if unknown else step
    return made
