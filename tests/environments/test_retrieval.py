"""Retrieval: the generated world, its indices, episodes and exact distances, against slow searches by acting."""

from __future__ import annotations

import json
from collections import deque
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepreward.core.catalog import check, generate
from stepreward.core.errors import InputError, SteprewardError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Act, Environment, Observation
from stepreward.core.segment.tool_calls import calling_step
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.episode_pool import EpisodePool
from stepreward.environments.retrieval.answer_match import exact_match, normal, token_f1
from stepreward.environments.retrieval.corpus import Corpus, Document, read_corpus
from stepreward.environments.retrieval.fact_world import fact_world
from stepreward.environments.retrieval.indices import Bm25, DocumentIndex, GraphIndex
from stepreward.environments.retrieval.retrieval_calls import retrieval_calls
from stepreward.environments.retrieval.seeker import seeker
from stepreward.testing import check_environment

pytest.importorskip("bm25s")
NAMES = ("retrieval", "graph-retrieval")


@cache
def problems(n: int = 60, seed: int = 0, **how: Any) -> list[Problem]:
    return [*islice(generate["retrieval"].take({"key": Key.seed(seed)}, **how), n)]


@cache
def pool(address: str) -> EpisodePool:
    made = environment_at(address)
    assert isinstance(made, EpisodePool)
    return made


def fresh(address: str = "retrieval") -> Environment:
    return pool(address)._make()


def acted(problem: Problem, actions: list[str], address: str = "retrieval") -> list[Observation]:
    environment = fresh(address)
    return [environment.reset(problem), *(environment.act(Step(action)) for action in actions)]


def left(shown: Observation) -> int:
    return int(shown.steps[-1].meta["left"])


def best_turns(problem: Problem) -> list[str]:
    """What a seeker that never errs does."""
    environment, turns = fresh(), seeker(stray=0.0, guess=0.0)
    shown = environment.reset(problem)
    prefix, made = shown.steps, list[str]()
    while not shown.done:
        ((step, _, _),) = turns(problem, prefix)
        shown = environment.act(step)
        prefix, made = (*prefix, step, *shown.steps), [*made, step.text.strip()]
    assert shown.outcome == 1.0
    return made


@pytest.mark.parametrize("address", NAMES)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_it_keeps_the_contract(address: str, number: int) -> None:
    problem = problems()[number]
    wasted = ["Search[nobody]", "Read[d1]", "I think of Rome."]
    check_environment(lambda: fresh(address), problem, [*wasted, *best_turns(problem)])


def test_equal_seeds_make_equal_problems_and_other_seeds_other_worlds() -> None:
    problems.cache_clear()
    first = problems()
    problems.cache_clear()
    assert problems() == first
    assert len({one.text for one in first}) > 50
    assert problems(5, seed=1)[0].meta["corpus"] != first[0].meta["corpus"]


@given(st.integers(0, 2**32), st.integers(20, 600), st.integers(1, 3), st.integers(0, 30))
@settings(max_examples=20, deadline=None)
def test_the_support_of_a_question_leads_to_its_answer(seed: int, documents: int, hops: int, number: int) -> None:
    how = {"documents": documents, "fewest": hops, "most": hops}
    made = generate["retrieval"].take({"key": Key.seed(seed)}, **how)
    problem = next(islice(made, number, None))
    corpus = fact_world(problem.meta["corpus"]).corpus
    assert len(corpus.documents) == documents == len({one.title for one in corpus.documents})
    support = problem.meta["support"]
    assert len(support) == hops == len({one["document"] for one in support})
    names = []
    for one in support:
        document = corpus.documents[corpus.numbers[one["document"]]]
        assert document.sentences[one["sentence"]] == one["text"]
        assert document.title == one["title"]
        names.append(document.title)
    # Each fact names the next entity, the last one the answer, and the question names the first entity alone.
    for one, name in zip(support, [*names[1:], str(problem.reference)], strict=True):
        assert name in one["text"]
    question = problem.text.splitlines()[0]
    assert names[0] in question
    assert not any(name in question for name in [*names[1:], str(problem.reference)])


@pytest.mark.parametrize("documents", [20, 120, 600])
def test_a_search_for_a_title_lists_its_document_first_or_all_its_facts(documents: int) -> None:
    corpus = fact_world(f"facts-{Key.seed(3).bits:016x}-{documents}").corpus
    index, graph = DocumentIndex(corpus), GraphIndex(corpus)
    for number, document in enumerate(corpus.documents):
        assert index.search(document.title, 1)[0].document == number
        assert {*corpus.facts(number)} <= {one.fact for one in graph.search(document.title, 10)}


