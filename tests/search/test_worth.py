"""Searches by value trees, mended scores, nuclei, reuse and utility: transcriptions, brute force, limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Flow, Propose, Score, Scored
from stepreward.core.types import Problem, Step
from stepreward.policies.tabular import TabularPolicy
from stepreward.search.beams.lookahead import corrected_value
from stepreward.search.beams.nucleus import nucleus
from stepreward.search.candidates import ROOT, Candidate, Found
from stepreward.search.samples.reuse import SampledSolutions
from stepreward.search.samples.utility import utility, worth_growing
from stepreward.tasks.enumerable import EnumerableWorld
from tests.effort import scaled
from tests.search.worlds import Blurred, Wheel

WORLD = EnumerableWorld(4, 3, seed=3)
PROBLEMS = WORLD.problems(6)
KEY = Key.seed(0)


value, wheel = Blurred(WORLD, 0.3).value, Wheel(WORLD).sample


class Reads:
    """The last step is the answer."""

    name = "reads"

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        return 0.0

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        return steps[-1].text


def find(flow: Flow[Found], policy: Any = None, scorer: Any = None, grader: Any = WORLD) -> Found:
    return next(
        Driver(policy=policy or Wheel(WORLD), scorer=scorer or Blurred(WORLD, 0.3), grader=grader).run([flow])
    ).result


def run(name: str, problem: Problem, **how: Any) -> Found:
    return find(search[name].take({"problem": problem, "key": KEY}, **how), TabularPolicy(WORLD.next_steps))


# VM-MCTS


def slow_value_tree(problem: Problem, rounds: int, width: int, kept: int) -> tuple[dict[Any, Any], list[Any]]:
    """The released code's rounds at test time on dictionaries: visits and values by prefix, and all completions."""
    tree: dict[tuple[str, ...], dict[str, Any]] = {(): {"n": 0, "sum": 0.0, "kids": None, "end": False}}
    steps: dict[tuple[str, ...], tuple[Step, ...]] = {(): ()}
    whole: list[tuple[Step, ...]] = []

    def up(path: tuple[str, ...], n: int, total: float) -> None:
        for length in range(len(path) + 1):
            tree[path[:length]]["n"] += n
            tree[path[:length]]["sum"] += total

    for _ in range(rounds):
        at: tuple[str, ...] = ()
        while tree[at]["kids"]:
            above = tree[at]["n"]
            explored = [0.2 * math.sqrt((1 + math.log(above)) / (0.1 + tree[k]["n"])) for k in tree[at]["kids"]]
            bounds = [tree[k]["sum"] / tree[k]["n"] + e for k, e in zip(tree[at]["kids"], explored, strict=True)]
            at = tree[at]["kids"][bounds.index(max(bounds))]
        if tree[at]["end"]:
            up(at, 1, tree[at]["sum"] / tree[at]["n"])
            continue
        new: list[tuple[str, ...]] = []
        for i in range(width):
            made = wheel(problem, steps[at], i)
            whole.append((*steps[at], *made.steps))
            name = (*at, made.steps[0].text)
            steps[name] = (*steps[at], made.steps[0])
            worth = value(problem, steps[name])
            if name not in new:
                new.append(name)
                tree[name] = {"n": 0, "sum": 0.0, "kids": None, "end": len(made.steps) == 1, "v": worth}
            tree[name]["n"] += 1
            tree[name]["sum"] += worth
        tree[at]["kids"] = sorted(new, key=lambda k: -tree[k]["v"])[:kept]
        up(at, sum(tree[k]["n"] for k in new), sum(tree[k]["sum"] for k in new))
    return tree, whole


