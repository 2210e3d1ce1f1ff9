"""A beam search that has a doubtful step explained, and sampled again with the explanation."""

from __future__ import annotations

from collections.abc import Sequence

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps
from stepreward.search import budgets
from stepreward.search.beams.beam_loop import beam_loop, rivals
from stepreward.search.beams.lookahead import mended_rank
from stepreward.search.candidates import Candidate, Found
from stepreward.search.growth import Growth
from stepreward.search.repair import follow_up

EXPLAIN = "The last step above is doubtful:\n{step}\nSay briefly what is wrong with it and what to do instead."
AGAIN = "A step that was tried next is doubtful:\n{step}\n{notes}\nGo on with a better step."
"""Requests that follow a prefix with a doubtful step, and the problem; `{step}` and `{notes}` are filled in."""


@search.method(
    "rearter-explained",
    paper="arXiv:2501.07861",
    equation="test-time scaling: look-ahead search, and refinement by explanations where its best score is low",
    note="the policy itself explains, in words, where the released code has a model that was trained to; new steps are "
    "samples of one request, not one each of a new query, another search and an answer, and compete with the old ones",
    asks=("scorer", "instructions"),
    budget=budgets.several("beams"),
)
def explained_search(
    problem: Problem,
    key: Key,
    *,
    beams: Count = 1,
    width: Count = 4,
    ahead: int = 3,
    rate: float = 0.5,
    gain: float = 0.05,
    doubt: float = 0.25,
    most: int = 2,
    explain_request: str = EXPLAIN,
    again_request: str = AGAIN,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Searches as `rearter`, and samples steps again with the policy's own critique where the best one is doubtful.

    With `doubt=0` or `most=0` it is `rearter`.

    Args:
        problem: what to solve.
        key: randomness.
        beams, width, ahead, rate, gain, max_steps, aggregate, vote: as of `rearter`.
        doubt: below this corrected score the best new step of a beam is doubtful; the authors take 0.25 with a local
            reward model and 0.5 with a remote one.
        most: explanations asked for at most.
        explain_request: request after a prefix and the doubtful step.
        again_request: request after the problem, with the explanation.
    """
    growth = Growth(problem, key, aggregate)
    rank = mended_rank(growth, ahead, rate, gain)
    explained = 0

    def again(parent: Candidate, doubtful: Candidate) -> Flow[list[Candidate]]:
        nonlocal explained
        explained += 1
        step = doubtful.steps[-1].text
        draft = "".join(one.text for one in doubtful.steps)
        notes = yield from growth.reply(follow_up(problem, draft, explain_request.replace("{step}", step)))
        wording = follow_up(problem, "", again_request.replace("{step}", step).replace("{notes}", notes))
        keys = [key.fold("explained", wording.id, explained)]
        (more,) = (yield from growth.grow([parent], width, keys=keys, problem=wording)) if notes else ([],)
        return more

    def keep(kept: Sequence[Candidate], grown: list[list[Candidate]]) -> Flow[list[Candidate]]:
        scored = yield from growth.score(rivals(kept, grown))
        ranks = [*(yield from rank(scored))]
        at = sum(one.finished for one in kept)
        for parent, below in zip(growth.open(kept), grown, strict=False):
            own = range(at, at + len(below))
            at += len(below)
            best = max(own, key=lambda i: ranks[i], default=-1)
            if best >= 0 and ranks[best] < doubt and explained < most and growth.open([parent]):
                more = yield from again(parent, scored[best])
                scored, ranks = [*scored, *more], [*ranks, *(yield from rank(more))]
        order = sorted(range(len(scored)), key=lambda i: -ranks[i])
        return [scored[i] for i in order[:beams]]

    return (yield from beam_loop(growth, growth.sprout, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))
