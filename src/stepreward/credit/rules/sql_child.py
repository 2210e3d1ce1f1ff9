"""Runs SQL that a model wrote, in a process of its own that may do nothing else.

    python -I sql_child.py < job.json

The job has an engine, statements that set the database up, queries, and limits; the answer is one JSON line a query,
as soon as it is there. Only setting up is trusted. Queries see a database in memory that they may read and not write;
no file, extension, setting or other database is within their reach, and the process's own limits end what is too big
or takes too long. This file imports nothing of the package, so that it starts in no time.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import math
import os
import sqlite3
import sys
import time
import types
import zoneinfo
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

Run = Callable[[str], Iterable[tuple[Any, ...]]]
READS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
LONGEST_VALUE = 1_000_000
"""Bytes of one value of SQLite."""
INSTRUCTIONS = 10_000
"""Of SQLite's machine between looks at the clock."""


class Zone(zoneinfo.ZoneInfo):
    """A time zone with the method of pytz's by which DuckDB gives one to a time."""

    def localize(self, moment: datetime) -> datetime:
        """The time in this zone."""
        return moment.replace(tzinfo=self)


def sqlite(setup: list[str], seconds: float) -> Run:
    """A reader of an SQLite database in memory."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    for statement in setup:
        base.executescript(statement)
    base.execute("PRAGMA temp_store = MEMORY")
    base.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    base.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    base.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in READS else sqlite3.SQLITE_DENY)

    def run(query: str) -> Iterable[tuple[Any, ...]]:
        end = time.monotonic() + seconds
        base.set_progress_handler(lambda: time.monotonic() > end, INSTRUCTIONS)
        return base.execute(query)

    return run


def duckdb(setup: list[str], memory: int) -> Run:
    """A reader of a DuckDB database in memory."""
    library = importlib.import_module("duckdb")
    if importlib.util.find_spec("pytz") is None:
        # DuckDB names time zones by it; the standard library has them too.
        zones: Any = types.ModuleType("pytz")
        zones.timezone, zones.utc = cache(Zone), UTC
        zones.timezone("UTC")  # kept, since no file can be opened later
        sys.modules["pytz"] = zones
    settings = {"threads": 1, "memory_limit": f"{memory // 1_000_000}MB", "temp_directory": ""}
    base = library.connect(":memory:", config=settings)
    for name in ("enable_external_access", "autoload_known_extensions", "enable_progress_bar"):
        base.execute(f"SET {name} = false")
    for statement in setup:
        base.execute(statement)
    base.execute("SET TimeZone = 'UTC'")  # equal rows on every machine
    # Whatever this release opens for a time with a zone is opened now: later no file can be.
    base.execute("SELECT TIMESTAMPTZ '2020-01-01 00:00:00+00'").fetchone()
    base.execute("SET lock_configuration = true")

    def run(query: str) -> Iterable[tuple[Any, ...]]:
        parsed = base.extract_statements(query)
        if len(parsed) != 1 or parsed[0].type != library.StatementType.SELECT:
            raise ValueError("expected exactly one SELECT")
        # A SELECT may change tables in its common table expressions: the engine refuses, and nothing is kept.
        base.execute("BEGIN TRANSACTION READ ONLY")
        try:
            cursor = base.execute(parsed[0])
            yield from iter(cursor.fetchone, None)
        finally:
            base.execute("ROLLBACK")

    return run


def plain(value: Any) -> str:
    """One text for equal values: 1 and 1.0 are equal, floats are to nine digits."""
    if isinstance(value, float | Decimal):
        return format(float(value), ".9g")
    if isinstance(value, int) and not isinstance(value, bool):
        return format(value, ".9g") if abs(value) < 10**9 else str(value)
    return repr(value)


def answer(rows: Iterable[tuple[Any, ...]], most: int) -> dict[str, Any]:
    """A digest of the rows in any order, and one in theirs.

    Raises:
        ValueError: there are more than `most`.
    """
    seen: list[bytes] = []
    for row in rows:
        if len(seen) >= most:
            raise ValueError(f"more than {most} rows")
        seen.append(hashlib.sha256("\x1f".join(map(plain, row)).encode("utf-8", "surrogatepass")).digest())
    ordered, any_order = (hashlib.sha256(b"".join(one)).hexdigest() for one in (seen, sorted(seen)))
    return {"rows": len(seen), "ordered": ordered, "any_order": any_order}


def main() -> None:
    """Reads a job, sets limits, and answers."""
    resource = importlib.import_module("resource")  # of POSIX systems alone
    job = json.load(sys.stdin)
    if user := job.get("user"):
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    memory, seconds = int(job["memory"]), float(job["seconds"])
    run = sqlite(job["setup"], seconds) if job["engine"] == "sqlite" else duckdb(job["setup"], memory)
    # DuckDB's code and its own buffers need memory beside the data.
    room = memory + (1 << 29 if job["engine"] == "duckdb" else 1 << 26)
    processor = math.ceil(seconds) * (len(job["items"]) + 1)
    for limit, value in (
        (resource.RLIMIT_AS, room),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    print("ready", flush=True)
    for query in job["items"]:
        try:
            made = answer(run(query), int(job["rows"]))
        except Exception as error:  # The boundary: an engine's error about a query is the answer to it.
            made = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(json.dumps(made), flush=True)


if __name__ == "__main__":
    main()
