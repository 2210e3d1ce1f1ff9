"""The table of trajectories: one row each, with steps, step columns, facts and provenance; Parquet or JSON lines.

    SELECT problem, unnest(steps).text AS step, unnest(label) AS label FROM 'labels.parquet'

Fields of a row (`FIELDS`), all but `steps` and a prompt optional, null where not known:

schema                 "stepreward/trajectories/1"
problem, prompt, messages, reference, meta
                       the problem: its id, its text or else its chat messages (JSON), gold answer, anything else (JSON)
steps                  list of {text, kind, role, agent, images, tokens, logprobs, meta (JSON)}
outcome, terminal      grade in [0, 1]; false where the trajectory was cut before its end
answer, first_error    final answer; 0-based index of the first wrong step, -1 if none
facts                  anything else of the trajectory (JSON)
provenance             who measured which columns: a JSON list of {what, estimator, policy, grader, seed, settings}

Every other column is a step column if it is a list of numbers, one a step, null where not measured: `label`, `value`,
`score` and any name of yours. A column that is none of these is a fact.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import plain
from stepreward.core.files.row_files import write_rows
from stepreward.core.types import LABEL, SCORE, Floats, Message, Problem, Provenance, Step, Trajectory

VERSION = "stepreward/trajectories/1"
"""The value of the field `schema` in each row."""
_STEP = pa.struct(
    [
        ("text", pa.large_string()),
        ("kind", pa.string()),
        ("role", pa.string()),
        ("agent", pa.string()),
        ("images", pa.list_(pa.large_string())),
        ("tokens", pa.list_(pa.int64())),
        ("logprobs", pa.list_(pa.float64())),
        ("meta", pa.string()),
    ]
)
FIELDS = pa.schema(
    [
        ("schema", pa.string()),
        ("problem", pa.string()),
        ("prompt", pa.string()),
        ("messages", pa.string()),
        ("reference", pa.string()),
        ("meta", pa.string()),
        ("steps", pa.list_(_STEP)),
        ("outcome", pa.float64()),
        ("terminal", pa.bool_()),
        ("answer", pa.string()),
        ("first_error", pa.int64()),
        ("facts", pa.string()),
        ("provenance", pa.string()),
    ]
)
"""The fields that every row may have; step columns come behind them."""
_PLURAL = {"scores": SCORE, "labels": LABEL}
"""Step columns under the names that lines of `score` and `search` give them."""
_EXAMPLE = '{"schema": "stepreward/trajectories/1", "prompt": "1 + 1?", "steps": [{"text": "1 + 1 = 2"}]}'
_WHO = 'write [{"what": ["label"], "estimator": "NAME"}], with policy, grader, seed and settings where known'
_WHO_FIELDS = {one.name for one in fields(Provenance)}
REMEDY = f"write rows like {_EXAMPLE}"


def row_of(item: Trajectory) -> dict[str, Any]:
    """The row of a trajectory; what is null or empty is left out.

    Raises:
        InputError: a name of its step columns is that of a field, or a fact is no JSON value.
    """
    problem = item.problem
    chat = None if isinstance(problem.prompt, str) else json.dumps([dict(message) for message in problem.prompt])
    made = {
        "schema": VERSION,
        "problem": problem.id,
        "prompt": problem.prompt if isinstance(problem.prompt, str) else None,
        "messages": chat,
        "reference": problem.reference,
        "meta": _json(problem.meta),
        "steps": [_step_row(step) for step in item.steps],
        "outcome": plain(float(item.outcome)),
        "terminal": item.terminal,
        "answer": item.answer,
        "first_error": item.first_error,
        "facts": _json(item.facts),
        "provenance": json.dumps([asdict(one) for one in item.provenance]) if item.provenance else None,
    }
    # A step column of a field's name would silently replace it when the row is read.
    if taken := sorted(made.keys() & item.columns.keys()):
        raise InputError(f"step columns {taken} have the names of a row's fields", remedy="rename them")
    return {name: value for name, value in made.items() if value is not None} | {
        name: plain([float(value) for value in values]) for name, values in item.columns.items()
    }


def _step_row(step: Step) -> dict[str, Any]:
    more = {
        "agent": step.agent,
        "images": list(step.images) or None,
        "tokens": None if step.tokens is None else list(step.tokens),
        "logprobs": None if step.logprobs is None else plain(list(step.logprobs)),
        "meta": _json(step.meta),
    }
    made = {"text": step.text, "kind": step.kind, "role": step.role}
    return made | {name: value for name, value in more.items() if value is not None}


def _json(value: Mapping[str, Any]) -> str | None:
    try:
        return json.dumps(dict(value)) if value else None
    except (TypeError, ValueError) as error:
        raise InputError(f"meta must hold JSON values: {error}", remedy="drop or convert it") from error


def item_of(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory of a row, of this version or of the labels that releases before it wrote.

    Raises:
        InputError: a field is missing or of another kind, or a step column has another length than the steps.
    """
    steps = _steps(row.get("steps"))
    known = {name: value for name, value in row.items() if name not in FIELDS.names and value is not None}
    # Columns that must be numbers by their names: damage there is an error and not a fact.
    known |= {name: _numbers(value, name) for name, value in known.items() if _is_measured(name)}
    measured = {_PLURAL.get(name, name): _column(name, known, len(steps)) for name in known if _is_column(known[name])}
    labels = measured.get(LABEL, np.full(len(steps), np.nan))
    if ((labels < 0) | (labels > 1)).any():
        raise InputError(f"labels {labels.tolist()} leave [0, 1]", remedy="rescale them")
    facts = dict(_object(row.get("facts"), "facts"))
    facts |= {name: value for name, value in known.items() if not _is_column(value)}
    first = _whole(row.get("first_error"), "first_error")
    if first is not None and not -1 <= first < len(steps):
        raise InputError(f"'first_error' must be -1 or a step below {len(steps)}, got {first}")
    return Trajectory(
        _problem(row), steps, _outcome(row.get("outcome")), _terminal(row.get("terminal")),
        answer=_text(row.get("answer"), "answer"), first_error=first, columns=measured, facts=facts,
        provenance=_provenance(row),
    )  # fmt: skip


