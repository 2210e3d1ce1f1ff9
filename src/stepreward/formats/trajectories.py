"""Our own table of trajectories (`core.table`): what `label`, `score`, `search` and `convert` write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.table import FIELDS, REMEDY, VERSION, item_of, row_of
from stepreward.core.types import Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row
from stepreward.formats.samples.step_rewards import CONTRACT

OWN = "stepreward"
_BEFORE = frozenset({"problem", "steps", "n_rollouts", "provenance"})
"""Fields of the labels that releases before this version wrote."""
_FOUND = frozenset({"id", "answer", "correct", "candidates", "bill"})
"""Fields of what `search` wrote before."""


def matches(row: Row) -> bool:
    """Whether a command of ours wrote the row, in this version or before."""
    schema = str(row.get("schema", ""))
    if schema.startswith(CONTRACT):
        return False
    if schema.startswith("stepreward/") or row.keys() >= _BEFORE or _is_bare(row):
        return True
    # Steps as this table has them, in a row of another program that lost or never wrote `schema`.
    steps = row.get("steps")
    first = steps[0] if isinstance(steps, list) and steps else None
    return isinstance(first, dict) and first.keys() >= {"text", "kind", "role"}


def _is_bare(row: Row) -> bool:
    """Whether a row is a result without its problem: as `search` wrote it, or a line of scores or of an error."""
    return row.keys() >= _FOUND or (bool(row) and row.keys() <= {"scores", "unscored", "error"})


def read(row: Row, number: int) -> Iterator[Trajectory]:
    """Reads `schema`, `problem`, `prompt`, `reference`, `steps`, step columns, facts and provenance of a trajectory.

    Raises:
        InputError: the row has no steps, such as a problem that could not be solved, or a field is damaged.
    """
    schema = row.get("schema", VERSION)
    if row.get("error"):
        raise InputError(f"it has no solution: {row['error']}", remedy="mend the cause and run the command again")
    if schema != VERSION:
        what = f"{schema} is not {VERSION}: no trajectories are in it"
        raise InputError(what, remedy="pass labels.parquet, or what `score`, `search` or `convert` wrote")
    if "schema" not in row and _is_bare(row):
        what = "a result without its problem and steps, as releases before wrote it"
        raise InputError(what, remedy="run the same command again, which writes them and reads kept answers")
    item = item_of(row)
    if not item.steps and item.facts.get("error"):
        what = f"problem {item.problem.id!r} has no solution: {item.facts['error']}"
        raise InputError(what, remedy="mend the cause and run the command again")
    if not item.steps:
        raise InputError(f"there is no step of problem {item.problem.id!r}", remedy=REMEDY)
    yield item


def write(item: Trajectory) -> dict[str, Any]:
    """One row: everything that is known of the trajectory."""
    return row_of(item)


FORMATS: tuple[Format, ...] = (
    Format(OWN, "trajectories with step columns and provenance", matches, read, write, schema=FIELDS),
)
