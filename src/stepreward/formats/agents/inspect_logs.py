"""Inspect logs, `.eval` and JSON: a trajectory a sample, with the scores that Inspect's scorers gave."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Trajectory
from stepreward.formats.agents.messages import Reasoning, message_list, turns_of
from stepreward.formats.agents.runs import is_cut, trajectory_of
from stepreward.formats.fields import first_value, object_at, outcome_of
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, need, shown, text_or_none
from stepreward.formats.traces.call_payloads import finish

LETTERS: Mapping[str, float] = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Values of Inspect's letters: correct, partly correct, incorrect, no answer."""
_ATTACHED = re.compile(r"attachment://([0-9a-f]{32})")
_RUN = ("task", "task_id", "run_id", "eval_id", "model", "created")


def samples(path: Path) -> Iterator[Numbered]:
    """A row a sample, so that a bad one costs no other; a JSON log is in memory as a whole, an `.eval` log is not."""
    number = 0
    for line, row in read_rows(path):
        if isinstance(row, InputError) or not isinstance(row.get("samples"), list) or len(row["samples"]) < 2:
            number += 1
            yield (number if path.suffix == ".eval" else max(number, line)), row
            continue
        for sample in row["samples"]:
            number += 1
            yield number, {**row, "samples": [sample]}


def _with_attachments(value: Any, attachments: Mapping[str, Any]) -> Any:
    """The value with its long texts and images: a log keeps them apart, under the hash of each."""
    if isinstance(value, str):
        return _ATTACHED.sub(lambda found: str(attachments.get(found[1], found[0])), value)
    if isinstance(value, list):
        return [_with_attachments(one, attachments) for one in value]
    if isinstance(value, Mapping):
        return {name: _with_attachments(one, attachments) for name, one in value.items()}
    return value


def _value(score: object) -> object:
    return score.get("value") if isinstance(score, Mapping) else score


def _outcome(sample: Mapping[str, Any], scorer: str, scale: float) -> float:
    """The chosen scorer's value, or the first one's; letters count as Inspect counts them."""
    scores = sample.get("scores") or {}
    if not isinstance(scores, Mapping):
        raise InputError(f"'scores' must be an object, got {shown(scores)}")
    if scorer and scorer not in scores:
        raise InputError(f"no scorer is called {scorer!r}", remedy=f"the sample has {', '.join(scores) or 'none'}")
    name = scorer or next(iter(scores), "")
    value = _value(scores.get(name))
    if isinstance(value, str) and value in LETTERS:
        return LETTERS[value]
    # Several values, or a text, are not a single outcome: they stay in meta.
    return math.nan if isinstance(value, str | list | Mapping) else outcome_of(value, f"score {name}", scale)


def read(
    row: Row, number: int, *, scorer: str = "", scale: float = 1.0, reasoning: Reasoning = "keep"
) -> Iterator[Trajectory]:
    """Reads the samples of a log, each with its final `messages`; its events are left out.

    The outcome is a scorer's value: C is 1, P 1/2, I and N 0, numbers as they are; `meta["scores"]` holds all. Samples
    that a limit, an error or the model's length ended are not terminal. Samples without a message of the model are
    reported as bad rows.

    Args:
        row: the header of a log with one or more `samples`.
        number: its 1-based number.
        scorer: whose score is the outcome; the first one's where empty.
        scale: the largest score; outcomes are numeric scores divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: a field is missing or of another shape, a score is not in [0, scale], or there is no such scorer.
    """
    about = need(row, "eval", Mapping)
    run: dict[str, Any] = {name: about[name] for name in _RUN if isinstance(about.get(name), str | int)}
    for sample in need(row, "samples", list):
        if not isinstance(sample, Mapping):
            raise InputError(f"a sample must be an object, got {shown(sample)}")
        target = sample.get("target")
        reason = first_value(sample, "output.stop_reason") or finish(sample.get("output"))
        stopped = {name: sample[name] for name in ("limit", "error") if sample.get(name) is not None}
        scores = {name: _value(score) for name, score in (sample.get("scores") or {}).items()}
        yield trajectory_of(
            turns_of(message_list(_with_attachments(sample.get("messages"), object_at(sample, "attachments")))),
            f"inspect-{run.get('task', 'task')}-{sample.get('id', number)}", "inspect log", reasoning=reasoning,
            reference="; ".join(map(str, target)) if isinstance(target, list) else text_or_none(target),
            problem_meta={"metadata": sample["metadata"]} if isinstance(sample.get("metadata"), dict) else {},
            policy=str(run.get("model", "")), won=_outcome(sample, scorer, scale),
            terminal=not stopped and not is_cut(reason),
            meta={"subset": str(run.get("task", "")), **run, "status": row.get("status"), "sample": sample.get("id"),
                  "epoch": sample.get("epoch"), "scores": scores, **stopped},
        )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("inspect", "Inspect logs, .eval and JSON", has("status", eval=Mapping, samples=list), read, rows=samples),
)
