"""Domains of training data: the fact `domain` of each trajectory, or else the name of its data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from stepreward.core.errors import InputError
from stepreward.core.tree import StepTree
from stepreward.core.types import Trajectory

DOMAIN = "domain"
"""The fact that names the domain of a trajectory."""


def named(paths: Sequence[Path]) -> Mapping[str, Path]:
    """Data sets by the name of their file without its ending, by their path where two share that; "" for one alone.

    Raises:
        InputError: a path is given twice.
    """
    if len(paths) == 1:
        return {"": paths[0]}
    names = [path.stem for path in paths]
    made = {str(path) if names.count(path.stem) > 1 else path.stem: path for path in paths}
    if len(made) < len(paths):
        raise InputError("a data set is given twice", remedy="name it once, and give it a larger share of the mix")
    return made


def of_domain(rows: Iterable[Trajectory], name: str) -> Iterator[Trajectory]:
    """The rows, with `name` as the domain of those that have none; no name leaves them as they are."""
    for row in rows:
        yield row if DOMAIN in row.facts or not name else replace(row, facts={**row.facts, DOMAIN: name})


def domain_of(tree: StepTree) -> str:
    """The fact `domain` of a tree's first trajectory, "" where it has none."""
    return str(tree.attempts[0].facts.get(DOMAIN, "")) if tree.attempts else ""
