"""Importing this registers a credit method, a preset of one, and a search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import credit, search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Found
from stepreward.search.growth import Growth


@credit.method("toy-own-reward", note="an example of a plug-in")
def own_reward(rewards: NDArray[np.float64], *, scale: float = 1.0) -> NDArray[np.float64]:
    """Pays each step its own reward and nothing else."""
    return scale * np.asarray(rewards)


credit.preset("toy-doubled", of="toy-own-reward", note="an example of a plug-in", scale=2.0)


@search.method("toy-longest", note="an example of a plug-in", budget=budgets.samples)
def longest(problem: Problem, key: Key, *, n: Count = 4) -> Flow[Found]:
    """Samples `n` solutions and takes the one with the most steps."""
    growth = Growth(problem, key)
    (candidates,) = yield from growth.complete([ROOT], n)
    lengths = np.array([float(len(candidate.steps)) for candidate in candidates])
    return (yield from growth.conclude(candidates, select="best-of-n", totals=lengths))
