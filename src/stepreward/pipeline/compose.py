"""A solver as one value: policy, scorer, search and budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from stepreward.core.catalog import aggregate as aggregates
from stepreward.core.catalog import search as searches
from stepreward.core.errors import InputError, SteprewardError, UnknownNameError
from stepreward.core.failures import Failure, Failures
from stepreward.core.html_table import html_table
from stepreward.core.keys import Key
from stepreward.core.method import Method
from stepreward.core.optional import optional
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver, Failed
from stepreward.core.runtime.executing import execution_of
from stepreward.core.runtime.flows import Flow, Grader, Judge, Policy, Scorer
from stepreward.core.runtime.spending import Bill, Budget, Prices
from stepreward.core.runtime.wrapped_flows import limited
from stepreward.core.types import SCORE, Problem, Provenance, Trajectory
from stepreward.policies.expert import WithExpert
from stepreward.score.capabilities import ScoreUse, use_of
from stepreward.score.ensemble import Combine, combined
from stepreward.search.candidates import Found, nothing_found
from stepreward.search.graded_candidates import with_outcome

_HEAD = ("problem", "prompt", "answer", "outcome", "total", "candidates", "tokens", "seconds", "stopped", "error")
_OF_WHOLE = "stepreward.search.samples."
"""Searches that sample solutions to their ends before they score them."""
OnProgress = Callable[[int, int, Bill], None]


@dataclass(frozen=True)
class Solver:
    """Solves problems together, under one driver; `compose` makes one."""

    search: Method[..., Any]
    settings: Mapping[str, Any]
    """Of the search."""
    policy: Policy
    scorer: Scorer | None = None
    grader: Grader | None = None
    """Who reads answers, for votes."""
    judge: Judge | None = None
    """Who compares solutions, for tournaments."""
    budget: Budget = field(default_factory=Budget)
    """Of each problem."""
    prices: Prices = field(default_factory=Prices)
    temperature: float | None = None
    """Of sampling, where the search does not say; None leaves it to the policy."""
    top_p: float | None = None

    def flow(self, problem: Problem, key: Key) -> Flow[Found]:
        """The search of one problem."""
        flow: Flow[Found] = self.search.take({"problem": problem, "key": key.fold(problem.id)}, **self.settings)
        return limited(flow, temperature=self.temperature, top_p=self.top_p)

    def _graded(self, problem: Problem, key: Key) -> Flow[tuple[Found, float]]:
        """The search of one problem, and the grade of the chosen solution, NaN without a grader."""
        if self.grader is None:
            return (yield from self.flow(problem, key)), float("nan")
        return (yield from with_outcome(self.flow(problem, key), problem))

    def solve(
        self,
        problems: Sequence[Problem],
        *,
        seed: int = 0,
        log: AnswerLog | None = None,
        alone: bool = True,
        on_progress: OnProgress | None = None,
    ) -> SolutionList:
        """The problems' solutions, in order; one that could not be solved has its error.

        Args:
            problems: with ids that differ.
            seed: of all samples.
            log: where paid answers are kept and looked up.
            alone: whether these are all problems, so that it is an error if all of them failed.
            on_progress: called with the problems solved, their number in all, and the bill so far.

        Raises:
            SteprewardError: all problems failed, or 16 with no question answered in between: the search needs a scorer,
                grader or judge that was not passed, or a server is down.
        """
        key = Key.seed(seed).fold("search")
        driver = Driver(
            policy=self.policy, scorer=self.scorer, grader=self.grader, judge=self.judge, budget=self.budget, log=log,
            prices=self.prices,
        )  # fmt: skip
        # A search measures nothing itself: the scorer of its steps does.
        by = [Provenance(self.search.name, self.policy.name, seed=seed, settings=dict(self.settings), what=())]
        by += [] if self.scorer is None else [Provenance(self.scorer.name, what=(SCORE,))]
        made: dict[int, Solution] = {}
        for one in driver.outcomes(self._graded(problem, key) for problem in problems):
            problem = problems[one.index]
            if isinstance(one, Failed):
                if alone and len(made) + 1 == len(problems) and all(s.error for s in made.values()):
                    raise one.error
                found = nothing_found(problem)
                made[one.index] = Solution(problem, found, one.bill, one.seconds, error=str(one.error), by=tuple(by))
            else:
                found, grade = one.result
                made[one.index] = Solution(
                    problem, found, one.bill, one.seconds, one.stopped, outcome=grade, by=tuple(by)
                )
            if on_progress is not None:
                on_progress(len(made), len(problems), driver.bill)
        return SolutionList(made[index] for index in range(len(problems)))


@dataclass(frozen=True, slots=True)
class Solution:
    """The result of a search on one problem."""

    problem: Problem
    found: Found
    """The tree, the candidates, the answer."""
    bill: Bill
    seconds: float
    """From its first question to its end; problems are solved side by side, so these overlap."""
    stopped: str = ""
    """The limit of the budget that ended it, such as `tokens`; "" where none did."""
    error: str = ""
    """Why it could not be solved; the next run tries again, as errors are not logged."""
    outcome: float = float("nan")
    """Grade of the chosen solution, 0 where none was; NaN without a reference or a grader, or where it failed."""
    by: tuple[Provenance, ...] = ()
    """The search, and the scorer of its steps."""

    @property
    def answer(self) -> str | None:
        """The answer of the chosen solution; None where there is none, or no grader read it."""
        return self.found.answer

    def rows(self) -> list[Trajectory]:
        """The candidates as rows of the table: at least one, without steps where there is no candidate.

        Facts of each are `candidate`, its index, whether it is `chosen`, and its `total`, if any. What is known of the
        problem as a whole is in the row of the chosen one alone, or else in the first: the `outcome`, and the facts
        `bill`, `seconds`, `stopped` and `error`, if any.
        """
        found = self.found.trajectories() or [Trajectory(self.problem, (), terminal=False)]
        whole = {"bill": asdict(self.bill), "seconds": round(self.seconds, 3)}
        whole |= {name: text for name, text in (("stopped", self.stopped), ("error", self.error)) if text}
        made = []
        for at, one in enumerate(found):
            facts = {**one.facts, "candidate": at, "chosen": at == self.found.chosen}
            first = at == max(self.found.chosen, 0)
            made.append(
                replace(
                    one, outcome=self.outcome if first else float("nan"), facts={**facts, **(whole if first else {})},
                    provenance=tuple(by for by in self.by if set(by.what) <= one.columns.keys()),
                )
            )  # fmt: skip
        return made

    def __repr__(self) -> str:
        said = f"Solution of {self.problem.id!r}: answer {self.answer!r:.60}, outcome {self.outcome:.3g}"
        said += f", {len(self.found.answers):,} candidates"
        return f"<{said}; failed: {self.error}>" if self.error else f"<{said}>"


class SolutionList(list[Solution]):
    """The results of several problems, in their order.

    Args:
        items: the results.
        unread: rows of a file that are no problem.
    """

    def __init__(self, items: Iterable[Solution] = (), unread: Iterable[Failure] = ()) -> None:
        super().__init__(items)
        self.unread = [*unread]

    @property
    def failed(self) -> Failures:
        """Rows that are no problem, and the ids of problems that could not be solved, with their errors."""
        return Failures([*self.unread, *((one.problem.id, SteprewardError(one.error)) for one in self if one.error)])

    def __repr__(self) -> str:
        right, graded = sum(one.outcome > 0.5 for one in self), sum(one.outcome == one.outcome for one in self)
        said = f"{len(self):,} solutions, {right:,} of {graded:,} graded right"
        return f"<{said}; {len(self.failed):,} failed>" if self.failed else f"<{said}>"

    def _repr_html_(self) -> str:
        return html_table(_HEAD, self._rows(), caption=repr(self)[1:-1])

    def to_pandas(self) -> Any:
        """A pandas data frame with one row a problem: what was chosen, its total and outcome, and what it cost.

        Raises:
            ModelError: pandas is not installed.
        """
        return optional("pandas").DataFrame(self._rows(), columns=_HEAD)

    def _rows(self) -> Iterator[tuple[object, ...]]:
        for one in self:
            total = float(one.found.totals[one.found.chosen]) if one.found.chosen >= 0 else float("nan")
            cost = (one.bill.generated_tokens, one.seconds, one.stopped, one.error)
            yield (one.problem.id, one.problem.text, one.answer, one.outcome, total, len(one.found.answers), *cost)


def default_search(scored: bool) -> str:
    """The search where none is named, with a scorer or without one."""
    return "beam" if scored else "majority"


def compose(
    propose: Policy,
    score: Scorer | Sequence[Scorer] = (),
    *,
    expert: Policy | None = None,
    combine: Combine = "mean",
    doubt: float = 1.0,
    aggregate: str = "",
    search: str = "beam",
    stop: Budget | None = None,
    grader: Grader | None = None,
    judge: Judge | None = None,
    prices: Prices | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    **settings: Any,
) -> Solver:
    """A solver that proposes with A, scores with B, aggregates by C, searches by D and stops by E.

    Args:
        propose: who writes.
        score: who scores steps; several are an ensemble, none is for searches without scores.
        expert: a stronger policy, for searches that ask one at chosen steps.
        combine, doubt: how an ensemble's scores become one, see `EnsembleScorer`: `min` and `lower` are conservative.
        aggregate: total of a solution's step scores, by name; the search's own where empty.
        search: by name.
        stop: the most that a problem may cost; the best so far is its answer.
        grader: who reads answers, for votes.
        judge: who compares solutions, for tournaments.
        prices: of tokens, for a budget in money.
        temperature, top_p: of sampling, where the search does not say; None leaves them to the policy.
        settings: of the search, in the types of its defaults.

    Raises:
        InputError: the search has no total that could be aggregated, or scores prefixes by a model that reads whole
            solutions.
        UnknownNameError: there is no such search, aggregation or setting.
    """
    chosen = searches[search]
    own = dict(settings)
    if aggregate:
        if "aggregate" not in chosen.settings:
            raise InputError(f"{search} does not aggregate", remedy="leave aggregate out, or take another search")
        own["aggregate"] = aggregate
    for name in own:
        if name not in chosen.settings:
            raise UnknownNameError(f"setting of {search}", name, chosen.settings)
    scorers = list(score) if isinstance(score, Sequence) else [score]
    # Searches of these modules score solutions when they are whole; others also their beginnings.
    if not chosen.function.__module__.startswith(_OF_WHOLE) and any(
        (use_of(one) or ScoreUse()).whole for one in scorers
    ):
        what = f"{search} scores solutions step by step, and this model reads them both ways, as a whole"
        raise InputError(what, remedy="take a search of whole samples, such as best-of-n")
    scorer = combined(scorers, combine=combine, doubt=doubt)
    if execution_of(scorer) is not None and "aggregate" in chosen.settings:
        # A sum of rewards so far is in the last score, whatever suits the scores of a reward model.
        own = {"aggregate": (use_of(scorer) or ScoreUse()).aggregate, **own}
    if "aggregate" in own:
        aggregates[own["aggregate"]]
    return Solver(
        chosen, own, propose if expert is None else WithExpert(propose, expert), scorer, grader, judge,
        stop or Budget(), prices or Prices(), temperature, top_p,
    )  # fmt: skip
