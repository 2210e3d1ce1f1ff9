"""Rollouts, which every estimator samples, and the counts of their outcomes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import wilson
from stepreward.core.runtime.flows import Flow, Grade, Propose
from stepreward.core.tree import StepTree
from stepreward.core.types import COLUMNS, LABEL, Floats, Problem, Provenance, Step, Trajectory

ADVANTAGE = "advantage"
Unfinished = Literal["wrong", "drop"]
"""How a rollout that a length limit cut counts: as a failure, as in the papers, where the value is the chance to
succeed within the limit; or not at all."""


def prefix_key(key: Key, problem: Problem, prefix: Sequence[Step]) -> Key:
    """The key of a prefix's rollouts: two estimators draw the same rollouts of the same prefix."""
    # Identities and not texts: an action and an observation of one text are different prefixes.
    text = hashlib.blake2b(repr([step.identity for step in prefix]).encode(), digest_size=16).hexdigest()
    return key.fold("rollouts", problem.id, text)


@dataclass(frozen=True, slots=True)
class Rollout:
    """One continuation to the end, with its grade."""

    steps: tuple[Step, ...]
    """The new steps."""
    outcome: float
    """Grade in [0, 1]; NaN where the grader does not know it, or where a cut rollout does not count."""
    finished: bool
    n_tokens: int


def rollouts(
    problem: Problem,
    prefix: tuple[Step, ...],
    n: int,
    key: Key,
    *,
    at_once: int = 0,
    unfinished: Unfinished = "wrong",
) -> Flow[list[Rollout]]:
    """Samples `n` continuations of a prefix to their ends and grades those that finished.

    Whatever `at_once` is, rollout i is the same: stopping at a success leaves out the later ones.

    Args:
        problem, prefix: where to go on from.
        n: rollouts, at least 1.
        key: the run's key; the prefix's own is derived from it, so that equal prefixes share rollouts.
        at_once: rollouts of a round; no round follows one with a success, for callers to whom only matters whether any
            succeeds. 0 samples all `n` together.
        unfinished: outcome of a rollout that was cut: 0 (`wrong`) or NaN (`drop`). Where most were cut and none
            succeeded, `Counts.record` takes the prefix for not measured either way.

    Raises:
        ValueError: `n` is not positive, `at_once` negative, or `unfinished` neither.
    """
    if n < 1 or at_once < 0 or unfinished not in ("wrong", "drop"):
        raise ValueError(
            "rollouts need n >= 1, at_once >= 0 and unfinished 'wrong' or 'drop', got "
            f"n={n}, at_once={at_once}, unfinished={unfinished!r}"
        )
    made: list[Rollout] = []
    while len(made) < n and not (at_once and any(rollout.outcome > 0.5 for rollout in made)):
        batch = min(at_once or n, n - len(made))
        (more,) = yield from rollouts_of(problem, [prefix], [batch], key, first=len(made), unfinished=unfinished)
        made += more
    return made


def rollouts_of(
    problem: Problem,
    prefixes: Sequence[tuple[Step, ...]],
    n: Sequence[int],
    key: Key,
    *,
    first: int = 0,
    unfinished: Unfinished = "wrong",
    greedy: bool = False,
) -> Flow[list[list[Rollout]]]:
    """Rollouts of several prefixes of a problem together: those that `rollouts` samples of each.

    Args:
        problem, prefixes: where to go on from.
        n: rollouts of each prefix.
        key: the run's key.
        first: number of the first rollout of each.
        unfinished: outcome of a rollout that was cut, see `rollouts`.
        greedy: take the likeliest token every time.
    """
    temperature = 0.0 if greedy else None
    answers = yield [
        Propose(problem, prefix, prefix_key(key, problem, prefix), n=count, first=first, temperature=temperature)
        for prefix, count in zip(prefixes, n, strict=True)
    ]
    wholes = [
        Grade(problem, prefix + c.steps) for prefix, some in zip(prefixes, answers, strict=True) for c in some
        if c.finished
    ]  # fmt: skip
    grades = iter((yield wholes))
    cut = 0.0 if unfinished == "wrong" else float("nan")
    return [
        [Rollout(c.steps, float(next(grades)) if c.finished else cut, c.finished, c.n_tokens) for c in some]
        for some in answers
    ]


def count(made: Sequence[Rollout], *, threshold: float = 0.5) -> tuple[int, int]:
    """Number of rollouts with a known outcome, and number of those above the threshold.

    0 and 0 where more than half were cut and none succeeded: that tells of the limit on their length, and not of the
    prefix; a success says that it can be right all the same.
    """
    outcomes = np.array([rollout.outcome for rollout in made], np.float64)
    right = int((outcomes > threshold).sum())
    if not right and 2 * sum(not rollout.finished for rollout in made) > len(made):
        return 0, 0
    return int((~np.isnan(outcomes)).sum()), right


