"""Rollouts of a problem that prefixes of its solutions share, and the values that follow from all of them.

A rollout that happens to go on as a solution does is a rollout of the longer prefix as well: it was not chosen for how
it ended. So a prefix draws only what it does not inherit, and what is known of longer prefixes makes its own value more
exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.prefix_names import Name, Prefix
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.label.estimators import actions_of
from stepreward.label.rollouts import Rollout, Unfinished, count, rollouts_of

Weights = Literal["counts", "logprobs"]
"""What says how likely the next step of a solution is: how often it was drawn, or the policy's log-probabilities."""
Draw = tuple[tuple[Step, ...], float, bool]
"""A rollout: the steps behind a prefix, its outcome, and whether it finished."""


@dataclass(eq=False)
class Point:
    """A prefix of one solution or several."""

    prefix: Prefix
    added: tuple[Step, ...] = ()
    """The steps that lead here from the point before: an action, with the observations before it."""
    outcome: float = float("nan")
    """Of a graded solution that ends here."""
    open: bool = False
    """Whether rollouts go on from here; otherwise a graded solution ends here and none goes on."""
    after: dict[object, Point] = field(default_factory=dict)
    draws: list[Draw] = field(default_factory=list)
    inferred: bool = False
    """No rollout of a shorter prefix succeeded: the value is 0."""
    value: float = float("nan")
    """NaN where not measured."""
    variance: float = 0.0
    exact: float = 0.0
    """Independent rollouts whose share of right ones would be as exact as the value; 0 where it was inferred."""

    @property
    def right_end(self) -> bool:
        """Whether a right solution goes through it."""
        return self.outcome > 0.5 or any(point.right_end for point in self.after.values())

    def below(self) -> Iterator[Point]:
        """Every longer prefix."""
        for point in self.after.values():
            yield point
            yield from point.below()

    def leads_to(self, steps: Sequence[Step]) -> Point | None:
        """The next point of a rollout from here, if it goes on as a solution does."""
        return next((p for key, p in self.after.items() if _identity(steps[: len(p.added)]) == key), None)

    def inherit(self) -> None:
        """Passes the rollouts that go on as a solution does on to the next points."""
        for steps, outcome, finished in self.draws:
            point = self.leads_to(steps)
            if point is not None:
                point.draws.append((steps[len(point.added) :], outcome, finished))


def _identity(steps: Sequence[Step]) -> tuple[object, ...]:
    return tuple(step.identity for step in steps)


def points_of(solutions: Sequence[Trajectory]) -> tuple[Point, dict[Name, Point]]:
    """The bare problem, below it the prefixes of its solutions that end in an action or with a graded end; all by name.

    Raises:
        InputError: a solution has no step, or is finished but not graded.
    """
    root = Point(Prefix(), open=True)
    every = {root.prefix.name: root}
    for one in solutions:
        inner = [at + 1 for at in actions_of(one)]
        graded = not np.isnan(one.outcome)
        at, whole = root, Prefix(one.steps)
        for end in [*inner, len(one)] if graded else inner:
            added = one.steps[len(at.prefix) : end]
            point = at.after.setdefault(_identity(added), Point(whole.first(end), added))
            every[point.prefix.name] = at = point
            if graded and end == len(one):
                at.outcome = one.outcome
            else:
                at.open = True
    return root, every


def draw(
    problem: Problem, top: Point, n: int, key: Key, *, root: bool, until_lost: bool, unfinished: Unfinished
) -> Flow[None]:
    """Gives every open prefix at least `n` rollouts, inherited ones included, shorter prefixes first.

    Args:
        problem: whose solutions they are.
        top: the bare problem.
        n: rollouts of each prefix.
        key: the run's key.
        root: draw for the bare problem too.
        until_lost: where no rollout of a prefix succeeds and no right solution goes through it, all longer
            prefixes have the value 0, inferred.
        unfinished: what a cut rollout counts as.
    """
    level = [top]
    while level:
        asked = [p for p in level if p.open and len(p.draws) < n and (root or p is not top)]
        left = [n - len(p.draws) for p in asked]
        if asked:
            some = yield from rollouts_of(problem, [p.prefix for p in asked], left, key, unfinished=unfinished)
            for point, made in zip(asked, some, strict=True):
                point.draws += [(one.steps, one.outcome, one.finished) for one in made]
        following: list[Point] = []
        for point in level:
            known, right = _count(point.draws)
            if until_lost and point is not top and known and not right and not point.right_end:
                for longer in point.below():
                    longer.inferred = True
                continue
            point.inherit()
            following += point.after.values()
        level = following


def measure(top: Point, weights: Weights) -> None:
    """Values every prefix that has rollouts, longer prefixes first."""
    mean = _by_counts if weights == "counts" else _by_probability
    for point in reversed([top, *top.below()]):
        if point.inferred:
            point.value = 0.0
            continue
        if not point.open:
            # Where a policy goes on behind the end of a solution, rollouts say what that is worth, and not its outcome.
            ends = all(not steps for steps, *_ in point.draws)
            point.value = float(point.outcome > 0.5) if ends else float("nan")
            continue
        total, right = _count(point.draws)
        if not total:
            continue
        known = [(steps, float(outcome > 0.5), ended) for steps, outcome, ended in point.draws if outcome == outcome]
        value, point.variance = mean(point, known)
        # A value may leave the unit interval where few draws meet unlikely steps: a success is no loss all the same.
        point.value = min(value, 1.0) if value > 0 or not right else right / total
        point.exact = _alike(point.value, point.variance, len(known))


