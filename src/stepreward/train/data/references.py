"""Reference answers of training data, which the prompt of a verifier holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stepreward.core.errors import InputError
from stepreward.core.types import Trajectory
from stepreward.score.encode.record import EncoderRecord


@dataclass
class KnownReferences:
    """Counts, while solutions are read, those of problems without a reference answer."""

    lacking: dict[Path | None, list[str]] = field(default_factory=dict)
    """Problem of each solution without one, by file."""
    rows: dict[Path | None, int] = field(default_factory=dict)
    """Solutions of each file."""

    def passing(self, rows: Iterable[Trajectory], source: object) -> Iterator[Trajectory]:
        """The rows as they are; `source` is their file, or anything where they are of none."""
        path = Path(source) if isinstance(source, str | Path) else None
        for row in rows:
            self.rows[path] = self.rows.get(path, 0) + 1
            if not row.problem.reference:
                self.lacking.setdefault(path, []).append(row.problem.id)
            yield row

    def check(self, record: EncoderRecord) -> None:
        """Refuses data without references where the record reads them.

        Raises:
            InputError: it does, and a solution's problem has none.
        """
        if not record.encoding.reads_reference:
            return
        for path, names in self.lacking.items():
            what = f"{len(names):,} of {self.rows[path]:,} solutions have no reference answer, which the prompt holds"
            remedy = "give their rows a 'reference', drop them, or leave {reference} out of prompt_format"
            raise InputError(f"{what}; that of problem {names[0]!r} is the first", source=path, remedy=remedy)
