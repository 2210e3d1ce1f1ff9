"""When to ask a stronger policy: a table by dynamic programming over binned scores, under a budget of questions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.files.atomic_files import write_text
from stepreward.core.files.row_files import stamp
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import Estimate, percentile_interval, resamples
from stepreward.core.types import SCORE, Floats, Trajectory

ASKED = "asked"
"""Key of a step's meta: the stronger policy wrote it."""
_COLLECT = "search --method intervention --set random=0.3"
_PRECISION = 1e-7
"""Of the price of a question."""


@dataclass(frozen=True)
class Transitions:
    """A Markov chain of H steps with two actions, 0 to act and 1 to ask; a row lacks the chance to end."""

    to: Floats
    """(H, 2, K, K) chance of each next state."""
    reward: Floats
    """(H, 2, K) expected outcome of ending now: the chance to end times the mean outcome there."""


@dataclass(frozen=True)
class AskingPlan:
    """When to ask at a price, and what comes of it from each state at the first step."""

    ask: NDArray[np.bool_]
    """(H, K) whether to ask at each step in each state."""
    value: Floats
    """(K,) expected outcome, the price not counted."""
    uses: Floats
    """(K,) expected questions."""


def plan_at(price: float, chain: Transitions) -> AskingPlan:
    """The best plan at a price of a question, by backward induction; equals act.

        V_t(s) = max( E[V_{t+1} | act], E[V_{t+1} | ask] - r ),    V_H = 0

    Args:
        price: r, in units of the outcome.
        chain: of the states.
    """
    horizon, _, states = chain.reward.shape
    ask = np.zeros((horizon, states), bool)
    value, uses = np.zeros(states), np.zeros(states)
    at = np.arange(states)
    for step in range(horizon - 1, -1, -1):
        values = chain.reward[step] + chain.to[step] @ value
        used = chain.to[step] @ uses + np.array([[0.0], [1.0]])
        net = values - price * used
        ask[step] = net[1] > net[0] + 1e-12
        chosen = ask[step].astype(int)
        value, uses = values[chosen, at], used[chosen, at]
    return AskingPlan(ask, value, uses)


def plan_within(budget: float, chain: Transitions, start: int) -> tuple[AskingPlan, float]:
    """The plan of the lowest price whose expected questions from a state keep to a budget, and that price.

    Expected questions do not rise with the price, which is found by bisection. No plan that asks as little or less has
    a higher value; a mixture of two plans may come closer to the budget.

    Args:
        budget: most expected questions, not negative.
        chain: of the states.
        start: the state in which an episode begins.
    """
    low, high = 0.0, 1.0 + _PRECISION
    plan = plan_at(low, chain)
    if plan.uses[start] <= budget:
        return plan, low
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if plan_at(middle, chain).uses[start] <= budget:
            high = middle
        else:
            low = middle
    return plan_at(high, chain), high


@dataclass(frozen=True)
class InterventionTable:
    """Whether to ask a stronger policy for the next step, by the number of steps so far and the score of the last."""

    edges: tuple[float, ...]
    """Bounds of the bins of scores, ascending: K - 2 of them. Bin i has scores above edge i - 1, up to edge i."""
    ask: tuple[tuple[bool, ...], ...]
    """(H, K), the last state being that without a score, as at the beginning."""
    price: float
    """Of a question, in units of the outcome, at which these are the best decisions."""
    value: float
    """Expected outcome by the fitted chain."""
    uses: float
    """Expected questions by the fitted chain."""
    without: float
    """Expected outcome without a question."""

    def asks(self, step: int, score: float) -> bool:
        """Whether to ask after so many steps, the last of which has this score, NaN where there is none."""
        row = self.ask[min(step, len(self.ask) - 1)]
        return row[-1 if np.isnan(score) else int(np.searchsorted(self.edges, score))]

    def check(self) -> None:
        """Checks that there is a decision for each state.

        Raises:
            ValueError: there is none, or bounds do not ascend.
        """
        states = len(self.edges) + 2
        if not self.ask or any(len(row) != states or {type(one) for one in row} != {bool} for row in self.ask):
            raise ValueError(f"'ask' is not a list of rows of {states} true or false, two more than 'edges'")
        if not (np.diff(np.array(self.edges, np.float64)) > 0).all():
            raise ValueError(f"'edges' do not ascend: {list(self.edges)}")

    def save(self, path: str | Path) -> None:
        """Writes it as JSON.

        Raises:
            StoreError: the file cannot be written.
        """
        write_text(Path(path), json.dumps(asdict(self)) + "\n")


