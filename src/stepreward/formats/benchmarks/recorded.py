"""Recorded step scores of real verifiers: sample pools, and ProcessBench under many verifiers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Floats, Problem, Step, Trajectory
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format, has
from stepreward.formats.labels import labels_to_first_error
from stepreward.formats.rows import Row, annotated, need, shown, steps_of, text_or_none

_CHAT_PROMPT = re.compile(r"\Asystem\n.*?\nassistant\n", re.DOTALL)


def _joined(
    path: Path, other: Path, key: str, join: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]
) -> Iterator[Numbered]:
    """Rows of `path`, streamed, each joined with its row of `other`, which is kept in memory."""
    if not other.exists():
        raise InputError(f"needs the step texts of {other.name}", source=path, remedy=f"put it at {other}")
    texts = {row.get(key): row for _, row in read_rows(other) if isinstance(row, Mapping)}
    for number, row in read_rows(path):
        if isinstance(row, InputError):
            yield number, row
        elif row.get(key) not in texts:
            what = f"{shown(row.get(key))} has no step texts in {other}"
            yield number, InputError(what, source=path, row=number, remedy="fetch both files of one version")
        else:
            yield number, join(row, texts[row[key]])


def open_pool(path: Path) -> Iterator[Numbered]:
    """Rows of `*_scores.jsonl.gz`, each with the step texts of `*_steps_text.jsonl.gz` beside it as `steps`.

    Raises:
        InputError: the texts are not there.
    """
    texts = path.with_name(path.name.replace("_scores", "_steps_text"))
    return _joined(path, texts, "problem_id", lambda row, other: {**row, "steps": other.get("steps")})


def open_process_bench(path: Path) -> Iterator[Numbered]:
    """Rows of recorded scores, each with its solution of ../processbench/<subset>.json.

    Raises:
        InputError: the solutions are not there.
    """
    solutions = path.resolve().parent.parent / "processbench" / f"{path.name.split('.')[0]}.json"
    return _joined(path, solutions, "id", lambda row, other: {**other, **row})


def _scores(recorded: Mapping[str, Any], steps: int) -> dict[str, Floats]:
    """The scores of each verifier as (S,), NaN at steps after the last score."""
    made = {}
    for name, values in recorded.items():
        if len(values) > steps:
            raise InputError(f"{name} has {len(values)} scores for {steps} steps", remedy="fetch both files again")
        made[name] = np.full(steps, np.nan)
        made[name][: len(values)] = values
    return made


def read_pool(row: Row, number: int, *, separator: str = "\n\n", strip_prompt: bool = False) -> Iterator[Trajectory]:
    """Reads all samples of a problem with the recorded step scores of every verifier.

    Correctness and answers are the regraded ones where the row has them (`is_correct_regraded`,
    `answers_reextracted`, `gold`): the pool's own grader cut answers at thousands commas.

    Args:
        row: the row with `steps`.
        number: its 1-based number.
        separator: put at the end of each step.
        strip_prompt: take away the chat prompt at the start of the first step of many samples. The verifiers scored
            the step with it, so it stays by default.

    Raises:
        InputError: a field is missing, or scores and steps do not fit.
    """
    name = str(need(row, "problem_id"))
    gold = text_or_none(row.get("gold", row.get("ground_truth")))
    problem = Problem(name, need(row, "question"), gold)
    right = row.get("is_correct_regraded", row.get("is_correct"))
    answers = row.get("answers_reextracted", row.get("answers"))
    texts, scores = need(row, "steps", list), need(row, "scores", dict)
    if right is None or answers is None or not len(right) == len(answers) == len(texts):
        raise InputError("'is_correct', 'answers' and 'steps' must have one entry a sample")
    for sample, parts in enumerate(texts):
        steps = steps_of(parts, separator)
        if strip_prompt:
            steps = (Step(_CHAT_PROMPT.sub("", steps[0].text)), *steps[1:])
        yield annotated(
            problem, steps, None, "pool grader, regraded", policy="pool", outcome=float(right[sample]),
            answer=text_or_none(answers[sample]),
            scores=_scores({name: values[sample] for name, values in scores.items()}, len(steps)),
        )  # fmt: skip


def read_process_bench(row: Row, number: int, *, separator: str = "\n\n") -> Iterator[Trajectory]:
    """Reads a ProcessBench solution with the recorded scores of its verifiers.

    Scores after the first error are not recorded and are NaN: the first-error protocol needs no more.

    Args:
        row: the row with its solution's `problem` and `steps`.
        number: its 1-based number, used where the row has no `id`.
        separator: put at the end of each step.

    Raises:
        InputError: a field is missing, or scores and steps do not fit.
    """
    steps, first = steps_of(row.get("steps"), separator), need(row, "label", int)
    yield annotated(
        Problem(str(row.get("id", number)), need(row, "problem")), steps, labels_to_first_error(first, len(steps)),
        "processbench annotators", policy=str(row.get("generator", "")), first_error=first,
        scores=_scores(need(row, "scores", dict), len(steps)),
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("pool", "samples of each problem with recorded step scores",
           has("problem_id", "answers", "scores", "n_steps"), read_pool, rows=open_pool),
    Format("process-bench-scores", "ProcessBench under recorded verifiers", has("id", "label", "n_scored", "scores"),
           read_process_bench, rows=open_process_bench),
)  # fmt: skip
