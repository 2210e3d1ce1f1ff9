"""Forests on disk: Parquet shards that a kill cannot tear, that reopen lazily, and that any tool can query.

A folder holds one folder a shard, `shard-00000` and up, with three files:

nodes.parquet         one row a node: problem, node, parent, depth, step; the step (text, kind, role, agent, images,
                      tokens, logprobs, step_meta; null at roots); the measured columns
trajectories.parquet  one row a trajectory: problem, end (its last node), outcome, complete
problems.parquet      one row a problem: problem, prompt or messages, reference, meta, nodes, trajectories (how many)

    SELECT problem, avg(score) FROM 'folder/shard-*/nodes.parquet' WHERE kind = 'action' GROUP BY problem

A shard is written as `partial-00000` and gets its name in one move when all of it is on the disk: whoever reads, reads
whole shards. What a kill leaves as `partial-*` is ignored, and removed by the next writer. Trees stand in the order of
`problems.parquet`. Not measured is null. Equal texts are stored once a row group (`ROWS`), in its dictionary.
If shards have different columns, tell DuckDB `union_by_name = true`, or name the columns to the writer.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stepreward.core.errors import InputError, StoreError
from stepreward.core.forest import Forest, offsets
from stepreward.core.forest_tables import FIELDS, NODE, TABLES, forest_of, problem_fields
from stepreward.core.json_file import to_disk
from stepreward.core.step_table import StepTable
from stepreward.core.tree import StepTree
from stepreward.core.tree_arrays import Floats

ROWS = 65_536
"""Rows of a row group: what is read at least to find one tree."""
_DICTIONARIES = ["problem", "text", "kind", "role", "agent"]
_DICTIONARY_BYTES = 1 << 28
_REWRITE = "remove the shard and write its trees again"
_UNFIT = (TypeError, ValueError, OverflowError)
_FIT = "texts must be valid Unicode, tokens 32-bit integers, meta JSON values"
_REMEDY = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENOTEMPTY: "end the other writer of this folder",
    errno.EEXIST: "end the other writer of this folder",
}


class ForestWriter:
    """Appends trees to a folder of shards; also a context manager, which stores what was appended however it ends.

    Opened on a folder that holds shards, it goes on after them: `problem_id in writer` tells what is there already.
    A folder takes one writer at a time.

    Args:
        folder: made if absent.
        columns: measured columns of every shard, NaN in trees without them, so that all shards look alike; those of
            the trees where None.
        trees_per_shard, nodes_per_shard: a shard is written when either is reached; a kill loses no more than these.

    Raises:
        StoreError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        columns: Sequence[str] | None = None,
        trees_per_shard: int = 4096,
        nodes_per_shard: int = 1 << 20,
    ) -> None:
        self.folder, self.columns = Path(folder), columns
        self.trees_per_shard, self.nodes_per_shard = trees_per_shard, nodes_per_shard
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in _numbered(self.folder, "partial").values():
                shutil.rmtree(leftover)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        if not os.access(self.folder, os.W_OK):
            raise _unwritable(self.folder, OSError(errno.EACCES, os.strerror(errno.EACCES)))
        shards = _numbered(self.folder, "shard")
        self._known = set(StoredForest(self.folder).index) if shards else set()
        self._next = max(shards, default=-1) + 1
        self._open: list[StepTree] = []
        self._nodes = 0

    def __contains__(self, problem_id: object) -> bool:
        return problem_id in self._known

    def __enter__(self) -> ForestWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Trees cost rollouts: what was appended before another error is kept, and that error is the one to tell.
        with suppress(*([StoreError] if kind else [])):
            self.flush()

    def append(self, tree: StepTree) -> None:
        """Adds a tree.

        Raises:
            InputError: the folder has a tree of this problem, a column is not one of the writer's or has the name of a
                field of a node, or the tree holds what cannot be stored. Nothing is added.
            StoreError: a shard was due and cannot be written. Its trees stay in memory for the next `flush`.
        """
        self._check([tree.problem.id], tree.columns)
        try:
            problem_fields([tree.problem])
            table = tree.steps if isinstance(tree.steps, StepTable) else StepTable.from_steps(tree.steps)
        except _UNFIT as error:
            what = f"the tree of problem {tree.problem.id!r} cannot be stored ({error})"
            raise InputError(what, source=self.folder, remedy=_FIT) from error
        self._known.add(tree.problem.id)
        self._open.append(replace(tree, steps=table))
        self._nodes += tree.n
        if len(self._open) >= self.trees_per_shard or self._nodes >= self.nodes_per_shard:
            self.flush()

    def write(self, forest: Forest) -> None:
        """Adds a forest as a shard of its own; errors are those of `append`, but a forest refused is not kept."""
        names = [problem.id for problem in forest.problems]
        self._check(names, forest.columns)
        self.flush()
        self._write(forest)
        self._known.update(names)

    def flush(self) -> None:
        """Writes the trees that are still in memory as a shard.

        Raises:
            StoreError: it cannot be written; the trees stay in memory.
        """
        if self._open:
            self._write(Forest.from_trees(self._open))
            self._open, self._nodes = [], 0

    def _check(self, names: Sequence[str], columns: dict[str, Floats]) -> None:
        reserved = sorted({*NODE} & {*columns, *(self.columns or ())})
        if reserved:
            raise InputError(f"columns {reserved} have the names of a node's own fields", remedy="rename them")
        own = [*columns] if self.columns is None else [*self.columns]
        if extra := sorted({*columns} - {*own}):
            raise InputError(f"columns {extra} are not among the writer's {own}", remedy="name them to it")
        twice = sorted(self._known.intersection(names)) or [name for name, n in Counter(names).items() if n > 1]
        if twice:
            raise InputError(
                f"there is a tree of problem {twice[0]!r} already", source=self.folder, remedy="merge trees first"
            )

    def _write(self, forest: Forest) -> None:
        if self.columns is not None:
            nothing = np.full(forest.n, np.nan)
            forest = replace(forest, columns={name: forest.columns.get(name, nothing) for name in self.columns})
        partial, shard = (self.folder / f"{name}-{self._next:05d}" for name in ("partial", "shard"))
        try:
            partial.mkdir()
            for name, table in TABLES.items():
                _write_table(table(forest), partial / f"{name}.parquet")
            to_disk(partial)
            partial.rename(shard)
            to_disk(self.folder)
        except BaseException as error:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError):
                raise _unwritable(shard, error) from error
            if isinstance(error, _UNFIT):
                raise InputError(f"cannot be stored ({error})", source=shard, remedy=_FIT) from error
            raise
        self._next += 1