def slow_bm25(texts: list[str], query: str) -> list[float]:
    """BM25 as Lucene has it: idf ln(1 + (N - n + .5) / (n + .5)), tf / (tf + k1 (1 - b + b length / mean length))."""
    words = [text.lower().split() for text in texts]
    mean = np.mean([len(one) for one in words])
    made = []
    for one in words:
        total = 0.0
        for word in query.lower().split():
            n, tf = sum(word in other for other in words), one.count(word)
            idf = np.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
            total += idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(one) / mean))
        made.append(total)
    return made


@given(st.lists(st.text("abc ", min_size=1, max_size=20), min_size=1, max_size=8), st.text("abcd ", max_size=8))
@settings(max_examples=60, deadline=None)
def test_bm25_ranks_as_its_formula(texts: list[str], query: str) -> None:
    texts = [text if text.strip() else "a" for text in texts]
    scores = np.round(slow_bm25(texts, query), 4)
    found = Bm25(texts).best(query, 3)
    assert len(found) == min(3, int((scores > 0).sum()))
    wanted = np.sort(scores)[::-1][: len(found)]
    np.testing.assert_allclose(scores[found], wanted, atol=2e-4)


def test_the_graph_joins_facts_by_their_entities() -> None:
    """By hand: `Ada` finds its entity first, so its two facts have 1, and Ben's fact about Ada 1 as well; the edges
    found by words add 1, 1/2 and 1/3 in the order of their BM25."""
    texts = {"Ada": "Ada likes Ben. Ada sings.", "Ben": "Ben likes Ada. Ben runs far.", "Cid": "Cid sleeps."}
    documents = [Document(f"d{at}", title, tuple(text.split(". "))) for at, (title, text) in enumerate(texts.items())]
    corpus = Corpus("by hand", tuple(documents))
    found = GraphIndex(corpus).search("ada", 10)
    assert {one.fact for one in found} == {(0, 0), (0, 1), (1, 0)}
    # `Ada sings` is the shortest sentence with the word, so BM25 has it first.
    assert found[0].fact == (0, 1)
    assert [one.fact for one in GraphIndex(corpus).search("runs", 10)] == [(1, 1)]
    assert GraphIndex(corpus).search("nobody", 10) == ()


def slow_distance(problem: Problem, actions: list[str], address: str) -> int:
    """The fewest actions by trying all: searches for titles that are named so far, and reading what was listed."""
    corpus = fact_world(problem.meta["corpus"]).corpus
    support = [one["text"] for one in problem.meta["support"]]
    start = fresh(address)
    shown = "".join(s.text for o in [start.reset(problem), *map(start.act, map(Step, actions))] for s in o.steps)
    queue = deque([(start, shown, 0)])
    seen = set()
    while queue:
        environment, shown, steps = queue.popleft()
        if all(text in shown for text in support):
            return steps + 1
        evidence = problem.text + "".join(text for text in support if text in shown)
        state = frozenset(line for line in shown.replace(". ", ".\n").splitlines())
        if state in seen:
            continue
        seen.add(state)
        moves = [f"Search[{one.title}]" for one in corpus.documents if one.title in evidence]
        moves += [f"Read[{one.id}]" for one in corpus.documents if f"\n{one.id}: " in f"\n{shown}"]
        for move in moves:
            after = environment.fork()  # type: ignore[attr-defined]
            queue.append((after, shown + "".join(s.text for s in after.act(Step(move)).steps), steps + 1))
    raise AssertionError("no path")


@pytest.mark.parametrize("address", NAMES)
@pytest.mark.parametrize("number", range(5))
def test_distances_are_those_of_trying_everything(address: str, number: int) -> None:
    problem = problems(5, documents=40, most=2)[number]
    title = problem.meta["support"][0]["title"]
    for actions in ([], [f"Search[{title.split()[-1]}]"], best_turns(problem)[:2]):
        shown = acted(problem, actions, address)[-1]
        assert left(shown) == slow_distance(problem, actions, address)


@given(st.integers(0, 59), st.integers(0, 2**32), st.sampled_from(NAMES))
@settings(max_examples=40, deadline=None)
def test_no_action_loses_what_was_found(number: int, seed: int, address: str) -> None:
    problem, rng = problems()[number], np.random.default_rng(seed)
    corpus = fact_world(problem.meta["corpus"]).corpus
    support = [one["title"] for one in problem.meta["support"]]
    actions = []
    for _ in range(8):
        title = rng.choice([*support, corpus.documents[int(rng.integers(120))].title])
        part = str(rng.choice([title, title.split()[-1]]))
        actions.append(str(rng.choice([f"Search[{part}]", f"Read[d{rng.integers(120)}]", "Hm."])))
    lefts = [left(shown) for shown in acted(problem, actions, address)]
    assert all(after <= before for before, after in pairwise(lefts))
    assert min(lefts) >= 1
    nothing = [after == before for before, after, a in zip(lefts, lefts[1:], actions, strict=False) if a == "Hm."]
    assert all(nothing)


