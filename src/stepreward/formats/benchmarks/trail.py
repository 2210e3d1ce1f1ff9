"""TRAIL (arXiv:2505.08638): traces of agents whose errors people named by span and category, and judges' reports."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Floats, Problem, Step, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, id_of, shown

_INNER = ("child_spans", "spans")
_DECODER = json.JSONDecoder()


def _object(value: object, name: str) -> Mapping[str, Any]:
    """An object, or the first one that stands in a text, as judges write it; empty where there is nothing.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, Mapping):
        return value
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if isinstance(value, str):
        for at in (place for place, character in enumerate(value) if character == "{"):
            try:
                found, _ = _DECODER.raw_decode(value, at)
            except (ValueError, RecursionError):
                continue
            return found if isinstance(found, Mapping) else {}
        return {}
    raise InputError(f"'{name}' must be an object or its JSON, got {shown(value)}")


def _whole(row: Row, name: str) -> object:
    """A field of the data itself: a text there is JSON from end to end, as half of it would say that nothing is wrong.

    Raises:
        InputError: it is broken.
    """
    value = row.get(name)
    if isinstance(value, str) and value.strip():
        try:
            return json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"'{name}' is broken JSON: {error}, got {shown(value)}", remedy="repair the row"
            ) from error
    return value


def _errors(report: Mapping[str, Any]) -> list[list[str]]:
    """`[location, category]` of each error of a report, in its order."""
    found = report.get("errors") or []
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise InputError(f"'errors' must be a list of objects, got {shown(found)}")
    return [[str(one.get("location") or ""), str(one.get("category") or "")] for one in found]


def _spans(value: object) -> Iterator[Mapping[str, Any]]:
    """The spans of a trace, each before those within it."""
    if isinstance(value, list):
        for one in value:
            yield from _spans(one)
    elif isinstance(value, Mapping):
        if isinstance(value.get("span_id"), str):
            yield value
        for name in _INNER:
            yield from _spans(value.get(name))


def _text(span: Mapping[str, Any]) -> str:
    own = {name: one for name, one in span.items() if name not in (*_INNER, "span_id")}
    return json.dumps(own, ensure_ascii=False) + "\n"


def _blamed(at: list[str], errors: list[list[str]]) -> Floats:
    """(S,) 0 at the spans of an error, else 1."""
    named = {location for location, _ in errors}
    return np.array([float(name not in named) for name in at])


def read(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads `labels` (errors with `location`, a span id, and `category`) of a trace, and what judges report.

    A step is a span of `trace`, those within others after them; without `trace` the spans that `labels` names. `judged`
    is ours: it holds a report of the same layout, or the text in which it stands, by the judge's name; `null`, and a
    text without an object, report nothing. What people and judges say becomes step labels and scores, 0 at a span with
    an error and 1 elsewhere, and the facts `errors` and `errors:JUDGE`, lists of location and category. The layout is
    that of the data card and of programs that read the files, which are not public without consent and were not seen.

    Args:
        row: the row; `labels` and `trace` may be JSON in a text.
        number: its 1-based number, used where neither row nor trace has a `trace_id`.

    Raises:
        InputError: a field is missing or misshapen, or no span is named at all.
    """
    labels, trace = _errors(_object(_whole(row, "labels"), "labels")), _object(_whole(row, "trace"), "trace")
    judged = row.get("judged") or {}
    if not isinstance(judged, Mapping):
        raise InputError(f"'judged' must hold a report by each judge's name, got {shown(judged)}")
    reports = {str(name): _errors(_object(value, f"judged.{name}")) for name, value in judged.items()}
    spans = list(_spans(trace))
    at = [str(span["span_id"]) for span in spans]
    steps = [Step(_text(span), meta={"span": span["span_id"]}) for span in spans]
    if not steps:
        named = [location for errors in (labels, *reports.values()) for location, _ in errors]
        at = list(dict.fromkeys(name for name in named if name))
        steps = [Step(f"span {name}\n", meta={"span": name}) for name in at]
    if not steps:
        raise InputError("neither 'trace' nor 'labels' names a span", remedy="drop the row")
    name = row.get("trace_id") or trace.get("trace_id")
    facts: dict[str, Any] = {"errors": labels, **{f"errors:{judge}": errors for judge, errors in reports.items()}}
    yield annotated(
        Problem(f"trail-{name}" if name else id_of("trail", [*at, number]), ""), tuple(steps), _blamed(at, labels),
        "trail annotators", scores={judge: _blamed(at, errors) for judge, errors in reports.items()},
        facts=facts | ({"subset": row["subset"]} if isinstance(row.get("subset"), str) else {}),
    )  # fmt: skip


def _matches(row: Row) -> bool:
    labels = row.get("labels")
    inner = isinstance(labels, Mapping) and isinstance(labels.get("errors"), list)
    # A text is not parsed for a guess.
    text = has(labels=str, trace=str)(row) and '"errors"' in str(labels)
    return inner or text


FORMATS: tuple[Format, ...] = (Format("trail", "TRAIL: errors of agents' traces by span and category", _matches, read),)
