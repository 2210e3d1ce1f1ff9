"""What scores should not follow, and what they should: length, the order of questions, the order of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.statistics import Estimate, bootstrap, resamples
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import rows_kept, step_scores, unmeasured
from stepreward.evaluate.measures.counts import interval

DRAWS = 300


def right(item: Trajectory) -> bool | None:
    """Whether a solution is right, by its outcome or else its first error; None where neither is known."""
    if not np.isnan(item.outcome):
        return item.outcome > 0.5
    return None if item.first_error is None else item.first_error < 0


@bench.method(
    "order",
    note="our protocol: shuffled steps are no solution any more and should score lower; the order of questions should "
    "not matter",
)
def order(scorer: Scorer, data: Sequence[Trajectory], *, aggregate: str = "min", seed: int = 0) -> BenchResult:
    """Whether scores depend on the order of steps, and not on the order in which solutions are scored.

    `blind` is the share of solutions whose total does not fall when their actions change places at random, `shift` the
    mean change of the total. `reversed` is the mean change of a step's score when the solutions are scored in reverse
    order: 0 for a scorer that judges each solution alone.

    Args:
        scorer: whose scores are measured; recorded scores will not do.
        data: solutions; where it is known which are right, only those are shuffled, and only those of two actions.
        aggregate: how the scores of a solution's steps become one.
        seed: of the shuffles and the bootstrap over solutions.

    Raises:
        InputError: no solution has two actions to change places, or none has scores.
    """
    is_right = [right(item) for item in data]
    able = [item for item, good in zip(data, is_right, strict=True) if good or not any(is_right)]
    able = [item for item in able if len({step.text for step in item.steps if step.kind == "action"}) > 1]
    if not able:
        raise InputError("no right solution has two actions that could change places", remedy="pass longer solutions")
    key = Key.seed(seed).fold("order")
    mixed = [_shuffled(item, key.fold("shuffle", at)) for at, item in enumerate(able)]
    before, after = step_scores(scorer, able), step_scores(scorer, mixed)
    # The same questions in reverse order: a scorer that keeps state answers them otherwise.
    backwards = step_scores(scorer, able[::-1])[::-1]
    lost = unmeasured(before, able) | unmeasured(after, mixed) | unmeasured(backwards, able)
    kept = rows_kept(lost)
    change = totals_of(after[kept], aggregate) - totals_of(before[kept], aggregate)
    moved = np.nanmean(np.abs(backwards[kept] - before[kept]), axis=1)
    metrics = {
        "blind": bootstrap((change >= 0).astype(float), key.fold("blind")),
        "shift": bootstrap(change, key.fold("shift"), bounds=(-1.0, 1.0)),
        "reversed": bootstrap(moved, key.fold("asked")),
    }
    protocol = (
        f"Actions of a solution change places at random; blind is the share whose total ({aggregate}) does not fall. "
        "reversed is the mean change of a score when the same solutions are scored in reverse order. Bootstrap over "
        "solutions."
    )
    return BenchResult("order", "blind", metrics, protocol, unscored=int(lost.sum()))


def _shuffled(item: Trajectory, key: Key) -> Trajectory:
    """The solution with its actions in another order; observations stay where they are."""
    steps = list(item.steps)
    places = [at for at, step in enumerate(steps) if step.kind == "action"]
    texts = [steps[at] for at in places]
    drawn = key.rng()
    moved = texts
    # Equal texts in another order are the same solution: drawn until one differs.
    while [step.text for step in moved] == [step.text for step in texts]:
        moved = [texts[at] for at in drawn.permutation(len(texts))]
    for at, step in zip(places, moved, strict=True):
        steps[at] = step
    return item.with_steps(steps)


@bench.method(
    "length-bias",
    note="our protocol: Spearman's rank correlation of score and length among solutions that are equally right",
)
def length_bias(scorer: Scorer, data: Sequence[Trajectory], *, aggregate: str = "min", seed: int = 0) -> BenchResult:
    """How far totals follow length where it cannot matter: among right solutions, and among wrong ones.

    Each kind is correlated on its own, so that the link of length and being right takes no part; the metric is the mean
    of the kinds. Positive means that longer solutions score higher.

    Args:
        scorer: whose scores are measured.
        data: solutions; those of which nothing is known are a kind of their own.
        aggregate: how the scores of a solution's steps become one.
        seed: of the bootstrap over solutions.

    Raises:
        InputError: no kind has three solutions of different lengths, or none has scores.
    """
    if not data:
        raise InputError("there is no solution to measure on", remedy="check the format and its options")
    scores = step_scores(scorer, data)
    lost = unmeasured(scores, data, ended=True)
    kept = rows_kept(lost)
    totals, items = totals_of(scores[kept], aggregate), [data[row] for row in kept]
    lengths = {
        "steps": np.array([sum(step.kind == "action" for step in item.steps) for item in items], float),
        "characters": np.array([len(item.text) for item in items], float),
    }
    kinds = {True: "right", False: "wrong", None: "unknown"}
    names = np.array([kinds[right(item)] for item in items])
    key = Key.seed(seed).fold("length-bias")
    drawn: dict[str, dict[str, Floats]] = {}
    for kind in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == kind)
        if len(rows) >= 3 and np.ptp(lengths["characters"][rows]) > 0:
            drawn[kind] = {of: _correlations(totals[rows], by[rows], key.fold(kind)) for of, by in lengths.items()}
    if not drawn:
        raise InputError("no three solutions of a kind differ in length", remedy="pass more solutions")
    groups: dict[str, Mapping[str, Estimate]] = {
        kind: {of: interval(values, int((names == kind).sum()), bounds=(-1.0, 1.0)) for of, values in made.items()}
        for kind, made in drawn.items()
    }
    means = {of: np.mean([made[of] for made in drawn.values()], axis=0) for of in lengths}
    metrics = {of: interval(values, len(items), bounds=(-1.0, 1.0)) for of, values in means.items()}
    protocol = (
        f"Spearman's correlation of a solution's total ({aggregate}) with its number of actions and of characters, "
        "among right and among wrong solutions; the mean of the kinds. Percentile bootstrap over solutions."
    )
    return BenchResult("length-bias", "characters", metrics, protocol, groups, unscored=int(lost.sum()))


def _correlations(totals: Floats, lengths: Floats, key: Key) -> Floats:
    """(1 + draws,) rank correlations: of all, then of bootstrap samples; 0 where either is the same for all."""
    rows: NDArray[np.int64] = np.concatenate([np.arange(len(totals))[None], resamples(len(totals), DRAWS, key)])
    one, other = (rankdata(values[rows], axis=1) for values in (totals, lengths))
    one, other = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (one, other))
    size = np.sqrt((one**2).sum(axis=1) * (other**2).sum(axis=1))
    return np.where(size > 0, (one * other).sum(axis=1) / np.where(size > 0, size, 1.0), 0.0)
