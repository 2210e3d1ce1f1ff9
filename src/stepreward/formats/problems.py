"""Problems out of rows of any public layout: a prompt under one of its usual names, and the gold answer beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.table import item_of
from stepreward.core.types import Problem
from stepreward.formats import trajectories
from stepreward.formats.agents.messages import prompt_of
from stepreward.formats.benchmarks.gsm8k import MARK, answer_of
from stepreward.formats.fields import first_value
from stepreward.formats.files.rows_of_files import read_rows
from stepreward.formats.rows import Row, shown

PAIRS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("prompt", ("reference", "ground_truth", "answer", "gold", "target", "solution")),
    ("question", ("reference", "ground_truth", "answer", "gold", "target", "final_answer", "solution")),
    ("problem", ("reference", "ground_truth", "answer", "gold", "target", "final_answer", "solution")),
    ("query", ("reference", "ground_truth", "answer", "response")),
    ("instruction", ("reference", "ground_truth", "answer", "output", "response")),
    ("input", ("reference", "ground_truth", "target", "answer", "output", "ideal")),
    ("messages", ("reference", "ground_truth", "answer", "gold", "target", "solution")),
)
"""Names of a prompt, each with the names of the gold answer that may be beside it, the likeliest first.

`answer` may be a model's, so `reference` and `ground_truth` come before it. `solution` is last: it is often the working
beside an `answer`.
"""
IDS = ("id", "problem_id", "unique_id", "task_id", "question_id")
WITHOUT_REFERENCE = "has no reference to grade rollouts with"
_REMEDY = 'write rows like {"id": "1", "prompt": "1 + 1?", "reference": "2"}'


def prompt_field(row: Row) -> str | None:
    """The name under which a row has a prompt, text or chat messages; None where it has none."""
    found = next((name for name, _ in PAIRS if _is_prompt(row.get(name))), None)
    # A conversation whose last message is the model's is a solution, not a problem.
    return None if found == "messages" and row[found][-1]["role"] == "assistant" else found


def _in_small_letters(row: Row) -> Row:
    """The row with names in small letters, as data sets have `Problem` and `Answer`, and a body before its question."""
    made = {str(name).lower(): value for name, value in row.items()}
    if isinstance(made.get("body"), str) and isinstance(made.get("question"), str):
        made["question"] = f"{made.pop('body').rstrip()} {made['question']}"
    return made


def _is_prompt(value: object) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) and "role" in one for one in value)


def problem_of(row: Row, number: int) -> Problem:
    """The problem of a row; the text before the `####` of a GSM8K answer is kept in `meta` as `solution`.

    Args:
        row: a row of any layout of `PAIRS`, of the data of verl, or of our own table.
        number: its 1-based number, the id where it has none.

    Raises:
        InputError: there is no prompt.
    """
    if trajectories.matches(row) and "steps" in row and ("prompt" in row or "messages" in row):
        return item_of(row).problem
    row = row if prompt_field(row) is not None else _in_small_letters(row)
    name = prompt_field(row)
    if name is None:
        if str(row.get("schema", "")).startswith("stepreward/"):
            what = f"{row['schema']} holds no problem"
            raise InputError(what, remedy="pass labels.parquet, or other rows of problems")
        known = ", ".join(f"'{one}'" for one, _ in PAIRS)
        what = f"a problem needs a text under 'prompt' (or {known})"
        raise InputError(f"{what}; the row has {', '.join(map(str, row)) or 'nothing'}", remedy=_REMEDY)
    prompt, used = prompt_of(row[name], name), {name}
    # Alpaca's rows have an instruction and what it is about; elsewhere `input` beside an instruction is another field.
    if name == "instruction" and isinstance(row.get("input"), str) and ("output" in row or "response" in row):
        more = f"\n\n{row['input']}" if row["input"].strip() else ""
        prompt, used = f"{row[name]}{more}", {name, "input"}
    gold, reference = _reference(row, name)
    own = next((one for one in IDS if isinstance(row.get(one), str | int) and row[one] != ""), None)
    meta = {key: value for key, value in row.items() if key not in {*used, gold, own}}
    if reference is not None and MARK in reference and answer_of(reference) is not None:
        meta, reference = {**meta, "solution": reference}, answer_of(reference)
    return Problem(str(number if own is None else row[own]), prompt, reference, meta)


def _reference(row: Row, prompt: str) -> tuple[str | None, str | None]:
    """The field of the gold answer and its text."""
    # verl's data sets nest the gold answer: {"reward_model": {"style": "rule", "ground_truth": "72"}}.
    nested = first_value(row, "reward_model.ground_truth")
    if nested is not None:
        return None, _text(nested)
    name = next((one for one in dict(PAIRS)[prompt] if row.get(one) is not None), None)
    return name, None if name is None else _text(row[name])


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def read_problems(path: str | Path, *, bad: list[InputError] | None = None, graded: bool = False) -> Iterator[Problem]:
    """Yields the problems of a file of any container; of a table of trajectories each problem once.

    Args:
        path: .json, .jsonl or .parquet, plain or .gz.
        bad: gets the errors of rows that are no problem, which are left out; None raises the first.
        graded: a row without a reference or tests is such a row.

    Raises:
        InputError: the file cannot be read, or a row is no problem and `bad` is None; the error names the row.
    """
    path, seen = Path(path), dict[str, Problem]()
    for number, row in read_rows(path):
        try:
            if isinstance(row, InputError):
                raise row
            made = problem_of(row, number)
            if graded and not made.gradable:
                raise InputError(f"problem {made.id!r} {WITHOUT_REFERENCE}", remedy="add it to the row")
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            found = error if isinstance(error, InputError) else InputError(f"no problem: {shown(error)}")
            located = InputError(found.problem, source=path, row=number, remedy=found.remedy or _REMEDY)
            if bad is None:
                raise located from error
            bad.append(located)
            continue
        if trajectories.matches(row) and seen.setdefault(made.id, made) == made and seen[made.id] is not made:
            continue
        yield made
