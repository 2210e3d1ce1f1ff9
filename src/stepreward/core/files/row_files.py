"""Rows into files that are whole or not there: JSON, JSON lines, Parquet, plain or gzipped, or a folder of parts."""

from __future__ import annotations

import glob
import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, count, islice, takewhile
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from stepreward.core.errors import InputError
from stepreward.core.failures import Failure, Failures
from stepreward.core.files.atomic_files import alone_in_one_move, locked_folder, read_object, write_json
from stepreward.core.http.addresses import without_secrets

Item = TypeVar("Item")
ENDINGS = (".jsonl", ".json", ".parquet")
"""Endings of the files that are written; the first two may have `.gz` behind them."""
ROWS_PER_PART = 100_000
"""Items of a part in a folder of parts."""
PARTS = "_parts.json"
"""What a folder of parts is for, and whether it is complete; readers of others pass over names with `_`."""
_PART = "part-{:06d}.parquet"
_NOT_HELD = (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeEncodeError, OverflowError)
"""What pyarrow raises of values that Parquet cannot hold."""
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_ROWS_AT_ONCE = 256
"""Rows that are Python objects at the same time while Parquet is written."""
_ROWS_PER_GROUP, _BYTES_PER_GROUP = 4096, 1 << 26
"""A row group of Parquet ends where it has so many rows or bytes."""
_NUMBERS = pa.list_(pa.float64())
_FINAL = frozenset({pa.string(), pa.bool_(), pa.list_(pa.string())})
"""Types that no later row widens: a value that does not fit is an error."""


def names_a_folder(path: str | Path) -> bool:
    """Whether a path to write is a folder of parts: it ends in `/`, is a folder, or has no suffix."""
    return str(path).endswith("/") or Path(path).is_dir() or not Path(path).suffix


def check_ending(path: Path) -> None:
    """Checks before long work that a table can be written under this name: a file or a folder of parts.

    Raises:
        InputError: the ending is none that is written.
    """
    if not names_a_folder(path):
        _kind(path)


def _kind(path: Path) -> str:
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if kind not in ENDINGS:
        remedy = "use .jsonl, .json or .parquet, or a name without an ending for a folder of parts"
        raise InputError(f"no format for the ending {kind!r}", source=path, remedy=remedy)
    return kind


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]], *, schema: pa.Schema | None = None) -> int:
    """Writes rows as the name says (.jsonl, .json, .parquet, or the first two with .gz) and returns how many.

    The file appears under its name when it is complete and on the disk, and has one writer at a time. Parquet has the
    columns of `schema`, then others of the rows, whose types are those of all rows.

    Raises:
        StoreError: it cannot be written, or another process writes it.
        InputError: the ending is not one of these, or Parquet cannot hold the rows.
    """
    path, kind = Path(path), _kind(Path(path))
    with alone_in_one_move(path) as partial:
        if kind != ".parquet":
            return _write_json(partial, rows, array=kind == ".json", packed=path.suffix == ".gz")
        segments = _Segments(partial, schema or pa.schema([]))
        try:
            return segments.write(rows)
        except _NOT_HELD as error:
            what = f"Parquet needs UTF-8 text and columns of one type: {error}"
            raise InputError(what, source=path, remedy="write .jsonl instead") from error
        finally:
            segments.remove()


