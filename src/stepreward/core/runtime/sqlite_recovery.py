"""Rows out of a damaged SQLite file, read from its pages alone: a bad page costs only the rows that it contained.

Follows https://www.sqlite.org/fileformat2.html, sections 1.6 (table leaf pages, overflow chains), 2 (records) and 4
(the write-ahead log). The tree above the leaves is not read, so that its damage costs nothing. Rows are returned
unchecked, also deleted ones in free pages: the caller checks each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

PAGE = 4096
"""Bytes of a page, in files written with `PRAGMA page_size=4096`."""
_LEAF = 0x0D
_FIRST_HEADER, _WAL_HEADER, _FRAME = 100, 32, 24
_MOST_LOCAL, _LEAST_LOCAL = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
Value = int | bytes | None


def rows(path: Path) -> Iterator[list[Value]]:
    """Yields the rows of all tables in a file and in its write-ahead log; texts and blobs as bytes, floats as None.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        pages = (page for page in iter(lambda: file.read(PAGE), b"") if len(page) == PAGE)
        ours = _Pages(path, log := wal(path))
        for number, page in enumerate(pages, 1):
            yield from ours.rows_of(page, _FIRST_HEADER if number == 1 else 0)
        yield from chain.from_iterable(ours.rows_of(page) for page in log.values())


def wal_rows(path: Path) -> Iterator[list[Value]]:
    """Yields the rows of the write-ahead log of a file alone."""
    log = wal(path)
    ours = _Pages(path, log)
    yield from chain.from_iterable(ours.rows_of(page) for page in log.values())


def wal(path: Path) -> dict[int, bytes]:
    """The newest page of each number in the write-ahead log of a file; empty where there is none."""
    try:
        content = path.with_name(path.name + "-wal").read_bytes()
    except OSError:
        return {}
    starts = range(_WAL_HEADER, len(content) - _FRAME - PAGE + 1, _FRAME + PAGE)
    return {
        int.from_bytes(content[at : at + 4], "big"): content[at + _FRAME : at + _FRAME + PAGE]
        for at in starts
        if content[at + 8 : at + 16] == content[16:24]  # The salts of this log, not of an earlier one in the same file.
    }


class _Pages:
    """Pages by number, those of the write-ahead log first."""

    def __init__(self, path: Path, log: dict[int, bytes]) -> None:
        self.path, self.log = path, log
        self.size = path.stat().st_size + len(log) * PAGE

    def page(self, number: int) -> bytes:
        if number in self.log:
            return self.log[number]
        with self.path.open("rb") as file:
            file.seek((number - 1) * PAGE)
            return file.read(PAGE)

    def rows_of(self, page: bytes, header: int = 0) -> Iterator[list[Value]]:
        if page[header] != _LEAF:
            return
        cells = int.from_bytes(page[header + 3 : header + 5], "big")
        for cell in range(min(cells, PAGE // 4)):
            at = header + 8 + 2 * cell
            try:
                yield _record(self._payload(page, int.from_bytes(page[at : at + 2], "big")))
            except (IndexError, ValueError):
                continue

    def _payload(self, page: bytes, at: int) -> bytes:
        size, at = _varint(page, at)
        _, at = _varint(page, at)  # The row id, which the record repeats as its first column.
        if size > self.size:
            raise ValueError("a row longer than its file")
        if size <= _MOST_LOCAL:
            return page[at : at + size]
        # Section 1.6: a long row keeps K bytes in its leaf page and the rest in a chain of overflow pages.
        local = _LEAST_LOCAL + (size - _LEAST_LOCAL) % (PAGE - 4)
        local = local if local <= _MOST_LOCAL else _LEAST_LOCAL
        parts, left = [page[at : at + local]], size - local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while left > 0:
            more = self.page(following) if following else b""
            if len(more) < PAGE:
                raise ValueError("a chain of pages that breaks off")
            parts.append(more[4 : 4 + left])
            left -= len(parts[-1])
            following = int.from_bytes(more[:4], "big")
        return b"".join(parts)


def _record(payload: bytes) -> list[Value]:
    end, at = _varint(payload, 0)
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[Value] = []
    # Section 2.1, serial types: 1 to 6 integers, 7 a float, 8 and 9 the constants 0 and 1, from 12 on bytes and texts.
    for kind in kinds:
        size = (kind - 12) // 2 if kind >= 12 else (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind]
        content = payload[end : end + size]
        if len(content) < size:
            raise ValueError("a record that breaks off")
        # Kinds 8 and 9 are the numbers 0 and 1 without content.
        integer = kind - 8 if kind >= 8 else int.from_bytes(content, "big", signed=True)
        values.append(content if kind >= 12 else None if kind in (0, 7) else integer)
        end += size
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for i in range(8):
        value = value << 7 | data[at + i] & 0x7F
        if data[at + i] < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9
