"""Searches that keep a few candidates a step: greedy, beam, AlphaMath's step beam, and diverse trees (DVTS)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.beams.beam_loop import beam_loop, keep_best
from stepreward.search.candidates import ROOT, Candidate, Found, best, choice, ends
from stepreward.search.growth import Growth


@search.method(
    "beam",
    paper="arXiv:2408.03314",
    equation="section 5.2 and appendix D",
    note="a finished candidate keeps its place among the beams and is not sampled again",
    asks=("scorer",),
    budget=budgets.several("beams"),
)
def beam_search(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 4,
    width: Count = 4,
    max_steps: MaxSteps = 40,
    aggregate: str = "min",
    vote: bool = False,
) -> Flow[Found]:
    """Grows solutions step by step and keeps the `beams` best of `beams * width` continuations by their scores.

    Args:
        problem: what to solve.
        key: randomness.
        beams: candidates kept after each step.
        width: continuations of each; the first step draws `beams * width`.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores.
        vote: choose by the weighted vote over the final beams instead of the best one.

    Returns:
        The finished candidates of the last beams, all of them if none finished.
    """
    growth = Growth(problem, key, aggregate)
    keep = keep_best(growth, beams)
    return (yield from beam_loop(growth, growth.sprout, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))


search.preset(
    "greedy",
    of="beam",
    note="the best of `width` sampled steps, one step after another: a beam of one",
    beams=1,
    budget=budgets.width,
)
search.preset(
    "masprm",
    of="beam",
    paper="arXiv:2510.24803",
    note="step-level beam search over agents' turns: a step is a turn, `Step.agent` its speaker, the last turn's value "
    "ranks; B1 = 3, B2 = 5 as in the released code. A finished candidate is ranked with the open ones",
    beams=3,
    width=5,
    aggregate="last",
)


@search.method(
    "step-beam",
    paper="arXiv:2405.03553",
    equation="section 3.4 and Algorithm 2",
    note="a finished candidate leaves the beam and its place is not refilled, as in the released code; candidates that "
    "finish together all leave (the code skips every second one)",
    asks=("scorer",),
    budget=budgets.several("beams"),
)
def step_beam(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 3,
    width: Count = 5,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Keeps the `beams` continuations of highest value; each solution that ends is set aside and narrows the beam.

    Args:
        problem: what to solve.
        key: randomness.
        beams: B1, candidates kept after the first step.
        width: B2, continuations of each; the first step draws `beams * width`.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores; with a value model the last.
        vote: choose by the weighted vote over the ends instead of the best one.

    Returns:
        At most `beams` finished candidates, in order of their ends; the open ones if none finished.
    """
    growth = Growth(problem, key, aggregate)

    def keep(kept: Sequence[Candidate], grown: list[list[Candidate]]) -> Flow[list[Candidate]]:
        ended = [c for c in kept if c.finished]
        scored = yield from growth.score([*chain.from_iterable(grown)])
        return [*ended, *best(scored, beams - len(ended))]

    return (yield from beam_loop(growth, growth.sprout, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))


@search.method(
    "dvts",
    paper="huggingface.co/spaces/HuggingFaceH4/blogpost-scaling-test-time-compute",
    equation="section on diverse verifier tree search",
    note="independent greedy subtrees; the vote over their ends is an option",
    asks=("scorer",),
    budget=budgets.several("trees"),
)
def diverse_tree_search(
    problem: Problem,
    key: Key,
    *,
    trees: Count = 4,
    width: Count = 4,
    max_steps: MaxSteps = 40,
    aggregate: str = "min",
    vote: bool = True,
) -> Flow[Found]:
    """Runs `trees` independent searches that each keep one candidate, so that one early mistake cannot win everywhere.

    Args:
        problem: what to solve.
        key: randomness.
        trees: independent subtrees.
        width: continuations sampled at each step of each subtree.
        max_steps: most steps of a solution.
        aggregate: total of a candidate's step scores.
        vote: choose by the weighted vote over the subtrees' ends instead of the best one.
    """
    growth = Growth(problem, key, aggregate)
    # Not the loop of beams: trees do not compete, and each draws its own samples of what may be equal prefixes.
    tips = [ROOT] * trees
    stuck: set[int] = set()
    for step in range(max_steps):
        growing = [i for i, tip in enumerate(tips) if growth.open([tip]) and i not in stuck]
        if not growing:
            break
        keys = [key.fold("tree", i, step) for i in growing]
        grown = yield from growth.grow([tips[i] for i in growing], width, keys=keys)
        for i, children in zip(growing, grown, strict=True):
            tips[i] = best(children, 1)[0] if children else tips[i]
        stuck.update(i for i, children in zip(growing, grown, strict=True) if not children)
    return (yield from growth.conclude(ends(tips), select=choice(vote)))


search.preset(
    "qlass",
    of="dvts",
    paper="arXiv:2502.02584",
    note="Q-guided generation of an agent: at each turn the action of highest Q among those sampled, the scorer being "
    "the Q network; a finished action competes by its score. In the released code it competes by the environment's "
    "reward: take the scorer executed?model=MODEL. Without the paper's paraphrased prompts",
    trees=1,
    width=3,
    aggregate="last",
    vote=False,
    budget=budgets.width,
)
