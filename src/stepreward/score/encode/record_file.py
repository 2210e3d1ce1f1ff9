"""Encoder records that people write as JSON: only what differs from a record to begin with, every value checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from stepreward.core.errors import InputError, UnknownNameError
from stepreward.score.encode.record import EncoderRecord

_SAVED_BESIDE = ("version", "probe")
"""What a checkpoint's own file holds besides its record."""


def read_record(path: Path, base: EncoderRecord | None = None) -> EncoderRecord:
    """The record of a file: its fields, and those of `base` where it has none.

    Args:
        path: a JSON object with fields of `EncoderRecord`; the `stepreward.json` of a checkpoint is one.
        base: what the file changes; the default record if None.

    Raises:
        InputError: it cannot be read, a value is not what its field takes, or two fields contradict each other.
        UnknownNameError: there is no such field.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"no readable JSON ({error})", source=path, remedy="pass a file like {}") from error
    if not isinstance(row, dict):
        raise InputError(f"expected an object, got {row!r:.60}", source=path, remedy='write {"separator": "..."}')
    hints = get_type_hints(EncoderRecord)
    given = {name: value for name, value in row.items() if name not in _SAVED_BESIDE}
    for name, value in given.items():
        if name not in hints:
            raise UnknownNameError(f"field of an encoder record (in {path})", name, hints)
        if not _fits(hints[name], value):
            raise InputError(f"{name} must be {_wanted(hints[name])}, got {json.dumps(value)}", source=path)
    try:
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
        }
        return replace(base or EncoderRecord(), **tuples)
    except ValueError as error:
        raise InputError(str(error), source=path) from error


def _fits(hint: Any, value: object) -> bool:
    """Whether a JSON value is of an annotated type."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind is UnionType:
        return any(_fits(one, value) for one in inner)
    if kind is tuple:
        return isinstance(value, list) and all(_fits(inner[0], one) for one in value)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _wanted(hint: Any) -> str:
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if kind is UnionType:
        return " or ".join(map(_wanted, inner))
    if kind is tuple:
        return f"a list, each {_wanted(inner[0])}"
    return {str: "a text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}[hint]
