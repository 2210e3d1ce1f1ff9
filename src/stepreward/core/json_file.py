"""Files that are never half written, JSON among them, and folders that remember what they were begun for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError, StoreError


@contextmanager
def in_one_move(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to, and moves what was written there to `path` at the end.

    A reader, or a kill, never sees half of it; after an error nothing is left and what was there before stays.

    Raises:
        StoreError: the file cannot be written.
    """
    unfinished = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; choose a writable folder with free space") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text in one move, down to the disk.

    Raises:
        StoreError: the file cannot be written.
    """
    with in_one_move(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, content: object) -> None:
    """Writes JSON in one move. NaN, not measured, becomes null.

    Raises:
        StoreError: the file cannot be written.
    """
    write_text(path, json.dumps(plain(content), indent=1, allow_nan=False))


def claim(path: Path, asked: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Notes in a file what its folder is for, or says how that differs from what stands there.

    Args:
        path: the file, JSON.
        asked: what the folder shall be for; JSON values.

    Returns:
        By name, what was noted and what is asked, where they differ; empty where the folder may be used.

    Raises:
        InputError: the file is no JSON object.
        StoreError: it cannot be written or read.
    """
    mine = json.loads(json.dumps(asked))
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}; choose a folder of yours") from error
    except ValueError as error:
        raise InputError(f"broken JSON: {error}", source=path, remedy="delete the folder and run again") from error
    if found is None:
        write_json(path, mine)
        return {}
    if not isinstance(found, dict):
        raise InputError("expected a JSON object", source=path, remedy="delete the folder and run again")
    names = sorted(name for name in mine.keys() | found.keys() if found.get(name) != mine.get(name))
    return {name: (found.get(name), mine.get(name)) for name in names}


def plain(value: Any) -> Any:
    """JSON values: NaN, not measured, becomes null."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