def _provenance(row: Mapping[str, Any]) -> tuple[Provenance, ...]:
    """Who measured which columns."""
    given = _loaded(row.get("provenance"), "provenance") or []
    entries = [given] if isinstance(given, Mapping) else given
    if not isinstance(entries, Sequence) or not all(isinstance(one, Mapping) for one in entries):
        raise InputError(f"'provenance' must be a list of objects, got {given!r:.60}", remedy=_WHO)
    for one in entries:
        if not isinstance(one.get("estimator"), str) or one.keys() - _WHO_FIELDS:
            raise InputError(f"'provenance' has the entry {dict(one)!r:.80}", remedy=_WHO)
    return tuple(Provenance(**{**one, "what": tuple(one.get("what", (LABEL,)))}) for one in entries)


def _missing(value: object) -> bool:
    """Whether a value is not known; NaN is what pandas writes for null."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _outcome(value: object) -> float:
    if _missing(value):
        return math.nan
    if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
        raise InputError(f"'outcome' must be a number in [0, 1], got {value!r:.60}", remedy="rescale it, or null")
    return float(value)


def _terminal(value: object) -> bool:
    if not _missing(value) and value not in (True, False):
        raise InputError(f"'terminal' must be true or false, got {value!r:.60}")
    return _missing(value) or bool(value)


def _whole(value: object, name: str) -> int | None:
    """A whole number; a column with a gap makes floats of them."""
    if _missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1:
        raise InputError(f"'{name}' must be a whole number, got {value!r:.60}")
    return int(value)


def _text(value: object, name: str) -> str | None:
    if _missing(value):
        return None
    if not isinstance(value, str | int | float):
        raise InputError(f"'{name}' must be text, got {value!r:.60}")
    return str(value)


def _problem(row: Mapping[str, Any]) -> Problem:
    prompt: Any = row.get("prompt")
    chat = _loaded(row.get("messages"), "messages")
    if chat is None and isinstance(prompt, str) and prompt.startswith('[{"') and "schema" not in row:
        chat = json.loads(prompt)  # Releases before this version wrote chats as JSON in `prompt`.
    if chat is not None:
        prompt = tuple(_message(message) for message in chat)
    if prompt is None:
        raise InputError("there is no 'prompt' and there are no 'messages'", remedy=REMEDY)
    if not isinstance(prompt, str | tuple):
        raise InputError(f"'prompt' must be text, got {prompt!r:.60}", remedy="write chat messages in 'messages'")
    name, reference = _text(row.get("problem"), "problem"), _text(row.get("reference"), "reference")
    return Problem(str(prompt)[:40] if name is None else name, prompt, reference, _object(row.get("meta"), "meta"))


def _message(message: object) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
        raise InputError(f"a message must have a 'role' and a text 'content', got {message!r:.60}")
    return dict(message)


def _steps(given: object) -> tuple[Step, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise InputError(f"'steps' must be a list, got {given!r:.60}", remedy=REMEDY)
    return tuple(_step({"text": one} if isinstance(one, str) else one, place) for place, one in enumerate(given))


def _step(row: object, place: int) -> Step:
    if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
        raise InputError(f"step {place} must have a 'text', got {row!r:.60}", remedy=REMEDY)
    kind: Any = row.get("kind") or "action"
    if kind not in ("action", "observation"):
        raise InputError(f"'kind' of step {place} must be action or observation, got {kind!r:.60}")
    tokens, logprobs = _tokens(row.get("tokens"), place), row.get("logprobs")
    known = None if logprobs is None else tuple(_floats(_numbers(logprobs, f"logprobs of step {place}")).tolist())
    if tokens is not None and known is not None and len(tokens) != len(known):
        raise InputError(f"step {place} has {len(tokens)} 'tokens' and {len(known)} 'logprobs'")
    images = row.get("images") or ()
    if not isinstance(images, list | tuple) or not all(isinstance(one, str) for one in images):
        raise InputError(f"'images' of step {place} must be a list of texts, got {images!r:.60}")
    for name in ("role", "agent"):
        if not isinstance(row.get(name), str | None):
            raise InputError(f"'{name}' of step {place} must be text, got {row[name]!r:.60}")
    return Step(
        row["text"], kind, row.get("role") or "assistant", row.get("agent"), tuple(images), tokens, known,
        _object(row.get("meta"), f"meta of step {place}"),
    )  # fmt: skip


def _tokens(given: object, place: int) -> tuple[int, ...] | None:
    if given is None:
        return None
    whole = [_whole(one, f"tokens of step {place}") for one in given] if isinstance(given, list | tuple) else [None]
    if None in whole:
        raise InputError(f"'tokens of step {place}' must be a list of whole numbers, got {given!r:.60}")
    return tuple(one for one in whole if one is not None)


def _is_measured(name: str) -> bool:
    """Whether a column is one of step numbers by its name, so that another kind of value there is damage."""
    return name in (LABEL, SCORE, "value", *_PLURAL) or name.startswith(f"{SCORE}:")


def _numbers(values: object, name: str) -> list[float | None]:
    if not isinstance(values, list | tuple) or not all(isinstance(one, bool | int | float | None) for one in values):
        raise InputError(f"'{name}' must be a list of numbers, got {values!r:.60}", remedy="one a step, null if none")
    return [None if one is None else float(one) for one in values]


def _is_column(value: object) -> bool:
    """Whether a value is a list of numbers with gaps."""
    return isinstance(value, list | tuple) and all(
        one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in value
    )


def _column(name: str, row: Mapping[str, Any], steps: int) -> Floats:
    values = row[name]
    if len(values) != steps:
        raise InputError(f"{steps} steps but {len(values)} numbers in '{name}'", remedy="give one a step, null if none")
    return _floats(values)


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _object(value: object, name: str) -> Mapping[str, Any]:
    made = _loaded(value, name)
    if made is None:
        return {}
    if not isinstance(made, Mapping):
        raise InputError(f"'{name}' must be a JSON object, got {value!r:.60}", remedy="write an object")
    return dict(made)


def _loaded(value: object, name: str) -> Any:
    """A JSON value, given as itself or as its text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InputError(f"'{name}' is no JSON: {error}", remedy="write JSON") from error


def write_table(path: Path, items: Iterable[Trajectory]) -> int:
    """Writes trajectories to a file of the table, streaming and in one move, and returns how many.

    Raises:
        InputError: a trajectory cannot be stored.
        StoreError: the file cannot be written.
    """
    return write_rows(path, map(row_of, items), schema=FIELDS)


def read_table(path: Path) -> Iterator[Trajectory]:
    """Yields the trajectories of a Parquet file, streaming.

    Raises:
        InputError: the file is no Parquet file, misses a column, or a row is damaged.
    """
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        what = f"not a readable Parquet file ({error})"
        raise InputError(what, source=path, remedy="pass what `label` wrote") from error
    missing = [name for name in ("problem", "prompt", "steps") if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"columns {missing} are missing", source=path, remedy="pass what `label` wrote")
    number = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            number += 1
            try:
                made = item_of(row)
            except InputError as error:
                raise InputError(error.problem, source=path, row=number, remedy=error.remedy) from error
            except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                raise InputError(f"damaged: {error}", source=path, row=number, remedy=REMEDY) from error
            yield made
