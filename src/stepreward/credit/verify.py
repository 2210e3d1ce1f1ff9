"""The objective that an estimator of advantages climbs: its expected gradient by enumeration, and exact gradients.

A policy gradient adds A_{i,k} grad log pi(a_{i,k} | s_{i,k}) over the steps of a batch. Here the policy is a table over
a process so small that every group of `n` trajectories is enumerated. All probabilities of trajectories are multiples
of 1/16, so the batch of all 16^n groups of equally likely draws is the population itself: estimators that take
statistics over the batch are measured in the limit of large batches, all others exactly. The population as one
single group is the limit of large groups.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.method import Method
from stepreward.core.types import Floats

DRAWS = 16
"""Equally likely draws of a trajectory."""
GROUP = 3
"""Trajectories of a group by default."""
ADDED = 4
"""Tokens of a step that is added."""
_REWARD = {"a": 0.9, "b": 0.4, "z": 0.7, "n": 0.0}
_OUTCOME = {"z": 0.0, "az": 1.0, "bz": 0.0, "aaz": 1.0, "abz": 0.0, "baz": 1.0, "bbz": 0.0}
_LENGTH = {"a": 2, "b": 6, "z": 4}
"""Tokens of a step: what counts steps and what counts tokens must not be the same."""
_DURATION = {"a": 1.0, "b": 2.0, "z": 3.0}
_CHANCE = {"a": 0.25, "b": 0.25, "z": 0.5}
"""At every state but the last the policy takes a good step, a poor one, or the one that ends; after two steps it must
end. All scores are positive, as those of reward models are, so longer trajectories collect more."""
_ENTROPY = float(-sum(chance * np.log(chance) for chance in _CHANCE.values()))


@dataclass(frozen=True)
class Population:
    """All groups of trajectories of the process, equally likely, as flat arrays.

    B trajectories, N steps, D parameters of the policy.
    """

    rewards: Floats
    """(N,) step scores."""
    outcome: Floats
    """(B,)."""
    group: NDArray[np.int64]
    """(B,)."""
    offsets: NDArray[np.int64]
    """(B + 1,)."""
    state: NDArray[np.int64]
    """(N,) state before each step."""
    values: Floats
    """(N,) exact value of the state before each step: expected outcome from there."""
    lengths: NDArray[np.int64]
    """(N,) tokens."""
    node: NDArray[np.int64]
    """(N,) state after each step. States are whole histories here, so it is also the identity of state and action."""
    root: NDArray[np.int64]
    """(B,) tree: the first trajectory of a group is one, the others are another."""
    turn: NDArray[np.int64]
    """(N,) turn, of two steps each."""
    action_values: Floats
    """(N,) exact value of the state after each step."""
    grounding: Floats
    """(N,) 1 at the good and the poor step, 0 at the one that ends."""
    entropy: Floats
    """(N,) entropy of the policy at the state before each step."""
    duration: Floats
    """(N,) a good step takes 1, a poor one 2, the one that ends 3."""
    agent: NDArray[np.int64]
    """(N,) who acts: two take turns."""
    score: Floats
    """(N, D) gradient of each step's log-probability; 0 at steps that are no choice."""

    @cached_property
    def of(self) -> NDArray[np.int64]:
        """(N,) trajectory of each step."""
        return np.repeat(np.arange(len(self.outcome)), np.diff(self.offsets))

    def data(self) -> dict[str, Any]:
        """Everything that an estimator may take, by the names of the catalog."""
        known = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "score"}
        # A node is a whole history, so it is also the identity of an edge, and of what was said.
        return known | {
            "edge": self.node,
            "said": self.node,
            "prior": np.full(len(self.outcome), 0.25),
            "components": np.stack([self.outcome, self.total(self.rewards)], axis=1),
        }

    def at_steps(self, index: NDArray[np.int64], **changed: Any) -> Population:
        """The population whose steps are those of these indices, with what else changed; trajectories stay."""
        steps = {field.name for field in fields(self)} - {"outcome", "group", "offsets", "root"}
        return replace(self, **{name: getattr(self, name)[index] for name in steps} | changed)

    def total(self, values: NDArray[Any]) -> Floats:
        """(B,) sums over trajectories."""
        return np.bincount(self.of, weights=values, minlength=len(self.outcome)).astype(np.float64)

    def gradient(self, advantages: Floats) -> Floats:
        """(D,) expected gradient of one trajectory under these advantages (N,)."""
        return advantages @ self.score / len(self.outcome)


