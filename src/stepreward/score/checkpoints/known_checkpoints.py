"""The table of public checkpoints and how a row is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from stepreward.core.errors import UnknownNameError
from stepreward.core.plugins import PluginRegistry, declared
from stepreward.score.checkpoints.row import Checkpoint, JudgeCheckpoint

Row = TypeVar("Row", bound=Checkpoint | JudgeCheckpoint)


def _named(rows: Iterable[Checkpoint | JudgeCheckpoint]) -> dict[str, Checkpoint | JudgeCheckpoint]:
    return {row.name: row for row in rows}


# Each module of this folder may have `ROWS`, as may the module that a plug-in names.
_ROWS: Mapping[str, Checkpoint | JudgeCheckpoint] = PluginRegistry(
    lambda: _named(declared(__name__.rpartition(".")[0], "ROWS")),
    "stepreward.checkpoints",
    lambda plugin: _named(plugin.objects((Checkpoint, JudgeCheckpoint), "ROWS")),
)


class _RowsOf(Mapping[str, Row], Generic[Row]):
    """The rows of one kind, by their first names, in the order of the table."""

    def __init__(self, kind: type[Row], title: str) -> None:
        self._kind, self._title = kind, title

    def __getitem__(self, name: str) -> Row:
        row = _ROWS[name]
        if not isinstance(row, self._kind):
            raise KeyError(name)
        return row

    def __iter__(self) -> Iterator[str]:
        return (name for name, row in _ROWS.items() if isinstance(row, self._kind))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def by_any_name(self) -> dict[str, Row]:
        """The rows by all their names; of rows that share one the first counts: those of plug-ins come last."""
        return {name: row for row in reversed([*self.values()]) for name in row.names}

    def find(self, name: str) -> Row:
        """The row of any of its names.

        Raises:
            UnknownNameError: there is none.
        """
        found = self.by_any_name()
        if name not in found:
            raise UnknownNameError(self._title, name, found)
        return found[name]


checkpoints = _RowsOf(Checkpoint, "checkpoint")
"""Every model that is read, by its first name."""
judges = _RowsOf(JudgeCheckpoint, "verifier that writes")
"""Every verifier that writes, by its first name."""
by_name = checkpoints.find
judge_by_name = judges.find


def judge_of(name: str) -> JudgeCheckpoint | None:
    """The verifier that writes of a hub name; None where there is none."""
    return judges.by_any_name().get(name)


def recognised(name: str, config_name: str, architectures: Iterable[str]) -> list[Checkpoint]:
    """The rows that a folder or hub name may be: by its name, the name in its configuration, or its architecture.

    Args:
        name: what the user passed.
        config_name: `_name_or_path` of its configuration, "" if there is none.
        architectures: of its configuration.
    """
    wanted, rows = set(architectures), [*checkpoints.values()]
    for given in (name, config_name):
        ends = given.rstrip("/").split("/")
        # A folder has the last part of a hub name alone, which several authors may use: the whole name comes first.
        exact = [row for row in rows if any(given.lower() == n.lower() for n in row.names)]
        close = [row for row in rows if any(ends[-1].lower() == n.split("/")[-1].lower() for n in row.names)]
        found = exact or close
        if len(found) > 1 and wanted:
            # Two authors may give a checkpoint the same name; one of them says more of its architecture.
            fitting = [row for row in found if wanted & set(row.architectures)]
            found = fitting or [row for row in found if not row.architectures] or found
        if found:
            return found
    return [row for row in rows if wanted & set(row.architectures)]
