"""Votes and choices that stop sampling when more samples would hardly change them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import beta

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Extract, Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, NoDraws
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, choice
from stepreward.search.growth import Growth
from stepreward.search.setting_checks import positive


def lead_is_sure(first: int, second: int) -> float:
    """The chance that the leading answer is likelier than the second, given their votes and an even prior.

        P(p > 1/2),    p ~ Beta(first + 1, second + 1)

    arXiv:2305.11860, section 3, the Beta criterion.

    Args:
        first: votes of the leading answer.
        second: votes of the second answer.
    """
    return float(beta.sf(0.5, first + 1, second + 1))


def samples_for(success: float, *, confidence: float = 0.99) -> int:
    """Samples after which one is right with a given confidence, if each is with chance `success`.

        N = ceil( ln(1 - confidence) / ln(1 - success) )

    arXiv:2506.09338, Eq. 3. The chance is kept in [1e-4, 1 - 1e-4].

    Args:
        success: chance of one sample, such as a calibrated score.
        confidence: C in (0, 1).

    Raises:
        ValueError: `confidence` is not in (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    p = min(max(success, 1e-4), 1 - 1e-4)
    return max(1, math.ceil(math.log(1 - confidence) / math.log(1 - p) - 1e-9))


def _votes(answers: Sequence[str | None]) -> list[int]:
    """Votes of the answers, most first; missing ones do not vote."""
    counted = Counter(answer for answer in answers if answer is not None)
    return [*sorted(counted.values(), reverse=True), 0, 0]


def _vote_until(
    problem: Problem,
    key: Key,
    n: int,
    rounds: Callable[[int], int],
    stop: Callable[[Sequence[str | None]], bool],
) -> Flow[Found]:
    """The majority of at most `n` samples, drawn in rounds until the answers so far, None among them, suffice.

    Args:
        rounds: size of the next round, from the number of samples drawn.
        stop: from all answers so far to whether they suffice.
    """
    growth, drawn = Growth(problem, key), 0
    made, answers = list[Candidate](), list[str | None]()
    while drawn < n and not growth.spent:
        more = min(rounds(drawn), n - drawn)
        (fresh,) = yield from growth.complete([ROOT], more, first=drawn)
        drawn += more
        made += fresh
        ended = [c for c in fresh if c.finished and c.steps]
        answers += (yield [Extract(problem, c.steps) for c in ended]) if ended else []
        if stop(answers):
            break
    return (yield from growth.conclude(made, select="majority"))


@search.method(
    "adaptive-consistency",
    paper="arXiv:2305.11860",
    equation="section 3: the Beta criterion",
    note="stops after a round of `at_once` samples, so that batches fill; the paper's rounds are of one",
    budget=budgets.samples,
)
def adaptive_consistency(
    problem: Problem, key: Key, *, n: Count = 40, least: NoDraws = 2, at_once: NoDraws = 2, confidence: float = 0.95
) -> Flow[Found]:
    """Samples until the majority's lead is sure: few samples for problems on which the policy agrees with itself.

    Args:
        problem: what to solve.
        key: randomness.
        n: most samples.
        least: samples before it may stop.
        at_once: samples of a round.
        confidence: chance that the leader is the likelier one at which it stops.
    """

    def stop(answers: Sequence[str | None]) -> bool:
        first, second, *_ = _votes(answers)
        return len(answers) >= least and first > 0 and lead_is_sure(first, second) >= confidence

    positive(at_once=at_once)
    return (yield from _vote_until(problem, key, n, lambda drawn: max(at_once, least - drawn), stop))


@search.method(
    "early-stopping-consistency",
    paper="arXiv:2401.10480",
    equation="section 3: a window of one answer",
    budget=budgets.samples,
)
def unanimous_window(problem: Problem, key: Key, *, n: Count = 40, window: NoDraws = 5) -> Flow[Found]:
    """Samples window by window and stops when one is unanimous.

    Args:
        problem: what to solve.
        key: randomness.
        n: most samples.
        window: samples of a round.
    """

    def stop(answers: Sequence[str | None]) -> bool:
        last = answers[-window:]
        return len(last) == window and last[0] is not None and len(set(last)) == 1

    positive(window=window)
    return (yield from _vote_until(problem, key, n, lambda drawn: window, stop))


@search.method(
    "doubling-consistency",
    note="as in the package its_hub: two samples, then as many again, until an answer has three quarters",
    budget=budgets.samples,
)
def doubling(problem: Problem, key: Key, *, n: Count = 32, start: NoDraws = 2, share: float = 0.75) -> Flow[Found]:
    """Doubles the number of samples until one answer has a given share of the votes.

    Args:
        problem: what to solve.
        key: randomness.
        n: most samples.
        start: samples of the first round.
        share: of the votes at which it stops.
    """

    def stop(answers: Sequence[str | None]) -> bool:
        return bool(answers) and _votes(answers)[0] >= share * len(answers)

    positive(start=start)
    return (yield from _vote_until(problem, key, n, lambda drawn: drawn or start, stop))


@search.method(
    "instance-adaptive",
    paper="arXiv:2506.09338",
    equation="Eq. 3, the budget of whole solutions",
    note="the paper reads the chance at the bare question, which has no score here: it is the mean of the first steps' "
    "scores in `least` samples, which count among the budget. Lower quantiles as in the paper come of a scorer "
    "calibrated by `quantile`. The paper's beams are `ias-of-k` and `ias-of-m`",
    asks=("scorer",),
    budget=budgets.samples,
)
def instance_adaptive(
    problem: Problem,
    key: Key,
    *,
    n: Count = 32,
    least: NoDraws = 4,
    confidence: float = 0.99,
    aggregate: str = "last",
    vote: bool = True,
) -> Flow[Found]:
    """Samples as many solutions as the problem needs for one of them to be right with a given confidence.

        p = mean_i r_i1,    N = min(n, ceil( ln(1 - confidence) / ln(1 - p) ))

    The chance at a question is the mean of the chances after its first steps. N is set once, after `least` samples. A
    scorer whose scores are lower quantiles of the chance makes p seldom too high
    (`score.calibrate.calibrated_scorer.CalibratedScorer` with the calibrator `quantile`).

    Args:
        problem: what to solve.
        key: randomness.
        n: most samples.
        least: samples whose first steps give the chance.
        confidence: C of the budget.
        aggregate: total of a candidate's step scores.
        vote: choose by the weighted vote instead of the best one.
    """
    positive(least=least)
    growth, begun = Growth(problem, key, aggregate), min(least, n)
    (fresh,) = yield from growth.complete([ROOT], begun)
    scored: list[Candidate] = yield from growth.score(fresh)
    known = [[score for score in c.scores if score == score] for c in scored]
    first = [scores[0] for scores in known if scores]
    wanted = min(n, samples_for(float(np.mean(first)) if first else 0.0, confidence=confidence))
    (fresh,) = yield from growth.complete([ROOT], max(wanted - begun, 0), first=begun)
    scored += yield from growth.score(fresh)
    return (yield from growth.conclude(scored, select=choice(vote)))
