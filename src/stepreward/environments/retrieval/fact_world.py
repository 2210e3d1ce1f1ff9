"""A small world of people, places, works and companies: its documents, and questions of one to three hops."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Annotated, Any

import numpy as np

from stepreward.core.catalog import generate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.types import TOOLS, Problem
from stepreward.core.vocabulary import Flag
from stepreward.environments.retrieval.corpus import Corpus, Document
from stepreward.environments.retrieval.retrieval_calls import DECLARED, HOW_IN_TEXT, HOW_WITH_TOOLS

CORPUS, SUPPORT = "corpus", "support"
"""Keys of a problem's meta: the name of its generated corpus, and the sentences that its answer rests on."""
LEAST, MOST = 20, 600
"""Documents of a world."""
_NAME = re.compile(r"facts-([0-9a-f]{16})-(\d{1,3})")
_SHARES = {"person": 0.40, "work": 0.30, "city": 0.15, "company": 0.10, "country": 0.05}


def _names(firsts: str, lasts: str, joint: str = "") -> list[str]:
    return [f"{first}{joint}{last}" for first, last in product(firsts.split(), lasts.split())]


_POOLS: Mapping[str, list[str]] = {
    "person": _names(
        "Ada Bruno Celia Dario Edda Fenn Greta Hugo Ines Jonas Karla Lorin Mira Nilo Orin Petra",
        "Aldane Belgar Corvin Dulane Estrin Falken Gormann Hollin Ivane Jorvik Kestin Lomar Moravin Nesk Orlan Talon",
        " ",
    ),
    "work": _names(
        "Amber Broken Crimson Distant Empty Frozen Gilded Hidden Iron Lost Quiet Silver Third Velvet",
        "Anchor Bridge Candle Door Engine Fountain Garden Harbour Island Ladder Mirror Orchard Signal Winter",
        " ",
    ),
    "city": _names("Al Bre Cor Dun El Fal Gra Hel Is Ken", "bury dal ford gate holm mere mouth stead ton wick"),
    "company": _names(
        "Arbor Basalt Cobalt Delta Ember Falcon Granite Helix",
        "Foundry Lines Mills Optics Press Robotics Shipping Works",
        " ",
    ),
    "country": _names("Bel Cas Dor Lum Nor Ves", "andia aria entia inia oria uvia"),
}  # fmt: skip
"""Names of each kind; they share parts, so that a search finds namesakes beside what it looks for."""
_LITERALS: Mapping[str, list[str]] = {
    "year": [str(year) for year in range(1801, 2001)],
    "river": ["Arn", "Besk", "Clay", "Dove", "Erne", "Fosse", "Gale", "Humm", "Inka", "Lorne"],
    "language": ["Arvian", "Boric", "Celmish", "Dorvan", "Eskic", "Felandic", "Gavian", "Hurric"],
    "currency": ["crown", "dinar", "ducat", "florin", "guilder", "lira", "mark", "thaler"],
}


@dataclass(frozen=True)
class _Relation:
    """A function of entities of one kind."""

    to: str
    """Kind of its values: of entities, or of `_LITERALS`."""
    sentence: str
    phrase: str


_RELATIONS: Mapping[str, tuple[_Relation, ...]] = {
    "person": (
        _Relation("city", "{s} was born in {o}.", "the birthplace of {s}"),
        _Relation("year", "The birth of {s} was in {o}.", "the birth year of {s}"),
        _Relation("person", "{s} was taught by {o}.", "the teacher of {s}"),
        _Relation("company", "{s} works for {o}.", "the employer of {s}"),
    ),
    "work": (
        _Relation("person", "{s} was written by {o}.", "the author of {s}"),
        _Relation("year", "{s} appeared in {o}.", "the publication year of {s}"),
        _Relation("city", "{s} takes place in {o}.", "the setting of {s}"),
    ),
    "city": (
        _Relation("country", "{s} lies in {o}.", "the country of {s}"),
        _Relation("river", "Through {s} flows the {o}.", "the river of {s}"),
        _Relation("year", "{s} became a city in {o}.", "the founding year of {s}"),
    ),
    "company": (
        _Relation("city", "{s} has its seat in {o}.", "the seat of {s}"),
        _Relation("person", "{s} is led by {o}.", "the head of {s}"),
        _Relation("year", "{s} opened in {o}.", "the opening year of {s}"),
    ),
    "country": (
        _Relation("language", "In {s} people speak {o}.", "the language of {s}"),
        _Relation("currency", "In {s} one pays with the {o}.", "the currency of {s}"),
        _Relation("city", "The government of {s} sits in {o}.", "the capital of {s}"),
    ),
}


@dataclass(frozen=True)
class FactWorld:
    """Entities, one document each, and the value of every relation of theirs."""

    corpus: Corpus
    kinds: tuple[str, ...]
    """Kind of the entity of each document."""
    values: tuple[tuple[int | str, ...], ...]
    """Of each document's sentences: the number of another document, or a literal."""


