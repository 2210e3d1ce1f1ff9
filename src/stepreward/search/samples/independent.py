"""Search by independent samples: votes, best-of-N, and the policy as its own verifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from stepreward.core.catalog import search
from stepreward.core.errors import MissingDataError
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Count
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Found, choice, total_of
from stepreward.search.growth import Growth


@search.method("majority", paper="arXiv:2203.11171", equation="section 2", budget=budgets.samples)
def majority_vote(problem: Problem, key: Key, *, n: Count = 16) -> Flow[Found]:
    """Samples `n` solutions and takes the answer given most often; needs no scorer."""
    growth = Growth(problem, key)
    (candidates,) = yield from growth.complete([ROOT], n)
    return (yield from growth.conclude(candidates, select="majority"))


@search.method("best-of-n", paper="arXiv:2110.14168", equation="section 4.2", asks=("scorer",), budget=budgets.samples)
def best_of_n(problem: Problem, key: Key, *, n: Count = 16, aggregate: str = "min") -> Flow[Found]:
    """Samples `n` solutions, scores their steps and takes the one with the best total."""
    return (yield from _sample_and_select(problem, key, n, aggregate, "best-of-n"))


@search.method(
    "weighted-vote", paper="arXiv:2206.02336", equation="section 2.2, Eq. 2", asks=("scorer",), budget=budgets.samples
)
def weighted_vote(problem: Problem, key: Key, *, n: Count = 16, aggregate: str = "min") -> Flow[Found]:
    """Samples `n` solutions, scores their steps and takes the answer with the largest sum of totals."""
    return (yield from _sample_and_select(problem, key, n, aggregate, "weighted-vote"))


@search.method(
    "hybrid-vote",
    unverified="hybrid majority reward vote, HMR (arXiv:2508.01773): see the select method of this name",
    asks=("scorer",),
    budget=budgets.samples,
)
def hybrid_vote(
    problem: Problem, key: Key, *, n: Count = 16, aggregate: str = "min", threshold: float = 0.5
) -> Flow[Found]:
    """Samples `n` solutions and takes the majority's answer if its share exceeds `threshold`, else the best."""
    return (yield from _sample_and_select(problem, key, n, aggregate, "hybrid-vote", threshold=threshold))


@search.method(
    "reward-frequency-vote",
    unverified="weighted reward frequency vote, WRF (arXiv:2508.01773): see the select method of this name",
    asks=("scorer",),
    budget=budgets.samples,
)
def reward_frequency_vote(
    problem: Problem, key: Key, *, n: Count = 16, aggregate: str = "min", alpha: float = 0.8
) -> Flow[Found]:
    """Samples `n` solutions and weighs how well an answer is rewarded against how often it is given."""
    return (yield from _sample_and_select(problem, key, n, aggregate, "reward-frequency-vote", alpha=alpha))


@search.method(
    "borda",
    paper="arXiv:2502.18581",
    equation="section 4.3",
    note="ranked by step scores",
    asks=("scorer",),
    budget=budgets.samples,
)
def borda_vote(problem: Problem, key: Key, *, n: Count = 16, aggregate: str = "min", power: float = 0.5) -> Flow[Found]:
    """Samples `n` solutions and lets each vote for its answer with a weight that falls with its rank, not its score."""
    return (yield from _sample_and_select(problem, key, n, aggregate, "borda", power=power))


@search.method(
    "self-certainty",
    paper="arXiv:2502.18581",
    equation="section 4, Eqs. 7 and 8",
    note="`LocalPolicy` leaves the certainty of each step in `Step.meta['self_certainty']`, a mean over the step's "
    "tokens (`core.measure.selection.self_certainty`); the end token, which is in no step, does not count",
    asks=("self_certainty",),
    budget=budgets.samples,
)
def self_certainty_vote(problem: Problem, key: Key, *, n: Count = 16, power: float = 0.5) -> Flow[Found]:
    """Samples `n` solutions and lets them vote by the rank of the policy's own certainty; needs no scorer.

    A solution's certainty is the mean over its tokens; a step without token ids counts as one token.

    Raises:
        MissingDataError: the policy does not measure its certainty.
    """
    growth = Growth(problem, key)
    (candidates,) = yield from growth.complete([ROOT], n)
    certainty = np.array([_certainty(c.steps) for c in candidates], np.float64)
    return (yield from growth.conclude(candidates, select="borda", totals=certainty, power=power))


@search.method(
    "self-prm",
    note="the policy as its own process reward model: a step's score is the geometric mean of its tokens' "
    "probabilities, exp(mean log p), as several papers use it for a baseline",
    asks=("logprobs",),
    budget=budgets.samples,
)
def self_prm(problem: Problem, key: Key, *, n: Count = 16, aggregate: str = "mean", vote: bool = False) -> Flow[Found]:
    """Samples `n` solutions and scores their steps by the probabilities that the policy itself gave them.

    Raises:
        MissingDataError: the policy does not report the log-probabilities of its tokens.
    """
    growth = Growth(problem, key)
    (candidates,) = yield from growth.complete([ROOT], n)
    scores = [_confidences(c.steps) for c in candidates]
    totals = total_of(scores, aggregate).tolist()
    own = [replace(c, scores=s, total=t) for c, s, t in zip(candidates, scores, totals, strict=True)]
    return (yield from growth.conclude(own, select=choice(vote)))


def _sample_and_select(problem: Problem, key: Key, n: int, aggregate: str, select: str, **settings: Any) -> Flow[Found]:
    growth = Growth(problem, key, aggregate)
    (candidates,) = yield from growth.complete([ROOT], n)
    scored = yield from growth.score(candidates)
    return (yield from growth.conclude(scored, select=select, **settings))


def _confidences(steps: Sequence[Step]) -> tuple[float, ...]:
    if any(step.kind == "action" and step.logprobs is None for step in steps):
        raise MissingDataError("self-prm", ["logprobs"], ["steps"])
    return tuple(
        float(np.exp(np.mean(step.logprobs))) if step.kind == "action" and step.logprobs else float("nan")
        for step in steps
    )


def _certainty(steps: Sequence[Step]) -> float:
    actions = [step for step in steps if step.kind == "action"]
    if any("self_certainty" not in step.meta for step in actions):
        remedy = "use a policy on this machine (LocalPolicy): servers do not return whole distributions"
        raise MissingDataError("self-certainty", ["self_certainty"], ["steps"], remedy)
    tokens = [len(step.tokens or (0,)) for step in actions]
    return float(np.average([step.meta["self_certainty"] for step in actions], weights=tokens)) if actions else np.nan
