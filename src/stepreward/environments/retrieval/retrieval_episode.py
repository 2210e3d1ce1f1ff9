"""The environments `retrieval` and `graph-retrieval`: an agent searches, reads and answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

from stepreward.core.catalog import environment
from stepreward.core.errors import InputError
from stepreward.core.runtime.acts import Observation
from stepreward.core.segment.tool_calls import ANSWERS, Call, calls_of
from stepreward.core.types import Problem, Step
from stepreward.core.vocabulary import Count
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.retrieval.answer_match import exact_match, normal, token_f1
from stepreward.environments.retrieval.corpus import Corpus, read_corpus
from stepreward.environments.retrieval.evidence import LEFT, Distances, Gathered
from stepreward.environments.retrieval.fact_world import CORPUS, fact_world
from stepreward.environments.retrieval.indices import DocumentIndex, GraphIndex, Index
from stepreward.environments.retrieval.retrieval_calls import ARGUMENTS, argument_of, retrieval_calls

Metric = Literal["exact", "f1"]
"""How an answer is graded."""
_METRICS: Mapping[str, Callable[[str, str], float]] = {"exact": exact_match, "f1": token_f1}
_READ_ONE = "Write Search[words], Read[id] or Answer[answer]."


@dataclass(frozen=True)
class Library:
    """The index of each problem's corpus, and the distances in it; shared by all episodes."""

    index_of: Callable[[str], Index]
    """By the name of the corpus in a problem's meta; "" where there is none."""
    most: int
    evidence: Callable[[str, Problem], Distances]


@dataclass(frozen=True)
class _Settings:
    """What is equal in all episodes."""

    library: Library
    turns: int
    metric: Metric


class RetrievalEpisode:
    """An episode of searches; a `core.runtime.acts.Environment`.

    Actions are calls of the tools search, read and answer, or the last `Search[...]`, `Read[...]` or `Answer[...]` in
    a text. Only what a search listed can be read. A turn may make several calls, which are executed in order. What is
    shown notes, in its meta, the fewest actions that are left (`retrieval.evidence`).

    Args:
        settings: of all episodes.
    """

    def __init__(self, settings: _Settings) -> None:
        self._settings, self._found = settings, Gathered()
        self._turns = self._called = 0
        self._answer: str | None = None

    def reset(self, problem: Problem) -> Observation:
        """Begins an episode.

        Raises:
            InputError: the problem's corpus is neither generated nor given.
        """
        self._problem, library = problem, self._settings.library
        name = str(problem.meta.get(CORPUS, ""))
        self._index, self._evidence = library.index_of(name), library.evidence(name, problem)
        documents = len(self._index.corpus.documents)
        return self._seen([self._step(f"There are {documents} documents, and {self._settings.turns} turns.\n", {})])

    def act(self, action: Step) -> Observation:
        """Executes the calls of a turn; what cannot be read is told so."""
        self._turns += 1
        calls, in_chat = retrieval_calls(action), bool(calls_of(action))
        shown = [] if calls else [self._step(f"No action was read. {_READ_ONE}\n", {})]
        for call in calls:
            text = self._result(call)
            if self._answer is not None:
                return self._graded()
            answers = {ANSWERS: call.get("id") or f"call_{self._called}"} if in_chat else {}
            self._called += in_chat
            shown.append(self._step(text, answers))
        return self._seen(shown, done=self._turns >= self._settings.turns)

    def fork(self) -> RetrievalEpisode:
        """A copy; what an episode found is never changed in place."""
        made = RetrievalEpisode(self._settings)
        vars(made).update(vars(self))
        return made

    def close(self) -> None:
        """Nothing runs."""

    def _result(self, call: Call) -> str:
        name, argument = str(call.get("name")), argument_of(call)
        if name not in ARGUMENTS:
            return f"There is no action {name}. {_READ_ONE}\n"
        if argument is None:
            return f"{name} needs the argument {ARGUMENTS[name]}, a text.\n"
        if name == "search":
            return self._search(argument)
        if name == "read":
            return self._read(argument)
        self._answer = argument
        return ""

    def _search(self, query: str) -> str:
        most, corpus = self._settings.library.most, self._index.corpus
        entries = self._index.search(query, most)
        self._found = self._found.after_search(self._index, query, most)
        shown = [
            f"{corpus.documents[one.document].id}: "
            f"{corpus.documents[one.document].title if one.fact is None else corpus.sentence(one.fact)}\n"
            for one in entries
        ]
        return "".join(shown) or "Nothing was found.\n"

    def _read(self, name: str) -> str:
        corpus = self._index.corpus
        number = corpus.numbers.get(name, corpus.numbers.get(f"d{name}"))
        if number is None or number not in self._found.listed:
            return f"No search listed the document {name}.\n"
        self._found = self._found.after_reading(self._index, number)
        return f"{' '.join(corpus.documents[number].sentences)}\n"

    def _step(self, text: str, meta: Mapping[str, str]) -> Step:
        left = {LEFT: self._evidence.fewest(self._found)}
        return Step(text, "observation", "tool" if meta else "user", meta={**meta, **left})

    def _seen(self, shown: list[Step], *, done: bool = False) -> Observation:
        reward = 0.0 if self._turns else float("nan")
        return Observation((*shown,), done=done, reward=reward, outcome=0.0)

    def _graded(self) -> Observation:
        answer, reference = self._answer or "", self._problem.reference
        grade = float("nan") if reference is None else _METRICS[self._settings.metric](answer, reference)
        return Observation(done=True, reward=grade, outcome=grade, answer=normal(answer))