def load_table(path: str | Path) -> InterventionTable:
    """Reads a saved table.

    Raises:
        InputError: the file is not there, or is no table.
    """
    return _loaded(str(path), repr(stamp(path)))


@lru_cache(maxsize=8)
def _loaded(path: str, _: str) -> InterventionTable:
    """The table in a file; a file that was written again has another stamp, and is read again."""
    try:
        row: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        made = InterventionTable(**{**row, "edges": tuple(row["edges"]), "ask": tuple(map(tuple, row["ask"]))})
        made.check()
    except (OSError, ValueError, TypeError, KeyError) as error:
        what = f"{path} is no table of interventions: {error}"
        raise InputError(what, remedy="write one by `stepreward interventions fit`") from error
    return made


def fit_interventions(
    rows: Iterable[Trajectory], *, budget: float, bins: int = 5, column: str = SCORE
) -> InterventionTable:
    """Fits a table to graded solutions in which a stronger policy wrote some steps, chosen at random.

    States are bins of the last step's score, of about equal numbers, and the beginning. Chances are counted step by
    step; where an action was never tried in a state at a step, those of all steps, or else of all states, stand in.

    Args:
        rows: of `search --method intervention --set random=0.3`, or others whose meta marks steps as `asked`.
        budget: C, most expected questions of a solution.
        bins: of scores.
        column: of the scores.

    Raises:
        InputError: no row has an outcome and scores, or no step was asked for, or all were.
        ValueError: `budget` is negative, or `bins` is not positive.
    """
    if budget < 0 or bins < 1:
        raise ValueError(f"expected a budget of at least 0 and a bin at least, got {budget} and {bins}")
    known = _known(rows, column)
    scores = np.concatenate([one.column(column)[one.action][:-1] for one in known])
    edges = _edges(scores[~np.isnan(scores)], bins)
    counts, ended = (np.sum(some, axis=0) for some in zip(*_counted(known, edges, column), strict=True))
    _check_tried(counts, ended)
    chain, start = _shares(counts, ended), len(edges) + 1
    plan, price = plan_within(budget, chain, start)
    # No outcome is worth a question at twice the highest.
    never = plan_at(2.0, chain)
    return InterventionTable(
        tuple(edges.tolist()), tuple(map(tuple, plan.ask.tolist())), price, float(plan.value[start]),
        float(plan.uses[start]), float(never.value[start]),
    )  # fmt: skip


def evaluate_interventions(
    table: InterventionTable, rows: Iterable[Trajectory], *, column: str = SCORE, seed: int = 0, draws: int = 500
) -> dict[str, Estimate]:
    """What a table's decisions are worth by other solutions than those that it was fitted to.

    The chain of these solutions is counted as in `fit_interventions`, and the table's decisions are followed through
    it: the expected outcome and questions, beside those of never asking and of asking at every step. Intervals are
    bootstraps over problems.

    Args:
        table: fitted elsewhere.
        rows: as of `fit_interventions`.
        column: of the scores.
        seed: of the intervals.
        draws: resamples of the problems.

    Returns:
        `value` and `uses` of the table, `value_never`, `value_always`, `uses_always`, and `gain`, that of the table
        over never asking.

    Raises:
        InputError: no row has an outcome and scores, or no step was asked for, or all were.
    """
    known, edges = _known(rows, column), np.array(table.edges)
    parts = _counted(known, edges, column)
    order = {name: place for place, name in enumerate(dict.fromkeys(one.problem.id for one in known))}
    counts = np.zeros((len(order), *parts[0][0].shape))
    ended = np.zeros((len(order), *parts[0][1].shape))
    for one, (moves, ends) in zip(known, parts, strict=True):
        counts[order[one.problem.id]] += moves
        ended[order[one.problem.id]] += ends
    horizon, start = counts.shape[1], len(edges) + 1
    ask = np.array([table.ask[min(step, len(table.ask) - 1)] for step in range(horizon)])
    plans = {"": ask, "_never": np.zeros_like(ask), "_always": np.ones_like(ask)}

    _check_tried(counts.sum(0), ended.sum(0))

    def followed(times: Floats) -> dict[str, float]:
        moves, ends = np.tensordot(times, counts, 1), np.tensordot(times, ended, 1)
        chain = _shares(moves, ends)
        made = {name: following(plan, chain) for name, plan in plans.items()}
        found = {f"value{name}": float(plan.value[start]) for name, plan in made.items()}
        found |= {f"uses{name}": float(plan.uses[start]) for name, plan in made.items() if name != "_never"}
        found |= {"gain": found["value"] - found["value_never"]}
        # A resample without one of the actions says nothing of what that is worth.
        return found if _tried(moves, ends).all() else dict.fromkeys(found, float("nan"))

    key = Key.seed(seed).fold("interventions")
    drawn = resamples(len(order), draws, key)
    plain = followed(np.ones(len(order)))
    again = [followed(np.bincount(one, minlength=len(order)).astype(float)) for one in drawn]
    return {
        name: percentile_interval(value, np.array([one[name] for one in again]), len(order), bounds=None)
        for name, value in plain.items()
    }


