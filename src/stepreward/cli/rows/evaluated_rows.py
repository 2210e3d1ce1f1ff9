"""Rows of `evaluate`: read in parts, kept as arrays of numbers, and written again with what was computed of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.cli.flags.read_flags import ReadFlags
from stepreward.cli.rows.row_by_row import RowByRow, shown
from stepreward.cli.terminal.left_out import tell_left_out
from stepreward.cli.terminal.progress import StageProgress
from stepreward.core.runtime.flows import Grader, Score, Scorer
from stepreward.core.runtime.made_in_parts import Engine
from stepreward.core.types import Provenance, Trajectory, score_column
from stepreward.evaluate.data.solution_numbers import UNSTATED, SolutionNumbers
from stepreward.evaluate.labelled_solutions import LabelledSolutions
from stepreward.verbs.spread_scorer import spread_over

MODEL = "model"
_COLUMN = score_column(MODEL)
_AT_ONCE = 4096
"""Rows whose texts are in memory at the same time."""


def read_and_score(
    path: Path, reading: ReadFlags, load: Callable[[], Scorer] | None, grader: Grader | None, *,
    engine: Engine | None = None, quiet: bool,
) -> SolutionNumbers:  # fmt: skip
    """The numbers of a file's solutions with a model's scores beside the recorded ones.

    Args:
        path: read in parts, so that memory has the numbers of all rows and the texts of few.
        reading: how.
        load: loads the model, once the first rows are read; None for recorded scores alone.
        grader: reads the answers and outcomes that the rows do not state.
        engine: whose workers score; this process where None.
        quiet: show no progress.

    Raises:
        InputError: nothing can be read, or the model refuses everything.
    """
    source = reading.solutions(path)
    first = list(islice(source, _AT_ONCE))
    with ExitStack() as stack:
        scorer = None if load is None else stack.enter_context(spread_over(load, engine))
        progress = stack.enter_context(StageProgress(quiet=quiet))
        total = len(first) if len(first) < _AT_ONCE else 0
        source = chain(first, source)
        del first  # otherwise its texts stay in memory to the end
        patient = None
        if scorer is not None:
            patient = RowByRow(scorer, {}, on_progress=shown(progress, "evaluate", total), strict=reading.strict)
        made = SolutionNumbers(_scored(source, path, grader, patient))
    if patient is not None:
        tell_left_out(patient.bad, f"by {patient.name}")
    return made


def _scored(
    source: Iterator[Trajectory], path: Path, grader: Grader | None, patient: RowByRow | None
) -> Iterator[list[Trajectory]]:
    """Yields the solutions in parts, with the answers that a grader reads and the scores of a model."""
    while part := list(islice(source, _AT_ONCE)):
        if grader is not None:
            # Graders that wait for other processes, as those of programs and of mathematics, have several at a time.
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                part = [*pool.map(partial(_judged, grader=grader), part)]
        if patient is not None:
            patient.places = {item.problem.id: (path, None) for item in part}
            answers = patient.score_many([Score(item.problem, item.steps) for item in part])
            part = [item.with_columns({_COLUMN: one.scores}) for item, one in zip(part, answers, strict=True)]
        yield part
        del part  # before the next one is read


def _judged(item: Trajectory, grader: Grader) -> Trajectory:
    """The solution with the answer and the outcome that the grader reads, where the data set states none."""
    answer = item.answer or (grader.answer(item.problem, item.steps) if item.terminal else None)
    unknown = np.isnan(item.outcome) and item.problem.gradable
    outcome = grader.grade(item.problem, item.steps) if unknown else item.outcome
    return replace(item, outcome=outcome, answer=answer)


def with_measured(
    rows: Iterator[Trajectory], made: LabelledSolutions, thresholds: Mapping[str, float], scorer: str | None
) -> Iterator[Trajectory]:
    """The rows of the file again, with what was computed of each, and all that they had.

    Args:
        rows: of the file, as they were read the first time.
        made: their numbers, in the same order.
        thresholds: by name of the scores; of each name, the fact `predicted_first_error` has the first step at or below
            it, -1 if none is, and null where a step without a score decides: the fact `unscored` lists those names.
        scorer: name of the model that scored; None for recorded scores alone.
    """
    data = made.data
    predicted = {name: (data.recorded(name), made.predicted(name, at)) for name, at in thresholds.items()}
    numbers = zip(rows, data.outcome.tolist(), data.answers(), data.each(MODEL), strict=True)
    for at, (row, outcome, answer, scores) in enumerate(numbers):
        found = {name: int(first[at]) for name, (mine, first) in predicted.items() if mine[at]}
        lost = [name for name, step in found.items() if step == UNSTATED]
        facts: dict[str, Any] = {"predicted_first_error": found | dict.fromkeys(lost)} if found else {}
        facts |= {"unscored": lost} if lost else {}
        written = replace(row, outcome=outcome, answer=answer, facts={**row.facts, **facts})
        if scorer is not None:
            written = written.with_columns({_COLUMN: scores}, Provenance(scorer, what=(_COLUMN,)))
        yield written
