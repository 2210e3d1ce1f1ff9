"""What verbs return: lists that say in one line what they hold, and that notebooks and data frames can read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from stepreward.core.failures import Failure, Failures
from stepreward.core.html_table import html_table
from stepreward.core.optional import optional
from stepreward.core.table import FIELDS, row_of
from stepreward.core.types import Floats, Trajectory, step_rows

_MOST_NUMBERS = 12


class TrajectoryList(list[Trajectory]):
    """The trajectories that a verb returns, with what failed beside them.

    Args:
        items: the trajectories.
        failed: what could not be read, labelled or scored, and is not among the items.
    """

    def __init__(self, items: Iterable[Trajectory] = (), failed: Iterable[Failure] = ()) -> None:
        super().__init__(items)
        self.failed = failed if isinstance(failed, Failures) else Failures(failed)

    @property
    def column_names(self) -> list[str]:
        """Names of all step columns, in the order of their first use."""
        return list(dict.fromkeys(name for one in self for name in one.columns))

    def __repr__(self) -> str:
        problems, steps = len({one.problem.id for one in self}), sum(map(len, self))
        said = f"{len(self):,} trajectories of {problems:,} problems, {steps:,} steps"
        said += f"; columns: {', '.join(self.column_names) or 'none'}"
        return f"<{said}; {self.failed.total:,} failed>" if self.failed else f"<{said}>"

    def _repr_html_(self) -> str:
        names = self.column_names
        rows = (
            (one.problem.id, one.problem.text, len(one), one.outcome, *(_few(one.column(name)) for name in names))
            for one in self
        )
        return html_table(("problem", "prompt", "steps", "outcome", *names), rows, caption=repr(self)[1:-1])

    def to_pandas(self) -> Any:
        """A pandas data frame with one row a step: `trajectory`, `problem`, `step`, `kind`, `text`, every column.

        `trajectory` is the index into this list; a number that was not measured is NaN.

        Raises:
            ModelError: pandas is not installed.
        """
        names = self.column_names
        head = ["trajectory", "problem", "step", "kind", "text", *names]
        rows = ((index, one.problem.id, *row) for index, one in enumerate(self) for row in step_rows(one, names))
        return optional("pandas").DataFrame(rows, columns=head)

    def to_dataset(self) -> Any:
        """A `datasets.Dataset` with one row a trajectory: the table that `stepreward.write` writes.

        Raises:
            InputError: a trajectory cannot be stored.
            ModelError: datasets is not installed.
        """
        schema = pa.schema([*FIELDS, *((name, pa.list_(pa.float64())) for name in self.column_names)])
        return optional("datasets").Dataset(pa.Table.from_pylist([row_of(one) for one in self], schema))


def _few(values: Floats) -> str:
    """The first numbers of a step column as text."""
    shown = " ".join("\u2013" if value != value else f"{value:.2g}" for value in values[:_MOST_NUMBERS].tolist())
    return shown + (" \u2026" if len(values) > _MOST_NUMBERS else "")