def following(ask: NDArray[np.bool_], chain: Transitions) -> AskingPlan:
    """What comes of given decisions, by backward induction.

    Args:
        ask: (H, K).
        chain: of the states.
    """
    horizon, _, states = chain.reward.shape
    value, uses = np.zeros(states), np.zeros(states)
    at = np.arange(states)
    for step in range(horizon - 1, -1, -1):
        chosen = ask[step].astype(int)
        value = (chain.reward[step] + chain.to[step] @ value)[chosen, at]
        uses = (chain.to[step] @ uses)[chosen, at] + chosen
    return AskingPlan(ask, value, uses)


def lacking(one: Trajectory, column: str) -> str:
    """What a solution lacks to tell when to ask: an outcome, a step or scores; "" where it lacks nothing."""
    there = {
        "outcome": not np.isnan(one.outcome), "step of the policy": bool(one.action.any()),
        f"column {column!r}": column in one.columns,
    }  # fmt: skip
    return next((what for what, has in there.items() if not has), "")


def _known(rows: Iterable[Trajectory], column: str) -> list[Trajectory]:
    """The graded solutions with scores.

    Raises:
        InputError: there is none.
    """
    known = [one for one in rows if not lacking(one, column)]
    if not known:
        raise InputError(f"no solution has an outcome and a column {column}", remedy="grade and score them first")
    return known


def _tried(counts: Floats, ended: Floats) -> Floats:
    """(2,) steps of each action."""
    tried: Floats = counts.sum((0, 2, 3)) + ended[..., 0].sum((0, 2))
    return tried


def _check_tried(counts: Floats, ended: Floats) -> None:
    """Checks that solutions say what comes of both actions.

    Raises:
        InputError: no step was asked for, or all were.
    """
    tried = _tried(counts, ended)
    if not tried.all():
        what = f"of {int(tried.sum()):,} steps {int(tried[1]):,} were asked for: both are needed"
        raise InputError(what, remedy=f"collect solutions by {_COLLECT}")


def _counted(known: Sequence[Trajectory], edges: Floats, column: str) -> list[tuple[Floats, Floats]]:
    """Of each solution, (H, 2, K, K) counts of next states, and (H, 2, K, 2) number of ends and sum of outcomes."""
    states, horizon = len(edges) + 2, max(int(one.action.sum()) for one in known)
    made = []
    for one in known:
        counts, ended = np.zeros((horizon, 2, states, states)), np.zeros((horizon, 2, states, 2))
        own = one.column(column)[one.action]
        at = np.where(np.isnan(own), states - 1, np.searchsorted(edges, own)).tolist()
        asked = [int(bool(step.meta.get(ASKED))) for step in one.steps if step.kind == "action"]
        before = [states - 1, *at]
        for step, after in enumerate(at[:-1]):
            counts[step, asked[step], before[step], after] += 1
        ended[len(at) - 1, asked[-1], before[len(at) - 1]] += 1.0, one.outcome
        made.append((counts, ended))
    return made


def _shares(counts: Floats, ended: Floats) -> Transitions:
    """Counted chances of each step, action and state; where one was never tried those of all steps, else of all states.

    Args:
        counts: (H, 2, K, K) of next states.
        ended: (H, 2, K, 2) number of ends, and sum of their outcomes.
    """
    to, reward = np.zeros_like(counts), np.zeros(counts.shape[:3])
    missing = np.ones(counts.shape[:3], bool)
    for axes in ((), (0,), (0, 2)):
        seen, ends = (np.broadcast_to(x.sum(axes, keepdims=True), x.shape) if axes else x for x in (counts, ended))
        total = seen.sum(3) + ends[..., 0]
        new = missing & (total > 0)
        to[new], reward[new] = seen[new] / total[new][:, None], ends[new][:, 1] / total[new]
        missing &= ~new
    return Transitions(to, reward)


def _edges(scores: Floats, bins: int) -> Floats:
    """Bounds between distinct scores next to the quantiles, so that each bin has some."""
    values = np.unique(scores)
    if len(values) < 2:
        return np.zeros(0)
    above = np.searchsorted(values, np.quantile(scores, np.arange(1, bins) / bins), side="right")
    above = np.clip(above, 1, len(values) - 1)
    return np.unique((values[above - 1] + values[above]) / 2)