@dataclass
class Counts:
    """Counts and values along one trajectory: entry t is of the prefix that ends in step t."""

    trajectory: Trajectory
    n_rollouts: NDArray[np.float64] = field(init=False)
    n_correct: NDArray[np.float64] = field(init=False)
    value: NDArray[np.float64] = field(init=False)
    root_value: float = float("nan")

    def __post_init__(self) -> None:
        size = len(self.trajectory)
        self.n_rollouts, self.n_correct = np.zeros(size), np.zeros(size)
        self.value = np.full(size, np.nan)

    def record(self, index: int, made: Sequence[Rollout], weights: Floats | None = None) -> float:
        """Counts rollouts of the prefix that ends in step `index` (-1: the bare problem); returns its value.

        The value is the share of right rollouts. Where they have weights, it is their share of the weights, and as many
        rollouts are counted as would be as exact without (Kish's effective sample size).

        The value is NaN if no rollout has a known outcome, or if more than half were cut and none succeeded: that tells
        of the limit on their length, and not of the step.
        """
        n: float
        right: float
        n, right = count(made)
        value = right / n if n else float("nan")
        if n and weights is not None:
            outcomes = np.array([rollout.outcome for rollout in made])
            weights = weights[~np.isnan(outcomes)]
            value = float(weights @ (outcomes[~np.isnan(outcomes)] > 0.5) / weights.sum())
            n = float(weights.sum() ** 2 / (weights**2).sum())
            right = n * value
        if index < 0:
            self.root_value = value
        else:
            self.n_rollouts[index], self.n_correct[index], self.value[index] = n, right, value
        return value

    def labels(self, estimator: str, key: Key, settings: dict[str, Any]) -> Trajectory:
        """The trajectory with the measured columns, NaN at observations; `label` is `value`."""
        return labelled(
            self.trajectory,
            np.where(self.trajectory.action, self.value, np.nan),
            self.n_rollouts,
            self.n_correct,
            self.root_value,
            Provenance(estimator, seed=key.bits, settings=settings),
        )


def labelled(
    trajectory: Trajectory,
    value: Floats,
    n_rollouts: NDArray[np.number[Any]],
    n_correct: NDArray[np.number[Any]],
    root_value: float,
    by: Provenance,
    more: Mapping[str, Floats] | None = None,
) -> Trajectory:
    """The trajectory with the columns that rollouts give, Wilson intervals among them; its label is the value.

    Its column `advantage` is what each action added to the value, as in PAV (arXiv:2410.08146, Eq. 2).

    Args:
        trajectory: S steps.
        value: (S,) estimated chance in [0, 1] that the policy solves the problem after each step; NaN = not measured.
        n_rollouts, n_correct: (S,) rollouts counted for each prefix, 0 where its value was inferred, and right ones.
        root_value: value of the bare problem, kept as a fact; NaN where not measured.
        by: how it was measured.
        more: (S,) further columns by name.
    """
    low, high = wilson(n_correct, n_rollouts)
    numbers = (value, n_rollouts, n_correct, low, high)
    columns = {name: np.asarray(one, np.float64) for name, one in zip(COLUMNS, numbers, strict=True)}
    columns[ADVANTAGE] = advantages(trajectory, columns["value"], root_value)
    made = trajectory.with_columns({**columns, **(more or {}), LABEL: columns["value"].copy()}, by)
    facts = made.facts if np.isnan(root_value) else {**made.facts, "root_value": float(root_value)}
    return replace(made, facts=facts, first_error=stated_first_error(made.labels))


def counted_columns(tree: StepTree, n: Floats, correct: Floats) -> dict[str, Floats]:
    """The columns of a tree whose nodes have rollouts: value is the share of right ones, else an end's outcome.

    Args:
        tree: of m nodes.
        n, correct: (m,) rollouts with a known outcome, and right ones.
    """
    low, high = wilson(correct, n)
    with np.errstate(invalid="ignore"):
        value = np.where(n > 0, correct / n, np.where(tree.terminal, tree.outcome, np.nan))
    return {"value": value, "n_rollouts": n, "n_correct": correct, "low": low, "high": high}


def advantages(trajectory: Trajectory, value: Floats, root_value: float) -> Floats:
    """(S,) value after each action less the value before it, NaN where either was not measured, and at observations."""
    made, at = np.full(len(trajectory), np.nan), np.flatnonzero(trajectory.action)
    made[at] = np.diff(value[at], prepend=root_value)
    return made


def named(trajectory: Trajectory, by: Provenance) -> Trajectory:
    """The labelled trajectory with the names of the policy, the grader and the scorer, if any, that measured it."""
    *others, last = trajectory.provenance
    scorer = {"scorer": by.settings["scorer"]} if "scorer" in by.settings else {}
    who = replace(last, policy=by.policy, grader=by.grader, settings={**last.settings, **scorer})
    return replace(trajectory, provenance=(*others, who))


def stated_first_error(labels: Floats) -> int | None:
    """The first step whose label is at or below 1/2, -1 where none is; None where no step has a label."""
    return None if np.isnan(labels).all() else int(first_error(labels))
