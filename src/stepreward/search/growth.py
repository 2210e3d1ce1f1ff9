"""What all searches share: sampling continuations, scoring new steps, and choosing at the end.

A search keeps candidates and decides which of them to grow. `Growth` yields the questions, remembers everything that
was grown, and keeps the rules of every search: equal continuations of a candidate count once, a cut is not an end, a
finished candidate is not continued, nothing is scored twice, and every step has exactly one score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import select as selectors
from stepreward.core.errors import BudgetExhausted, ModelError, Unanswered
from stepreward.core.keys import Folding, Key
from stepreward.core.measure.selection import answer_ids
from stepreward.core.prefix_names import TOP
from stepreward.core.runtime.flows import Continuation, Extract, Flow, Propose, Question, Score
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Step
from stepreward.search.candidates import Candidate, Found, Path, total_of, tree_of

Columns = Callable[[Sequence[Path]], Mapping[str, NDArray[np.float64]]]
"""From the names of a tree's nodes, the root's first, to columns of the tree."""


@dataclass(frozen=True, slots=True)
class StepStart:
    """The start of a next step."""

    candidate: Candidate
    """The path with the first tokens of the step."""
    cut: bool
    """Whether the step goes on."""


class Growth:
    """One problem's search as it grows.

    Samples after a prefix are drawn from a key that its steps alone decide: searches under one key draw the same
    continuations at the same node, whatever else they grow, so that they can be compared pair by pair.

    Args:
        problem: what to solve.
        key: randomness.
        aggregate: total of a candidate's step scores.
    """

    def __init__(self, problem: Problem, key: Key, aggregate: str = "min") -> None:
        self.problem, self.key, self.aggregate = problem, key, aggregate
        self.spent = False
        """True once the budget refused a question: from then on nothing grows."""
        self._seen: dict[tuple[Path, bool], Candidate] = {}
        self._scores: dict[Path, dict[str, Any]] = {}
        """Scores and totals of every path that was scored."""
        self._folds: dict[Path, Folding] = {TOP: key.folding("grow")}
        """Keys of prefixes, from which those of longer ones are folded."""
        self._cut: list[Candidate] = []
        """Paths whose last step a limit cut: returned where no other candidate has steps."""

    def open(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that can be grown: not finished; none once the budget is spent."""
        return [] if self.spent else [c for c in candidates if not c.finished]

    def grow(
        self, parents: Sequence[Candidate], n: int | Sequence[int], *, keys: Sequence[Key] | None = None, **how: Any
    ) -> Flow[list[list[Candidate]]]:
        """Samples next steps and scores them: the children of each parent, in order, equal ones once.

        Args:
            parents: candidates that are not finished.
            n: samples of each parent.
            keys: randomness of each parent; None takes the one that its steps decide.
            how: further fields of the questions, such as `temperature` or `expert`, or `problem`, in other words.
        """
        children = yield from self.sprout(parents, n, keys=keys, **how)
        scored = yield from self.score([c for group in children for c in group])
        rest = iter(scored)
        return [[next(rest) for _ in group] for group in children]

    def sprout(
        self, parents: Sequence[Candidate], n: int | Sequence[int], *, keys: Sequence[Key] | None = None, **how: Any
    ) -> Flow[list[list[Candidate]]]:
        """Like `grow`, without scores: a child has its parent's, if it ends the solution without a further step."""
        made = yield from self._propose(parents, n, keys, {"until": "step", **how})
        return [self._merged(parent, some) for parent, some in zip(parents, made, strict=True)]

    def complete(
        self, parents: Sequence[Candidate], n: int | Sequence[int] = 1, *, first: int = 0
    ) -> Flow[list[list[Candidate]]]:
        """Samples whole solutions from each parent, without scores; equal ones are all returned, for votes count them.

        One that a limit cut comes back unfinished. `first` is the number of the first sample.
        """
        made = yield from self._propose(parents, n, None, {"until": "end", "first": first})
        grown = [
            [Candidate(parent.then(new), c.finished) for c in some for new in [_with_content(c)] if parent.steps or new]
            for parent, some in zip(parents, made, strict=True)
        ]
        self._remember(chain.from_iterable(grown))
        return grown

    def start_steps(
        self, parents: Sequence[Candidate], n: int | Sequence[int], tokens: int
    ) -> Flow[list[list[StepStart]]]:
        """Samples the first `tokens` tokens of next steps: the starts below each parent, equal ones once."""
        made = yield from self._propose(parents, n, None, {"until": "step", "max_tokens": tokens})
        return [_starts(parent, some) for parent, some in zip(parents, made, strict=True)]

    def finish_steps(self, begun: Sequence[StepStart]) -> Flow[list[Candidate]]:
        """Samples the rest of steps that were cut: the candidates with whole steps, without those cut again."""
        cut = [one for one in begun if one.cut]
        made = yield from self._propose([one.candidate for one in cut], 1, None, {"until": "step"})
        whole = {id(one): _finished(one, rest) for one, some in zip(cut, made, strict=True) for rest in some}
        kept = [whole.get(id(one)) if one.cut else one.candidate for one in begun]
        found = [candidate for candidate in kept if candidate is not None]
        self._remember(found)
        return found

    def solve_rewordings(self, problems: Sequence[Problem]) -> Flow[list[Candidate]]:
        """Samples a whole solution of each rewording of the problem, without scores."""
        if self.spent or not problems:
            return []
        questions = [Propose(p, (), self.key.fold("reworded", p.id), partial=True) for p in problems]
        answers = yield from self._answers_to(questions)
        made = [Candidate(new, c.finished) for c in chain.from_iterable(answers) for new in [_with_content(c)] if new]
        self._remember(made)
        return made

    def reply(self, problem: Problem) -> Flow[str]:
        """The policy's reply to a rewording of the problem, as plain text; empty once the budget is spent."""
        if self.spent:
            return ""
        try:
            ((answer,),) = yield [Propose(problem, (), self.key.fold("said", problem.id), acts=False)]
        except BudgetExhausted:
            self.spent = True
            return ""
        return "".join(step.text for step in answer.steps)

    def score(self, candidates: Sequence[Candidate]) -> Flow[list[Candidate]]:
        """The candidates with scores and totals; only those without scores are scored, equal ones once.

        Raises:
            ModelError: the scorer does not answer one number a step.
        """
        new = {c.path: c for c in candidates if not c.scores and c.steps and c.path not in self._scores}
        if new:
            answers = yield [Score(self.problem, c.steps) for c in new.values()]
            for candidate, scores in zip(new.values(), answers, strict=True):
                if np.shape(scores) != (length := len(candidate.steps),):
                    raise ModelError(
                        f"expected {length} scores for a solution of {length} steps of problem {self.problem.id!r}, "
                        f"got {np.size(scores)}: a scorer must answer one number a step"
                    )
            rows = [tuple(scores.tolist()) for scores in answers]
            totals = total_of(rows, self.aggregate).tolist()
            self._scores |= {path: {"scores": s, "total": t} for path, s, t in zip(new, rows, totals, strict=True)}
        full = [replace(c, **self._scores[c.path]) if not c.scores and c.steps else c for c in candidates]
        self._remember(full)
        return full

    def conclude(
        self,
        candidates: Sequence[Candidate],
        *,
        select: str = "best-of-n",
        totals: NDArray[np.float64] | None = None,
        columns: Columns | None = None,
        **settings: Any,
    ) -> Flow[Found]:
        """Chooses by a method of the family select: among the finished candidates, among all if none finished.

        Where a limit cut every step there was, those are the candidates, without scores.

        Args:
            candidates: those to return; one without steps is left out.
            select: name of the method.
            totals: (B,) what it reads as the candidates' totals; None takes their own.
            columns: what the search knows of the nodes of everything searched.
            settings: of the method.
        """
        if not any(c.steps for c in candidates):
            candidates, totals = self._cut, None
        shown = [row for row, c in enumerate(candidates) if c.steps]
        listed = [candidates[row] for row in shown]
        # A candidate that was cut states no answer, and is chosen only where none has ended.
        ended = [row for row, c in enumerate(listed) if c.finished]
        answers: list[str | None] = [None] * len(listed)
        if ended:
            said = yield [Extract(self.problem, listed[row].steps) for row in ended]
            for row, answer in zip(ended, said, strict=True):
                answers[row] = answer
        worth = np.array([c.total for c in listed], np.float64) if totals is None else totals[shown]
        rivals = np.array(ended or [*range(len(listed))], np.int64)
        group = np.zeros(len(rivals), np.int64)
        ids = answer_ids([answers[row] for row in rivals], group.tolist())
        data = {"totals": worth[rivals], "answers": ids, "group": group}
        chosen = int(rivals[selectors[select].take(data, **settings)[0]]) if listed else -1
        return Found(tree_of(self.problem, listed), worth, tuple(answers), chosen, self._searched(columns))

    def _propose(
        self,
        parents: Sequence[Candidate],
        n: int | Sequence[int],
        keys: Sequence[Key] | None,
        how: Mapping[str, Any],
    ) -> Flow[list[list[Continuation]]]:
        assert not any(parent.finished for parent in parents), "a finished candidate is not continued"
        counts = [n] * len(parents) if isinstance(n, int) else list(n)
        drawn = [self._key(parent) for parent in parents] if keys is None else keys
        questions: list[Question] = [
            Propose(prefix=parent.steps, key=key, n=count, partial=True, **{"problem": self.problem, **how})
            for parent, count, key in zip(parents, counts, drawn, strict=True)
            if count
        ]
        if not questions or self.spent:
            return [[] for _ in parents]
        answers = iter((yield from self._answers_to(questions)))
        # A parent without samples has no question: its place in the answer stays empty.
        return [next(answers) if count else [] for count in counts]

    def _answers_to(self, questions: Sequence[Question]) -> Flow[list[list[Continuation]]]:
        """The answers to questions that take partial ones: fewer where the budget ended, or samples failed.

        Raises:
            SteprewardError: no sample could be had.
        """
        try:
            return (yield questions)
        except BudgetExhausted as ended:
            self.spent = True
            return ended.answers or [[] for _ in questions]
        except Unanswered as failed:
            if not any(failed.answers):
                raise
            return failed.answers

    def _key(self, parent: Candidate) -> Key:
        """The key of a candidate's steps, folded from that of the longest prefix whose key is known."""
        places = (TOP, *parent.places)
        known = next(i for i in range(len(places) - 1, -1, -1) if places[i] in self._folds)
        for place, step in zip(places[known + 1 :], parent.steps[known:], strict=True):
            self._folds[place] = self._folds[places[known]].fold(step.agent or "", step.text)
            known += 1
        return self._folds[parent.path].key

    def _merged(self, parent: Candidate, continuations: Sequence[Continuation]) -> list[Candidate]:
        """A candidate's children, equal ones once, without cut steps and empty ones that do not end the solution."""
        made: dict[tuple[Path, bool], Candidate] = {}
        for c in continuations:
            fresh = _child(parent, c)
            if c.truncated and fresh is not None:
                self._cut.append(Candidate(fresh.steps))
            elif fresh is not None:
                name = (fresh.path, c.finished)
                made[name] = replace(made[name], count=made[name].count + 1) if name in made else fresh
        self._remember(made.values())
        return list(made.values())

    def _remember(self, candidates: Iterable[Candidate]) -> None:
        for c in candidates:
            if c.scores or (c.path, c.finished) not in self._seen:
                self._seen[c.path, c.finished] = c

    def _searched(self, columns: Columns | None) -> StepTree:
        """Everything grown as one tree: a trajectory for each path that nothing extends."""
        inner = {path for path, finished in self._seen if finished}
        above = {TOP}
        for candidate in self._seen.values():
            # Where one prefix is known to be inside the tree, all shorter ones are.
            fresh = takewhile(lambda place: place not in above, reversed(candidate.places[:-1]))
            above.update(list(fresh))
        inner |= above
        leaves = [c for (path, finished), c in self._seen.items() if finished or path not in inner]
        tree = tree_of(self.problem, leaves)
        for name, values in (columns(tree.names) if columns else {}).items():
            tree = tree.with_column(name, values)
        return tree


