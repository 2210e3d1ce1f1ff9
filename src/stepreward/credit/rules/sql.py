"""Step rewards by rule for SQL: what it returns, whether it parses, and how much of it is that of the gold query.

Queries are a model's and never trusted: they run in a process of their own (`sql_child`) on a database in memory that
they may only read, under limits of time, memory and rows. Longer or deeper ones than anybody writes are not parsed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal

from stepreward.core.catalog import reward
from stepreward.core.errors import InputError, MissingDataError, ModelError
from stepreward.core.sandbox.isolated_items import answers_of
from stepreward.core.types import Floats, Problem, Step
from stepreward.core.vocabulary import Count
from stepreward.credit.rules import sql_child
from stepreward.credit.rules.matching import overlap
from stepreward.credit.rules.text_rules import at_actions, needed

Engine = Literal["sqlite", "duckdb"]
LONGEST, DEEPEST = 20_000, 32
"""Characters and open brackets beyond which a query is not parsed."""
FENCE = "```sql"
WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class QueryLimits:
    """What a query may use."""

    seconds: float = 5.0
    memory: int = 256_000_000
    """Bytes."""
    rows: int = 10_000


@dataclass(frozen=True)
class Answer:
    """What a query returned; equal ones are equal rows."""

    rows: int
    ordered: str
    """Digest of the rows in order."""
    any_order: str
    """Digest of the rows as a bag."""


def run_queries(
    database: Sequence[str], queries: Sequence[str], *, engine: Engine = "sqlite", limits: QueryLimits | None = None
) -> list[Answer | str]:
    """Runs untrusted queries, one after another, in a process that ends with them.

    Args:
        database: statements that make the tables and fill them; these are trusted.
        queries: each one SELECT.
        engine: SQLite comes with Python, DuckDB must be installed.
        limits: for each query.

    Returns:
        One a query: its answer, or why there is none.

    Raises:
        InputError: the database cannot be made.
        ModelError: the engine is not installed, or this is no POSIX system, so that limits cannot be set.
    """
    if os.name != "posix":
        what = "untrusted SQL runs under a process's limits, which this system does not have; use execution=0"
        raise ModelError(what)
    if engine == "duckdb" and importlib.util.find_spec("duckdb") is None:
        raise ModelError("running SQL on DuckDB needs it: pip install 'stepreward[rules]'")
    bounds = limits or QueryLimits()
    job = {"engine": engine, "setup": list(database), "seconds": bounds.seconds}
    job |= {"memory": bounds.memory, "rows": bounds.rows}
    try:
        made = answers_of(
            sql_child.__file__, job, list(queries), bounds.seconds, (engine,) if engine == "duckdb" else ()
        )
    except InputError as error:
        raise InputError(f"the database cannot be made: {error}", remedy="correct `database`") from error
    lost = "the process ended: too much memory or time"
    return [lost if one is None else one["error"] if "error" in one else Answer(**one) for one in made]


@reward.method(
    "reasoning-sql",
    paper="arXiv:2503.23157",
    equation="the partial rewards",
    note="without the judge of AI feedback (weight 2) and the format (1), whose rewards can be added; weights as a "
    "third party states the paper's. Its syntax reward is for running without an error, here for parsing. "
    "Rows are compared as bags, in order where the gold query has an ORDER BY outside",
)
def partial_sql(
    problem: Problem,
    steps: Sequence[Step],
    *,
    execution: float = 3.0,
    syntax: float = 1.0,
    schema: float = 1.0,
    ngram: float = 1.0,
    n: Count = 2,
    engine: Engine = "sqlite",
    limits: QueryLimits | None = None,
) -> Floats:
    """Rewards a step for its SQL, in parts, so that a query that is nearly right is worth more than none.

        r = execution 1[same rows] + syntax 1[parses] + schema Jaccard(tables and columns) + ngram Jaccard(n-grams)

    A step's query is the content of its last SQL fence; a step without a fence gets 0.

    Args:
        problem: `reference` is the gold query, `meta["database"]` the statements that make the database.
        steps: of one trajectory.
        execution: weight of the rows returned; 0 runs nothing and needs no database.
        syntax: weight of being SQL at all.
        schema: weight of the tables and columns named.
        ngram: weight of shared n-grams of words and signs.
        n: of them.
        engine: SQLite or DuckDB.
        limits: of each query.

    Returns:
        (S,) in [0, execution + syntax + schema + ngram].

    Raises:
        MissingDataError: no gold query, or no database.
        InputError: the gold query does not parse or run, or the database cannot be made.
        ModelError: sqlglot, or the engine, is not installed.
    """
    if problem.reference is None:
        raise MissingDataError("reasoning-sql", ["reference"], (f"meta[{key!r}]" for key in problem.meta))
    gold, dialect = problem.reference, str(engine)
    wanted = named(gold, dialect)
    if wanted is None:
        raise InputError(f"the gold query of problem {problem.id} is no {engine}", remedy="correct `reference`")
    queries = [fenced(step.text) for step in steps if step.kind == "action"]
    same = [False] * len(queries)
    if execution:
        database = needed(problem, "reasoning-sql", "database")
        same = _same(database, gold, queries, engine, limits)
    made = []
    for query, right in zip(queries, same, strict=True):
        found = None if query is None else named(query, dialect)
        total = execution * right + syntax * (found is not None)
        if query is not None and len(query) <= LONGEST:
            total += ngram * overlap(_grams(query, n), _grams(gold, n))
        made.append(total + (schema * overlap(found, wanted) if found is not None else 0.0))
    return at_actions(steps, made)


def _same(
    database: Sequence[str], gold: str, queries: Sequence[str | None], engine: Engine, limits: QueryLimits | None
) -> list[bool]:
    """Whether each query returns what the gold one does. One that ends the process takes no other with it."""
    (right,) = run_queries(database, [gold], engine=engine, limits=limits)
    if isinstance(right, str):
        raise InputError(f"the gold query fails: {right}", remedy="correct `reference` or raise the limits")
    runnable = sorted({query for query in queries if query is not None and len(query) <= LONGEST})
    found = {query: run_queries(database, [query], engine=engine, limits=limits)[0] for query in runnable}
    ordered = ordered_outside(gold, str(engine))
    return [
        isinstance(one := found.get(query) if query is not None else None, Answer)
        and (one.ordered == right.ordered if ordered else one.any_order == right.any_order)
        for query in queries
    ]


def fenced(text: str) -> str | None:
    """The content of a text's last SQL fence, up to the end where it is not closed; None without a fence."""
    start = text.lower().rfind(FENCE)
    return None if start < 0 else text[start + len(FENCE) :].partition("```")[0].strip()