def test_the_best_agent_is_as_fast_as_the_distance_says() -> None:
    for problem in problems():
        assert len(best_turns(problem)) == left(acted(problem, [])[0])


def test_a_document_is_read_only_where_a_search_listed_it() -> None:
    problem = problems()[0]
    fact = problem.meta["support"][0]
    read, found = f"Read[{fact['document']}]", f"Search[{fact['title']}]"
    shown = acted(problem, [read, found, read, f"read [{fact['document'][1:]}]", "Read[d9999]"])
    assert shown[1].steps[0].text == f"No search listed the document {fact['document']}.\n"
    assert fact["text"] in shown[3].steps[0].text == shown[4].steps[0].text
    assert shown[5].steps[0].text == "No search listed the document d9999.\n"
    assert [left(one) - left(shown[0]) for one in shown] == [0, 0, -1, -2, -2, -2]


def test_answers_end_the_episode_and_are_graded() -> None:
    problem = Problem("p", "Who?", "Ada the Great", {"corpus": problems()[0].meta["corpus"]})
    for said, exact, f1 in (("ada great!", 1.0, 1.0), ("Ada", 0.0, 2 / 3), ("Ben", 0.0, 0.0)):
        for address, wanted in (("retrieval", exact), ("retrieval?metric=f1", f1)):
            shown = acted(problem, [f"So: Answer[{said}]"], address)[-1]
            assert (shown.done, shown.outcome, shown.reward) == (True, wanted, wanted)
            assert shown.answer == normal(said)
    open_ = Problem("p", "Who?", meta=problem.meta)
    assert np.isnan(acted(open_, ["Answer[x]"])[-1].outcome)


@pytest.mark.parametrize(
    ("said", "reference", "exact", "f1"),
    [
        ("The  Silver-Door.", "silverdoor", 1.0, 1.0),
        ("a b", "b c d", 0.0, 2 / 4),  # the article is no word: b against b c d
        ("the", "an", 1.0, 1.0),
        ("the", "x", 0.0, 0.0),
        ("x x y", "x z", 0.0, 2 / 5),
    ],
)
def test_matching_by_hand(said: str, reference: str, exact: float, f1: float) -> None:
    assert exact_match(said, reference) == exact
    assert token_f1(said, reference) == pytest.approx(f1)


def test_the_last_turn_ends_an_episode_without_an_answer() -> None:
    shown = acted(problems()[0], ["Search[x]"] * 2, "retrieval?turns=2")
    assert [one.done for one in shown] == [False, False, True]
    assert shown[-1].outcome == 0.0


def test_calls_of_a_chat_are_answered_one_by_one() -> None:
    problem = problems(most=1)[0]
    fact = problem.meta["support"][0]
    calls = [
        {"name": "search", "arguments": {"query": fact["title"]}, "id": "one"},
        {"name": "read", "arguments": json.dumps({"document": fact["document"]})},
        {"name": "fly", "arguments": {}},
        {"name": "read", "arguments": {"page": 1}},
    ]
    environment = fresh()
    environment.reset(problem)
    shown = environment.act(calling_step("", calls))
    assert [step.role for step in shown.steps] == ["tool"] * 4
    assert [step.meta["tool_call_id"] for step in shown.steps] == ["one", "call_1", "call_2", "call_3"]
    assert [step.meta["left"] for step in shown.steps] == [2, 1, 1, 1]
    assert shown.steps[2].text.startswith("There is no action fly.")
    assert shown.steps[3].text == "read needs the argument document, a text.\n"
    over = environment.act(calling_step("", [{"name": "answer", "arguments": {"answer": problem.reference}}]))
    assert (over.done, over.outcome, over.steps) == (True, 1.0, ())


def test_the_last_action_in_a_text_counts() -> None:
    said = "I could write Search[this] first.\nAction: read [ d3 ]"
    assert retrieval_calls(Step(said)) == [{"name": "read", "arguments": {"document": " d3 "}}]
    assert retrieval_calls(Step("Research[x] is no action")) == []
    stated = '<tool_call>\n{"name": "read", "arguments": {"document": "d3"}}\n</tool_call>'
    assert retrieval_calls(Step(stated)) == [{"name": "read", "arguments": {"document": "d3"}}]


