"""Step rewards by rule from the text of a step, without a model.

Rewards are (S,), one a step, NaN at observations. What a rule needs beyond the steps, such as gold calls, is in the
problem's `meta`. Texts come from a policy and are never trusted: whatever they contain, the time is linear in their
length and no rule fails.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import reward
from stepreward.core.errors import MissingDataError
from stepreward.core.types import Floats, Problem, Step
from stepreward.core.vocabulary import Count

CITATION = re.compile(r"\[([^\[\]\s]{1,64})\]")


def needed(problem: Problem, rule: str, name: str) -> Any:
    """The value of a problem's `meta` under a name.

    Raises:
        MissingDataError: there is none.
    """
    if problem.meta.get(name) is None:
        raise MissingDataError(rule, [f"meta[{name!r}]"], (f"meta[{key!r}]" for key in problem.meta))
    return problem.meta[name]


def actions(steps: Sequence[Step]) -> NDArray[np.bool_]:
    """(S,) True where a step is the policy's own."""
    return np.array([step.kind == "action" for step in steps], dtype=np.bool_)


def at_actions(steps: Sequence[Step], values: Sequence[float]) -> Floats:
    """(S,) the values, one an action, at the actions; NaN at observations."""
    made = np.full(len(steps), np.nan)
    made[actions(steps)] = values
    return made


def size(step: Step) -> int:
    """Tokens of a step as the policy sampled them; its words where they are not known."""
    return len(step.text.split()) if step.tokens is None else len(step.tokens)


@reward.method(
    "repetition",
    paper="arXiv:2502.03373",
    equation="the n-gram repetition penalty",
    note="there a penalty on each repeated token, here the share of a step's n-grams of words that were said before",
)
def repetition(problem: Problem, steps: Sequence[Step], *, n: Count = 20, weight: float = 1.0) -> Floats:
    """Charges a step for saying again what it or an earlier step of the trajectory has said.

        r_k = -weight |n-grams of step k that were seen before| / |n-grams of step k|

    Args:
        problem: not read.
        steps: of one trajectory.
        n: words of an n-gram; a step with fewer has none and gets 0.
        weight: of the penalty.

    Returns:
        (S,) in [-weight, 0].

    Raises:
        ValueError: `n` is less than 1.
    """
    if n < 1:
        raise ValueError(f"n-grams have at least 1 word, got n={n}")
    seen: set[tuple[str, ...]] = set()
    made = []
    for step in steps:
        words = step.text.split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        new = set(grams) - seen
        seen |= new
        if step.kind == "action":
            made.append(-weight * (len(grams) - len(new)) / len(grams) if grams else 0.0)
    return at_actions(steps, made)


@reward.method(
    "soft-overlong",
    paper="arXiv:2503.14476",
    equation="Eq. 13: the soft overlong punishment",
    note="each step pays what it adds to the penalty of the whole, so that a trajectory's sum is the paper's",
)
def overlong(problem: Problem, steps: Sequence[Step], *, longest: int = 20480, cushion: int = 4096) -> Floats:
    """Charges steps for length beyond a limit, more and more within a cushion before it.

        P(L) = min(0, max(-1, (longest - cushion - L) / cushion)),    r_k = P(L_k) - P(L_{k-1})

    L_k counts the policy's own tokens up to and with step k, or its words where tokens are not known.

    Args:
        problem: not read.
        steps: of one trajectory.
        longest: length from which the penalty is -1.
        cushion: length before it over which the penalty grows.

    Returns:
        (S,) that sum to at least -1.

    Raises:
        ValueError: the cushion is not positive, or longer than the limit.
    """
    if not 0 < cushion <= longest:
        raise ValueError(f"the cushion must be positive and at most longest={longest}, got {cushion}")
    lengths = np.cumsum([0, *(size(step) for step in steps if step.kind == "action")])
    return at_actions(steps, np.diff(np.clip((longest - cushion - lengths) / cushion, -1, 0)).tolist())


@reward.method(
    "self-certainty",
    paper="arXiv:2505.19590",
    equation="Intuitor's only reward: self-certainty in place of a verifiable one",
    note="there one mean over all tokens of a response, here each step pays its part of it",
)
def self_certain(problem: Problem, steps: Sequence[Step]) -> Floats:
    """Rewards a step for the policy's certainty of its tokens, where nothing else says whether it is right.

        r_k = (tokens_k / tokens of the trajectory) c_k,    c_k = mean over the step's tokens of KL(uniform || policy)

    The sum is the mean over all of the policy's tokens, or words where tokens are not known.

    Args:
        problem: not read.
        steps: of one trajectory, each action with c in `meta["self_certainty"]`, as local policies measure it.

    Returns:
        (S,) in nats.

    Raises:
        MissingDataError: an action's certainty was not measured.
    """
    acts = [step for step in steps if step.kind == "action"]
    for number, step in enumerate(acts):
        if step.meta.get("self_certainty") is None:
            raise MissingDataError("self-certainty", [f"meta['self_certainty'] of action {number}"], step.meta)
    whole = max(sum(map(size, acts)), 1)
    return at_actions(steps, [size(step) / whole * float(step.meta["self_certainty"]) for step in acts])


@reward.method(
    "citations",
    note="ours: the structure of citations alone; whether a source supports a claim is a judge's to say",
)
def citations(problem: Problem, steps: Sequence[Step]) -> Floats:
    """Rewards a step for citing sources that it has been shown, and charges it for citing others.

        r_k = (known - unknown) / (known + unknown),    0 where a step cites nothing

    A citation is an identity in square brackets, `[3]` or `[doc-2]`. Sources are known once an observation before the
    step lists them in its `meta["sources"]`, or the problem does in its own.

    Args:
        problem: its `meta["sources"]`, if any, are known from the start.
        steps: of one trajectory.

    Returns:
        (S,) in [-1, 1].
    """
    known = {str(name) for name in problem.meta.get("sources", ())}
    made = []
    for step in steps:
        if step.kind == "observation":
            known |= {str(name) for name in step.meta.get("sources", ())}
            continue
        cited = CITATION.findall(step.text)
        right = sum(name in known for name in cited)
        made.append((2 * right - len(cited)) / len(cited) if cited else 0.0)
    return at_actions(steps, made)


