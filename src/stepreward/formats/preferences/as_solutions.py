"""Comparisons as rows of the table: a row for each candidate, with what training reads of the preference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from stepreward.core.types import Comparison, Trajectory

KEPT = ("strength", "margin", "annotator", "by", "step")
"""Entries of a comparison's `meta` that become facts of its candidates."""


def as_solutions(items: Iterable[Comparison]) -> Iterator[Trajectory]:
    """The candidates, those of a comparison as solutions of one problem with an id of its own.

    `outcome` is how good the candidate is among them: the preference where all are in [0, 1]; else it is scaled from 0
    for the worst to 1 for the best, and the number itself is the fact `preferred`. Other facts are the subset as
    `domain`, and `strength`, `margin` and `annotator` where they are known.
    """
    seen = Counter[str]()
    for item in items:
        name = item.problem.id
        seen[name] += 1
        problem = item.problem if seen[name] == 1 else replace(item.problem, id=f"{name}#{seen[name]}")
        worth = np.array(item.preferred, np.float64)
        scaled = worth.min() < 0 or worth.max() > 1
        width = float(worth.max() - worth.min())
        outcomes = (worth - worth.min()) / width if scaled and width else np.full(len(worth), 0.5) if scaled else worth
        facts = {key: item.meta[key] for key in KEPT if item.meta.get(key) is not None}
        facts |= {"domain": item.subset} if item.subset else {}
        for one, outcome, number in zip(item.candidates, outcomes.tolist(), item.preferred, strict=True):
            own = {"preferred": number} if scaled else {}
            yield replace(one, problem=problem, outcome=outcome, facts={**one.facts, **facts, **own})