@environment.method("retrieval", note="ours: BM25 over the documents of a generated world, or of a file")
def document_retrieval(
    *, corpus: str = "", results: Count = 3, turns: Count = 12, metric: Metric = "exact", live: Count = 1024
) -> EpisodePool:
    """Searches list titles of documents by BM25, and an agent reads those that it wants.

    Args:
        corpus: JSON lines of documents with `title`, `text` and, if any, `id`; empty takes each problem's own world.
        results: documents that a search lists.
        turns: most actions of an episode.
        metric: grade of an answer: exact match, or F1 of its words.
        live: most episodes kept between actions.

    Raises:
        InputError: the file cannot be read.
        ModelError: bm25s is not installed.
    """
    return _pool("retrieval", DocumentIndex, corpus, results, turns, metric, live)


@environment.method(
    "graph-retrieval",
    note="ours, after Graph-R1's released code (LHRLAB/Graph-R1 ab09130): entities and hyperedges found by five each, "
    "their facts fused and ten kept; by BM25 in place of embeddings, and of facts that are given, not extracted",
)
def graph_retrieval(
    *, corpus: str = "", results: Count = 10, turns: Count = 12, metric: Metric = "exact", live: Count = 1024
) -> EpisodePool:
    """Searches list facts of a hypergraph, whose entities are titles and whose edges are sentences.

    Args:
        corpus, turns, metric, live: as of `retrieval`.
        results: facts that a search lists; their documents can be read.

    Raises:
        InputError: the file cannot be read.
        ModelError: bm25s is not installed.
    """
    return _pool("graph-retrieval", GraphIndex, corpus, results, turns, metric, live)


def _pool(
    name: str, index: Callable[[Corpus], Index], corpus: str, results: int, turns: int, metric: Metric, live: int
) -> EpisodePool:
    if metric not in _METRICS:
        raise InputError(f"metric is one of {', '.join(_METRICS)}, got {metric!r}", remedy="name one of them")
    given = index(read_corpus(Path(corpus))) if corpus else None
    generated = lru_cache(maxsize=8)(lambda of: index(fact_world(of).corpus))

    def index_of(of: str) -> Index:
        return generated(of) if given is None else given

    evidence = lru_cache(maxsize=4096)(lambda of, problem: Distances(index_of(of), results, problem))
    settings = _Settings(Library(index_of, results, evidence), turns, metric)
    title = f"{name} results={results} turns={turns} metric={metric}{f' corpus={corpus}' if corpus else ''}"
    return EpisodePool(partial(RetrievalEpisode, settings), title, live=live)
