"""Rows into JSON, JSON lines and Parquet files, plain or gzipped, each whole or not there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stepreward.core.atomic_files import alone_in_one_move
from stepreward.core.errors import InputError

_ENCODER = json.JSONEncoder(ensure_ascii=False)


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]], *, schema: pa.Schema | None = None) -> int:
    """Writes rows as the name says (.jsonl, .json, .parquet, or with .gz) and returns how many.

    The file appears under its name when it is complete and on the disk, and has one writer at a time. Parquet has the
    columns of `schema`, then others of the rows.

    Raises:
        StoreError: it cannot be written, or another process writes it.
        InputError: the ending is not one of these.
    """
    path = Path(path)
    kind = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    if kind not in (".jsonl", ".json", ".parquet"):
        raise InputError(f"no format for the ending {kind!r}", source=path, remedy="use .jsonl, .json or .parquet")
    with alone_in_one_move(path) as partial:
        return _write(partial, kind, rows, schema or pa.schema([]), packed=path.suffix == ".gz")


def _write(path: Path, kind: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema, *, packed: bool) -> int:
    if kind == ".parquet":
        return _write_parquet(path, rows, schema)
    array, count = kind == ".json", 0
    with gzip.open(path, "wb") if packed else path.open("wb") as file:
        for row in rows:
            file.write(((b",\n" if count else b"[\n") if array else b"") + _encoded(row) + (b"" if array else b"\n"))
            count += 1
        if array:
            file.write(b"\n]\n" if count else b"[]\n")
    return count


def _encoded(row: Mapping[str, Any]) -> bytes:
    """The row as one line of UTF-8; half a surrogate pair, which UTF-8 cannot hold, makes all of it escapes."""
    try:
        return _ENCODER.encode(row).encode()
    except UnicodeEncodeError:
        return json.dumps(row).encode()


def _write_parquet(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    """Writes the rows twice: the types of columns are known when the last row is, and rows may not fit in memory."""
    spool = path.with_name(path.name + ".rows")
    known, count = {*schema.names}, 0
    try:
        with spool.open("w", encoding="utf-8") as file:
            for batch in _batches(rows):
                # The columns of a table are those of its first row, and a later row may have others.
                names = dict.fromkeys(name for row in batch for name in row if name not in known)
                made = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in batch]).schema
                schema = pa.unify_schemas([schema, made], promote_options="permissive")
                file.writelines(json.dumps(row) + "\n" for row in batch)
                count += len(batch)
        with pq.ParquetWriter(path, schema) as writer, spool.open(encoding="utf-8") as file:
            for batch in _batches(json.loads(line) for line in file):
                writer.write_table(pa.Table.from_pylist(batch, schema))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeEncodeError) as error:
        what = f"Parquet needs UTF-8 text and columns of one type: {error}"
        raise InputError(what, source=path.with_suffix(""), remedy="write .jsonl instead") from error
    finally:
        with suppress(OSError):
            spool.unlink(missing_ok=True)
    return count


def holds(path: Path, row: Mapping[str, Any]) -> None:
    """Checks that a file of this name can hold the row's text.

    Raises:
        InputError: it is Parquet, which is UTF-8, and half a surrogate pair is in the row.
    """
    if path.suffix == ".parquet":
        try:
            _ENCODER.encode(row).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            what = f"half a surrogate pair, {half!a}, which Parquet cannot hold, near {_near(error)!a}"
            raise InputError(what, remedy="repair the text, or write .jsonl") from error


def _near(error: UnicodeEncodeError) -> str:
    return error.object[max(error.start - 20, 0) : error.start + 20]


def _batches(rows: Iterable[Mapping[str, Any]], size: int = 1024) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(dict(row))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
