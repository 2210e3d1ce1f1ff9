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
from stepreward.core.http.addresses import without_secrets

try:
    import fcntl
except ImportError:  # Windows has no such lock.
    fcntl = None  # type: ignore[assignment]

_ANEW = "delete this one file and run the very same command again: all paid answers are in the other files"


@contextmanager
def in_one_move(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to, and moves what was written there to `path` at the end.

    A reader, a kill or a loss of power never leaves half of it under that name; after an error nothing is left and what
    was there before stays.

    Raises:
        StoreError: the file cannot be written.
    """
    unfinished = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        # The content first: a name on the disk before its content would be an empty file after a loss of power.
        to_disk(unfinished)
        unfinished.replace(path)
        to_disk(path.parent)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; choose a writable folder with free space") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextmanager
def alone_in_one_move(path: Path) -> Iterator[Path]:
    """As `in_one_move`, and keeps other processes from writing the file meanwhile, which would mix two contents.

    Raises:
        StoreError: another process writes it, or it cannot be written.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; choose a writable folder with free space") from error
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not lock.exists() or not os.path.samestat(os.fstat(handle), lock.stat()):
                raise BlockingIOError  # Another process has just ended, and removed its lock.
    except BlockingIOError as error:
        os.close(handle)
        what = f"{path} is being written by another process: wait for its end, or write another file"
        raise StoreError(what) from error
    try:
        with in_one_move(path) as unfinished:
            yield unfinished
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)  # Before the lock ends, so that it is ours.
        os.close(handle)


def to_disk(path: Path) -> None:
    """Forces a file, or the names in a folder, to the disk, where the system can.

    Raises:
        OSError: it cannot be read or written.
    """
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes from working in a folder; the system releases the lock when the process ends.

    Raises:
        StoreError: another process has locked it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    except OSError as error:
        raise StoreError(f"cannot use {folder}: {error}; choose a writable folder") from error
    try:
        if handle is not None and fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        what = f"{folder} is in use by another process: wait for its end, or choose another folder"
        raise StoreError(what) from error
    finally:
        if handle is not None:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes a text in one move, down to the disk.

    Raises:
        StoreError: the file cannot be written.
    """
    with in_one_move(path) as unfinished:
        # Half a surrogate pair, which UTF-8 cannot hold, is written as its JSON escape.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: object) -> None:
    """Writes JSON in one move. NaN, not measured, becomes null.

    Raises:
        StoreError: the file cannot be written.
    """
    write_text(path, json.dumps(plain(content), indent=1, allow_nan=False))


def read_object(path: Path, *, remedy: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: it holds none.
        StoreError: it cannot be read.
    """
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}; choose a folder of yours") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"broken JSON: {error}", source=path, remedy=remedy) from error
    if not isinstance(made, dict):
        raise InputError("expected a JSON object", source=path, remedy=remedy)
    return made


def claim(path: Path, wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Notes in a file what its folder is for, or says how that differs from the note that is there.

    Args:
        path: the file, JSON.
        wanted: what the folder shall be for; JSON values. Secrets in addresses are left out.

    Returns:
        By name, the noted value and the wanted one, where they differ; empty where the folder may be used.

    Raises:
        InputError: the file is no JSON object.
        StoreError: it cannot be written or read.
    """
    mine = json.loads(without_secrets(json.dumps(wanted)))
    if not path.exists():
        write_json(path, mine)
        return {}
    found = read_object(path, remedy=_ANEW)
    names = sorted(name for name in mine.keys() | found.keys() if found.get(name) != mine.get(name))
    return {name: (found.get(name), mine.get(name)) for name in names}


def plain(value: Any) -> Any:
    """JSON values: NaN, not measured, becomes null."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
