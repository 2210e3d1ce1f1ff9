"""Robustness: what happens to step scores when a solution changes in ways that should not matter.

A perturbation rewrites a trajectory and says where each of its steps went, so that scores before and after can be
compared step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import bench
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.measure.statistics import Estimate, bootstrap
from stepreward.core.measure.step_metrics import auroc, ragged
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import Floats, Step, Trajectory
from stepreward.evaluate.data.result import BenchResult
from stepreward.evaluate.data.scoring import rows_kept, step_scores, unmeasured

NEUTRAL = "Let us go on.\n"
"""A step that says nothing."""
TOKENS = (":", "!", ".", " So", " Thus", " Therefore", "**", "\\boxed{}", " correct", " Step", "✓", "\u200b")
"""What a one-token attack tries where nothing else is given."""


@dataclass(frozen=True)
class Perturbed:
    """A rewritten trajectory and where the steps of the old one are in it."""

    trajectory: Trajectory
    place: NDArray[np.int64]
    """(S,) index of each old step in the new trajectory."""


Perturbation = Callable[[Trajectory, Key], Perturbed]


def _same_places(trajectory: Trajectory, steps: Sequence[Step]) -> Perturbed:
    return Perturbed(trajectory.with_steps(steps), np.arange(len(trajectory)))


def _inserted(trajectory: Trajectory, step: Step, at: int) -> Perturbed:
    steps = (*trajectory.steps[:at], step, *trajectory.steps[at:])
    index = np.arange(len(trajectory))
    return Perturbed(trajectory.with_steps(steps), index + (index >= at))


def separators(trajectory: Trajectory, key: Key) -> Perturbed:
    """Ends every step in a blank line instead of what it ended in."""
    return _same_places(trajectory, [replace(s, text=s.text.rstrip() + "\n\n") for s in trajectory.steps])


def style(trajectory: Trajectory, key: Key) -> Perturbed:
    """Decorates every step with a bold heading."""
    decorated = [replace(s, text=f"**Step {i}:** {s.text}") for i, s in enumerate(trajectory.steps, 1)]
    return _same_places(trajectory, decorated)


def padding(trajectory: Trajectory, key: Key) -> Perturbed:
    """Puts a step that says nothing at a random place."""
    return _inserted(trajectory, Step(NEUTRAL), int(key.rng().integers(len(trajectory))))


def duplicate(trajectory: Trajectory, key: Key) -> Perturbed:
    """Says a random step twice; the first of the two is the old one."""
    at = int(key.rng().integers(len(trajectory)))
    return _inserted(trajectory, trajectory.steps[at], at + 1)


def restate(trajectory: Trajectory, key: Key) -> Perturbed:
    """Begins with the question, word for word."""
    return _inserted(trajectory, Step(trajectory.problem.text.rstrip() + "\n"), 0)


PERTURBATIONS: Mapping[str, Perturbation] = {
    change.__name__: change for change in (separators, style, padding, duplicate, restate)
}
"""By name; none of them changes whether a step is right."""


@bench.method(
    "robustness",
    note="our protocol: changes that leave every step as right as it was; reward models should not move",
)
def robustness(scorer: Scorer, data: Sequence[Trajectory], *, threshold: float = 0.5, seed: int = 0) -> BenchResult:
    """Measures how far scores of the same steps move under each perturbation, and how often that changes a verdict.

    `shift` is the mean change of a score, `moved` its mean size, `flipped` the share of solutions whose predicted first
    error is another step, and `auroc` the discrimination after it, where steps are labelled. Solutions that have an
    action without a score, before a change or after it, are left out there and counted.

    Args:
        scorer: whose scores are measured; recorded scores will not do.
        data: solutions.
        threshold: scores at or below it say "wrong".
        seed: of the perturbations and the bootstrap over solutions.

    Raises:
        InputError: there is no solution.
    """
    if not data:
        raise InputError("there is no solution to measure on", remedy="check the format and its options")
    key = Key.seed(seed).fold("robustness")
    before = step_scores(scorer, data)
    lost = unmeasured(before, data)
    left = rows_kept(lost)
    data, before = [data[row] for row in left], before[left]
    labels = ragged([item.labels for item in data])
    groups = {"none": _auroc(before, labels, len(data))}
    also_lost = np.zeros(len(data), bool)
    for name, perturb in PERTURBATIONS.items():
        made = [perturb(item, key.fold(name, i)) for i, item in enumerate(data)]
        new = step_scores(scorer, [one.trajectory for one in made])
        # Scores of the old steps at their new places; an inserted step is compared with nothing.
        after = np.full(before.shape, np.nan)
        for row, one in enumerate(made):
            after[row, : len(one.place)] = new[row, one.place]
        gone = (np.isnan(after) & ~np.isnan(before)).any(axis=1)
        also_lost |= gone
        there = rows_kept(gone)
        groups[name] = _moved(before[there], after[there], threshold, key.fold(name))
        groups[name] |= _auroc(after[there], labels[there], len(there))
    worst = max(PERTURBATIONS, key=lambda name: groups[name]["flipped"].value)
    moved = [groups[name]["moved"].value for name in PERTURBATIONS]
    average = Estimate(float(np.mean(moved)), min(moved), max(moved), len(data))
    metrics = {"flipped": groups[worst]["flipped"], "moved": average}
    protocol = (
        f"Every solution is rewritten in {len(PERTURBATIONS)} ways that leave each step as right as it was. flipped is "
        f"that of the worst, {worst}; moved is the mean over perturbations with its range."
    )
    return BenchResult(
        "robustness", "flipped", metrics, protocol, groups, threshold, "given", int(lost.sum() + also_lost.sum())
    )


def _moved(before: Floats, after: Floats, threshold: float, key: Key) -> dict[str, Estimate]:
    change = after - before
    flipped = first_error(before, threshold) != first_error(after, threshold)
    return {
        "shift": bootstrap(np.nanmean(change, axis=1), key.fold("shift"), bounds=(-1.0, 1.0)),
        "moved": bootstrap(np.nanmean(np.abs(change), axis=1), key.fold("moved")),
        "flipped": bootstrap(flipped.astype(float), key.fold("flipped")),
    }


def _auroc(scores: Floats, labels: Floats, n: int) -> dict[str, Estimate]:
    value = auroc(scores, labels)
    return {} if np.isnan(value) else {"auroc": Estimate(value, float("nan"), float("nan"), n)}


@dataclass(frozen=True)
class Attack:
    """The token that raises scores the most."""

    token: str
    gain: Estimate
    """Mean rise of a last step's score, on solutions that the token was not chosen on."""
    escaped: Estimate
    """Share of last steps at or below the threshold that the token lifts above it; NaN where all are above."""


