"""Objects in a temporary file, for data larger than memory: any, and trajectories by problem."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import pyarrow as pa

from stepreward.core.errors import StoreError
from stepreward.core.types import Trajectory

Item = TypeVar("Item")


class Stored(Generic[Item]):
    """A list of objects in a temporary file without a name, which ends with the process; items are read at access.

    Memory holds 16 bytes an item. `TMPDIR` names the folder of the file. Threads may read at the same time.

    Raises:
        StoreError: the file cannot be written.
    """

    def __init__(self) -> None:
        self._ends, self._sizes, self._buffered = array("q", [0]), array("q"), False
        try:
            self._file = tempfile.TemporaryFile(prefix="stepreward-")  # noqa: SIM115
        except OSError as error:
            raise _unwritable(error) from error
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self._sizes)

    def append(self, item: Item) -> None:
        """Adds an item at the end."""
        data = pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL)
        packed = pa.compress(data, codec="zstd", asbytes=True)
        try:
            self._file.write(packed)
        except OSError as error:
            raise _unwritable(error) from error
        self._buffered = True
        self._ends.append(self._ends[-1] + len(packed))
        self._sizes.append(len(data))

    def __getitem__(self, index: int) -> Item:
        number = range(len(self))[index]
        if self._buffered:
            try:
                self._file.flush()
            except OSError as error:
                raise _unwritable(error) from error
            self._buffered = False
        start, end = self._ends[number], self._ends[number + 1]
        packed = os.pread(self._file.fileno(), end - start, start)
        data = pa.decompress(packed, self._sizes[number], codec="zstd", asbytes=True)
        # The file has no name, so that only this process can have written what is unpickled.
        made: Item = pickle.loads(data)  # noqa: S301
        return made

    def __iter__(self) -> Iterator[Item]:
        return (self[number] for number in range(len(self)))


def _unwritable(error: OSError) -> StoreError:
    reason = f"cannot write a temporary file in {tempfile.gettempdir()}: {error.strerror}"
    return StoreError(f"{reason}; free some space, or set TMPDIR to another folder and run again")


class StoredRows:
    """Trajectories in a temporary file, read back problem by problem, whatever the order of the rows."""

    def __init__(self) -> None:
        self._rows = Stored[Trajectory]()
        self._numbers: dict[tuple[str, str], int] = {}
        self._places: list[array[int]] = []

    def __len__(self) -> int:
        return len(self._places)

    @property
    def problems(self) -> list[str]:
        """The id of each problem, in order of the first row of each."""
        return [name for _, name in self._numbers]

    def extend(self, rows: Iterable[Trajectory], source: str = "") -> None:
        """Adds rows; problems of two sources are two problems, also where their ids are equal."""
        for row in rows:
            number = self._numbers.setdefault((source, row.problem.id), len(self._places))
            if number == len(self._places):
                self._places.append(array("q"))
            self._places[number].append(len(self._rows))
            self._rows.append(row)

    def of(self, number: int) -> Sequence[Trajectory]:
        """The rows of a problem."""
        return [self._rows[place] for place in self._places[number]]
