"""How a command writes a table: one file, or a folder of parts that a later run can go on with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from stepreward.core.files.row_files import ROWS_PER_PART, stamp
from stepreward.core.vocabulary import Flag

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class PartFlags:
    """How a folder is written."""

    rows_per_part: Annotated[int, Flag(low=1)] = ROWS_PER_PART
    """Rows of a part where --out is a folder, a path without a suffix; after a kill the same command goes on at the
    first part that is missing."""


def plan(command: str, *flags: DataclassInstance, reads: tuple[Path | None, ...]) -> dict[str, Any] | None:
    """What a folder of parts is for: the command, its flags, and the files that it reads; None of standard input."""
    if None in reads:
        return None
    return {
        "command": command,
        "flags": [asdict(one) for one in flags],
        "reads": [stamp(path) for path in reads if path],
    }
