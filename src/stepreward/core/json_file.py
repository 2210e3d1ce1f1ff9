"""JSON files that are never half written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import StoreError


def write_json(path: Path, content: object) -> None:
    """Writes JSON in one move: a reader, or a kill, never sees half of it. NaN, not measured, becomes null.

    Raises:
        StoreError: the file cannot be written.
    """
    unfinished = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(plain(content), file, indent=1, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}; choose a writable folder with free space") from error


def plain(value: Any) -> Any:
    """JSON values: NaN, not measured, becomes null."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