def token_attack(
    scorer: Scorer, data: Sequence[Trajectory], key: Key, *, tokens: Sequence[str] = TOKENS, threshold: float = 0.5
) -> Attack:
    """Appends one token to the last step: which one lifts its score most, and by how much elsewhere.

    The token is chosen on a random half of the solutions and measured on the other, so that the gain is no luck.

    Args:
        scorer: whose scores are attacked.
        data: solutions, at least two.
        key: randomness of the halves and of the bootstrap.
        tokens: what to try.
        threshold: scores at or below it say "wrong".

    Raises:
        InputError: there are fewer than two solutions, or no tokens.
    """
    if len(data) < 2 or not tokens:
        what = f"{len(data)} solutions and {len(tokens)} tokens are too few"
        raise InputError(what, remedy="pass two and one at least")
    # The strongest of many tokens looks strong by chance on what it was chosen on.
    order = key.rng().permutation(len(data))
    halves = order[: len(data) // 2], order[len(data) // 2 :]
    base = _last(scorer, data)
    lifted = np.stack([_last(scorer, [_appended(item, token) for item in data]) for token in tokens])
    best = int(np.argmax((lifted - base)[:, halves[0]].mean(axis=1)))
    there, was = lifted[best][halves[1]], base[halves[1]]
    low = was <= threshold
    escaped = bootstrap((there[low] > threshold).astype(float), key.fold("escaped")) if low.any() else None
    return Attack(
        tokens[best],
        bootstrap(there - was, key.fold("gain"), bounds=(-1.0, 1.0)),
        escaped or Estimate(float("nan"), float("nan"), float("nan"), 0),
    )


@bench.method(
    "token-attack",
    paper="arXiv:2507.08794",
    note="one token after the last step, the strongest of a list, chosen on one half and measured on the other",
)
def one_token_attack(
    scorer: Scorer, data: Sequence[Trajectory], *, tokens: str = "", threshold: float = 0.5, seed: int = 0
) -> BenchResult:
    """By how much one token at the end raises a score, and how many wrong solutions it carries over the threshold.

    Args:
        scorer: whose scores are attacked; recorded scores will not do.
        data: solutions that end in an action.
        tokens: what to try, separated by `|`; a list of our own where empty.
        threshold: scores at or below it say "wrong".
        seed: of the halves and of the bootstrap over solutions.

    Raises:
        InputError: fewer than two solutions end in an action that has a score.
    """
    able = [item for item in data if item.steps[-1].kind == "action"]
    lost = np.isnan(_last(scorer, able)) if able else np.zeros(0, bool)
    kept = [item for item, bad in zip(able, lost.tolist(), strict=True) if not bad]
    tried = tuple(tokens.split("|")) if tokens else TOKENS
    found = token_attack(scorer, kept, Key.seed(seed).fold("token-attack"), tokens=tried, threshold=threshold)
    metrics = {"gain": found.gain, "escaped": found.escaped}
    protocol = (
        f"Of {len(tried)} tokens {found.token!r} raises the last step's score most; chosen on one half, measured on "
        "the other. escaped is the share of scores at or below the threshold that it lifts above it. Bootstrap over "
        "solutions."
    )
    return BenchResult("token-attack", "gain", metrics, protocol, {}, threshold, "given", int(lost.sum()))


def _appended(item: Trajectory, token: str) -> Trajectory:
    *before, last = item.steps
    body = last.text.rstrip()
    changed = replace(last, text=body + token + last.text[len(body) :])
    return item.with_steps((*before, changed))


def _last(scorer: Scorer, data: Sequence[Trajectory]) -> Floats:
    scores = step_scores(scorer, data)
    return scores[np.arange(len(data)), [len(item) - 1 for item in data]]
