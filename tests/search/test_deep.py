"""Long solutions: a search's own work grows with its steps, not with their square."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from benchmarks.searches_deep import SEARCHES, Instant

from stepreward.core import prefix_names as prefix
from stepreward.core.catalog import search
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.types import Problem, Step


def run(name: str, depth: int) -> None:
    one = Instant(depth)
    flow = search[name].take({"problem": Problem("p", "?"), "key": Key.seed(0)}, max_steps=depth + 1, **SEARCHES[name])
    list(Driver(policy=one, scorer=one, grader=one).run([flow]))


def calls(name: str, depth: int) -> int:
    """Python functions that a search calls, those of the answerers left out."""
    count = 0

    def watch(frame: FrameType, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and "searches_deep" not in frame.f_code.co_filename

    sys.setprofile(watch)
    try:
        run(name, depth)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", sorted(SEARCHES))
def test_twice_the_steps_are_twice_the_work(name: str) -> None:
    run(name, 2)
    assert calls(name, 40) < 2.1 * calls(name, 20)


def test_every_sampled_step_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def below(name: bytes, step: Step) -> bytes:
        read.append(step.text)
        return prefix.named(name, step.identity)

    monkeypatch.setattr(prefix, "below", below)
    run("beam", 30)
    assert len(read) == 30 * 16
    assert len(set(read)) == len(read)
