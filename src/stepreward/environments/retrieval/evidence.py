"""What an answer rests on, and how far an episode is from it: the exact worth of actions that look for facts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stepreward.core.catalog import check
from stepreward.core.errors import InputError
from stepreward.core.step_check import StepCheck
from stepreward.core.types import Problem, Step
from stepreward.environments.retrieval.answer_match import exact_match
from stepreward.environments.retrieval.corpus import Fact, title_table, titles_in
from stepreward.environments.retrieval.fact_world import SUPPORT
from stepreward.environments.retrieval.indices import Index
from stepreward.environments.retrieval.retrieval_calls import answer_in, retrieval_calls

LEFT = "left"
"""Key of an observation's meta: the fewest actions that were left after the action before it."""


@dataclass(frozen=True)
class Gathered:
    """Documents that searches listed, and sentences that were shown."""

    listed: frozenset[int] = frozenset()
    shown: frozenset[Fact] = frozenset()

    def after_search(self, index: Index, query: str, most: int) -> Gathered:
        """What is found after a search."""
        entries = index.search(query, most)
        facts = {entry.fact for entry in entries if entry.fact is not None}
        return Gathered(self.listed | {entry.document for entry in entries}, self.shown | facts)

    def after_reading(self, index: Index, document: int) -> Gathered:
        """What is found after a document was read."""
        return Gathered(self.listed, self.shown | set(index.corpus.facts(document)))


class Distances:
    """How many actions separate an episode from an answer that rests on what was shown.

    The fewest actions are those of a shortest path. Its searches look for a whole title that the problem or a
    supporting sentence names, as far as that was shown; a lucky guess is no such path.

    Args:
        index: of the environment.
        most: entries that a search lists.
        problem: with the supporting sentences in its meta.

    Raises:
        InputError: the meta names a sentence that the corpus does not have.
    """

    def __init__(self, index: Index, most: int, problem: Problem) -> None:
        self._index, self._most = index, most
        self._support = frozenset(_facts(index, problem))
        documents = index.corpus.documents
        self._table = title_table([one.title for one in documents])
        self._asked = titles_in(problem.text, self._table)
        self._named = {fact: titles_in(index.corpus.sentence(fact), self._table) for fact in self._support}
        self._known: dict[Gathered, int | None] = {}

    def fewest(self, found: Gathered) -> int | None:
        """The fewest actions left, the answer included; None where no path is known."""
        wanted = {fact[0] for fact in self._support}
        start = Gathered(found.listed & wanted, found.shown & self._support)
        if start not in self._known:
            self._known[start] = self._shortest(start) if self._support else None
        return self._known[start]

    def _shortest(self, start: Gathered) -> int | None:
        queue, seen = deque([(start, 0)]), {start}
        while queue:
            found, steps = queue.popleft()
            if found.shown >= self._support:
                return steps + 1
            for after in self._moves(found):
                if after not in seen:
                    seen.add(after)
                    queue.append((after, steps + 1))
        return None

    def _moves(self, found: Gathered) -> Iterator[Gathered]:
        """What single actions lead to, as far as it matters."""
        wanted = {fact[0] for fact in self._support}
        titles = {*self._asked, *(title for fact in found.shown for title in self._named[fact])}
        documents = self._index.corpus.documents
        read = [found.after_reading(self._index, document) for document in found.listed]
        sought = [found.after_search(self._index, documents[title].title, self._most) for title in titles]
        for after in [*read, *sought]:
            yield Gathered(after.listed & wanted, after.shown & self._support)


def _facts(index: Index, problem: Problem) -> Iterator[Fact]:
    corpus = index.corpus
    for one in problem.meta.get(SUPPORT) or ():
        number, at = corpus.numbers.get(str(one.get("document"))), one.get("sentence")
        if number is None or not isinstance(at, int) or not 0 <= at < len(corpus.documents[number].sentences):
            what = f"problem {problem.id!r} rests on sentence {at} of document {one.get('document')!r}"
            raise InputError(f"{what}, which {corpus.name} does not have", remedy="pass the corpus of the problem")
        yield number, at


@check.method("retrieval", note="ours: the fewest actions to an answer that rests on what was shown, before and after")
def useful_actions(problem: Problem, steps: Sequence[Step]) -> list[StepCheck]:
    """Says which actions of an episode of `retrieval` or `graph-retrieval` were of use, by exact distances.

    An action is right if each of its calls brings the episode one action nearer to an answer that rests on what was
    shown, and wrong if not: a search that finds nothing new of use, a document that does not matter, a turn without an
    action. A right answer is right where all that it rests on was shown, and unknown (`unsupported`) where it was not.

    Args:
        problem: with the reference.
        steps: of one episode; the environment notes the distance in the meta of what it shows.
    """
    made, before = list[StepCheck](), None
    for at, step in enumerate(steps):
        if step.kind == "observation":
            before = step.meta.get(LEFT, before)
            made.append(StepCheck(None))
            continue
        shown = list[Step]()
        for after in steps[at + 1 :]:
            if after.kind == "action":
                break
            shown.append(after)
        lefts = [one.meta[LEFT] for one in shown if one.meta.get(LEFT) is not None]
        made.append(_judged(problem, step, before, lefts[-1] if lefts else None))
    return made


def _judged(problem: Problem, step: Step, before: int | None, after: int | None) -> StepCheck:
    answer, calls = answer_in(step), len(retrieval_calls(step))
    if answer is not None:
        if problem.reference is None:
            return StepCheck(None, "no reference")
        if not exact_match(answer, problem.reference):
            return StepCheck(False, "wrong answer", f"{answer} is not {problem.reference}")
        return StepCheck(True) if before is not None and before <= calls else StepCheck(None, "unsupported", answer)
    if not calls:
        return StepCheck(False, "no action", step.text.strip()[:80])
    if before is None or after is None:
        return StepCheck(None, "not known")
    if before - after == calls:
        return StepCheck(True)
    return StepCheck(False, "no use", f"{before} actions were left before it, and {after} after")
