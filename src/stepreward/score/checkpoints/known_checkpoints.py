"""The table of public checkpoints and how a row is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from stepreward.core.errors import UnknownNameError
from stepreward.core.plugins import Plugin, PluginRegistry, declared
from stepreward.score.checkpoints.row import Checkpoint, JudgeCheckpoint

Row = TypeVar("Row", bound=Checkpoint | JudgeCheckpoint)


def _own() -> dict[str, Checkpoint | JudgeCheckpoint]:
    """The rows of this package: each module of this folder may have `ROWS`."""
    return {row.name: row for row in declared(__name__.rpartition(".")[0], "ROWS")}


def _of_plugin(plugin: Plugin) -> dict[str, Checkpoint | JudgeCheckpoint]:
    rows: list[Checkpoint | JudgeCheckpoint] = plugin.objects((Checkpoint, JudgeCheckpoint), "ROWS")
    return {row.name: row for row in rows}


_ROWS: Mapping[str, Checkpoint | JudgeCheckpoint] = PluginRegistry(_own, "stepreward.checkpoints", _of_plugin)


class _Kind(Mapping[str, Row], Generic[Row]):
    """The rows of one kind, by their first names, in the order of the table."""

    def __init__(self, kind: type[Row]) -> None:
        self._kind = kind

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
        """The rows by all their names; of rows that share one the first is meant: those of plug-ins come last."""
        return {name: row for row in reversed([*self.values()]) for name in row.names}


checkpoints = _Kind(Checkpoint)
"""Every model that is read, by its first name."""
judges = _Kind(JudgeCheckpoint)
"""Every verifier that writes, by its first name."""


def by_name(name: str) -> Checkpoint:
    """The row of a hub name.

    Raises:
        UnknownNameError: there is none.
    """
    found = checkpoints.by_any_name()
    if name not in found:
        raise UnknownNameError("checkpoint", name, found)
    return found[name]


def judge_of(name: str) -> JudgeCheckpoint | None:
    """The verifier that writes of a hub name; None where there is none."""
    return judges.by_any_name().get(name)


def judge_by_name(name: str) -> JudgeCheckpoint:
    """The verifier that writes of a hub name.

    Raises:
        UnknownNameError: there is none.
    """
    found = judges.by_any_name()
    if name not in found:
        raise UnknownNameError("verifier that writes", name, found)
    return found[name]


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