@lru_cache(maxsize=8)
def fact_world(name: str) -> FactWorld:
    """The world of a name, which a generated problem has in its meta.

    Raises:
        InputError: no world has that name.
    """
    found = _NAME.fullmatch(name)
    if found is None or not LEAST <= int(found[2]) <= MOST:
        what = f"there is no generated corpus {name!r}"
        raise InputError(
            what, remedy="generate problems with `stepreward generate retrieval`, or pass corpus=FILE.jsonl"
        )
    rng, size = Key(int(found[1], 16)).fold("facts").rng(), int(found[2])
    counts = {kind: max(2, round(share * size)) for kind, share in _SHARES.items()}
    counts["person"] += size - sum(counts.values())
    titled = [(kind, str(one)) for kind, n in counts.items() for one in rng.choice(_POOLS[kind], n, replace=False)]
    rng.shuffle(titled)
    kinds = tuple(str(kind) for kind, _ in titled)
    titles = [str(title) for _, title in titled]
    of_kind = {kind: [at for at, own in enumerate(kinds) if own == kind] for kind in counts}
    documents, values = list[Document](), list[tuple[int | str, ...]]()
    for at, (kind, title) in enumerate(zip(kinds, titles, strict=True)):
        own = tuple(_value(relation, at, of_kind, rng) for relation in _RELATIONS[kind])
        shown = [titles[value] if isinstance(value, int) else value for value in own]
        said = [r.sentence.format(s=title, o=o) for r, o in zip(_RELATIONS[kind], shown, strict=True)]
        documents.append(Document(f"d{at}", title, tuple(said)))
        values.append(own)
    return FactWorld(Corpus(name, tuple(documents)), kinds, tuple(values))


def _value(relation: _Relation, at: int, of_kind: Mapping[str, list[int]], rng: np.random.Generator) -> int | str:
    if relation.to in _LITERALS:
        return str(rng.choice(_LITERALS[relation.to]))
    return int(rng.choice([other for other in of_kind[relation.to] if other != at]))


Hops = Annotated[int, Flag(low=1, high=3)]


@generate.method("retrieval", note="ours: a world of facts and questions along one to three of them")
def retrieval_questions(
    key: Key,
    *,
    documents: Annotated[int, Flag(low=LEAST, high=MOST)] = 120,
    fewest: Hops = 1,
    most: Hops = 3,
    tools: bool = False,
) -> Iterator[Problem]:
    """Makes questions about a world of documents for the environments `retrieval` and `graph-retrieval`.

    A question names one entity and asks for what one to three facts lead to, each of another document. All questions
    of a key are about one world.

    Args:
        key: randomness.
        documents: of the world, one an entity.
        fewest, most: hops.
        tools: declare the actions as tools, in OpenAI's form, instead of explaining them in the prompt.

    Raises:
        ValueError: `fewest` exceeds `most`, or a number is out of range.
    """
    if not 1 <= fewest <= most <= 3 or not LEAST <= documents <= MOST:
        what = f"fewest={fewest}, most={most}, documents={documents}"
        raise ValueError(f"expected 1 <= fewest <= most <= 3 and {LEAST} to {MOST} documents, got {what}")
    world = fact_world(f"facts-{key.bits:016x}-{documents}")
    number = 0
    while True:
        rng = key.fold("question", number).rng()
        hops = int(rng.integers(fewest, most + 1))
        phrase, answer, support = _chain(world, hops, rng)
        meta: dict[str, Any] = {CORPUS: world.corpus.name, SUPPORT: support, "hops": hops}
        meta |= {TOOLS: DECLARED} if tools else {}
        prompt = f"What is {phrase}?\n\n{HOW_WITH_TOOLS if tools else HOW_IN_TEXT}"
        yield Problem(f"retrieval-{key.bits:016x}-{number}", prompt, answer, meta)
        number += 1


def _chain(world: FactWorld, hops: int, rng: np.random.Generator) -> tuple[str, str, list[dict[str, Any]]]:
    """What is asked for, the answer and the facts that lead to it; drawn again until all entities differ."""
    while True:
        at: int | str = int(rng.integers(len(world.kinds)))
        visited, facts = [at], list[tuple[int, int]]()
        for hop in range(hops):
            assert isinstance(at, int)
            # Only the last hop may lead to a literal, which has no facts of its own.
            relations = enumerate(_RELATIONS[world.kinds[at]])
            chosen = int(rng.choice([n for n, r in relations if hop == hops - 1 or r.to not in _LITERALS]))
            facts.append((at, chosen))
            at = world.values[at][chosen]
            visited.append(at)
        if len(set(visited)) == len(visited):
            break
    documents = world.corpus.documents
    phrase, support = documents[facts[0][0]].title, list[dict[str, Any]]()
    for number, chosen in facts:
        one = documents[number]
        phrase = _RELATIONS[world.kinds[number]][chosen].phrase.format(s=phrase)
        support.append({"document": one.id, "sentence": chosen, "title": one.title, "text": one.sentences[chosen]})
    return phrase, documents[at].title if isinstance(at, int) else at, support