def write_parts(
    folder: str | Path,
    items: Iterable[Item],
    rows: Callable[[Iterable[Item]], Iterable[Mapping[str, Any] | Failure]],
    *,
    schema: pa.Schema | None = None,
    rows_per_part: int = ROWS_PER_PART,
    plan: Mapping[str, Any] | None = None,
    failed: Failures | None = None,
    counts: Counter[str] | None = None,
) -> int:
    """Writes a folder of Parquet parts, `part-000000.parquet` and so on, and returns how many rows it has.

    Each part appears when it is complete. A run that was killed goes on at its first missing part: items of parts that
    are there are passed over, not worked on. `_parts.json` says whether all parts are there.

    Args:
        folder: made if absent.
        items: what the rows are made of, in an order that another run repeats.
        rows: the rows of some consecutive items, and in the place of a row that there is not, why.
        schema: as in `write_rows`.
        rows_per_part: items of a part; a part has at most one row of each.
        plan: what the folder is for, JSON values, without secrets in addresses; None where a later run cannot go on,
            and writes everything anew.
        failed: gets why rows are missing, in parts that were there too.
        counts: what `rows` counts meanwhile; gets the counts of parts that were there.

    Raises:
        InputError: the folder is for another plan or holds other files, `rows_per_part` is below 1, or as in
            `write_rows`.
        StoreError: it cannot be written, or another process writes it.
    """
    folder = Path(folder)
    if rows_per_part < 1:
        raise InputError(f"a part needs at least one row, got rows_per_part={rows_per_part}")
    with locked_folder(folder):
        note = json.loads(without_secrets(json.dumps({"plan": plan, "rows_per_part": rows_per_part}, default=str)))
        of_parts = _begin(folder, note)
        failed, counts = Failures() if failed is None else failed, Counter() if counts is None else counts
        source, written = iter(items), 0
        for number in count():
            path = folder / _PART.format(number)
            if is_whole(path) and (passed := sum(1 for _ in islice(source, rows_per_part))) > 0:
                in_part = pq.read_metadata(path).num_rows
                _recall(of_parts.get(path.stem, {}), path, passed - in_part, failed, counts)
                written += in_part
                continue
            part = list(islice(source, 1))
            if number and not part:
                break
            of_part = _PartNote(failed, counts)

            def noted(part: list[Item] = part, path: Path = path, of_part: _PartNote = of_part) -> Iterator[Any]:
                yield from of_part.good(rows(chain(part, islice(source, rows_per_part - 1))))
                of_parts.pop(path.stem, None)
                if known := of_part.to_json():
                    of_parts[path.stem] = known
                # Before the part appears, so that no part is there without its note.
                _note(folder, note, of_parts, complete=False)

            written += write_rows(path, noted(), schema=schema)
        # A run of the same plan that had more items left these; a reader would take them too.
        for path in takewhile(Path.exists, (folder / _PART.format(one) for one in count(number))):
            path.unlink()
            of_parts.pop(path.stem, None)
        _note(folder, note, of_parts, parts=number, rows=written, complete=True)
    return written


class _PartNote:
    """What a later run of the same command should know of a part: why rows are missing, and what was counted."""

    def __init__(self, failed: Failures, counts: Counter[str]) -> None:
        self.failed, self.counts = failed, counts
        self.first, self.more, self.before = len(failed), failed.more, Counter(counts)

    def good(self, rows: Iterable[Mapping[str, Any] | Failure]) -> Iterator[Mapping[str, Any]]:
        """The rows that there are."""
        for row in rows:
            if isinstance(row, tuple):
                self.failed.add(row)
            else:
                yield row

    def to_json(self) -> dict[str, Any]:
        """The note, empty where there is nothing to know."""
        lost = [
            {"name": name, "problem": getattr(error, "problem", str(error)), "remedy": getattr(error, "remedy", "")}
            for name, error in self.failed[self.first :]
        ]
        known = {"failed": lost, "more": self.failed.more - self.more, "counts": dict(self.counts - self.before)}
        return {name: value for name, value in known.items() if value}


def _recall(note: Mapping[str, Any], part: Path, missing: int, failed: Failures, counts: Counter[str]) -> None:
    """Adds what an earlier run noted of a part that is there."""
    lost = note.get("failed", [])
    failed += [(one["name"], InputError(one["problem"], remedy=one["remedy"])) for one in lost]
    failed.more += note.get("more", 0)
    counts.update(note.get("counts", {}))
    if (unnamed := missing - len(lost) - note.get("more", 0)) > 0:
        what, remedy = f"an earlier run left {unnamed:,} rows out of this part", "delete it to try them again"
        failed.append(("", InputError(what, source=part, remedy=remedy)))
        failed.more += unnamed - 1


def _begin(folder: Path, note: Mapping[str, Any]) -> dict[str, Any]:
    """Notes what a folder of parts is for; where a later run cannot go on, its old parts are removed.

    Returns:
        What an earlier run noted of its parts.
    """
    path, of_parts = folder / PARTS, dict[str, Any]()
    if path.exists():
        found = read_object(path, remedy="delete the folder, or name another")
        if note["plan"] is None and found.get("plan") is None:
            for part in folder.glob("part-*.parquet"):
                part.unlink()
        elif differing := [name for name in note if found.get(name) != note[name]]:
            old, new = ({name: one.get(name) for name in differing} for one in (found, note))
            what = f"the folder was begun for {old}, this run is for {new}"
            raise InputError(what, source=folder, remedy="delete the folder, or name another")
        else:
            of_parts = dict(found.get("of_parts", {}))
    elif any(folder.glob("*.parquet")):
        what = "the folder holds Parquet files that are no parts of this command"
        raise InputError(what, source=folder, remedy="name another folder")
    _note(folder, note, of_parts, complete=False)
    return of_parts


def _note(folder: Path, note: Mapping[str, Any], of_parts: Mapping[str, Any], **more: Any) -> None:
    write_json(folder / PARTS, {**note, **more, **({"of_parts": of_parts} if of_parts else {})})


def stamp(path: str | Path) -> list[list[str | int]]:
    """Name, size and time of change of a file, or of each file of a folder: equal where the content is the same.

    Empty where nothing is there, as for the name of a model in a hub.
    """
    path = Path(path)
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path] * path.is_file()
    return [[str(one), (found := one.stat()).st_size, found.st_mtime_ns] for one in files]


