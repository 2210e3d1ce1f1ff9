"""RewardBench 2's subset Ties: many right answers must score alike, and all above the wrong ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, resamples
from stepreward.core.types import Comparison, Floats
from stepreward.evaluate.measures.counts import interval

TIES = "Ties"
WEIGHTS: Mapping[str, float] = {
    "tied_accuracy": 0.30,
    "ref_accuracy": 0.30,
    "preferred": 0.20,
    "preferred_hard": 0.20,
    "margin": 0.01,
}
"""Of the parts in the score, which can reach 1.01; as in the authors' `process_single_model`."""
DRAWS = 1000


def ties_score(data: Sequence[Comparison], scores: Sequence[Floats], key: Key) -> dict[str, Estimate]:
    """The score of the subset Ties and its parts (arXiv:2506.01937; `process_single_model` of the authors).

        gap = worst right - best wrong        spread = best right - worst right        (of a "tied" prompt)

    `ref_accuracy` and `tied_accuracy` are shares of prompts with gap > 0, `preferred` of gap > spread, `preferred_hard`
    the same with the smaller gap of the prompt and of its reference; `margin` is the mean of
    tanh(smaller gap / spread - 1), where 0/0 counts as 0.

    Args:
        data: rows of the subset; `meta["row_id"]` is `ref:N`, with one right answer, or `tied:N`, with several.
        scores: of each row's candidates.
        key: randomness of the bootstrap over N.

    Raises:
        InputError: an id is of another form, a tied prompt has one right answer, or no N has both rows.
    """
    table: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for item, row in zip(data, scores, strict=True):
        kind, _, number = str(item.meta.get("row_id", "")).partition(":")
        right = np.array(item.preferred) >= max(item.preferred)
        if kind not in table or not number or right.all() or (kind == "tied" and right.sum() < 2):
            what = f"row {item.meta.get('row_id')!r} of {TIES} has {int(right.sum())} right of {len(right)} answers"
            raise InputError(what, remedy="ids must be ref:N and tied:N, a tied row has two right answers or more")
        good = row[right]
        table[kind][number] = (float(good.min() - row[~right].max()), float(good.max() - good.min()))
    ref, tied = table["ref"], table["tied"]
    if not ref.keys() & tied.keys():
        raise InputError(f"no prompt of {TIES} has a reference row and a tied row", remedy="pass the whole subset")
    parts = np.array([_parts(ref.get(one), tied.get(one)) for one in sorted(ref.keys() | tied.keys())])
    drawn = np.concatenate([parts[None], parts[resamples(len(parts), DRAWS, key)]])
    # A sample of prompts without any pair has no score; NaN leaves it out.
    real = ~np.isnan(drawn)
    counts = real.sum(axis=1)
    means = np.where(counts > 0, np.where(real, drawn, 0.0).sum(axis=1) / np.maximum(counts, 1), np.nan)
    made = {name: interval(means[:, at], len(parts)) for at, name in enumerate(WEIGHTS)}
    return {"score": interval(means @ np.array(list(WEIGHTS.values())), len(parts)), **made}


def _parts(ref: tuple[float, float] | None, tied: tuple[float, float] | None) -> list[float]:
    """Each part of one prompt in the order of the weights, NaN where a row is missing."""
    nothing = float("nan")
    first = [nothing if tied is None else float(tied[0] > 0), nothing if ref is None else float(ref[0] > 0)]
    if ref is None or tied is None:
        return [*first, nothing, nothing, nothing]
    (gap, spread), smaller = tied, min(ref[0], tied[0])
    # Without a spread: tanh of plus or minus infinity, and 0 for 0/0.
    margin = float(np.tanh(smaller / spread - 1)) if spread > 0 else float(np.sign(smaller))
    return [*first, float(gap > spread), float(smaller > spread), margin]