@reward.method(
    "carr",
    paper="arXiv:2601.06021",
    equation="evidence connectivity",
    note="the judge's verdicts, which rubrics a step meets with a supporting citation, come as data; the paper rewards "
    "whole trajectories, here each step gets what it adds. The paper's mixture with the outcome is the credit `c-grpo`",
)
def connected_rubrics(problem: Problem, steps: Sequence[Step]) -> Floats:
    """Rewards a step for the evidence that it ties to the answer: rubrics that a chain of others connects with it.

        R_k = |supported rubrics that are connected with the answer after step k| / |rubrics|,    r_k = R_k - R_{k-1}

    Rubrics are connected if they share an entity. Facts that hang on nothing earn nothing, however well they are cited.

    Args:
        problem: `meta["rubrics"]`, each a list of the names of its entities, and `meta["answer"]`, the answer's entity.
        steps: each with the numbers of the rubrics that it supports in `meta["supported"]`, from 0.

    Returns:
        (S,) that sum to at most 1.

    Raises:
        MissingDataError: the problem has no rubrics or no answer.
    """
    rubrics = [frozenset(map(str, names)) for names in needed(problem, "carr", "rubrics")]
    answer = str(needed(problem, "carr", "answer"))
    supported: set[int] = set()
    shares = [0.0]
    for step in steps:
        if step.kind == "action":
            supported |= {i for i in step.meta.get("supported", ()) if 0 <= i < len(rubrics)}
            shares.append(_connected([rubrics[i] for i in sorted(supported)], answer) / max(len(rubrics), 1))
    return at_actions(steps, np.diff(shares).tolist())


def _connected(rubrics: Sequence[frozenset[str]], answer: str) -> int:
    """Rubrics that can be reached from the answer over shared entities."""
    reached, left = {answer}, list(rubrics)
    while True:
        near = [names for names in left if names & reached]
        if not near:
            return len(rubrics) - len(left)
        reached.update(*near)
        left = [names for names in left if not names & reached]


def difficulty_weights(
    rates: Sequence[float], *, power: float = 1.0, bandwidth: float = 0.1, floor: float = 1.0, normalise: bool = True
) -> Floats:
    """Weighs unit tests by how hard they are and how few others are as hard.

        w_j = exp(-power rho_j) / (N(rho_j) + floor),    N(rho) = sum_i exp(-(rho - rho_i)^2 / (2 bandwidth^2))

    Args:
        rates: (J,) pass rates rho in [0, 1], over the group.
        power: alpha: 0 weighs by density alone.
        bandwidth: of the Gaussian kernel, > 0.
        floor: delta, added to the density, >= 0.
        normalise: divide by the sum. VeRPO (arXiv:2601.03525) does not, so that problems with many tests pay more.

    Returns:
        (J,) positive weights, of sum 1 where normalised.

    Raises:
        ValueError: a setting or a rate is out of range.
    """
    rho = np.asarray(rates, dtype=np.float64)
    if bandwidth <= 0 or floor < 0:
        raise ValueError(f"bandwidth must be positive and floor not negative, got {bandwidth} and {floor}")
    if rho.ndim != 1 or not np.all((rho >= 0) & (rho <= 1)):
        raise ValueError("pass rates must be one number in [0, 1] a test")
    density = np.exp(-((rho[:, None] - rho) ** 2) / (2 * bandwidth**2)).sum(axis=1)
    weights = np.exp(-power * rho) / (density + floor)
    made: Floats = weights / weights.sum() if rho.size and normalise else weights
    return made


@reward.method(
    "weighted-tests",
    paper="arXiv:2601.03525",
    equation="the dense rewards of weighted unit tests",
    note="the paper does not divide weights by their sum: normalise=False",
    unverified="VeRPO (arXiv:2601.03525): from notes with its formulas; the values of its constants are in no "
    "reachable source, these are ours",
)
def weighted_tests(
    problem: Problem,
    steps: Sequence[Step],
    *,
    power: float = 1.0,
    bandwidth: float = 0.1,
    floor: float = 1.0,
    normalise: bool = True,
) -> Floats:
    """Rewards a step by the unit tests that its code passes, hard and rare ones more.

        r_k = sum_j w_j p_kj,    w as in `difficulty_weights`

    Args:
        problem: `meta["pass_rates"]`, over its group's attempts, one a test.
        steps: each with 1 or 0 a test in `meta["passed"]`; a step without has run none and gets 0.
        power: as in `difficulty_weights`.
        bandwidth: likewise.
        floor: likewise.
        normalise: likewise.

    Returns:
        (S,) in [0, 1] where normalised, at least 0 in any case.

    Raises:
        MissingDataError: the problem has no pass rates.
        ValueError: a step has another number of results than there are tests.
    """
    rates = needed(problem, "weighted-tests", "pass_rates")
    weights = difficulty_weights(rates, power=power, bandwidth=bandwidth, floor=floor, normalise=normalise)
    made = []
    for step in steps:
        passed = np.asarray(step.meta.get("passed", np.zeros(len(weights))), dtype=np.float64)
        if passed.shape != weights.shape:
            raise ValueError(f"{passed.size} results of tests for {weights.size} pass rates: give one a test")
        if step.kind == "action":
            made.append(float(weights @ passed))
    return at_actions(steps, made)
