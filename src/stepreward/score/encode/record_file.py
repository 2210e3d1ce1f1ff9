"""Encoder records as JSON, every value checked: the file of a checkpoint, and files of what differs from a record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from stepreward.core.errors import InputError, ModelError, SteprewardError, UnknownNameError
from stepreward.core.files.atomic_files import write_json
from stepreward.score.encode.old_records import KINDS, nested, old_names
from stepreward.score.encode.record import EncoderRecord, Encoding

RECORD_FILE = "stepreward.json"
"""The record's file in a checkpoint."""
CALIBRATOR_FILE = "calibrator.json"
"""In the folder of a checkpoint: scores of the checkpoint are mapped by it wherever it is loaded."""
_VERSION = 3
_SAVED_BESIDE = ("version", "probe")
"""What a checkpoint's own file holds besides its record."""
Part = TypeVar("Part")


def save_record(record: EncoderRecord, folder: Path, *, probe: list[int]) -> None:
    """Writes a record beside the model's files, with the token ids of a probe text."""
    write_json(folder / RECORD_FILE, {"version": _VERSION, "probe": probe, **asdict(record)})


def load_record(folder: Path) -> tuple[EncoderRecord, list[int]]:
    """The record of a checkpoint, of this version or an older one, and the token ids of its probe text.

    Raises:
        ModelError: there is none, or it has fields or values that this version does not know.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise ModelError(f"{folder} holds no {RECORD_FILE}: it is not a stepreward checkpoint")
    try:
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, probe = row.pop("version"), row.pop("probe")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is not a record of version {_VERSION} or older: {error}") from error
    if version not in range(1, _VERSION + 1):
        raise ModelError(f"{path} has version {version!r}; upgrade stepreward")
    try:
        return replaced(EncoderRecord(), nested(row), path), probe
    except UnknownNameError as error:
        raise ModelError(f"{error}; {path} has fields this version does not know: upgrade stepreward") from error
    except (SteprewardError, ValueError) as error:
        raise ModelError(f"{path} is no possible record: {error}") from error


def read_record(path: Path, base: EncoderRecord | None = None) -> EncoderRecord:
    """The record of a file: its fields, and those of `base` where it has none.

    Args:
        path: a JSON object with fields of `EncoderRecord`; the `stepreward.json` of a checkpoint is one. Fields of the
            encoding and the readout may stand side by side, as they do in files of older versions.
        base: what the file changes; the default record if None.

    Raises:
        InputError: it cannot be read, a value is not what its field takes, or two fields contradict each other.
        UnknownNameError: there is no such field.
    """
    given = {name: value for name, value in read_fields(path).items() if name not in _SAVED_BESIDE}
    try:
        base = base or EncoderRecord()
        return replaced(base, nested(given, base.encoding.kind), path)
    except ValueError as error:
        raise InputError(str(error), source=path) from error


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of a JSON file.

    Raises:
        InputError: it cannot be read, or holds no object.
    """
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"no readable JSON ({error})", source=path, remedy="pass a file like {}") from error
    if not isinstance(row, dict):
        raise InputError(f"expected an object, got {row!r:.60}", source=path, remedy='write {"field": "..."}')
    return row


def replaced(
    base: Part, row: Mapping[str, Any], path: Path, inside: str = "", *, of: str = "an encoder record"
) -> Part:
    """A dataclass with the values of a JSON object in place of its own, each checked.

    Raises:
        UnknownNameError: it has no such field.
        ValueError: a value is not what its field takes.
    """
    types, values = get_type_hints(type(base)), {}
    hints = {field.name: types[field.name] for field in fields(base)}  # type: ignore[arg-type]
    for name, value in row.items():
        if name not in hints:
            known = {*hints, *old_names()} if isinstance(base, EncoderRecord) else hints
            raise UnknownNameError(f"field of {of} (in {path})", inside + name, known)
        old = getattr(base, name)
        if name == "encoding" and isinstance(value, dict):
            value = _encoding(old, value, path)
        elif is_dataclass(old) and isinstance(value, dict):
            value = replaced(old, value, path, f"{inside}{name}.")
        elif not _fits(hints[name], value):
            raise ValueError(f"{inside}{name} must be {_type_name(hints[name])}, got {json.dumps(value)}")
        values[name] = _as_tuples(value)
    return replace(base, **values)  # type: ignore[type-var]


def _encoding(base: Encoding, row: Mapping[str, Any], path: Path) -> Encoding:
    """An encoding with the values of a JSON object; one of another kind keeps the fields that the two share."""
    kind = row.get("kind", base.kind)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"encoding.kind must be one of {', '.join(map(repr, KINDS))}, got {json.dumps(kind)}")
    if kind != base.kind:
        blank = KINDS[kind]()
        # The fields that both kinds have, as JSON holds them, and over them those of the file.
        shared = {n: v for n, v in asdict(base).items() if n != "kind" and n in asdict(blank)}
        row = {n: list(v) if isinstance(v, tuple) else v for n, v in shared.items()} | {**row}
        base = blank
    return replaced(base, row, path, "encoding.")


def _fits(hint: Any, value: object) -> bool:
    """Whether a JSON value is of an annotated type."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return value in inner
    if kind is UnionType:
        return any(_fits(one, value) for one in inner)
    if kind is tuple:
        if not isinstance(value, list) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            return False
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return all(map(_fits, each, value))
    # To Python `True` is a whole number, in a record it is none.
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _type_name(hint: Any) -> str:
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return f"one of {', '.join(map(repr, inner))}"
    if kind is UnionType:
        return " or ".join(map(_type_name, inner))
    if kind is tuple:
        if inner[-1] is Ellipsis:
            return f"a list, each {_type_name(inner[0])}"
        return f"a list of {', '.join(map(_type_name, inner))}"
    plain = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "null"}
    return plain.get(hint, "an object")
