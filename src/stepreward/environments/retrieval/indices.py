"""Indices over a corpus: BM25 of documents, and a graph whose edges are facts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from stepreward.core.optional import optional
from stepreward.environments.retrieval.corpus import Corpus, Fact, title_table, titles_in, words_of

_DIGITS = 4
"""Scores that agree so far are equal, whatever the machine's rounding: then the first document comes first."""


@dataclass(frozen=True)
class Listed:
    """An entry of a search's result."""

    document: int
    fact: Fact | None = None
    """The sentence that is shown; None where the title is."""


class Index(Protocol):
    """What finds documents by words."""

    corpus: Corpus

    def search(self, query: str, most: int) -> tuple[Listed, ...]:
        """The best entries, the best first; fewer where no more match."""


class Bm25:
    """Ranks texts by BM25 (Lucene's form, k1 1.5, b 0.75), by the package bm25s.

    Args:
        texts: at least one.

    Raises:
        ModelError: bm25s is not installed.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        words = [words_of(text) or [""] for text in texts]
        self._known = frozenset(word for some in words for word in some)
        self._ranker: Any = optional("bm25s").BM25(k1=1.5, b=0.75, method="lucene")
        self._ranker.index(words, show_progress=False)

    def best(self, query: str, most: int) -> list[int]:
        """Numbers of the texts with the highest scores; none whose score is 0."""
        words = [word for word in words_of(query) if word in self._known]
        if not words:
            return []
        scores = np.round(self._ranker.get_scores(words), _DIGITS)
        order = np.argsort(-scores, kind="stable")[:most]
        return [int(at) for at in order if scores[at] > 0]


class DocumentIndex:
    """Lists documents by BM25 of title and text; they are shown by their titles.

    Args:
        corpus: what is searched.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._ranker = Bm25([one.text for one in corpus.documents])
        self._best = lru_cache(maxsize=4096)(self._ranker.best)

    def search(self, query: str, most: int) -> tuple[Listed, ...]:
        """The documents with the highest scores."""
        return tuple(Listed(at) for at in self._best(query, most))


class GraphIndex:
    """Lists facts of a hypergraph: entities are titles, and a sentence is an edge between all entities that it names.

    Entities and edges are ranked by BM25 each. A fact's score is the sum of reciprocal ranks of those found entities
    that it joins, and of its own; of equal ones those of a found entity's own document come first.

        score(f) = sum_{e in f} 1 / rank(e) + 1 / rank(f),    ranks from 1 to `found`, else nothing

    Args:
        corpus: what is searched.
        found: entities, and edges, that a search finds.
    """

    def __init__(self, corpus: Corpus, found: int = 5) -> None:
        self.corpus, self._most = corpus, found
        self._facts = [fact for at in range(len(corpus.documents)) for fact in corpus.facts(at)]
        titles = [one.title for one in corpus.documents]
        self._edges = _edges(self._facts, corpus, titles)
        self._entities, self._sentences = Bm25(titles), Bm25([corpus.sentence(fact) for fact in self._facts])
        self._best = lru_cache(maxsize=4096)(self._ranked)

    def search(self, query: str, most: int) -> tuple[Listed, ...]:
        """The facts with the highest scores, of equal ones the first."""
        return tuple(Listed(self._facts[edge][0], self._facts[edge]) for edge in self._best(query, most))

    def _ranked(self, query: str, most: int) -> list[int]:
        scores: dict[int, float] = defaultdict(float)
        entities = self._entities.best(query, self._most)
        for rank, entity in enumerate(entities, 1):
            for edge in self._edges.get(entity, ()):
                scores[edge] += 1 / rank
        for rank, edge in enumerate(self._sentences.best(query, self._most), 1):
            scores[edge] += 1 / rank
        own = {edge: self._facts[edge][0] in entities for edge in scores}
        return sorted(scores, key=lambda edge: (-round(scores[edge], 9), not own[edge], edge))[:most]


def _edges(facts: Iterable[Fact], corpus: Corpus, titles: Sequence[str]) -> Mapping[int, Sequence[int]]:
    """Numbers of the facts that each entity is part of: its document's own, and those that name it."""
    made = defaultdict[int, list[int]](list)
    table = title_table(titles)
    for number, fact in enumerate(facts):
        for entity in {fact[0], *titles_in(corpus.sentence(fact), table)}:
            made[entity].append(number)
    return made
