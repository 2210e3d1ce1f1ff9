"""ETS: REBASE on a subset of the candidates that an integer programme keeps, so that more of the tree is shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.prefix_names import TOP
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.candidates import Candidate, Found, Path
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive
from stepreward.search.trees.rebase import balance, balanced_growth

Vectors = NDArray[np.float64]
Embed = Callable[[Sequence[str]], Vectors]
"""From texts to their vectors, (n, d)."""


def keep_leaves(
    shares: Sequence[float],
    ancestors: Sequence[Sequence[int]],
    cluster: Sequence[int],
    *,
    cost: float = 1.0,
    coverage: float = 1.5,
    seconds: float = 1.0,
) -> list[int]:
    """The leaves to grow: the most shares, less the cost of the nodes they need, plus the meanings they cover.

        max  sum_i O_i x_i - cost / (M + N) (sum_j y_j + sum_i x_i) + coverage / K sum_k z_k
        s.t. y_j >= x_i for every leaf i below j,  y_j <= sum of those x_i,  z_k <= sum of x_i in k,  sum_i x_i >= 1

    solved exactly (HiGHS) unless time runs out; x, y, z are 0 or 1 for the N leaves, M nodes above them and K clusters.

    Args:
        shares: O, (N,) share of the samples that REBASE would give each leaf.
        ancestors: nodes above each leaf, as any integers; a node above two leaves is paid once.
        cluster: (N,) cluster of each leaf, as any integers.
        cost: lambda_c.
        coverage: lambda_s.
        seconds: most time for the solver. When it is over, the best set found by then is kept, and all leaves where
            none was found.

    Returns:
        Indices of the leaves kept, ascending, at least one.
    """
    positive(seconds=seconds)
    n = len(shares)
    # Variables in this order: x of the leaves, y of the nodes above them, z of the clusters.
    above = {node: n + i for i, node in enumerate(sorted({a for path in ancestors for a in path}))}
    groups = {name: n + len(above) + i for i, name in enumerate(sorted(set(cluster)))}
    size = n + len(above) + len(groups)
    gain = np.zeros(size)
    gain[:n] = np.asarray(shares, np.float64) - cost / (n + len(above))
    gain[n : n + len(above)] = -cost / (n + len(above))
    gain[n + len(above) :] = coverage / len(groups)
    needs = [(i, above[a]) for i, path in enumerate(ancestors) for a in path]
    # Each row is a sum that must not be negative: y_j - x_i, sum x_i - y_j, sum x_i - z_k; the last is sum x_i - 1.
    entries = [e for r, (i, j) in enumerate(needs) for e in ((r, j, 1.0), (r, i, -1.0))]
    entries += [(len(needs) + j - n, i, 1.0) for i, j in needs]
    entries += [(len(needs) + groups[k] - n, i, 1.0) for i, k in enumerate(cluster)]
    entries += [(len(needs) + j - n, j, -1.0) for j in range(n, size)]
    last = len(needs) + size - n
    entries += [(last, i, 1.0) for i in range(n)]
    row, column, value = zip(*entries, strict=True)
    # Indices of 32 bits: the solver of older releases of scipy takes no others.
    places = np.array(row, np.int32), np.array(column, np.int32)
    rows = coo_array((np.array(value), places), shape=(last + 1, size)).tocsr()
    floor = np.zeros(last + 1)
    floor[last] = 1
    solved = milp(
        -gain,
        integrality=np.ones(size, np.int64),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(rows, floor),
        options={"time_limit": seconds},
    )
    return [*range(n)] if solved.x is None else np.flatnonzero(solved.x[:n] > 0.5).tolist()


def n_grams(texts: Sequence[str], *, n: int = 3) -> Vectors:
    """Counts of the texts' character n-grams, lower-case, ends padded by spaces: vectors that need no model.

    Args:
        texts: any text of any script.
        n: characters of a gram.

    Returns:
        (len(texts), number of distinct grams) counts.
    """
    counts = [
        Counter(padded[i : i + n] for i in range(len(padded) - n + 1)) for padded in (f" {t.lower()} " for t in texts)
    ]
    names = {gram: i for i, gram in enumerate(dict.fromkeys(g for c in counts for g in c))}
    vectors = np.zeros((len(texts), len(names)))
    for row, some in enumerate(counts):
        vectors[row, [names[g] for g in some]] = [*some.values()]
    return vectors


def clusters(vectors: Vectors, distance: float = 0.05) -> list[int]:
    """Cluster of each vector by average linkage, cut where the mean cosine distance exceeds `distance`.

    A vector of zeros has distance 1 to all others.
    """
    if len(vectors) < 2:
        return [0] * len(vectors)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors, dtype=np.float64), where=length > 0)
    # Pairs in the order that `linkage` reads: the upper triangle, row by row.
    upper = np.triu_indices(len(unit), 1)
    apart = np.clip(1 - (unit @ unit.T)[upper], 0, 2)
    return fcluster(linkage(apart, "average"), distance, "distance").tolist()


def _acted(candidate: Candidate) -> list[Path]:
    """Names of a candidate's prefixes that end in an action."""
    return [name for name, step in zip(candidate.places, candidate.steps, strict=True) if step.kind == "action"]


@search.method(
    "ets",
    paper="arXiv:2502.13575",
    equation="section 4, the integer programme with semantic coverage",
    note="clusters by character n-grams unless `embed` is given, which the paper's code takes from a sentence encoder; "
    "equal samples are one node, paid once, with the shares of all of them",
    asks=("scorer",),
    budget=budgets.width,
)
def ets(
    problem: Problem,
    key: Key,
    *,
    width: Count = 16,
    temperature: float = 0.2,
    cost: float = 1.0,
    coverage: float = 1.5,
    distance: float = 0.05,
    embed: Embed | None = None,
    solver_seconds: float = 1.0,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = True,
) -> Flow[Found]:
    """REBASE that first drops candidates whose tree nodes cost more than their score and meaning add.

    Args:
        problem: what to solve.
        key: randomness.
        width: samples of a step, as in `rebase`.
        temperature: of the shares, as in `rebase`.
        cost: lambda_c, the price of a node that must stay in memory; 0 with `coverage` 0 is `rebase` on the candidates
            that would get a sample.
        coverage: lambda_s, the gain of a cluster of last steps that is kept; 1.5 at width 16 in the paper's code.
        distance: cosine distance at which two last steps mean different things, in [0, 2].
        embed: from texts to vectors; None counts character n-grams.
        solver_seconds: most time for the programme of one step; when it is over, the best candidates found by then are
            kept, and all of them, as `rebase` does, where none were found. At widths up to 64 it takes far less.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores.
        vote: choose by the weighted vote over the ends instead of the best one.
    """

    def thinned(kept: list[Candidate], left: int) -> list[Candidate]:
        shares = [share / left for share in balance(kept, left, temperature)]
        meaning = clusters((embed or n_grams)([c.steps[-1].text for c in kept]), distance)
        # Nodes by the names of their prefixes: equal ones are one node, which several candidates share the price of.
        number: dict[Path, int] = {}
        above = [[number.setdefault(name, len(number)) for name in (TOP, *_acted(c)[:-1])] for c in kept]
        leaves = keep_leaves(shares, above, meaning, cost=cost, coverage=coverage, seconds=solver_seconds)
        return [kept[i] for i in leaves]

    growth = Growth(problem, key, aggregate)
    return (yield from balanced_growth(growth, width, temperature, max_steps, vote, thinned))
