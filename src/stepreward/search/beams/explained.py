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
"""Requests after a prefix with a doubtful step, and after the problem, with `{step}`, `{score}` and `{notes}`."""
RETRY = (
    "An action that was proposed next was not executed: a reward model gives it {score} of 1.\n{step}\n{notes}\n"
    "Propose another one."
)
"""Request to an agent whose action was scored before it is executed."""


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
    retries: Count = 1,
    explain_request: str = EXPLAIN,
    again_request: str = AGAIN,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
    vote: bool = False,
) -> Flow[Found]:
    """Searches as `rearter`, and samples steps again with the policy's own critique where the best one is doubtful.

    A step that stays doubtful is asked for again up to `retries` times, each time with the critique of the best so far.
    With `doubt=0` or `most=0` it is `rearter`.

    Args:
        problem: what to solve.
        key: randomness.
        beams, width, ahead, rate, gain, max_steps, aggregate, vote: as of `rearter`.
        doubt: below this corrected score the best new step of a beam is doubtful; the authors take 0.25 with a local
            reward model and 0.5 with a remote one.
        most: times that a step is asked for again, at most, in the whole solution.
        retries: times that one step is asked for again, at most.
        explain_request: request after a prefix and the doubtful step; empty for no explanation: the score says enough.
        again_request: request after the problem, with the explanation.
    """
    growth = Growth(problem, key, aggregate)
    rank = mended_rank(growth, ahead, rate, gain)
    explained = 0

    def again(parent: Candidate, doubtful: Candidate) -> Flow[list[Candidate]]:
        nonlocal explained
        explained += 1
        step, notes = doubtful.steps[-1].text, ""
        score = f"{doubtful.scores[-1]:.2f}"

        def filled(request: str) -> str:
            return request.replace("{step}", step).replace("{score}", score).replace("{notes}", notes)

        if explain_request:
            draft = "".join(one.text for one in doubtful.steps)
            notes = yield from growth.reply(follow_up(problem, draft, filled(explain_request)))
            if not notes:
                return []
        wording = follow_up(problem, "", filled(again_request))
        keys = [key.fold("explained", wording.id, explained)]
        (more,) = yield from growth.grow([parent], width, keys=keys, problem=wording)
        return more

    def keep(kept: Sequence[Candidate], grown: list[list[Candidate]]) -> Flow[list[Candidate]]:
        scored = yield from growth.score(rivals(kept, grown))
        ranks = [*(yield from rank(scored))]
        at = sum(one.finished for one in kept)
        for parent, below in zip(growth.open(kept), grown, strict=False):
            own = [*range(at, at + len(below))]
            at += len(below)
            for _ in range(retries):
                best = max(own, key=lambda i: ranks[i], default=-1)
                if best < 0 or ranks[best] >= doubt or explained >= most or not growth.open([parent]):
                    break
                more = yield from again(parent, scored[best])
                own += range(len(scored), len(scored) + len(more))
                scored, ranks = [*scored, *more], [*ranks, *(yield from rank(more))]
        order = sorted(range(len(scored)), key=lambda i: -ranks[i])
        return [scored[i] for i in order[:beams]]

    return (yield from beam_loop(growth, growth.sprout, keep, beams=beams, width=width, max_steps=max_steps, vote=vote))


search.preset(
    "guided-retry",
    of="rearter-explained",
    note="ours: an agent's action is scored before it is executed, asked for again with the score and a critique while "
    "it is below a threshold, and the best one executed: the loop of guided GUI agents (GuidNav scores candidates at "
    "every step and retries, GUI-Shepherd ranks them; their numbers are in no source that we could read)",
    width=1,
    ahead=0,
    doubt=0.5,
    most=40,
    retries=3,
    again_request=RETRY,
    budget=budgets.width,
)