def judged(problem: Problem, actions: list[str]) -> list[tuple[bool | None, str]]:
    steps: tuple[Step, ...] = ()
    for shown, action in zip(acted(problem, actions), [*actions, None], strict=True):
        steps += shown.steps + (() if action is None else (Step(action),))
    made = check["retrieval"].take({"problem": problem, "steps": steps})
    assert len(made) == len(steps)
    return [(one.right, one.kind) for one, step in zip(made, steps, strict=True) if step.kind == "action"]


def test_the_checker_says_what_was_of_use() -> None:
    problem = next(one for one in problems() if one.meta["hops"] == 2)
    title = problem.meta["support"][0]["title"]
    right = (True, "")
    assert judged(problem, best_turns(problem)) == [right] * len(best_turns(problem))
    search, *rest = best_turns(problem)
    said = judged(problem, [search, search, "Hm.", rest[0], "Read[d0]", *rest[1:]])
    no_use = (False, "no use")
    assert said == [right, no_use, (False, "no action"), right, no_use, *[right] * (len(rest) - 1)]
    assert judged(problem, [search, f"Answer[{title}]"]) == [right, (False, "wrong answer")]
    assert judged(problem, [search, f"Answer[{problem.reference}]"]) == [right, (None, "unsupported")]


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_a_corpus_of_the_users_own(tmp_path: Path) -> None:
    rows = [
        {"id": "p", "title": "Paris", "text": "Paris lies on the Seine. It is old."},
        {"id": "s", "title": "Seine", "text": "The Seine is 777 km long."},
        {"contents": '"Oslo"\nOslo lies on a fjord.'},
    ]
    path = write(tmp_path / "own.jsonl", [*rows, ""])
    assert [(one.id, one.title) for one in read_corpus(path).documents] == [
        ("p", "Paris"),
        ("s", "Seine"),
        ("d2", "Oslo"),
    ]
    support = [{"document": "p", "sentence": 0}, {"document": "s", "sentence": 0}]
    problem = Problem("q", "How long is the river of Paris?", "777 km", {"support": support})
    actions = ["Search[Paris]", "Read[p]", "Search[Seine]", "Read[s]", "Answer[777 km]"]
    shown = acted(problem, actions, f"retrieval?corpus={path}&results=1")
    assert [left(one) for one in shown[:-1]] == [5, 4, 3, 2, 1]
    assert shown[-1].outcome == 1.0
    # Without what it rests on, an episode is as good, and no distance is known.
    bare = Problem("q", problem.text, "777 km")
    assert acted(bare, ["Search[Paris]"], f"graph-retrieval?corpus={path}")[-1].steps[0].meta["left"] is None
    with pytest.raises(SteprewardError, match=r"sentence 4 of document 's'.*pass the corpus of the problem"):
        acted(Problem("q", "?", "1", {"support": [{"document": "s", "sentence": 4}]}), [], f"retrieval?corpus={path}")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "has no document"),
        (["{"], r"line 1 is no JSON"),
        ([{"text": "x"}], "line 1 has no title or no text"),
        ([{"title": "a", "text": "x"}, {"title": "a", "text": "y"}], "two documents with the title 'a'"),
        ([{"id": "d1", "title": "a", "text": "x"}, {"title": "b", "text": "y"}], "two documents with the id 'd1'"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_told(rows: list[object], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        environment_at(f"retrieval?corpus={write(tmp_path / 'c.jsonl', rows)}")


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(InputError, match=r"cannot be read.*corpus=FILE.jsonl"):
        environment_at("retrieval?corpus=/nowhere.jsonl")
    with pytest.raises(SteprewardError, match="no generated corpus ''"):
        acted(Problem("p", "?"), [])
    with pytest.raises(ValueError, match="fewest=3, most=2"):
        next(generate["retrieval"].take({"key": Key.seed(0)}, fewest=3, most=2))
    with pytest.raises(ValueError, match="sum to at most 1"):
        seeker(stray=0.7, guess=0.6)


def test_forks_in_a_pool_are_copies() -> None:
    problem, episodes = problems()[0], environment_at("retrieval")
    (first,) = episodes.act_many([Act(problem, ())])
    title = problem.meta["support"][0]["title"]
    for action, nearer in (("Search[nobody]", 0), (f"Search[{title}]", 1), ("Search[nobody]", 0)):
        (shown,) = episodes.act_many([Act(problem, (*first.steps, Step(action)))])
        assert left(first) - left(shown) == nearer
