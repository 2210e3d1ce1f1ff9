"""The checker of steps that write SQL."""

from __future__ import annotations

from collections.abc import Sequence

from stepreward.core.catalog import check
from stepreward.core.errors import InputError, MissingDataError
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Problem, Step
from stepreward.credit.rules.sql import LONGEST, Engine, fenced, ordered_outside, run_queries
from stepreward.credit.rules.text_rules import needed


@check.method("sql", note="ours: queries are run as those of the reward `reasoning-sql`")
def check_sql(problem: Problem, steps: Sequence[Step], *, engine: Engine = "sqlite") -> list[StepCheck]:
    """Runs the queries of a solution: one that fails is wrong, and so is the last one if it returns other rows.

    A query is the content of a step's last SQL fence. Kinds of errors: `error` (the engine's words are the claim) and
    `rows` (not those of the gold query; as bags, in order where that has an ORDER BY outside). Earlier queries that run
    may look around, and are unknown, as steps without a query are.

    Args:
        problem: `reference` is the gold query, `meta["database"]` the statements that make the database.
        steps: of one solution.
        engine: SQLite or DuckDB.

    Raises:
        MissingDataError: no gold query, or no database.
        InputError: the gold query does not run, or the database cannot be made.
        ModelError: sqlglot, or the engine, is not installed.
    """
    if problem.reference is None:
        raise MissingDataError("sql", ["reference"], (f"meta[{key!r}]" for key in problem.meta))
    database, gold = needed(problem, "sql", "database"), problem.reference
    queries = {at: query for at, step in enumerate(steps) if step.kind == "action" and (query := fenced(step.text))}
    queries = {at: query for at, query in queries.items() if len(query) <= LONGEST}
    # One process each: one that ends it takes no other with it.
    right, *found = (run_queries(database, [query], engine=engine)[0] for query in (gold, *queries.values()))
    if isinstance(right, str):
        raise InputError(f"the gold query fails: {right}", remedy="correct `reference` or raise the limits")
    made = [StepCheck(None)] * len(steps)
    for at, one in zip(queries, found, strict=True):
        if isinstance(one, str):
            made[at] = StepCheck(False, "error", one)
        elif at == max(queries):
            ordered = ordered_outside(gold, str(engine))
            same = one.ordered == right.ordered if ordered else one.any_order == right.any_order
            made[at] = StepCheck(True) if same else StepCheck(False, "rows", queries[at])
    return made
