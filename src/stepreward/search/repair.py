"""Searches that repair a solution: by a new end, by a second draft after a critique or a reflection, or by a step of a
stronger policy.

The step to repair is the first one whose score is at or below a threshold.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.measure.first_error import first_error
from stepreward.core.runtime.acts import REWORDS
from stepreward.core.runtime.flows import Flow
from stepreward.core.types import Problem
from stepreward.core.vocabulary import Count, MaxSteps, Rounds
from stepreward.search import budgets
from stepreward.search.candidates import ROOT, Candidate, Found, best, choice
from stepreward.search.growth import Growth
from stepreward.search.intervention_tables import ASKED, load_table
from stepreward.search.setting_checks import positive

GLOBAL = "The solution above may be wrong. Write a correct solution of the problem from the start."
LOCAL = "The solution above is right up to here:\n{before}\nIts next step is wrong:\n{step}\nWrite a correct solution."
REFLECT = "The solution above is wrong; its first doubtful step is:\n{step}\nSay briefly what to do otherwise."
RETRY = "Notes from earlier attempts at this problem:\n{notes}\nNow solve the problem."
"""Requests that follow a draft, or the problem; `{before}`, `{step}` and `{notes}` are filled in."""


@search.method(
    "search-r2",
    paper="arXiv:2602.03647",
    equation="section 3: cut and regenerate",
    note="the discriminator and the trimmer are the step scores, not trained models of their own; a rewritten solution "
    "takes its draft's place only where its total is higher",
    asks=("scorer",),
    budget=budgets.drafts,
)
def cut_and_regenerate(
    problem: Problem,
    key: Key,
    *,
    n: Count = 8,
    rounds: Rounds = 1,
    threshold: float = 0.5,
    aggregate: str = "min",
    vote: bool = True,
) -> Flow[Found]:
    """Samples drafts, cuts each before its first bad step and samples the rest again.

    Args:
        problem: what to solve.
        key: randomness.
        n: drafts.
        rounds: how often each may be repaired; 0 is `best-of-n` or `weighted-vote`.
        threshold: a step with a score at or below it is bad.
        aggregate: total of a candidate's step scores.
        vote: choose by the weighted vote instead of the best one.
    """
    growth = Growth(problem, key, aggregate)
    (drafts,) = yield from growth.complete([ROOT], n)
    kept = yield from growth.score(drafts)
    for number in range(1, rounds + 1):
        bad = {i: at for i, c in enumerate(kept) if (at := int(first_error(c.scores, threshold))) >= 0}
        if not bad or growth.spent:
            break
        # Drafts that keep the same prefix share one question, so that their samples differ.
        prefixes = {i: kept[i].before(at) for i, at in bad.items()}
        counts = Counter(prefix.path for prefix in prefixes.values())
        parents = list({prefix.path: prefix for prefix in prefixes.values()}.values())
        made = yield from growth.complete(parents, [counts[p.path] for p in parents], first=number * n)
        fresh = {p.path: list(some) for p, some in zip(parents, made, strict=True)}
        pairs = [(i, fresh[p.path].pop()) for i, p in prefixes.items() if fresh[p.path]]
        mended = yield from growth.score([new for _, new in pairs])
        for (i, _), new in zip(pairs, mended, strict=True):
            kept[i] = best([kept[i], new], 1)[0]
    return (yield from growth.conclude(kept, select=choice(vote)))


@search.method(
    "glore",
    paper="arXiv:2402.10963",
    equation="sections 3 and 4: global and local refinement, and the reranker over draft and both",
    note="requests in words to one policy instead of two trained refinement models; the critique names the first bad "
    "step",
    asks=("scorer", "instructions"),
    budget=budgets.requests,
)
def refined(
    problem: Problem,
    key: Key,
    *,
    n: Count = 4,
    threshold: float = 0.5,
    global_request: str = GLOBAL,
    local_request: str = LOCAL,
    aggregate: str = "min",
    vote: bool = False,
) -> Flow[Found]:
    """Samples drafts, has the policy refine each that has a bad step, with and without naming that step, and reranks.

    Args:
        problem: what to solve.
        key: randomness.
        n: drafts.
        threshold: a step with a score at or below it is bad.
        global_request: request after a draft; empty for no global refinement.
        local_request: request after a draft, with the steps before the bad one and that step; empty for none.
        aggregate: total of a candidate's step scores.
        vote: choose by the weighted vote instead of the best one.
    """
    growth = Growth(problem, key, aggregate)
    (drafts,) = yield from growth.complete([ROOT], n)
    scored = yield from growth.score(drafts)
    wordings: dict[str, Problem] = {}
    for draft in scored:
        at = int(first_error(draft.scores, threshold))
        if at < 0:
            continue
        for request in filter(None, (global_request, local_request)):
            again = follow_up(problem, _text(draft), _fill(request, draft, at))
            wordings[again.id] = again
    better = yield from growth.solve_rewordings(list(wordings.values()))
    return (yield from growth.conclude([*scored, *(yield from growth.score(better))], select=choice(vote)))


search.preset("glore-global", of="glore", paper="arXiv:2402.10963", note="global refinement alone", local_request="")
search.preset("glore-local", of="glore", paper="arXiv:2402.10963", note="local refinement alone", global_request="")


@search.method(
    "reflexion",
    paper="arXiv:2303.11366",
    equation="Algorithm 1",
    note="the evaluator is the total of the step scores; all reflections are kept",
    asks=("scorer", "instructions"),
    budget=budgets.attempts,
)
def reflect_and_retry(
    problem: Problem,
    key: Key,
    *,
    attempts: Rounds = 3,
    threshold: float = 0.5,
    reflect_request: str = REFLECT,
    retry_request: str = RETRY,
    aggregate: str = "min",
) -> Flow[Found]:
    """Tries until an attempt's total passes, each time with the policy's notes on its earlier failures.

    Args:
        problem: what to solve.
        key: randomness.
        attempts: most attempts.
        threshold: an attempt passes if its total is above it.
        reflect_request: request after a failed attempt; `{step}` is its first bad step.
        retry_request: request after the problem; `{notes}` are all reflections.
        aggregate: total of an attempt's step scores.

    Raises:
        ValueError: `attempts` is not positive.
    """
    positive(attempts=attempts)
    growth = Growth(problem, key, aggregate)
    made, notes = list[Candidate](), list[str]()
    attempted = problem
    for number in range(attempts):
        if number:
            fresh = yield from growth.solve_rewordings([attempted])
        else:
            (fresh,) = yield from growth.complete([ROOT], 1)
        made += yield from growth.score(fresh)
        if not fresh or growth.spent or made[-1].rank > threshold or number + 1 == attempts:
            break
        # The total may fail where no step does, a product for one: the last step, -1, is the one to reflect on.
        request = _fill(reflect_request, made[-1], int(first_error(made[-1].scores, threshold)))
        said = yield from growth.reply(follow_up(problem, _text(made[-1]), request))
        notes += [said] if said else []
        attempted = follow_up(problem, "", retry_request.replace("{notes}", "\n".join(notes)))
    return (yield from growth.conclude(made))


@search.method(
    "intervention",
    note="greedy search that asks a stronger policy (`policies.expert`) for steps at which the scores doubt the own "
    "one, or where a table by dynamic programming says that it pays, under a budget of such questions; the table is "
    "our reading of the abstract of arXiv:2502.04576, whose equations we have not seen. Without a stronger policy the "
    "own one samples again, as InT does in training (arXiv:2601.14209)",
    asks=("scorer", "expert"),
    budget=budgets.width,
)
def intervene(
    problem: Problem,
    key: Key,
    *,
    width: Count = 1,
    most: int = 2,
    threshold: float = 0.5,
    table: str = "",
    random: float = 0.0,
    max_steps: MaxSteps = 40,
    aggregate: str = "last",
) -> Flow[Found]:
    """Samples step by step, and from the stronger policy only where a step's score is at or below a threshold.

    With a table the decision is made before a step, by the score of the one before it: the stronger policy writes
    where dynamic programming says that it pays. Steps of the stronger policy are marked `asked` in their meta.

    Args:
        problem: what to solve.
        key: randomness.
        width: steps sampled from the own policy each time, of which the best is taken.
        most: questions to the stronger policy at most.
        threshold: a step with a score at or below it is sampled again, from the stronger policy.
        table: file of `search.intervention_tables`, made by `fit_interventions`; instead of the threshold.
        random: chance that the stronger policy writes a step, instead of the threshold: to collect what a table is
            fitted to.
        max_steps: most steps of the solution.
        aggregate: total of the step scores, by which steps are compared.

    Raises:
        InputError: the file of the table is not there, or is none.
        ValueError: both `table` and `random` are given, or `random` is no chance.
    """
    if not 0 <= random <= 1 or (table and random):
        raise ValueError(f"expected a table, or a chance in [0, 1] without one, got {table!r} and random={random}")
    growth, known = Growth(problem, key, aggregate), load_table(table) if table else None
    tip, helped = ROOT, 0
    for number in range(max_steps):
        asks = known is not None and known.asks(number, tip.total)
        asks = asks or (random > 0 and key.fold("ask", number).rng().random() < random)
        if asks and helped < most and growth.open([tip]):
            helped += 1
            (children,) = yield from growth.grow([tip], 1, first=width, expert=True)
            children = [_asked(tip, child) for child in children]
        else:
            (children,) = (yield from growth.grow([tip], width)) if growth.open([tip]) else ([],)
        doubtful = bool(children) and first_error(best(children, 1)[0].scores[-1:], threshold) >= 0
        if doubtful and not (table or random) and helped < most and growth.open([tip]):
            helped += 1
            (stronger,) = yield from growth.grow([tip], 1, first=width, expert=True)
            children = [*(_asked(tip, child) for child in stronger), *children]
        if not children:
            break
        tip = best(children, 1)[0]
    return (yield from growth.conclude([tip]))


def _asked(parent: Candidate, candidate: Candidate) -> Candidate:
    """The candidate with its last step marked as the stronger policy's; as it is where it only ended the solution."""
    if candidate.turns == parent.turns:
        return candidate
    *before, last = candidate.steps
    return replace(candidate, steps=(*before, replace(last, meta={**last.meta, ASKED: True})))


def follow_up(problem: Problem, draft: str, request: str) -> Problem:
    """The problem followed by a draft and a request, as a problem of its own."""
    said = ({"role": "assistant", "content": draft},) if draft else ()
    messages = (*problem.messages, *said, {"role": "user", "content": request})
    digest = hashlib.blake2b(repr((draft, request)).encode(), digest_size=8).hexdigest()
    meta = {REWORDS: problem.id, **problem.meta}
    return Problem(f"{problem.id}/{digest}", messages, problem.reference, meta)


def _text(candidate: Candidate) -> str:
    return "".join(step.text for step in candidate.steps)


def _fill(request: str, draft: Candidate, at: int) -> str:
    before = "".join(step.text for step in draft.steps[:at])
    return request.replace("{before}", before).replace("{step}", draft.steps[at].text)
