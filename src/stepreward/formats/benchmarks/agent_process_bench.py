"""AgentProcessBench (arXiv:2603.14465): tool-using chats whose messages people and judges rated 1, 0 or -1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Floats, Problem, Step, Trajectory, score_column
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterError, Neutral, relabel, three_valued
from stepreward.formats.rows import Row, annotated, need, other_fields, shown, text_or_none

_PLACES = ("data/AgentProcessBench/{}.jsonl", "{}.jsonl", "data/AnswerOnly/{}_final.jsonl", "{}_final.jsonl")
"""Where people's ratings of a data set are, below a folder that holds the judge's: with the chats, or alone."""
_PER_QUESTION = 5
"""Chats of a question, by which judges' files, which have no `total_index`, number them."""
_VERDICTS = {-1: 0.0, 0: 0.5, 1: 1.0}


def _text(message: Mapping[str, Any]) -> str:
    """What a message says, and the calls that it makes as JSON, a line each."""
    said = message.get("content")
    calls = [call.get("function", call) for call in message.get("tool_calls") or [] if isinstance(call, Mapping)]
    parts = [said] if isinstance(said, str) and said else []
    return "\n".join([*parts, *(json.dumps(call, ensure_ascii=False) for call in calls)])


def read(
    row: Row,
    number: int,
    *,
    neutral: Neutral = "half",
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `messages` and `step_labels`, whose keys are places of messages.

    Everything before the first message of the assistant is the problem. Messages of the assistant are actions,
    all others observations. A step's `meta["message"]` is its place, by which the benchmark's scores count.

    Args:
        number: its 1-based number, used where the row has no `total_index`.
        neutral: label 0.
        after_first_error: labels after the first -1; people judged every step.

    Raises:
        InputError: a field is missing, a label is not 1, 0 or -1, or it is of no message of the assistant.
    """
    messages: list[Mapping[str, Any]] = need(row, "messages", list)
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(f"message {i} needs a 'role', got {shown(message)}")
    rated: dict[int, object] = {}
    for key, value in need(row, "step_labels", Mapping).items():
        # Keys are places in `messages`, as texts: an object of JSON has no other keys.
        at = int(key) if str(key).isascii() and str(key).isdigit() else len(messages)
        if at >= len(messages) or messages[at]["role"] != "assistant":
            what = f"'step_labels' has {shown(key)}, which is no message of the assistant"
            raise InputError(what, remedy="keys are 0-based places in 'messages'")
        rated[at] = value
    start = next((i for i, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    if start in (0, len(messages)):
        raise InputError("there must be a question and then a message of the assistant")
    places = range(start, len(messages))
    values = [rated.get(i) for i in places]
    labels = three_valued(values, len(values), neutral=neutral, name="step_labels")
    steps = tuple(
        Step(
            _text(messages[i]) + "\n", kind="action" if messages[i]["role"] == "assistant" else "observation",
            role=messages[i]["role"], meta={"message": i},
        )
        for i in places
    )  # fmt: skip
    final = row.get("final_label")
    problem = Problem(
        f"agent-process-bench-{row.get('total_index', number)}",
        tuple({"role": message["role"], "content": _text(message)} for message in messages[:start]),
        reference=text_or_none(row.get("ground_truth")),
    )
    yield annotated(
        problem, steps, relabel(labels, after_first_error=after_first_error), "agent-process-bench annotators",
        outcome=float(final > 0) if isinstance(final, int) else float("nan"),
        # From the ratings: with neutral=mask a step without label would hide the first error behind it.
        first_error=next((place for place, value in enumerate(values) if value == -1), -1),
        facts={"subset": str(row.get("data_source", "")), **other_fields(row, "messages", "tools", "tool_metrics")},
    )  # fmt: skip


def _of_people(path: Path, dataset: str) -> Path:
    """The file of people's ratings nearest to a judge's file.

    Raises:
        InputError: there is none.
    """
    for folder in path.resolve().parents[:5]:
        for place in _PLACES:
            for ending in ("", ".gz"):
                if (found := folder / f"{place.format(dataset)}{ending}").is_file():
                    return found
    what = f"needs people's ratings of {dataset}, in {dataset}.jsonl or {dataset}_final.jsonl"
    raise InputError(what, source=path, remedy="put the benchmark's file into a folder above the judge's file")


def _of_run(row: Row) -> tuple[object, ...]:
    """What a chat is called, in people's and in judges' rows: its question and its place among the question's chats."""
    if isinstance(row.get("query_index"), int) and isinstance(row.get("sample_index"), int):
        return row["query_index"], row["sample_index"]
    total: int = need(row, "total_index", int)
    return divmod(total % (50 * _PER_QUESTION), _PER_QUESTION)


def _written(row: Row) -> tuple[bool, datetime]:
    """When a judge's row was written; one without a time is older than all others."""
    text = row.get("updated_at")
    try:
        at = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        at = None
    if at is None:
        return False, datetime.min.replace(tzinfo=UTC)
    return True, at if at.tzinfo else at.replace(tzinfo=UTC)


def open_judge(path: Path) -> Iterator[Numbered]:
    """Rows of people's ratings, each with what the judge of this file says of it as `judged`, the last run alone.

    Raises:
        InputError: people's ratings are not there.
    """
    said: dict[tuple[object, ...], tuple[int, Mapping[str, Any]]] = {}
    dataset = path.name.split("__")[0].split(".")[0]
    for number, row in read_rows(path):
        if isinstance(row, InputError):
            yield number, row
            continue
        dataset, of = str(row.get("dataset") or dataset), _of_run(row)
        if of not in said or _written(row) >= _written(said[of][1]):
            said[of] = number, row
    people = _of_people(path, dataset)
    for number, row in read_rows(people):
        if isinstance(row, InputError):
            yield number, row
            continue
        _, mine = said.pop(_of_run(row), (0, {}))
        # A folder is a judge: the authors' runs of one judge differ in spelling from file to file.
        judge, judged = path.resolve().parent.name.strip(), mine.get("step_labels") or {}
        yield number, {**row, "dataset": dataset, "judge": judge, "judged": judged}
    for number, _ in said.values():
        what = f"the chat is not in {people}"
        yield number, InputError(what, source=path, row=number, remedy="use files of one version")


def _bare(row: Row, number: int) -> Trajectory:
    """A chat of which only the ratings are at hand: the text of a step names its message."""
    rated = sorted(need(row, "step_labels", Mapping).items(), key=lambda pair: int(pair[0]))
    steps = tuple(Step(f"message {at}\n", meta={"message": int(at)}) for at, _ in rated)
    labels = three_valued([value for _, value in rated], len(rated), neutral="half", name="step_labels")
    final, problem = row.get("final_label"), Problem(f"agent-process-bench-{row.get('total_index', number)}", "")
    return annotated(
        problem, steps, labels, "agent-process-bench annotators",
        outcome=float(final > 0) if isinstance(final, int) else float("nan"),
        first_error=next((place for place, label in enumerate(labels.tolist()) if label == 0), -1),
    )  # fmt: skip


def read_judge(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads the recorded verdicts of a judge, joined with people's ratings: scores 1, 1/2 and 0 under the judge's name.

    The judge is named by its file's folder, as in `JUDGE/bfcl__RUN.jsonl`; people's ratings are `bfcl.jsonl` or
    `bfcl_final.jsonl` in a folder above, with the chats or alone: then a step's text is only its message's number. Of
    several verdicts on a chat the one with the latest `updated_at` counts. Where the judge says nothing the score is
    NaN, and what it says of messages that people did not rate is left out.

    Args:
        row: a row of people's ratings with `judge` and `judged`, the judge's `step_labels`.
        number: its 1-based number, used where the row has no `total_index`.

    Raises:
        InputError: a field is missing, or a verdict is not 1, 0, -1 or null.
    """
    judge, judged, dataset = need(row, "judge"), need(row, "judged", Mapping), need(row, "dataset")
    people = {name: value for name, value in row.items() if name not in ("judge", "judged")}
    item = next(read(people, number)) if "messages" in row else _bare(people, number)
    scores: Floats = np.full(len(item), np.nan)
    for place, (step, label) in enumerate(zip(item.steps, item.labels.tolist(), strict=True)):
        verdict = judged.get(str(step.meta["message"]))
        if verdict is None or label != label:
            continue
        if isinstance(verdict, bool) or verdict not in _VERDICTS:
            what = f"the verdict on message {step.meta['message']} must be 1, 0, -1 or null, got {shown(verdict)}"
            raise InputError(what, remedy="repair the judge's file")
        scores[place] = _VERDICTS[verdict]
    made = item.with_columns({score_column(judge): scores})
    yield replace(made, facts={**made.facts, "subset": dataset})


FORMATS: tuple[Format, ...] = (
    Format("agent-process-bench", "tool-using chats rated step by step", has(messages=list, step_labels=Mapping), read),
    Format("agent-process-bench-judge", "a judge's recorded verdicts on AgentProcessBench",
           has("record_id", "annotator", "query_index", "sample_index", step_labels=Mapping), read_judge,
           rows=open_judge),
)  # fmt: skip