@pytest.mark.parametrize(("rounds", "width", "kept"), [(1, 5, 3), (6, 5, 2), (12, 4, 3), (9, 2, 1)])
def test_the_value_tree_is_that_of_the_released_code(rounds: int, width: int, kept: int) -> None:
    for problem in PROBLEMS:
        how = {"rounds": rounds, "width": width, "kept": kept}
        found = find(search["vm-mcts"].take({"problem": problem, "key": KEY}, **how))
        slow, whole = slow_value_tree(problem, rounds, width, kept)
        best = max(value(problem, steps) for steps in whole)
        assert found.totals[found.chosen] == pytest.approx(best)
        tree = found.searched
        assert tree is not None
        visits, values = tree.column("visits"), tree.column("value")
        paths: list[tuple[str, ...]] = [()]
        for node in range(1, tree.n):
            paths.append((*paths[int(tree.parent[node])], tree.step(node).text))
        for path, n, mean in zip(paths, visits, values, strict=True):
            assert (n == n) == (path in slow)
            if n == n and n:
                assert n == slow[path]["n"]
                assert mean == pytest.approx(slow[path]["sum"] / slow[path]["n"])


# ReARTeR


def literal_mend(values: list[float], alpha: float) -> float:
    """The released code, line by line."""
    updated, step = list(values), len(values) - 1
    for t in range(len(values) - 1):
        if values[t + 1] - values[t] < 0.05:
            step = t + 1
            break
    for t in range(step - 1, -1, -1):
        updated[t] = updated[t] + alpha * (updated[t + 1] - updated[t])
    return updated[0]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.floats(0, 1))
def test_a_mend_is_that_of_the_released_code(values: list[float], rate: float) -> None:
    assert corrected_value(values, rate=rate) == pytest.approx(literal_mend(values, rate), abs=1e-12)


def test_mends_worked_out() -> None:
    # 0, 1, 3 rise: 3; 1 + (3 - 1)/2 = 2; 0 + 2/2 = 1.
    assert corrected_value([0.0, 1.0, 3.0]) == 1.0
    # The first fall still counts, what comes after does not: 0 + (-2)/2.
    assert corrected_value([0.0, -2.0, 9.0]) == -1.0
    assert corrected_value([0.7]) == 0.7
    assert corrected_value([0.7, 2.0], rate=0.0) == 0.7


@pytest.mark.parametrize("how", [{"ahead": 0}, {"rate": 0.0}])
def test_without_a_mend_it_is_beam_search(how: dict[str, Any]) -> None:
    for problem in PROBLEMS:
        both = {"beams": 2, "width": 3, "aggregate": "last"}
        first, second = run("rearter", problem, **both, **how), run("beam", problem, **both)
        assert [s.text for s in first.trajectory.steps] == [s.text for s in second.trajectory.steps]  # type: ignore[union-attr]


def test_a_rise_behind_a_step_lifts_it() -> None:
    problem = Problem("p", "?", "x")

    class Two:
        """Two first steps; behind `low` all is well, behind `high` nothing is."""

        name, batch_size, concurrency = "two", 8, 1

        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            made = []
            for q in questions:
                first = [Step("high\n"), Step("low\n")]
                more = [Step("end\n")]
                made.append([
                    Continuation(((more if q.prefix else first)[i % (1 if q.prefix else 2)],), bool(q.prefix), 1)
                    for i in range(q.n)
                ])  # fmt: skip
            return made

    class Late:
        name, batch_size = "late", 8

        def score_many(self, questions: Sequence[Score]) -> list[Scored]:
            table = {"high\n": 0.6, "low\n": 0.4}
            rows = [
                [table[q.steps[0].text], 0.95 if q.steps[0].text == "low\n" else 0.05][: len(q.steps)]
                for q in questions
            ]
            return [Scored(np.array(row), len(row), len(row)) for row in rows]

    for name, first in (("beam", "high\n"), ("rearter", "low\n")):
        flow = search[name].take({"problem": problem, "key": KEY}, beams=1, width=2, aggregate="last")
        found = find(flow, Two(), Late(), Reads())
        assert found.trajectory is not None
        assert found.trajectory.steps[0].text == first


