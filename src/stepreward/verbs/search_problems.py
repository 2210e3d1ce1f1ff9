"""The verb search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stepreward.connect.ray_engine import engine_of
from stepreward.core.catalog import search as searches
from stepreward.core.errors import SteprewardError
from stepreward.core.failures import Failures, warn_of_failures
from stepreward.core.runtime.flows import Grader, Judge, Policy, Scorer
from stepreward.core.runtime.made_in_parts import Engine, MadePart
from stepreward.core.runtime.spending import Bill
from stepreward.core.types import Problem
from stepreward.pipeline.compose import SolutionList, Solver, compose, default_search
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
    engine: str | Engine = "",
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
        engine: where parts of the problems are solved, as in `label`.
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
    build = partial(_solver, policy, scorer, grader, search=name, judge=judge, **settings)
    unread, elsewhere = Failures(), engine_of(engine)
    rows = problems_of(problems, None if strict else unread)
    found = build().solve(rows, seed=seed) if elsewhere is None else _elsewhere(rows, build, seed, elsewhere)
    found.unread = unread
    if strict:
        found.failed.refuse("could not be searched")
    warn_of_failures(found.failed, "could not be searched")
    return found


def _solver(
    policy: str | Path | Policy, scorer: str | Path | Scorer | None, grader: str | Grader, **how: Any
) -> Solver:
    return compose(policy_of(policy), () if scorer is None else scorer_of(scorer), grader=grader_of(grader), **how)


@dataclass(frozen=True)
class SolvePart:
    """Solves parts of a list of problems, wherever it is called: loads models there, once."""

    solver: Callable[[], Solver]
    seed: int

    def __call__(self) -> Callable[[list[Problem]], SolutionList]:
        """What solves a part."""
        return partial(self.solver().solve, seed=self.seed, alone=False)


@dataclass(frozen=True)
class SearchPart:
    """Makes rows of the table of candidates from parts of a list of problems, as `SolvePart` solves them."""

    solver: Callable[[], Solver]
    seed: int

    def __call__(self) -> Callable[[list[Problem]], MadePart]:
        """What makes the rows of a part."""
        return partial(self._rows, SolvePart(self.solver, self.seed)())

    def _rows(self, solve: Callable[[list[Problem]], SolutionList], problems: list[Problem]) -> MadePart:
        try:
            solved = solve(problems)
        except SteprewardError as error:
            return MadePart(failed=Failures((one.id, error) for one in problems), lost=error)
        bill = Bill()
        for one in solved:
            bill.add(one.bill)
        made = MadePart([row for one in solved for row in one.rows()], solved.failed, bills={"search": bill})
        made.lost = made.failed[0][1] if len(made.failed) == len(problems) else None
        return made


def _elsewhere(problems: list[Problem], build: Callable[[], Solver], seed: int, engine: Engine) -> SolutionList:
    """The solutions of all problems, in order, from parts that an engine solves.

    Raises:
        SteprewardError: all problems failed.
    """
    parts = [problems[at : at + engine.part] for at in range(0, len(problems), engine.part)]
    with engine.open(SolvePart(build, seed)) as workers:
        made = dict(workers.made(parts))
    found = SolutionList(one for index in range(len(parts)) for one in made[index])
    if found and len(found.failed) == len(found):
        raise found.failed[0][1]
    return found
