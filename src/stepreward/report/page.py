"""The report: one HTML file that opens offline, with tables, plots and step trees to explore."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from stepreward.core.files.atomic_files import write_text
from stepreward.core.tree import StepTree

MISSING = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """A table of already formatted cells; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marked: Sequence[int] = ()
    """Rows set in bold."""


@dataclass(frozen=True)
class TreeView:
    """A tree to explore: every column is shown as a number, and the reader chooses which one colours the steps."""

    tree: StepTree
    colour: str
    """Name of the column that colours the steps at first."""
    columns: Sequence[str]
    """Names of at most four columns, values in [0, 1]; one that the tree lacks is left out."""

    @property
    def shown(self) -> list[str]:
        """The columns that the tree has."""
        return [name for name in self.columns if name in self.tree.columns]

    @property
    def by(self) -> int:
        """Index in `shown` of the column that colours at first."""
        return self.shown.index(self.colour) if self.colour in self.shown else 0


@dataclass(frozen=True)
class Section:
    """One part of the report."""

    title: str
    text: str = ""
    figures: Sequence[str] = ()
    """SVG figures from `report.svg`."""
    tables: Sequence[Table] = ()
    trees: Sequence[TreeView] = ()


@dataclass(frozen=True)
class Page:
    """A report before it is written."""

    title: str
    subtitle: str
    headlines: Sequence[tuple[str, str, str]]
    """Cards at the top: number, what it is, its interval or context."""
    sections: Sequence[Section]
    footer: str = ""
    details: dict[str, str] = field(default_factory=dict)
    """Settings of the run, shown at the end."""


@dataclass(frozen=True)
class Node:
    """What the template shows of a step."""

    text: str
    values: Sequence[tuple[str, str, str]]
    """For each column its name, its number, and its place on the colour scale in percent ("" where not measured)."""
    outcome: str
    samples: int


@dataclass(frozen=True)
class Branch:
    """Steps that follow each other without a fork, and the branches in which they go on."""

    chain: Sequence[Node]
    branches: Sequence[Branch]


def branches(view: TreeView, limit: int = 400) -> list[Branch]:
    """The tree below the problem, most visited branches first, at most `limit` steps in all."""
    tree = view.tree
    through = np.bincount(tree.paths[tree.mask], minlength=tree.n)
    # A parent is visited at least as often as its child and has a smaller index: what is kept is connected.
    order = sorted(range(1, tree.n), key=lambda i: (-through[i], i))[:limit]
    children: dict[int, list[int]] = {i: [] for i in (0, *order)}
    for i in order:
        children[int(tree.parent[i])].append(i)

    def build(i: int) -> Branch:
        chain = [i]
        while len(children[chain[-1]]) == 1:
            chain.append(children[chain[-1]][0])
        return Branch([_node(view, j, int(through[j])) for j in chain], [build(j) for j in children[chain[-1]]])

    return [build(i) for i in children[0]]


def _node(view: TreeView, i: int, samples: int) -> Node:
    outcome = view.tree.outcome[i]
    ends = "" if math.isnan(outcome) else "right" if outcome > 0.5 else "wrong"
    return Node(view.tree.step(i).text.strip(), [_value(view.tree, name, i) for name in view.shown], ends, samples)


def _value(tree: StepTree, name: str, i: int) -> tuple[str, str, str]:
    value = float(tree.columns[name][i])
    if math.isnan(value):
        return name, MISSING, ""
    return name, f"{value:.2f}", f"{100 * min(max(value, 0.0), 1.0):.0f}%"


def render(page: Page) -> str:
    """The report as HTML text, with no reference to anything outside itself.

    Every text is escaped, and a content security policy allows no script but the page's own and no request at all.
    """
    script = (resources.files("stepreward.report") / "templates" / "explore.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(page=page, branches=branches, trusted=Markup, script=script, digest=digest)


def write(page: Page, path: Path) -> Path:
    """Writes the report in one move, so that a reader never sees half of it.

    Raises:
        StoreError: the file cannot be written.
    """
    write_text(path, render(page))
    return path


@cache
def _template() -> Template:
    # Autoescape by name would not know the ending .jinja: everything is escaped but what is marked as trusted.
    environment = Environment(
        loader=PackageLoader("stepreward.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.jinja")
