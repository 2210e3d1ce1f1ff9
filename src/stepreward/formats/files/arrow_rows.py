"""Rows of Arrow batches of others: what a file says of its own layout is checked before it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from stepreward.core.errors import InputError

FAULTS = (OSError, pa.ArrowException, UnicodeDecodeError, OverflowError)
"""What a damaged file raises in pyarrow."""


def unreadable(why: str, path: Path, number: int) -> InputError:
    """The error message of a row that cannot be read."""
    return InputError(f"the row cannot be read: {why}", source=path, row=number, remedy="write the file again")


def rows_of(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any] | str]:
    """Yields the rows of a batch; in the place of one that cannot be read, why.

    Raises:
        ArrowInvalid: the batch refers to bytes that it does not have.
    """
    # Offsets of a damaged file may point outside its memory: reading them unchecked would kill the process.
    batch.validate()
    try:
        batch.validate(full=True)
        yield from batch.to_pylist()
        return
    except FAULTS:
        pass
    for at in range(batch.num_rows):
        one = batch.slice(at, 1)
        try:
            one.validate(full=True)
            (row,) = one.to_pylist()
            yield row
        except FAULTS as error:
            yield " ".join(str(error).split())
