"""Graded samples as arrays, and benchmarks of them that need a whole pool: over-optimisation, distances of rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.statistics import Estimate, bootstrap
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import places, rows_kept, step_scores, unmeasured
from stepreward.evaluate.measures.overoptimisation import overoptimisation
from stepreward.evaluate.measures.reward_distances import epic, starc


@bench.method("over-optimisation", paper="arXiv:2210.10760", equation="sections 3.1 and 3.3, best-of-n")
def over_optimisation(
    scorer: Scorer, data: Sequence[Trajectory], *, aggregate: str = "last", seed: int = 0
) -> BenchResult:
    """What the true outcome does while more and more is selected by the scorer: best of 1, 2, 4 ... samples.

    The groups are the curve: `gold`, the outcome; `proxy`, the scorer's total; `divergence`, log n - (n - 1) / n.

    Args:
        scorer: the proxy that selects.
        data: graded solutions, several of each problem; of problems with more than the fewest, the first are taken.
        aggregate: how the scores of a solution's steps become one.
        seed: of the bootstrap over problems.

    Raises:
        InputError: a problem has one solution, one is not graded, or no problem has scores.
    """
    if not data or any(np.isnan(item.outcome) for item in data):
        raise InputError("a solution has no outcome, or there is none", remedy="pass graded samples")
    scores = step_scores(scorer, data)
    lost = unmeasured(scores, data, ended=True)
    problems = [item.problem.id for item in data]
    kept = rows_kept(lost, problems)
    of = places([problems[row] for row in kept])
    least = min(map(len, of.values()))
    if least < 2:
        raise InputError("a problem has one solution: nothing is selected", remedy="pass several of each")
    rows = np.array(kept)[np.array([mine[:least] for mine in of.values()])]
    totals = totals_of(scores, aggregate)
    gold = np.array([item.outcome for item in data], np.float64)
    sizes = sorted({*(2**k for k in range(30) if 2**k <= least), least})
    made = overoptimisation(totals[rows], gold[rows], sizes, Key.seed(seed).fold("over-optimisation"))
    curve: dict[str, Mapping[str, Estimate]] = {
        f"best of {n}": {"gold": true, "proxy": proxy, "divergence": _exact(nats, len(of))}
        for n, nats, true, proxy in zip(made.sizes, made.divergence, made.gold, made.proxy, strict=True)
    }
    peak = made.gold[made.sizes.index(made.peak)]
    metrics = {"gold": made.gold[-1], "highest_gold": peak, "peak": _exact(made.peak, len(of)), "proxy": made.proxy[-1]}
    protocol = (
        f"Expected outcome of the highest total ({aggregate}) of n samples, over all subsets of the {least} of each "
        f"problem; gold at n = {least}, and the highest, at n = {made.peak}. Bootstrap over problems."
    )
    return BenchResult("over-optimisation", "gold", metrics, protocol, curve, unscored=int(lost.sum()))


def _exact(value: float, n: int) -> Estimate:
    return Estimate(float(value), float(value), float(value), n)


@bench.method(
    "reward-distance",
    paper="arXiv:2309.15257",
    equation="definitions 1 to 4 (STARC, value-adjusted levelling, L2), and EPIC (arXiv:2006.13900)",
    note="in the tree of each problem's solutions, where states are prefixes and actions the steps that follow",
)
def reward_distance(scorer: Scorer, data: Sequence[Trajectory], *, discount: float = 0.9, seed: int = 0) -> BenchResult:
    """How far step scores as a reward are from the labels, whatever shaping and scale they come in: 0 alike, 1 opposed.

    The solutions of a problem are a tree, a finite process whose rewards are the step scores, or the labels, and the
    outcome where no step is labelled. Problems whose solutions nowhere part order nothing and are left out.

    Args:
        scorer: whose step scores are one reward.
        data: solutions, several of each problem, with labels or outcomes.
        discount: in [0, 1).
        seed: of the bootstrap over problems.

    Raises:
        InputError: no problem has solutions that part, nothing is known of a solution, or the discount is outside.
    """
    truth = [_gold(item) for item in data]
    scores = step_scores(scorer, data)
    lost = unmeasured(scores, data)
    kept = rows_kept(lost, [item.problem.id for item in data])
    distances = []
    for mine in places([data[row].problem.id for row in kept]).values():
        rows = [kept[at] for at in mine]
        process = _tree([data[row] for row in rows], [scores[row] for row in rows], [truth[row] for row in rows])
        if process is not None:
            first, second, moves = process
            distances.append((starc(first, second, moves, discount=discount), epic(first, second, discount=discount)))
    if not distances:
        raise InputError("no problem has solutions that part", remedy="pass several solutions of each problem")
    both, key = np.array(distances), Key.seed(seed).fold("reward-distance")
    metrics = {name: bootstrap(both[:, at], key.fold(name)) for at, name in enumerate(("starc", "epic"))}
    protocol = (
        f"Distance in [0, 1] of step scores and labels as rewards in the tree of a problem's solutions, discount "
        f"{discount:g}, uniform policy; the mean over problems whose solutions part. Bootstrap over problems."
    )
    return BenchResult("reward-distance", "starc", metrics, protocol, unscored=int(lost.sum()))


def _gold(item: Trajectory) -> Floats:
    """(S,) the reward that is meant: labels with 0 where none is, or the outcome at the end where no step has one."""
    if not np.isnan(item.labels).all():
        return np.nan_to_num(item.labels)
    if np.isnan(item.outcome):
        what = f"nothing is known of a solution of problem {item.problem.id!r}"
        raise InputError(what, remedy="pass labels or outcomes")
    made = np.zeros(len(item.labels))
    made[-1] = item.outcome
    return made


def _tree(
    items: Sequence[Trajectory], scores: Sequence[Floats], truth: Sequence[Floats]
) -> tuple[Floats, Floats, Floats] | None:
    """Both rewards and the transitions, (S, A, S), of the prefixes of solutions; None where they nowhere part.

    The last state is the end, which stays. Actions beyond those of a prefix repeat its own, as the process has as many
    everywhere; rewards of a step that several solutions share are averaged.
    """
    number: dict[tuple[object, ...], int] = {(): 0}
    follow: list[dict[int, list[tuple[float, float]]]] = [{}]
    for item, score, gold in zip(items, scores, truth, strict=True):
        path: tuple[object, ...] = ()
        for step, one, other in zip(item.steps, np.nan_to_num(score), gold, strict=False):
            here, path = number[path], (*path, step.identity)
            there = number.setdefault(path, len(number))
            follow.extend({} for _ in range(len(number) - len(follow)))
            follow[here].setdefault(there, []).append((float(one), float(other)))
    width = max(map(len, follow))
    # With one action everywhere every reward orders the one policy alike.
    if width < 2:
        return None
    end = len(follow)
    first, second, moves = (np.zeros((end + 1, width, end + 1)) for _ in range(3))
    for here, known in enumerate([*follow, {}]):
        after = list(known.items()) or [(end, [(0.0, 0.0)])]
        for action in range(width):
            there, rewards = after[action % len(after)]
            moves[here, action, there] = 1.0
            first[here, action], second[here, action] = np.mean(rewards, axis=0)
    return first, second, moves
