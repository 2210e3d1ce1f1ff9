"""Rows of a folder that `Dataset.save_to_disk` of Hugging Face's datasets wrote: Arrow streams with a description."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from stepreward.core.errors import InputError
from stepreward.formats.files.arrow_rows import FAULTS, rows_of, unreadable

INFO, STATE, SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
_AT_ONCE = 256


def is_saved(folder: Path) -> bool:
    """Whether a folder is a saved data set, of one split."""
    return (folder / STATE).is_file() or ((folder / INFO).is_file() and any(folder.glob("*.arrow")))


def saved_rows(folder: Path) -> Iterator[tuple[int, Mapping[str, Any] | InputError]]:
    """The rows, numbered from 1, batch by batch; columns that Arrow holds as a type of another library stay as stored.

    Raises:
        InputError: it is no saved data set, several splits, has indices of its own, or a file cannot be read.
    """
    if (folder / SPLITS).is_file():
        splits = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise InputError("holds several splits", source=folder, remedy=f"name the folder of one: {splits}")
    if not is_saved(folder):
        raise InputError(
            "no data set is in this folder", source=folder, remedy="name a file, or what save_to_disk wrote"
        )
    number = 0
    for path in _files(folder):
        try:
            # Not mapped into memory: if a file states a wrong length, reading beyond its end would kill the process.
            with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as reader:
                for batch in reader:
                    batch.validate()
                    for at in range(0, batch.num_rows, _AT_ONCE):
                        for row in rows_of(batch.slice(at, _AT_ONCE)):
                            number += 1
                            yield number, unreadable(row, path, number) if isinstance(row, str) else row
        except (*FAULTS, MemoryError) as error:
            raise InputError(f"not a readable Arrow stream: {error}", source=path, remedy="save it again") from error


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder itself: a description may not name files elsewhere."""
    if Path(name).name != name or name in ("", ".", ".."):
        what = f"{STATE} names a file outside the folder, {name!r}"
        raise InputError(what, source=folder, remedy="save it again with save_to_disk")
    return folder / name


def _files(folder: Path) -> list[Path]:
    """The Arrow files in the order in which the data set has them."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8")) if (folder / STATE).is_file() else {}
        listed = [_inside(folder, one["filename"]) for one in state.get("_data_files", [])]
    except InputError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{STATE} cannot be read: {error}", source=folder, remedy="save it again") from error
    if state.get("_indices_data_files"):
        raise InputError("keeps rows in an order of its own", source=folder, remedy="flatten_indices() before saving")
    return listed or sorted(folder.glob("*.arrow"))
