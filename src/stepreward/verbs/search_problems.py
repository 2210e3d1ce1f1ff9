"""The verb search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepreward.core.catalog import search as searches
from stepreward.core.failures import Failures, warn_of_failures
from stepreward.core.runtime.flows import Grader, Judge, Policy, Scorer
from stepreward.pipeline.compose import SolutionList, compose, default_search
from stepreward.verbs.names import grader as grader_of
from stepreward.verbs.names import policy as policy_of
from stepreward.verbs.names import scorer_of
from stepreward.verbs.read_rows import Problems, problems_of


def search(
    problems: Problems,
    *,
    policy: str | Path | Policy,
    scorer: str | Path | Scorer | None = None,
    grader: str | Grader = "mathematics",
    judge: Judge | None = None,
    method: str = "",
    budget: int | None = None,
    seed: int = 0,
    strict: bool = False,
    **settings: Any,
) -> SolutionList:
    """Searches for solutions of problems with step scores.

    Args:
        problems: a file or problems.
        policy: who writes, a name or an object.
        scorer: who scores steps, a name or an object.
        grader: who reads answers, a name or an object.
        judge: who compares solutions, for tournaments.
        method: of the family search; `beam` with a scorer and `majority` without where empty.
        budget: at most so many of the unit that the method declares.
        seed: of all samples.
        strict: raise where a row is bad or a problem failed, instead of warning and listing all in `.failed`.
        settings: of the method, or of `stepreward.compose`.

    Returns:
        One `Solution` a problem, in order: `.answer`, `.outcome`, `.found` with all candidates, `.bill`, `.error`.

    Raises:
        InputError: the budget is not positive, or the method declares none.
        SteprewardError: all problems failed, or strict and one did.
        UnknownNameError: there is no such method or setting.
    """
    name = method or default_search(scorer is not None)
    if budget is not None:
        settings = {**settings, **searches[name].within(budget, settings)}
    solver = compose(
        policy_of(policy), () if scorer is None else scorer_of(scorer), search=name, grader=grader_of(grader),
        judge=judge, **settings,
    )  # fmt: skip
    unread = Failures()
    found = solver.solve(problems_of(problems, None if strict else unread), seed=seed)
    found.unread = unread
    if strict:
        found.failed.refuse("could not be searched")
    warn_of_failures(found.failed, "could not be searched")
    return found