@lru_cache(maxsize=1 << 12)
def _parsed(query: str, dialect: str) -> Any:
    """The syntax tree of one statement, None where there is none."""
    if importlib.util.find_spec("sqlglot") is None:
        raise ModelError("reading SQL needs sqlglot: pip install 'stepreward[rules]'")
    library: Any = importlib.import_module("sqlglot")
    if len(query) > LONGEST or max(accumulate((c in "([") - (c in ")]") for c in query), default=0) > DEEPEST:
        return None
    try:
        statements = library.parse(query, dialect=dialect)
    except (library.errors.SqlglotError, ValueError, RecursionError):
        return None
    return statements[0] if len(statements) == 1 else None


def named(query: str, dialect: str) -> frozenset[tuple[str, str]] | None:
    """Tables and columns that a query names, in lower case; None where it is not one query of this dialect."""
    tree = _parsed(query, dialect)
    kinds: Mapping[str, Any] = vars(importlib.import_module("sqlglot.expressions")) if tree is not None else {}
    if tree is None or not isinstance(tree, kinds["Query"]):
        return None
    within = {cte.alias.lower() for cte in tree.find_all(kinds["CTE"])}
    tables = {("table", one.name.lower()) for one in tree.find_all(kinds["Table"]) if one.name.lower() not in within}
    return frozenset(tables | {("column", one.name.lower()) for one in tree.find_all(kinds["Column"])})


def ordered_outside(query: str, dialect: str) -> bool:
    """Whether a query sets the order of its rows."""
    tree = _parsed(query, dialect)
    return tree is not None and tree.args.get("order") is not None


def _grams(query: str, n: int) -> frozenset[tuple[str, ...]]:
    words = WORD.findall(query.lower())
    return frozenset(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