def _with_content(continuation: Continuation) -> tuple[Step, ...]:
    """The steps of a continuation that have content: an empty one cannot be scored."""
    return tuple(step for step in continuation.steps if step.text or step.images)


def _child(parent: Candidate, continuation: Continuation) -> Candidate | None:
    """The candidate that a continuation makes of its parent; None for an empty one that does not end a solution.

    An end without a further step has its parent's steps, and so their scores.
    """
    new = _with_content(continuation)
    if new:
        return Candidate(parent.then(new), continuation.finished)
    return replace(parent, finished=True, count=1) if continuation.finished and parent.steps else None


def _starts(parent: Candidate, continuations: Sequence[Continuation]) -> list[StepStart]:
    """Starts of steps, equal ones once; an empty one counts only where it ends the solution."""
    made: dict[tuple[Path, bool, bool], StepStart] = {}
    for c in continuations:
        fresh = _child(parent, c)
        if fresh is not None:
            made.setdefault((fresh.path, c.finished, c.truncated), StepStart(fresh, c.truncated))
    return list(made.values())


def _finished(begun: StepStart, rest: Continuation) -> Candidate | None:
    """The candidate with its last step whole; None if it was cut again."""
    if rest.truncated:
        return None
    start = begun.candidate
    before = Candidate(start.first(len(start.steps) - 1))
    return Candidate(before.then([joined((start.steps[-1], *_with_content(rest)))]), rest.finished)


def joined(parts: Sequence[Step]) -> Step:
    """One step out of several parts; it has tokens and log-probabilities only where all parts have them."""
    tokens = None if any(p.tokens is None for p in parts) else tuple(t for p in parts for t in p.tokens or ())
    said = None if any(p.logprobs is None for p in parts) else tuple(t for p in parts for t in p.logprobs or ())
    return replace(parts[0], text="".join(p.text for p in parts), tokens=tokens, logprobs=said)