@cache
def population(n: int = GROUP) -> Population:
    """All groups of `n` trajectories of the process; made once, so its arrays are read-only."""
    draws = [path for path in _OUTCOME for _ in range(round(DRAWS * _probability(path)))]
    chosen = [path for group in itertools.product(draws, repeat=n) for path in group]
    states = {name: i for i, name in enumerate(dict.fromkeys(path[:k] for path in _OUTCOME for k in range(len(path))))}
    worth = {prefix: _value(prefix) for prefix in states}
    gradients = {(prefix, step): _score(prefix, step, states) for prefix in states for step in "abz"}
    steps = [(path[:k], path[k]) for path in chosen for k in range(len(path))]
    nodes = {name: i for i, name in enumerate(dict.fromkeys(prefix + step for prefix, step in gradients))}
    reached = {(prefix, step): _value(prefix + step) for prefix, step in set(steps)}
    made = Population(
        rewards=np.array([_REWARD[step] for _, step in steps]),
        outcome=np.array([_OUTCOME[path] for path in chosen]),
        group=np.repeat(np.arange(len(chosen) // n), n),
        offsets=np.cumsum([0, *map(len, chosen)]),
        state=np.array([states[prefix] for prefix, _ in steps]),
        values=np.array([worth[prefix] for prefix, _ in steps]),
        lengths=np.array([_LENGTH[step] for _, step in steps]),
        node=np.array([nodes[prefix + step] for prefix, step in steps]),
        root=np.tile(np.minimum(np.arange(n), 1), len(chosen) // n),
        turn=np.array([len(prefix) // 2 for prefix, _ in steps]),
        action_values=np.array([reached[step] for step in steps]),
        grounding=np.array([float(step != "z") for _, step in steps]),
        entropy=np.array([_ENTROPY if len(prefix) < 2 else 0.0 for prefix, _ in steps]),
        duration=np.array([_DURATION[step] for _, step in steps]),
        agent=np.array([len(prefix) % 2 for prefix, _ in steps]),
        score=np.stack([gradients[step] for step in steps]),
    )
    for field in fields(made):
        getattr(made, field.name).flags.writeable = False
    return made


def _probability(path: str) -> float:
    return float(np.prod([_CHANCE[step] for k, step in enumerate(path) if k < 2]))


def _value(prefix: str) -> float:
    below = [path for path in _OUTCOME if path.startswith(prefix)]
    chances = [_probability(path) for path in below]
    return float(np.dot(chances, [_OUTCOME[path] for path in below]) / sum(chances))


def _score(prefix: str, step: str, states: Mapping[str, int]) -> Floats:
    """Gradient of log softmax at a state by the logits of all states: one minus the chance, less the other chances."""
    made = np.zeros((len(states), 3))
    if len(prefix) < 2:
        made[states[prefix]] = [float(step == other) - chance for other, chance in _CHANCE.items()]
    return made.ravel()


NOTHING = "none"
"""The objective of an estimator whose expected gradient is that of nothing that could be stated."""
OBJECTIVES: dict[str, tuple[str, Callable[[Population], Floats]]] = {
    "outcome": ("the expected outcome", lambda p: p.outcome),
    "process": ("the expected sum of step scores", lambda p: p.total(p.rewards)),
    "centred-process": (
        "the expected sum of step scores, each less the mean over all steps",
        lambda p: p.total(p.rewards - p.rewards.mean()),
    ),
    "centred-return": (
        "the expected sum of step scores and outcome, less their mean over all steps for each step",
        # The mean over steps of what is paid at them, the outcome at the last.
        lambda p: (
            p.total(p.rewards)
            + p.outcome
            - p.total(np.full(len(p.rewards), float((p.rewards.sum() + p.outcome.sum()) / len(p.rewards))))
        ),
    ),
    "averaged-return": (
        "the expected outcome and sum of step scores, each less the mean over trajectories of their mean per token",
        lambda p: (
            p.outcome + p.total(p.rewards) - p.total(p.lengths) * (p.total(p.rewards) / p.total(p.lengths)).mean()
        ),
    ),
    "return": ("the expected sum of step scores and outcome", lambda p: p.total(p.rewards) + p.outcome),
    "attributed": (
        "the expected sum of what is attributed to steps and of one half for each that could be executed",
        lambda p: p.total(p.rewards + 0.5 * p.grounding),
    ),
    "posterior": (
        "the expected outcome and, where it is right, sum of step scores",
        lambda p: p.outcome * (1 + p.total(p.rewards)),
    ),
    "last-score": ("the expected last step score and outcome", lambda p: p.rewards[p.offsets[1:] - 1] + p.outcome),
    "components": (
        "the expected sum of the reward's parts, each over its own standard deviation",
        lambda p: sum(part / part.std() for part in (p.outcome, p.total(p.rewards))),
    ),
    "minimum": ("the expected least step score", lambda p: np.minimum.reduceat(p.rewards, p.offsets[:-1])),
}
"""By name: what it is, and its value for each trajectory, (B,)."""


def exact_gradient(p: Population, objective: str) -> Floats:
    """(D,) gradient of an objective: E[F grad log p(trajectory)]."""
    return p.gradient(OBJECTIVES[objective][1](p)[p.of])


def _split(p: Population) -> Population:
    """Every step in two that are scored alike; the choice lies in the first."""
    twice = np.repeat(np.arange(len(p.rewards)), 2)
    first = np.arange(len(twice)) % 2 == 0
    return p.at_steps(
        twice,
        offsets=2 * p.offsets,
        # States of the second half occur nowhere else.
        state=np.where(first, p.state[twice], p.state.max() + 1 + p.state[twice]),
        lengths=p.lengths[twice] // 2,
        node=np.where(first, p.node.max() + 1 + p.node[twice], p.node[twice]),
        duration=p.duration[twice] / 2,
        score=p.score[twice] * first[:, None],
    )


def _neutral(p: Population) -> Population:
    """A step without a choice and with a score of 0 before every last step."""
    index = np.insert(np.arange(len(p.rewards)), p.offsets[1:] - 1, -1)
    added = index < 0
    source = np.where(added, 0, index)
    ends = np.flatnonzero(added) + 1
    state, values = p.state[source], p.values[source]
    # The added step has one successor only, so its start decides its node.
    node, turn, action_values = p.node[source], p.turn[source], p.action_values[source]
    node[added], turn[added], action_values[added] = p.node.max() + 1 + state[ends], turn[ends], values[ends]
    state[added], values[added] = p.state.max() + 1, values[ends]
    fixed = {"rewards": 0.0, "lengths": ADDED, "grounding": 0.0, "entropy": 0.0, "duration": 1.0}
    return p.at_steps(
        source,
        offsets=np.concatenate([[0], np.cumsum(np.diff(p.offsets) + 1)]),
        state=state,
        values=values,
        node=node,
        turn=turn,
        action_values=action_values,
        score=p.score[source] * ~added[:, None],
        **{name: np.where(added, value, getattr(p, name)[source]) for name, value in fixed.items()},
    )


CHANGES: dict[str, tuple[str, Callable[[Population], Population]]] = {
    "shift": ("all step scores raised by one half", lambda p: replace(p, rewards=p.rewards + 0.5)),
    "split": ("every step cut in two that are scored alike", _split),
    "neutral": ("a step with a score of 0 added to every trajectory", _neutral),
}
"""By name: what changes in the step scores while the policy, its choices and the outcomes stay."""


@dataclass(frozen=True)
class Verdict:
    """What enumeration says of an estimator."""

    cosine: Mapping[str, float]
    """With the exact gradient of each objective, in groups of `n`."""
    limit: Mapping[str, float]
    """The same in the limit of large groups."""
    invariant: Mapping[str, bool]
    """Whether each change leaves the direction of the expected gradient alone, in groups of `n`."""


def verify(method: Method[..., Any], *, n: int = GROUP, settings: Mapping[str, Any] | None = None) -> Verdict:
    """Enumerates an estimator's expected gradient.

    Args:
        method: of the family credit.
        n: trajectories of a group.
        settings: hyper-parameters.
    """
    p = population(n)

    def expected(changed: Population) -> Floats:
        return changed.gradient(np.asarray(method.take(changed.data(), **(settings or {}))))

    base, limit = expected(p), expected(replace(p, group=np.zeros_like(p.group)))
    exact = {name: exact_gradient(p, name) for name in OBJECTIVES}
    return Verdict(
        {name: cosine(base, one) for name, one in exact.items()},
        {name: cosine(limit, one) for name, one in exact.items()},
        {name: cosine(base, expected(change(p))) > 1 - 1e-9 for name, (_, change) in CHANGES.items()},
    )


def cosine(one: Floats, other: Floats) -> float:
    """Cosine of two vectors; 1 if both are zero, 0 if one is."""
    sizes = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    # Sums over thousands of groups cancel to rounding, not to zero.
    if max(sizes) < 1e-12:
        return 1.0
    return float(one @ other) / (sizes[0] * sizes[1]) if min(sizes) >= 1e-12 else 0.0
