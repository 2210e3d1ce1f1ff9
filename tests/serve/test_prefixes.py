"""Handles of scored prefixes: what they give back, how they share, and how much memory they hold."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from stepreward.core.types import Problem, Step
from stepreward.serve.requests.http_errors import ApiError
from stepreward.serve.scoring.handles import Prefixes, ScoredPrefix

STEPS = [
    (Step("1 + 1 = 2\n"), Step("seen \ud800", "observation", "tool")),
    (Step("naïve 漢字", agent="solver"),),
    (Step("a"), Step("b")),
]
SCORES = [[0.25, float("nan")], [1.0], [0.5, -3.0]]


def test_a_handle_gives_back_all_that_was_scored() -> None:
    kept = Prefixes()
    prompt = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"})
    for problem in (Problem("p", "1 + 1?"), Problem("q", prompt, meta={"messages": [{"role": "user"}]})):
        prefix = ScoredPrefix(problem)
        for steps, scores in zip(STEPS, SCORES, strict=True):
            prefix = kept.get(kept.put(prefix, steps, scores))
        assert prefix.problem == problem
        assert prefix.problem.meta == problem.meta
        assert prefix.steps == sum(STEPS, ())
        np.testing.assert_array_equal(prefix.scores, [score for own in SCORES for score in own])


def test_what_solutions_share_is_kept_once() -> None:
    kept, problem = Prefixes(), Problem("p", "x" * 1000)
    first = kept.put(ScoredPrefix(problem), [Step("y" * 1000)], [0.5])
    size = kept.size
    assert size > 2000
    for i in range(10):
        kept.put(kept.get(first), [Step(f"{i}")], [0.5])
    assert kept.size - size < 10 * 600, "the prefix is kept again"
    size = kept.size
    assert kept.put(ScoredPrefix(problem), [Step("y" * 1000)], [0.5]) != first
    assert kept.size - size < 300, "an equal solution is kept again"
    # The same steps with another score are not the same.
    other = kept.put(ScoredPrefix(problem), [Step("y" * 1000)], [0.25])
    assert (kept.get(first).scores, kept.get(other).scores) == ((0.5,), (0.25,))


def test_handles_are_bounded_and_those_used_longest_ago_go_first() -> None:
    kept = Prefixes(most=3 * 4000)

    def put(name: str) -> str:
        return kept.put(ScoredPrefix(Problem(name, "x" * 3000)), [Step("y")], [0.5])

    first, second = put("1"), put("2")
    kept.get(first)
    third, fourth = put("3"), put("4")
    assert kept.size <= kept.most
    for handle in (first, third, fourth):
        kept.get(handle)
    with pytest.raises(ApiError, match="not kept"):
        kept.get(second)


def test_a_prefix_lives_as_long_as_a_solution_behind_it() -> None:
    kept = Prefixes(most=6300)
    first = kept.put(ScoredPrefix(Problem("p", "x" * 2000)), [Step("y")], [0.5])
    second = kept.put(kept.get(first), [Step("z")], [0.75])
    kept.get(second)
    kept.put(ScoredPrefix(Problem("q", "x" * 2400)), [Step("y")], [0.5])
    with pytest.raises(ApiError):
        kept.get(first)
    assert kept.get(second).steps == (Step("y"), Step("z"))


def test_nothing_is_counted_that_is_not_kept() -> None:
    """Random requests, some of which go on from a prefix that is forgotten while they are under way."""
    kept, draw = Prefixes(most=20_000), random.Random(0)
    handles: list[str] = []
    under_way: list[ScoredPrefix] = []
    for _ in range(3000):
        prefix = ScoredPrefix(Problem(f"{draw.randrange(6)}", "p" * 100))
        if under_way and draw.random() < 0.5:
            prefix = under_way.pop(draw.randrange(len(under_way)))
        handles.append(kept.put(prefix, [Step("s" * draw.randrange(1, 200))], [draw.randrange(2) / 2]))
        wanted = draw.choice(handles[-50:])
        if wanted in kept._kept:
            under_way = [*under_way[-20:], kept.get(wanted)]
        assert kept.size <= kept.most
    live = {id(part): part for part in kept._parts.values()}
    for part in kept._kept.values():
        above = part
        while above is not None:
            assert live[id(above)] is above
            above = above.before  # type: ignore[assignment]
    needed = list(kept._kept.values()) + [part.before for part in live.values() if part.before is not None]
    assert sum(part.uses for part in live.values()) == len(needed)
    assert kept.size == sum(part.size for part in live.values()) + 200 * len(kept._kept)


def ones(kept: Prefixes) -> None:
    for i in range(40):
        kept.put(ScoredPrefix(Problem(f"{i}", f"p{i}")), [Step("1") for _ in range(2000)], [0.5] * 2000)


def small(kept: Prefixes) -> None:
    for i in range(2000):
        kept.put(ScoredPrefix(Problem(f"{i}", f"p{i}")), [Step("1")], [0.5])


def equal(kept: Prefixes) -> None:
    for _ in range(2000):
        kept.put(ScoredPrefix(Problem("p", "p")), [Step("1")], [0.5])


def chain(kept: Prefixes) -> None:
    prefix = ScoredPrefix(Problem("p", "p"))
    for i in range(1000):
        handle = kept.put(prefix, [Step(f"step {i}")], [0.5])
        prefix = ScoredPrefix(prefix.problem, part=kept._kept[handle])


def long(kept: Prefixes) -> None:
    for i in range(20):
        kept.put(ScoredPrefix(Problem(f"{i}", "p" * 10_000)), [Step("漢" * 10_000)], [0.5])


@pytest.mark.sampled(4)
@pytest.mark.parametrize("fill", [ones, small, equal, chain, long])
def test_the_memory_that_is_counted_is_the_memory_that_is_held(fill: Callable[[Prefixes], None]) -> None:
    fill(Prefixes())
    gc.collect()
    tracemalloc.start()
    try:
        kept = Prefixes()
        before = tracemalloc.get_traced_memory()[0]
        fill(kept)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 < held / kept.size < 2, f"{held:,} bytes are held, {kept.size:,} are counted"
