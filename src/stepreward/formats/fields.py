"""Values out of rows of nested JSON, as logs and traces have them: fields by path, texts of any shape, outcomes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.formats.rows import Row, shown


def first_value(row: object, *paths: str) -> object:
    """The first of the fields that is there and not null; dots in a path lead into nested objects."""
    for path in paths:
        value = row
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def text_at(row: object, *paths: str) -> str:
    """The first of the fields that is there, if it is a text; "" elsewhere."""
    return as_text(first_value(row, *paths))


def as_text(value: object) -> str:
    """A text as it is; "" for any other value."""
    return value if isinstance(value, str) else ""


def object_at(row: object, *paths: str) -> Mapping[str, Any]:
    """The first of the fields that is there, if it is an object; an empty one elsewhere."""
    value = first_value(row, *paths)
    return value if isinstance(value, Mapping) else {}


def list_at(row: object, *paths: str) -> list[Any]:
    """The first of the fields that is there, if it is a list; an empty one elsewhere."""
    value = first_value(row, *paths)
    return value if isinstance(value, list) else []


def id_at(row: object, number: int, *paths: str) -> str | int:
    """The first of the fields that is there, if it is a text or a number; the row's number elsewhere."""
    value = first_value(row, *paths)
    return value if isinstance(value, str | int) else number


def json_fields(row: Row, *names: str) -> dict[str, Any]:
    """Those of the fields that are there, not null, and JSON values."""
    return {name: row[name] for name in names if isinstance(row.get(name), str | int | float | bool | list | dict)}


def decoded(value: object, *openings: str) -> Any:
    """The JSON value of a text that begins with one of `openings`, as typed tables store lists and objects.

    All else stays as it is, other texts too: "12" is an answer, not a number.
    """
    return parsed(value) if isinstance(value, str) and value.lstrip().startswith(openings) else value


def json_text(value: object) -> str:
    """A text as it is, any other value as its JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def plain_text(value: object) -> str:
    """What a tool returned, or a message says, as text: a text, the texts of parts, or JSON; "" for null."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        texts = (value[name] for name in ("text", "content", "output") if isinstance(value.get(name), str))
        found = next(texts, None)
        return json_text(value) if found is None else found
    if isinstance(value, list) and value and all(isinstance(part, Mapping) and "type" in part for part in value):
        return "\n".join(part["text"] for part in value if isinstance(part.get("text"), str))
    return json_text(value)


def outcome_of(value: object, name: str, scale: float = 1.0) -> float:
    """A reward as an outcome in [0, 1]: `value / scale`; null is NaN.

    Raises:
        InputError: it is no number in [0, scale], or the scale is no positive number.
    """
    _check_scale(scale)
    if value is None:
        return math.nan
    if isinstance(value, bool | int | float) and (math.isnan(value) or 0 <= value / scale <= 1):
        return float(value) / scale
    what = f"'{name}' must be a number in [0, {scale:g}], got {shown(value)}"
    raise InputError(what, remedy="pass the largest reward as --read scale=NUMBER, or repair the row")


def outcome_or_nan(value: object, scale: float = 1.0) -> float:
    """A reward as an outcome, `value / scale`; NaN where it is no number in [0, scale].

    For logs whose rewards have no fixed range: the reader keeps the reward in the trajectory's facts.

    Raises:
        InputError: the scale is no positive number.
    """
    _check_scale(scale)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return math.nan
    return float(value) / scale if isinstance(value, bool | int | float) and 0 <= value / scale <= 1 else math.nan


def _check_scale(scale: object) -> None:
    if not (isinstance(scale, int | float) and math.isfinite(scale) and scale > 0):
        raise InputError(f"scale must be a positive number, got {scale!r}", remedy="pass the largest reward")


def recorded_outcome(row: Row, field: str, scale: float) -> float:
    """The outcome under the field named, or else under `reward`, `outcome` or `success`; NaN if there is none.

    Raises:
        InputError: the field named is missing, or its value is no outcome.
    """
    if field and field not in row:
        raise InputError(f"field '{field}' of the outcome is missing", remedy=f"the row has {', '.join(map(str, row))}")
    name = field or next((name for name in ("reward", "outcome", "success") if row.get(name) is not None), "")
    return outcome_of(row.get(name), name, scale) if name else math.nan
