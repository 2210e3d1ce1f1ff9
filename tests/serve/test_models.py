"""The models that a server lists are those that answer: every search is asked of servers with one part or another."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from stepreward.core.catalog import search
from stepreward.core.runtime.flows import Compare, Continuation, Judged
from stepreward.score.judges.pairwise import ScorerJudge
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.serve.running import Digits, LastDigit, SaysAll, serving


class Telling(Digits):
    """Digits with their log-probabilities, and with its certainty of each."""

    measures = frozenset({"logprobs", "self_certainty"})

    @staticmethod
    def _one(question: Any, key: Any) -> Continuation:
        made = Digits._one(question, key)
        steps = tuple(replace(s, logprobs=(-0.5,), meta={"self_certainty": 1.0}) for s in made.steps)
        return replace(made, steps=steps)


class LargerDigits:
    """The solution with the larger sum is the better one."""

    name, batch_size = "larger", 8

    def compare_many(self, questions: Sequence[Compare]) -> list[Judged]:
        sums = [[sum(int(s.text.strip()[-1]) for s in side) for side in (q.first, q.second)] for q in questions]
        return [Judged(0.5 + 0.5 * ((a > b) - (a < b))) for a, b in sums]


PARTS: dict[str, dict[str, Any]] = {
    "scorer": {"scorer": LastDigit()},
    "nothing": {"method": "majority"},
    "judge": {"judge": LargerDigits(), "method": "knockout"},
    "all": {"policy": Telling(), "scorer": LastDigit(), "judge": LargerDigits()},
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("parts", PARTS)
def test_the_searches_that_are_listed_are_those_that_answer(parts: str) -> None:
    served = Served(**{"policy": Digits(), "grader": SaysAll(), "limits": Limits(samples=2000), **PARTS[parts]})
    answered = set()
    with serving(served) as url, httpx.Client(base_url=url, timeout=60) as client:
        listed = {model["id"] for model in client.get("/v1/models").json()["data"]} - {"scorer", "policy"}
        for method in search:
            body = {"model": f"policy:{method.name}", "messages": [{"role": "user", "content": "digits"}], "seed": 1}
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code in (200, 400), answer.text
            answered |= {body["model"]} if answer.status_code == 200 else set()
        assert client.post("/v1/chat/completions", json={**body, "model": "policy"}).status_code == 200
    assert listed == answered
    if parts == "all":
        assert len(listed) == len(list(search))


def test_a_judge_by_the_scorers_totals_takes_turns_with_those_who_score() -> None:
    """A scorer that two threads are in at once says so."""
    inside = threading.Lock()

    class Alone(LastDigit):
        def score_many(self, questions: Any) -> Any:
            assert inside.acquire(blocking=False), "two threads use the scorer at once"
            try:
                time.sleep(0.005)
                return super().score_many(questions)
            finally:
                inside.release()

    scorer = Alone()
    served = Served(Digits(), scorer, judge=ScorerJudge(scorer), grader=SaysAll(), method="knockout")
    with serving(served) as url, ThreadPoolExecutor(8) as pool:

        def ask(i: int) -> int:
            name = ("knockout", "beam", "elo", "best-of-n")[i % 4]
            body = {"model": f"policy:{name}", "messages": [{"role": "user", "content": f"{i:08d}"}]}
            return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code

        assert set(pool.map(ask, range(24))) == {200}