class StoredForest:
    """Trees in a folder of shards, read when asked for; shards written later are not seen.

    Args:
        folder: what a `ForestWriter` wrote.
        columns: measured columns to read; all where None. Steps are always read.

    Raises:
        InputError: the folder does not exist, or holds other things and no shard.
    """

    def __init__(self, folder: str | Path, *, columns: Sequence[str] | None = None) -> None:
        self.folder, self.columns = Path(folder), columns
        if not self.folder.is_dir():
            raise InputError("there is no such folder", source=self.folder, remedy="pass what a ForestWriter wrote")
        self._folders = _numbered(self.folder, "shard")
        foreign = [path.name for path in self.folder.iterdir() if not re.fullmatch(r"partial-\d+", path.name)]
        if foreign and not self._folders:
            raise InputError(
                f"no forest: no shard-* among {sorted(foreign)[:5]}",
                source=self.folder,
                remedy="pass what a ForestWriter wrote",
            )

    @property
    def shards(self) -> list[int]:
        """Numbers of the shards, in order."""
        return [*self._folders]

    def __len__(self) -> int:
        """Number of trees, from the shards' footers alone."""
        return sum(self._open("problems", shard).metadata.num_rows for shard in self._folders)

    @property
    def n(self) -> int:
        """Number of nodes, from the shards' footers alone."""
        return sum(self._open("nodes", shard).metadata.num_rows for shard in self._folders)

    @property
    def measured(self) -> list[str]:
        """Names of the measured columns of any shard, from the footers alone."""
        names = [name for shard in self._folders for name in self._open("nodes", shard).schema_arrow.names]
        return [name for name in dict.fromkeys(names) if name not in NODE]

    @cached_property
    def index(self) -> dict[str, tuple[int, int]]:
        """Shard and place in it of each problem, by id."""
        return {
            name: (shard, place)
            for shard in self._folders
            for place, name in enumerate(self._read("problems", shard, ["problem"])["problem"].to_pylist())
        }

    def forests(self) -> Iterator[Forest]:
        """One forest a shard, one at a time: memory holds no more than a shard."""
        return (self.shard(number) for number in self._folders)

    def __iter__(self) -> Iterator[StepTree]:
        return (tree for forest in self.forests() for tree in forest)

    def shard(self, number: int) -> Forest:
        """All trees of one shard.

        Raises:
            InputError: a file of the shard is broken, or a column is missing.
        """
        nodes = self._read("nodes", number, self._wanted(number))
        return self._forest(number, self._read("problems", number), self._read("trajectories", number), nodes)

    def tree(self, problem_id: str) -> StepTree:
        """The tree of one problem; reads no more than its row groups.

        Raises:
            InputError: there is none, or a file of its shard is broken.
        """
        if problem_id not in self.index:
            raise InputError(f"there is no tree of problem {problem_id!r}", source=self.folder, remedy="see .index")
        shard, place = self.index[problem_id]
        problems = self._read("problems", shard)
        nodes, rows = (
            self._read(name, shard, columns, slice(*offsets(problems[name].to_numpy())[place : place + 2].tolist()))
            for name, columns in (("nodes", self._wanted(shard)), ("trajectories", None))
        )
        return self._forest(shard, problems.slice(place, 1), rows, nodes)[0]

    def _forest(self, shard: int, problems: pa.Table, rows: pa.Table, nodes: pa.Table) -> Forest:
        try:
            return forest_of(problems, rows, nodes)
        except (TypeError, ValueError) as error:
            raise InputError(str(error), source=self._folders[shard], remedy=_REWRITE) from error

    def _wanted(self, shard: int) -> list[str] | None:
        if self.columns is None:
            return None
        present = self._open("nodes", shard).schema_arrow.names
        missing = [name for name in self.columns if name not in present]
        if missing:
            has = [name for name in present if name not in NODE]
            raise InputError(
                f"columns {missing} are missing", source=self._path("nodes", shard), remedy=f"it has {has}"
            )
        return [*NODE, *self.columns]

    def _path(self, table: str, shard: int) -> Path:
        return self._folders[shard] / f"{table}.parquet"

    def _open(self, table: str, shard: int) -> pq.ParquetFile:
        path = self._path(table, shard)
        try:
            footer = pq.read_metadata(path)
            names = footer.schema.to_arrow_schema().names
            coded = [name for name in _DICTIONARIES if name in names]
            file = pq.ParquetFile(path, metadata=footer, read_dictionary=coded, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"not a readable Parquet file ({_line(error)})", source=path, remedy=_REWRITE) from error
        missing = [name for name in FIELDS[table] if name not in names]
        if missing:
            raise InputError(f"not the {table} of a forest: no {missing}", source=path, remedy=_REWRITE)
        return file

    def _read(
        self, table: str, shard: int, columns: Sequence[str] | None = None, rows: slice | None = None
    ) -> pa.Table:
        file = self._open(table, shard)
        try:
            if rows is None:
                return file.read(columns)
            start = offsets([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
            first = int(np.searchsorted(start, rows.start, side="right")) - 1
            groups = [*range(first, max(first, int(np.searchsorted(start, rows.stop))))]
            found = file.read_row_groups(groups, columns)
            return found.slice(rows.start - int(start[first]), rows.stop - rows.start)
        except (OSError, pa.ArrowException) as error:
            raise InputError(
                f"cannot be read ({_line(error)})", source=self._path(table, shard), remedy=_REWRITE
            ) from error


def _numbered(folder: Path, name: str) -> dict[int, Path]:
    """The folders called `name-<number>`, by number, in order."""
    found = ((re.fullmatch(rf"{name}-(\d+)", path.name), path) for path in folder.iterdir() if path.is_dir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _write_table(table: pa.Table, path: Path) -> None:
    with path.open("xb") as file:
        pq.write_table(
            table,
            file,
            row_group_size=ROWS,
            compression="zstd",
            compression_level=1,
            dictionary_pagesize_limit=_DICTIONARY_BYTES,
            write_page_checksum=True,
        )
        file.flush()
        os.fsync(file.fileno())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _unwritable(path: Path, error: OSError) -> StoreError:
    remedy = _REMEDY.get(error.errno or 0, "make the folder writable or choose another")
    return StoreError(f"cannot write {path}: {error}; {remedy} and run again: finished shards stay")
