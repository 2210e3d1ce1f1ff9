"""Rows of an Inspect `.eval` archive: a zip of JSON, a member a sample, read one at a time, never unpacked to disk."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.formats.files.row_limits import LARGEST_ROW, too_large

_HEADERS = ("header.json", "_journal/start.json")
"""Where the run is described: the second alone is there if it never ended."""
_SAMPLES = "samples/"
_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError)
"""Damaged, encrypted, or packed in a way that the standard library cannot undo."""
_EXPORT = "fetch it again, or write it as JSON: inspect log convert --to json"


def archived(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | InputError]]:
    """A row a sample: the fields of the log's header, and `samples` with this one.

    Raises:
        InputError: it is no zip, or has no header.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (*_UNREADABLE, ValueError) as error:
        raise InputError(f"not a readable .eval archive: {error}", source=path, remedy=_EXPORT) from error
    with archive:
        names = {info.filename: info for info in archive.infolist()}
        found = next((names[name] for name in _HEADERS if name in names), None)
        if found is None:
            what = f"no {' or '.join(_HEADERS)} is in it"
            raise InputError(what, source=path, remedy="is it a log of Inspect? " + _EXPORT)
        header = _member(archive, found, path, None)
        if isinstance(header, InputError):
            raise header
        members = [info for name, info in names.items() if name.startswith(_SAMPLES) and name.endswith(".json")]
        for number, info in enumerate(members, start=1):
            sample = _member(archive, info, path, number)
            yield number, sample if isinstance(sample, InputError) else {**header, "samples": [sample]}


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, number: int | None
) -> Mapping[str, Any] | InputError:
    """A member's object, or what is wrong with it."""
    try:
        with archive.open(info) as file:
            # Bounded here: the size that the archive states for a member may be wrong.
            text = file.read(LARGEST_ROW + 1)
        large = too_large(text)
        value = None if large else json.loads(text)
    except (*_UNREADABLE, ValueError, RecursionError) as error:
        what = f"{info.filename} cannot be read: {error}"
        return InputError(what, source=path, row=number, remedy=_EXPORT)
    if large:
        what = f"{info.filename} is not read: {large}"
        return InputError(what, source=path, row=number, remedy="drop the sample")
    if not isinstance(value, Mapping):
        return InputError(f"{info.filename} is no object", source=path, row=number, remedy=_EXPORT)
    return value