def is_whole(path: Path) -> bool:
    """Whether a Parquet file is there and was written to its end."""
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def _write_json(path: Path, rows: Iterable[Mapping[str, Any]], *, array: bool, packed: bool) -> int:
    written = 0
    with gzip.open(path, "wb") if packed else path.open("wb") as file:
        for row in rows:
            file.write(((b",\n" if written else b"[\n") if array else b"") + _encoded(row) + (b"" if array else b"\n"))
            written += 1
        if array:
            file.write(b"\n]\n" if written else b"[]\n")
    return written


def _encoded(row: Mapping[str, Any]) -> bytes:
    """The row as one line of UTF-8; half a surrogate pair, which UTF-8 cannot hold, makes all of it escapes."""
    try:
        return _ENCODER.encode(row).encode()
    except UnicodeEncodeError:
        return json.dumps(row).encode()


class _Segments:
    """A Parquet file under way whose columns and their types are known when the last row is.

    Where a row has a new column, or a value that widens a type, a new file begins; most often there is one. In the end
    several are copied into one, with the columns of all.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema, self.fixed = path, schema, {*schema.names}
        self.files: list[Path] = []
        self.remove()  # Those of a run that was killed.

    def remove(self) -> None:
        """Removes the files of segments."""
        for left in self.path.parent.glob(f"{glob.escape(self.path.name)}.[0-9]*"):
            with suppress(OSError):
                left.unlink()

    def write(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Writes all rows to the path and returns how many."""
        written, source, ahead = 0, iter(rows), list[Mapping[str, Any]]()
        while ahead or not self.files:
            ahead = ahead or list(islice(source, _ROWS_AT_ONCE))
            self.schema = self._wider(ahead)
            self.files.append(self.path.with_name(f"{self.path.name}.{len(self.files)}"))
            with pq.ParquetWriter(self.files[-1], self.schema, compression="zstd") as writer:
                group = list[pa.Table]()
                # The types of all rows so far hold these too; where they do not, the next file begins with these rows.
                while ahead and (self._wider(ahead) == self.schema):
                    group.append(pa.Table.from_pylist(ahead, self.schema))
                    written += len(ahead)
                    rows_, bytes_ = sum(one.num_rows for one in group), sum(one.nbytes for one in group)
                    if rows_ >= _ROWS_PER_GROUP or bytes_ >= _BYTES_PER_GROUP:
                        writer.write_table(pa.concat_tables(group))
                        group.clear()
                    ahead = list(islice(source, _ROWS_AT_ONCE))
                if group:
                    writer.write_table(pa.concat_tables(group))
        if len(self.files) == 1:
            self.files[0].replace(self.path)
            return written
        with pq.ParquetWriter(self.path, self.schema, compression="zstd") as writer:
            for path in self.files:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(batch_size=_ROWS_PER_GROUP):
                        writer.write_table(pa.table([_of_type(batch, one) for one in self.schema], self.schema))
        return written

    def _wider(self, rows: Iterable[Mapping[str, Any]]) -> pa.Schema:
        """The schema that holds these rows too."""
        # Beside the fields of a fixed schema are step columns, always numbers.
        final = {*_FINAL, _NUMBERS} if self.fixed else _FINAL
        settled = {one.name for one in self.schema if one.name in self.fixed or one.type in final}
        names = dict.fromkeys(name for row in rows for name in row if name not in settled)
        if not names:
            return self.schema
        found = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]).schema
        for at, one in enumerate(found):
            # A table with a schema has step columns beside it: here one that is not measured so far.
            if self.fixed and one.type == pa.list_(pa.null()):
                found = found.set(at, pa.field(one.name, _NUMBERS))
        return pa.unify_schemas([self.schema, found], promote_options="permissive")


def _of_type(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """A column of a segment in its final type; null where the segment has none."""
    if field.name not in batch.schema.names:
        return pa.nulls(batch.num_rows, field.type)
    made = batch.column(field.name)
    return made if made.type == field.type else pa.array(made.to_pylist(), field.type)


def holds(path: Path, row: Mapping[str, Any]) -> None:
    """Checks that a file of this name can hold the row's text.

    Raises:
        InputError: it is Parquet, which is UTF-8, and half a surrogate pair is in the row.
    """
    if path.suffix == ".parquet" or names_a_folder(path):
        try:
            _ENCODER.encode(row).encode()
        except UnicodeEncodeError as error:
            half, near = error.object[error.start], error.object[max(error.start - 20, 0) : error.start + 20]
            what = f"half a surrogate pair, {half!a}, which Parquet cannot hold, near {near!a}"
            raise InputError(what, remedy="repair the text, or write .jsonl") from error
