"""Partial rewards of SQL on numbers worked out by hand, and SQL that wants out of its database."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from stepreward.core.catalog import check, reward
from stepreward.core.errors import InputError, MissingDataError
from stepreward.core.types import Problem, Step
from stepreward.credit.rules.sql import Answer, QueryLimits, fenced, named, run_queries

DATABASE = [
    "CREATE TABLE pets (name TEXT, age INTEGER, weight REAL);",
    "INSERT INTO pets VALUES ('Mia', 3, 4.5), ('Tom', 7, 5.0), ('Ada', 3, NULL);",
]
GOLD = "SELECT name FROM pets WHERE age = 3"
Engine = Literal["sqlite", "duckdb"]
ENGINES = pytest.mark.parametrize("engine", ["sqlite", "duckdb"])
FAST = QueryLimits(seconds=1.0, memory=64_000_000, rows=1000)


def problem(reference: str | None = GOLD) -> Problem:
    return Problem("p", "?", reference=reference, meta={"database": DATABASE})


def sql(query: str) -> Step:
    return Step(f"First I look.\n```sql\n{query}\n```\n")


def parts(query: str, part: str, **settings: Any) -> float:
    weights = dict.fromkeys(("execution", "syntax", "schema", "ngram"), 0.0) | {part: 1.0}
    return float(reward["reasoning-sql"](problem(), [sql(query)], **weights, **settings)[0])


@pytest.mark.sampled(4)
@ENGINES
@pytest.mark.parametrize(
    ("query", "right"),
    [
        (GOLD, True),
        ("select name from pets where age < 5 order by name", True),  # another order: the gold query has none
        ("SELECT name FROM pets WHERE age = 3.0", True),
        ("SELECT name FROM pets", False),
        ("SELECT name, age FROM pets WHERE age = 3", False),
        ("SELECT name FROM pets WHERE age = 3 UNION ALL SELECT 'Mia'", False),
        ("SELECT nam FROM pets", False),
        ("SELECT name FROM", False),
        ("", False),
    ],
)
def test_execution_compares_rows(engine: Engine, query: str, right: bool) -> None:
    assert parts(query, "execution", engine=engine) == float(right)


def test_order_counts_where_the_gold_query_asks_for_one() -> None:
    given = problem("SELECT name FROM pets ORDER BY name")
    steps = [sql("SELECT name FROM pets ORDER BY 1"), sql("SELECT name FROM pets ORDER BY name DESC")]
    made = reward["reasoning-sql"](given, steps, execution=1, syntax=0, schema=0, ngram=0)
    assert made.tolist() == [1, 0]


def test_parts_on_numbers_worked_out() -> None:
    assert parts("SELEC name", "syntax") == 0
    assert parts("DROP TABLE pets", "syntax") == 0
    assert parts("SELECT 1; SELECT 2", "syntax") == 0
    assert parts("SELECT owner FROM people", "syntax") == 1
    # Gold names table pets, columns name, age; shared with this one: pets, age, of pets, name, age, weight.
    assert parts("SELECT weight FROM Pets WHERE AGE = 3", "schema") == pytest.approx(2 / 4)
    assert parts("WITH old AS (SELECT age, name FROM pets) SELECT age, name FROM old", "schema") == 1
    # Gold's pairs: select name, name from, from pets, pets where, where age, age =, = 3. Shared: the first three.
    assert parts("SELECT name FROM pets", "ngram") == pytest.approx(3 / 7)
    assert parts("select NAME\nfrom pets", "ngram") == pytest.approx(3 / 7)
    made = reward["reasoning-sql"](problem(), [sql(GOLD), Step("none"), Step("x", kind="observation"), sql("SELECT 1")])
    # Nothing of SELECT 1 is shared: it parses.
    np.testing.assert_array_equal(made, [6, 0, np.nan, 1])


def test_a_step_s_query_is_in_its_last_fence() -> None:
    assert fenced("```sql\na\n``` then ```SQL b") == "b"
    assert fenced("```python\na\n```") is None


def test_what_is_missing_or_broken_is_named() -> None:
    with pytest.raises(MissingDataError, match="reference"):
        reward["reasoning-sql"](problem(None), [sql("SELECT 1")])
    with pytest.raises(MissingDataError, match=r"meta\['database'\]"):
        reward["reasoning-sql"](Problem("p", "?", reference=GOLD), [sql("SELECT 1")])
    with pytest.raises(InputError, match="gold query of problem p"):
        reward["reasoning-sql"](problem("SELECT FROM WHERE"), [])
    with pytest.raises(InputError, match=r"gold query fails: .*no such column"):
        reward["reasoning-sql"](problem("SELECT colour FROM pets"), [])
    with pytest.raises(InputError, match=r"database cannot be made: .*near"):
        run_queries(["CREATE TABEL x"], ["SELECT 1"])


WANTS_OUT = [
    "ATTACH DATABASE '{file}' AS other",
    "ATTACH '{file}'",
    "COPY pets TO '{file}'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT readfile('/etc/passwd')",
    "SELECT writefile('{file}', 'x')",
    "SELECT load_extension('/tmp/x.so')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "PRAGMA writable_schema = 1",
    "PRAGMA temp_store_directory = '/tmp'",
    "VACUUM INTO '{file}'",
    "EXPORT DATABASE '{file}'",
    "SET threads = 64",
    "DROP TABLE pets",
    "DELETE FROM pets",
    "INSERT INTO pets VALUES ('x', 1, 1)",
    "CREATE TABLE more (a INTEGER)",
    "SELECT 1; DROP TABLE pets",
    "BEGIN",
]


@ENGINES
def test_nothing_but_reading_is_allowed(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "made.db"
    asked = [query.format(file=file) for query in WANTS_OUT]
    made = run_queries(DATABASE, [*asked, GOLD], engine=engine)
    assert [query for query, one in zip(asked, made, strict=False) if isinstance(one, Answer)] == []
    # The database is as it was, and no file was made.
    assert made[-1] == run_queries(DATABASE, [GOLD], engine=engine)[0]
    assert not list(tmp_path.iterdir())


ENDLESS = "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r) SELECT {what} FROM r"


@pytest.mark.sampled(4)
@ENGINES
@pytest.mark.parametrize(
    "query",
    [
        ENDLESS.format(what="count(*)"),
        ENDLESS.format(what="i"),
        "SELECT count(*) FROM " + ", ".join(f"pets p{i}" for i in range(30)),
        ENDLESS.format(what="group_concat(i || 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')"),
        "SELECT length(replace(hex(zeroblob(900000)), '00', hex(zeroblob(100000))))",
        "SELECT repeat('x', 2000000000)",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT '" + "x" * 3_000_000 + "'",
        "\ud800",
        "SELECT '\x00",
    ],
    ids=["count", "rows", "join", "strings", "blob", "repeat", "nested", "literal", "surrogate", "null byte"],
)  # the ids are short: each worker sends those of all its tests, and of each result
def test_what_is_too_much_ends_soon(engine: Engine, query: str) -> None:
    start = time.monotonic()
    (made,) = run_queries(DATABASE, [query], engine=engine, limits=FAST)
    assert isinstance(made, str) or made.rows <= 1
    assert time.monotonic() - start < 100
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0  # ours are as they were


def test_deep_and_long_queries_are_not_parsed() -> None:
    for query in ("(" * 100_000, "SELECT " + "NOT " * 4000 + "1", "SELECT " + "-" * 100_000, "SELECT " + "f(" * 31):
        start = time.process_time()
        assert named(query, "sqlite") is None
        assert time.process_time() - start < 20
    made = reward["reasoning-sql"](problem(), [sql("(" * 100_000), sql("x" * 100_000)])
    assert made.tolist() == [0, 0]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "change", ["INSERT INTO pets VALUES ('x', 1, 1)", "DELETE FROM pets", "UPDATE pets SET name = 'x'"]
)
def test_a_common_table_expression_changes_no_table(change: str) -> None:
    asked = [f"WITH x AS ({change} RETURNING name) SELECT * FROM x", "SELECT * FROM pets"]
    changed, seen = run_queries(DATABASE, asked, engine="duckdb")
    assert isinstance(changed, str)
    assert seen == run_queries(DATABASE, asked[1:], engine="duckdb")[0]


def test_a_query_is_killed_at_its_limit_and_the_others_are_answered() -> None:
    start = time.monotonic()
    slow = "SELECT count(*) FROM range(100000000000) a, range(100000) b"
    before, lost, behind = run_queries(
        [], ["SELECT 1", slow, "SELECT 1"], engine="duckdb", limits=QueryLimits(seconds=1.0)
    )
    assert isinstance(lost, str)
    assert before == behind
    assert isinstance(before, Answer)
    assert time.monotonic() - start < 100


def test_times_with_zones_are_rows() -> None:
    (made,) = run_queries([], ["SELECT TIMESTAMPTZ '2020-01-01 00:00:00+00'"], engine="duckdb")
    assert isinstance(made, Answer), made


def test_what_the_parser_stumbles_over_is_no_query() -> None:
    # Releases of sqlglot before this raised an error read it as a query that names nothing.
    assert not named("select 0x" + 3600 * "f", "sqlite")


@ENGINES
def test_the_checker_of_queries(engine: Engine) -> None:
    steps = [Step("I look.\n"), sql("SELECT * FROM pets"), sql("SELECT nam FROM pets"), sql(GOLD + " ORDER BY name")]
    found = check["sql"].take({"problem": problem(), "steps": tuple(steps)}, engine=engine)
    assert [(one.right, one.kind) for one in found] == [(None, ""), (None, ""), (False, "error"), (True, "")]
    assert "nam" in found[2].claim
    (wrong,) = check["sql"].take({"problem": problem(), "steps": (sql("SELECT name FROM pets"),)}, engine=engine)
    assert (wrong.right, wrong.kind, wrong.claim) == (False, "rows", "SELECT name FROM pets")
    ordered = problem(GOLD + " ORDER BY name")
    for query, right in ((GOLD + " ORDER BY name", True), (GOLD + " ORDER BY name DESC", False)):
        (made,) = check["sql"].take({"problem": ordered, "steps": (sql(query),)}, engine=engine)
        assert made.right is right
    assert (
        check["sql"].take({"problem": problem(), "steps": (Step(sql(GOLD).text, kind="observation"),)})[0].right is None
    )
    with pytest.raises(MissingDataError, match="reference"):
        check["sql"].take({"problem": problem(None), "steps": ()})
    with pytest.raises(InputError, match="the gold query fails"):
        check["sql"].take({"problem": problem("SELECT nam FROM pets"), "steps": ()}, engine=engine)