# Saffron


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.floats(0.05, 1))
def test_a_nucleus_is_the_smallest_set_of_its_share(counts: list[int], top_p: float) -> None:
    found = nucleus(counts, top_p)
    enough = [
        set(some) for k in range(1, len(counts) + 1) for some in itertools.combinations(range(len(counts)), k)
        if sum(counts[i] for i in some) / sum(counts) >= top_p - 1e-9
    ]  # fmt: skip
    assert set(found) in enough
    assert len(found) == min(map(len, enough))
    assert sum(counts[i] for i in found) == max(
        sum(counts[i] for i in some) for some in enough if len(some) == len(found)
    )


def test_in_the_whole_nucleus_it_is_beam_search_and_else_less_is_scored() -> None:
    asked = {}
    for problem in PROBLEMS:
        both = {"beams": 2, "width": 4, "aggregate": "last"}
        first, second = run("saffron", problem, **both, top_p=1.0), run("beam", problem, **both)
        assert [s.text for s in first.trajectory.steps] == [s.text for s in second.trajectory.steps]  # type: ignore[union-attr]
    for top_p in (1.0, 0.5):
        scorer = Blurred(WORLD, 0.3)
        flow = search["saffron"].take({"problem": PROBLEMS[0], "key": KEY}, beams=2, width=6, top_p=top_p)
        find(flow, TabularPolicy(WORLD.next_steps), scorer)
        asked[top_p] = len(scorer.asked)
    assert asked[0.5] < asked[1.0]


class Uneven:
    """Steps `0`, `1` and `2`; `2` ends a solution, and so does the fourth step. Sample i is of a fixed wheel."""

    name, batch_size, concurrency = "uneven", 64, 1

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        return [[self.one(q.prefix, i) for i in range(q.n)] for q in questions]

    @staticmethod
    def one(prefix: Sequence[Step], i: int) -> Continuation:
        said = sum(int(s.text) for s in prefix)
        text = str("0010212"[(i + 2 * said + len(prefix)) % 7])
        return Continuation((Step(text),), text == "2" or len(prefix) == 3, 1)


def told(steps: Sequence[Step]) -> float:
    """A number of each prefix, without equals."""
    return int("1" + "".join(s.text for s in steps), 4) * 2654435761 % 9973 / 9973


class Told:
    name, batch_size = "told", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        rows = [[told(q.steps[: t + 1]) for t in range(len(q.steps))] for q in questions]
        return [Scored(np.array(row)) for row in rows]


def published_saffron(beams: int, width: int, top_p: float) -> list[tuple[str, ...]]:
    """The released loop: rewards of prefixes choose the next ones and are then forgotten, those of ends are kept."""
    nodes: list[tuple[tuple[Step, ...], float, bool]] = [((), -math.inf, False)]
    for depth in range(4):
        ahead = [node for node in nodes if node[2]]
        rivals: list[tuple[float, tuple[Step, ...], bool]] = []
        for steps, _, _ in (node for node in nodes if not node[2]):
            drawn = [Uneven.one(steps, i) for i in range(width if depth else beams * width)]
            texts = [one.steps[0].text for one in drawn]
            ordered = sorted(dict.fromkeys(texts), key=lambda text: -texts.count(text))
            before = 0.0
            for text in ordered:
                if before < top_p - 1e-9:
                    path = (*steps, Step(text))
                    rivals.append((told(path), path, drawn[texts.index(text)].finished))
                before += texts.count(text) / len(texts)
        rivals = sorted(rivals, key=lambda rival: -rival[0])[:beams]
        ahead += [(path, reward if end else -math.inf, end) for reward, path, end in rivals]
        nodes = sorted(ahead, key=lambda node: -node[1])[:beams]
    return [tuple(s.text for s in steps) for steps, _, _ in nodes]


