"""Labels on disk: rows of the table of trajectories (`core.table`) with what was measured as step columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stepreward.core.annotations import COLUMNS, Annotated
from stepreward.core.table import LABEL, read_table, write_table
from stepreward.core.types import Labels


def write_labels(path: Path, labels: Iterable[Labels], *, rows_at_once: int = 4096) -> int:
    """Writes labels as Parquet in one move, streaming; a kill leaves the old file or none.

    Returns:
        The number of trajectories written.

    Raises:
        StoreError: the file cannot be written.
    """
    rows = (Annotated.from_labels(one) for one in labels)
    return write_table(path, rows, (*COLUMNS, LABEL), rows_at_once=rows_at_once)


def is_whole(path: Path) -> bool:
    """Whether a file of labels is there and was written to its end."""
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def read_labels(path: Path) -> Iterator[Labels]:
    """Yields the labels of a file, streaming.

    Raises:
        InputError: the file is no Parquet file or misses a column, or a label is outside [0, 1].
    """
    return (item.to_labels() for item in read_table(path))
