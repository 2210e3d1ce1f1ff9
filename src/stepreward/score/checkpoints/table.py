"""The table of public checkpoints and how a row is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stepreward.core.errors import UnknownNameError
from stepreward.core.plugins import Plugin, PluginRegistry
from stepreward.score.checkpoints import (
    conversations,
    extra_token,
    label_tokens,
    log_ratios,
    plain_steps,
    prefixes,
    values,
)
from stepreward.score.checkpoints.row import Checkpoint

_OWN = (
    *extra_token.ROWS,
    *plain_steps.ROWS,
    *label_tokens.ROWS,
    *conversations.ROWS,
    *prefixes.ROWS,
    *values.ROWS,
    *log_ratios.ROWS,
)


def _of_plugin(plugin: Plugin) -> dict[str, Checkpoint]:
    return {row.name: row for row in plugin.objects(Checkpoint, "ROWS")}


checkpoints: Mapping[str, Checkpoint] = PluginRegistry(
    lambda: {row.name: row for row in _OWN}, "stepreward.checkpoints", _of_plugin
)
"""Every row, by its first name."""


def by_name(name: str) -> Checkpoint:
    """The row of a hub name.

    Raises:
        UnknownNameError: there is none.
    """
    # Of rows that share a name the first is meant: those of plug-ins come last.
    found = {n: row for row in reversed([*checkpoints.values()]) for n in row.names}
    if name not in found:
        raise UnknownNameError("checkpoint", name, found)
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