def _by_counts(point: Point, draws: Sequence[Draw]) -> tuple[float, float]:
    """Value of a prefix and its variance, every rollout counting once."""
    n, value, square, variance, rest = len(draws), 0.0, 0.0, 0.0, list[float]()
    share = dict.fromkeys(point.after.values(), 0.0)
    for steps, outcome, _ in draws:
        longer = point.leads_to(steps)
        if longer is None or not longer.open or np.isnan(longer.value) or longer.inferred:
            rest.append(outcome)
        else:
            share[longer] += 1 / n
    for longer, part in share.items():
        if part:
            value, square = value + part * longer.value, square + part * longer.value**2
            variance += part**2 * longer.variance
    if rest:
        part, mean = len(rest) / n, float(np.mean(rest))
        value, square = value + part * mean, square + part * mean**2
        variance += part**2 * _binomial(mean, len(rest))
    return value, variance + max(0.0, square - value**2) / n


@dataclass
class _Kind:
    """Rollouts that leave the solutions of a problem with one step."""

    p: float
    """Its probability among the steps that leave; 0 where there is no step, of which no probability is known."""
    value: float
    variance: float
    draws: int


def _by_probability(point: Point, draws: Sequence[Draw]) -> tuple[float, float]:
    """Value of a prefix and its variance, next steps counting by their probability.

    V = sum of p_a V_a over next steps a of solutions + (1 - sum of p_a) U, U being the value where rollouts leave them.
    """
    value = variance = within = 0.0
    known = [p for p in point.after.values() if not (np.isnan(p.value) or p.inferred)]
    met: dict[Point, tuple[Step, ...]] = dict.fromkeys(known, ())
    left: list[Draw] = []
    for one in draws:
        longer = point.leads_to(one[0])
        if longer is None or longer not in met:
            left.append(one)
        else:
            met[longer] = one[0][: len(longer.added)]
    for longer, steps in met.items():
        # Rollouts say what is likely to whoever draws them; a solution may be another's.
        p = _probability(steps) if steps else _probability(longer.added, unknown=0.0)
        value, variance, within = value + p * longer.value, variance + p**2 * longer.variance, within + p
    rest = max(0.0, 1.0 - within)
    if left and rest:
        beside, spread = outside(left, rest)
        return value + rest * beside, variance + rest**2 * spread
    # Nothing is known of what no rollout did: its variance is that of any value between 0 and 1 alike.
    guess = value / within if within else 0.5
    return value + rest * guess, variance + rest**2 * (guess**2 - guess + 1 / 3)


def outside(draws: Sequence[Draw], rest: float) -> tuple[float, float]:
    """Value where rollouts leave the solutions, and its variance.

    U = mean over draws i of  sum of q_a V_a over a in S_i + b_i (1 - sum of q_a) + [a_i not in S_i] (V_{a_i} - b_i)

    S_i are the steps of all draws but i, q_a the probability of step a among those that leave, and b_i, the control
    variate, the mean of the others' values. Draw i is a sample of what S_i leaves out: unbiased.

    Args:
        draws: rollouts of a prefix that leave.
        rest: probability of leaving.
    """
    seen: dict[object, list[Draw]] = {}
    for i, one in enumerate(draws):
        first = _next(one[0])
        seen.setdefault(_identity(first) if first else i, []).append(one)
    kinds, n = [_kind(some, rest) for some in seen.values()], len(draws)
    mean = sum(kind.draws * kind.value for kind in kinds) / n
    missing = max(0.0, 1.0 - sum(kind.p for kind in kinds))
    value = variance = once = 0.0
    for kind in kinds:
        others, weight = (n * mean - kind.value) / (n - 1) if n > 1 else 0.0, kind.p
        if kind.draws == 1:
            weight = (1 - 1 / n) * kind.p + 1 / n
            once += weight**2
            value += others * (kind.p - 1) / n
        else:
            variance += weight**2 * kind.variance
        value += weight * kind.value + kind.draws / n * others * missing
    between = n * _binomial(mean, n)
    return value, variance + between * max(once, missing * min(missing, 1 / (n + 1)))


def _kind(draws: Sequence[Draw], rest: float) -> _Kind:
    first = _next(draws[0][0])
    mean = float(np.mean([outcome for _, outcome, _ in draws]))
    if not first:
        return _Kind(0.0, mean, 0.0, len(draws))
    ends = all(len(steps) == len(first) for steps, *_ in draws)
    p = min(1.0, _probability(first) / rest)
    return _Kind(p, mean, 0.0 if ends else _binomial(mean, len(draws)), len(draws))


def _alike(value: float, variance: float, most: int) -> float:
    """Number of independent rollouts whose mean has this variance, at the value moved towards 1/2 by two of them."""
    p = (most * value + 1) / (most + 2)
    return p * (1 - p) / variance if variance > 0 else float(most)


def _binomial(mean: float, n: int) -> float:
    """Variance of a share of n, at the share moved towards 1/2 by two more: never 0."""
    p = (n * mean + 1) / (n + 2)
    return p * (1 - p) / n


def _next(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The next action with the observations before it; all that is left where none follows."""
    at = next((i for i, step in enumerate(steps) if step.kind == "action"), len(steps) - 1)
    return steps[: at + 1]


def _count(draws: Sequence[Draw]) -> tuple[int, int]:
    return count([Rollout(steps, outcome, finished, 0) for steps, outcome, finished in draws])


def _probability(steps: Sequence[Step], unknown: float | None = None) -> float:
    """Probability of steps, of their log-probabilities.

    Raises:
        InputError: a step has none, and no number stands for what is unknown.
    """
    total = 0.0
    for step in steps:
        if step.kind == "action":
            if not step.logprobs:
                if unknown is not None:
                    return unknown
                what = f"a step has no log-probabilities: {step.text[:60]!r}"
                raise InputError(what, remedy="take weights=counts, or a policy that reports them")
            total += sum(step.logprobs)
    return min(1.0, float(np.exp(total)))