@pytest.mark.parametrize("beams", [1, 2, 3, 5])
@pytest.mark.parametrize(("width", "top_p"), [(3, 0.8), (7, 0.5), (7, 1.0), (5, 0.6)])
def test_whole_solutions_stay_as_in_the_released_loop(beams: int, width: int, top_p: float) -> None:
    flow = search["saffron"].take(
        {"problem": PROBLEMS[0], "key": KEY}, beams=beams, width=width, top_p=top_p, max_steps=4
    )
    found = find(flow, Uneven(), Told(), Reads())
    slow = published_saffron(beams, width, top_p)
    assert [tuple(s.text for s in t.steps) for t in found.tree.trajectories()] == slow
    assert [s.text for s in found.trajectory.steps] == list(slow[0])  # type: ignore[union-attr]


# OmegaPRM's reuse


def test_a_solution_counts_for_every_prefix_of_it() -> None:
    a, b, c = (Step(text) for text in "abc")
    pool = SampledSolutions()
    pool.add(ROOT, [Candidate((a, b), True, (0.9, 0.2), 0.2), Candidate((b,), True, (0.6,), 0.6)], 2)
    pool.add(Candidate((a,)), [Candidate((a, c), True, (0.9, 0.8), 0.8)], 1)
    assert pool.value(ROOT.path) == pytest.approx((0.2 + 0.6 + 0.8) / 3)
    assert pool.value(Candidate((a,)).path) == pytest.approx(0.5)
    assert pool.value(Candidate((c,)).path) == 0.5, "nothing is known"
    # From the root: MC 8/15, lengths 2 and 1; from a: MC 1/2, length 1. 1/2^(1 - MC) 0.9^(length/10), no visits yet.
    worth = [0.5 ** (7 / 15) * 0.9**0.2, 0.5 ** (7 / 15) * 0.9**0.1, 0.5**0.5 * 0.9**0.1]
    assert pool.next(alpha=0.5, beta=0.9, scale=10.0, c_puct=0.125) == int(np.argmax(worth)) == 1
    # After the root was cut once, the other origin is explored: + 0.125 sqrt(1) / (1 + N).
    pool.cut[1], pool.visits = True, {ROOT.path: 1}
    worth = [worth[0] + 0.125 / 2, worth[2] + 0.125]
    assert pool.next(alpha=0.5, beta=0.9, scale=10.0, c_puct=0.125) == (0, 2)[int(np.argmax(worth))]


@pytest.mark.parametrize(("second", "cut"), [(0.9, 2), (0.5, 1)])
def test_solutions_are_sampled_again_before_the_step_where_they_go_wrong(second: float, cut: int) -> None:
    """The third step is the worst, but a second one that scores the threshold, 0.5, is wrong before it."""
    problem = Problem("p", "?", "x")

    class Spoilt:
        """Right, right, wrong; sampled again it is right to the end."""

        name, batch_size, concurrency = "spoilt", 8, 1

        def __init__(self) -> None:
            self.asked: list[Propose] = []

        def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
            self.asked += questions
            whole = [Step("one\n"), Step("two\n"), Step("bad\n")]
            mend = [Step("good\n")]
            return [[Continuation(tuple(mend if q.prefix else whole), True, 1)] * q.n for q in questions]

    class Judge:
        name, batch_size = "judge", 8

        def score_many(self, questions: Sequence[Score]) -> list[Scored]:
            worth = {"bad\n": 0.1, "two\n": second}
            rows = [[worth.get(s.text, 0.9) for s in q.steps] for q in questions]
            return [Scored(np.array(row), len(row), len(row)) for row in rows]

    policy = Spoilt()
    flow = search["omega"].take({"problem": problem, "key": KEY}, n=1, rounds=1, again=3)
    found = find(flow, policy, Judge(), Reads())
    assert [(len(q.prefix), q.n) for q in policy.asked] == [(0, 1), (cut, 3)]
    assert found.trajectory is not None
    assert [s.text for s in found.trajectory.steps] == [*["one\n", "two\n"][:cut], "good\n"]


def test_without_a_cut_it_is_best_of_n() -> None:
    for problem in PROBLEMS:
        first, second = run("omega", problem, n=5, rounds=0), run("best-of-n", problem, n=5)
        assert [s.text for s in first.trajectory.steps] == [s.text for s in second.trajectory.steps]  # type: ignore[union-attr]


