"""What a format is: how it is recognised, read and written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from stepreward.core.errors import UnknownNameError
from stepreward.core.types import Comparison, Trajectory
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.recorded_scores import ScoreLayout
from stepreward.formats.rows import Row

Kind = Literal["solutions", "comparisons"]
"""What a format reads into: `Trajectory` solutions with step labels, or `Comparison` of candidates."""


def has(*fields: str, **kinds: type) -> Callable[[Row], bool]:
    """A test for rows that have all of these fields, and those of `kinds` as values of these types."""
    wanted = frozenset((*fields, *kinds))
    return lambda row: row.keys() >= wanted and all(isinstance(row[name], kind) for name, kind in kinds.items())


@dataclass(frozen=True, slots=True)
class Format:
    """A public data format."""

    name: str
    about: str
    matches: Callable[[Row], bool]
    """Whether a row is evidence of the format."""
    read: Callable[..., Iterator[Trajectory]] | Callable[..., Iterator[Comparison]]
    """`(row, number, **options)`: a row as `rows` gives it, its 1-based number, and options by keyword, with defaults.

    Its docstring is the format's page of the documentation. It checks by name what it can explain, and lets other
    errors of misshapen rows pass: `registry.Reading` reports them with the row.
    """
    write: Callable[..., dict[str, Any]] | None = None
    """`(item, **options) -> row`; None for a format that is only read."""
    rows: Callable[[Path], Iterator[Numbered]] = read_rows
    """Opens the file. A format of two files joins them here; a log whose lines are events gathers them into runs."""
    kind: Kind = "solutions"
    schema: pa.Schema | None = None
    """Types of its fields in Parquet; inferred from the rows where None."""
    scores: ScoreLayout | None = None
    """How a file of it holds scores of steps; None where it has no place for them."""

    def options(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Options of `read` or `write` with their defaults."""
        parameters = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def check(self, function: Callable[..., Any], given: Iterable[str]) -> None:
        """Raises UnknownNameError for an option that the function does not have."""
        known = self.options(function)
        for name in given:
            if name not in known:
                raise UnknownNameError(f"option of format {self.name}", name, known)