# ZIP-RC


def slow_utility(
    some: Sequence[int], p: Sequence[float], need: Sequence[float], have: float, c: float, d: float
) -> float:
    missed = 1 - have
    for i in some:
        missed *= 1 - p[i]
    return 1 - missed - c * sum(need[i] for i in some) - d * max((need[i] for i in some), default=0.0)


candidates = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=0, max_size=7)


@settings(max_examples=scaled(80), deadline=None)
@given(candidates, st.floats(0, 1), st.floats(0, 0.1), st.floats(0, 0.1))
def test_the_set_worth_growing_is_the_best_of_all(some: list[Any], have: float, cost: float, delay: float) -> None:
    p, need = [p for p, _ in some], [float(n) for _, n in some]
    found = worth_growing(p, need, have, cost=cost, delay=delay)
    every = [list(s) for k in range(len(p) + 1) for s in itertools.combinations(range(len(p)), k)]
    best = max(slow_utility(s, p, need, have, cost, delay) for s in every)
    assert slow_utility(found, p, need, have, cost, delay) == pytest.approx(best, abs=1e-9)
    sets = np.array([[i in s for i in range(len(p))] for s in every], bool).reshape(len(every), len(p))
    made = utility(np.array(p), np.array(need), sets, cost=cost, delay=delay)
    assert made.tolist() == pytest.approx([slow_utility(s, p, need, 0.0, cost, delay) for s in every])


@given(st.integers(13, 30), st.floats(0.01, 0.9), st.floats(0.001, 0.1))
def test_of_equal_candidates_as_many_as_pay(n: int, p: float, cost: float) -> None:
    # The k-th adds p (1 - p)^(k - 1), for a cost of 4 steps.
    pays = sum(p * (1 - p) ** (k - 1) - 4 * cost > 1e-9 for k in range(1, n + 1))
    assert abs(len(worth_growing([p] * n, [4.0] * n, 0.0, cost=cost, delay=0.0)) - pays) <= 1


def test_for_nothing_all_are_grown_and_for_too_much_one() -> None:
    class Sure(Blurred):
        def score_many(self, questions: Sequence[Score]) -> list[Scored]:
            return [Scored(np.full(len(q.steps), 0.6), 1, 1) for q in questions]

    for cost, least, most in ((0.0, 2, 6), (10.0, 1, 1)):
        flow = search["zip-rc"].take({"problem": PROBLEMS[0], "key": KEY}, n=6, cost=cost)
        found = find(flow, TabularPolicy(WORLD.next_steps), Sure(WORLD, 0.0))
        ended = [t for t in found.tree.trajectories() if t.terminal]
        assert least <= len(ended) <= most
        assert found.answer is not None


def test_sure_problems_take_fewer_samples() -> None:
    def spent(chance: float) -> int:
        class Says:
            name, batch_size = f"says {chance}", 64

            def score_many(self, questions: Sequence[Score]) -> list[Scored]:
                return [Scored(np.full(len(q.steps), chance), 1, 1) for q in questions]

        driver = Driver(policy=TabularPolicy(WORLD.next_steps), scorer=Says(), grader=WORLD)
        flows = [search["zip-rc"].take({"problem": p, "key": KEY.fold(p.id)}, n=8, cost=0.02) for p in PROBLEMS]
        list(driver.run(flows))
        return driver.bill.generated_tokens

    assert spent(0.95) < spent(0.4)


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("vm-mcts", {"width": 0}, "width must be positive"),
        ("rearter", {"rate": 2.0}, "rate must be in"),
        ("saffron", {"top_p": 0.0}, "top_p must be in"),
        ("omega", {"alpha": 0.0}, "alpha and beta"),
        ("zip-rc", {"cost": -1.0}, "must not be negative"),
    ],
)
def test_settings_out_of_range(name: str, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(name, PROBLEMS[0], **how)
