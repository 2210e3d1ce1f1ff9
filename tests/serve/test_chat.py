"""The search gateway under the official client of OpenAI: answers, streams, usage, errors, and clients that leave."""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from stepreward.core.catalog import search
from stepreward.core.errors import PolicyError
from stepreward.core.keys import Key
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Propose, Scored, Wanted
from stepreward.policies.local import LocalPolicy
from stepreward.serve.gateway.chat import problem_of
from stepreward.serve.requests.request_schemas import Message
from stepreward.serve.server_limits import Limits
from stepreward.serve.service import Served
from tests.serve.running import DEPTH, Digits, LastDigit, SaysAll, serving, until

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "three digits, please"}]
NEEDS_MORE = ("knockout", "elo", "self-certainty", "self-prm")
"""A judge, or log-probabilities."""
Chat = tuple[Digits, str]


@pytest.fixture(scope="module")
def chat() -> Iterator[Chat]:
    policy = Digits(PolicyError("http://backend failed 5 times, last with status 500"))
    limits = Limits(running=64, waiting=64, samples=500)
    with serving(Served(policy, LastDigit(), grader=SaysAll(), name="digits", limits=limits)) as url:
        yield policy, url
        policy.gate.set()


@pytest.fixture
def client(chat: Chat) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{chat[1]}/v1", api_key="any", max_retries=0) as made:
        yield made


def directly(method: str, seed: int, **settings: Any) -> Any:
    """The same search without a server."""
    problem = problem_of([Message(**m) for m in ASK])
    key = Key.seed(seed).fold("chat")
    driver = Driver(policy=Digits(), scorer=LastDigit(), grader=SaysAll())
    return next(driver.run([search[method].take({"problem": problem, "key": key}, **settings)]))


@pytest.mark.sampled(4)
@pytest.mark.parametrize("method", [m.name for m in search if m.name not in NEEDS_MORE])
def test_every_search_answers_as_it_does_without_a_server(client: openai.OpenAI, method: str) -> None:
    settings = {"n": 4} if "n" in search[method].settings else {}
    made = client.chat.completions.create(
        model=f"digits:{method}", messages=ASK, seed=5,  # type: ignore[arg-type]
        extra_body={"stepreward": {"settings": settings, "scores": True}},
    )  # fmt: skip
    direct = directly(method, 5, **settings)
    (choice,) = made.choices
    assert choice.message.content == direct.result.trajectory.text
    assert choice.finish_reason == "stop"
    assert made.usage is not None
    assert made.usage.completion_tokens == direct.bill.generated_tokens
    assert made.usage.prompt_tokens == direct.bill.prompt_tokens
    told = made.model_extra or {}
    assert told["stepreward"]["bill"]["scored_tokens"] == direct.bill.scored_tokens
    assert told["stepreward"]["method"] == method
    details = (choice.model_extra or {})["stepreward"]
    assert [step["text"] for step in details["steps"]] == [s.text for s in direct.result.trajectory.steps]
    assert [step["score"] for step in details["steps"]] == (
        direct.result.scores(direct.result.chosen) or [None] * DEPTH
    )


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": "digits:beam?beams=2&width=3", "messages": ASK, "seed": 9}
    whole = client.chat.completions.create(**how)
    chunks = list(client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}))
    pieces = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert len(pieces) == DEPTH
    assert "".join(pieces) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    assert len({c.id for c in chunks}) == 1
    assert "usage" not in chunks[0].model_fields_set or chunks[0].usage is None


def test_streamed_steps_bear_their_scores_on_request(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="digits", messages=ASK, seed=1, stream=True, extra_body={"stepreward": {"scores": True}}  # type: ignore[arg-type]
    )  # fmt: skip
    steps = [c.choices[0] for c in chunks if c.choices and c.choices[0].delta.content]
    for choice in steps:
        digit = int((choice.delta.content or "").strip()[-1])
        assert (choice.model_extra or {})["stepreward"]["score"] == digit / 10


def test_n_choices_are_the_winner_and_the_best_of_the_rest(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model="digits:best-of-n", messages=ASK, seed=2, n=3,  # type: ignore[arg-type]
        extra_body={"stepreward": {"settings": {"n": 8}, "scores": True}},
    )  # fmt: skip
    totals = [(c.model_extra or {})["stepreward"]["total"] for c in made.choices]
    assert [c.index for c in made.choices] == [0, 1, 2]
    assert totals == sorted(totals, reverse=True)
    everything = sorted(directly("best-of-n", 2, n=8).result.totals, reverse=True)
    assert totals == pytest.approx(everything[:3])


def test_a_suffix_a_field_and_a_budget_say_the_same(client: openai.OpenAI) -> None:
    def told(**how: Any) -> dict[str, Any]:
        made = client.chat.completions.create(messages=ASK, seed=1, **how)  # type: ignore[call-overload]
        found: dict[str, Any] = made.model_extra["stepreward"]
        return {k: found[k] for k in ("method", "settings", "candidates")}

    suffix = told(model="digits:dvts?trees=2&width=3&vote=false")
    settings = {"trees": 2, "width": 3, "vote": False}
    assert told(model="digits", extra_body={"stepreward": {"method": "dvts", "settings": settings}}) == suffix
    assert told(model="digits:majority?n=6") == told(model="digits:majority", extra_body={"budget": 6})
    assert told(model="digits:beam", extra_body={"budget": 8})["settings"]["beams"] == 2
    assert told(model="digits:rebase", extra_body={"budget": 8})["settings"]["width"] == 8
    assert told(model="digits:mcts", extra_body={"budget": 8})["settings"]["simulations"] == 8


def test_equal_seeds_draw_equal_answers_and_none_draws_anew(client: openai.OpenAI) -> None:
    def say(**how: Any) -> str:
        made = client.chat.completions.create(model="digits:majority?n=1", messages=ASK, **how)  # type: ignore[call-overload]
        return str(made.choices[0].message.content)

    assert say(seed=3) == say(seed=3)
    assert len({say() for _ in range(12)}) > 1


def test_answers_that_equal_searches_share_are_paid_once_and_told_to_both() -> None:
    policy = Digits()
    body = {"model": "d:majority?n=4", "messages": [{"role": "user", "content": "wait"}], "seed": 1}
    with serving(Served(policy, grader=SaysAll(), name="d", method="majority")) as url:
        found: list[dict[str, Any]] = []

        def ask() -> None:
            found.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).json())

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: httpx.get(f"{url}/health").json()["running"] == 3)
        until(lambda: "stepreward_flows_active 3.0" in httpx.get(f"{url}/metrics").text)
        policy.gate.set()
        for thread in threads:
            thread.join()
        alone = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()
    whole = 4 * DEPTH
    spent = sorted((one["usage"]["completion_tokens"], one["stepreward"]["shared_tokens"]) for one in found)
    assert spent == [(0, whole), (0, whole), (whole, 0)]
    assert all(one["stepreward"]["cached"] is (one["usage"]["completion_tokens"] == 0) for one in found)
    assert (alone["stepreward"]["cached"], alone["stepreward"]["shared_tokens"]) == (False, 0)


def test_sampling_settings_reach_each_question_and_no_other_request(chat: Chat, client: openai.OpenAI) -> None:
    policy, _ = chat
    before = len(policy.asked)
    client.chat.completions.create(model="digits:beam", messages=ASK, temperature=0.3, top_p=0.9)  # type: ignore[arg-type]
    middle = len(policy.asked)
    client.chat.completions.create(model="digits:beam", messages=ASK)  # type: ignore[arg-type]
    assert {(q.temperature, q.top_p) for q in policy.asked[before:middle]} == {(0.3, 0.9)}
    assert {(q.temperature, q.top_p) for q in policy.asked[middle:]} == {(None, None)}


@pytest.mark.parametrize("method", ["beam", "best-of-n", "mcts"])
def test_an_answer_is_no_longer_than_asked_for(client: openai.OpenAI, method: str) -> None:
    made = client.chat.completions.create(model=f"digits:{method}", messages=ASK, max_tokens=2, seed=1)  # type: ignore[arg-type]
    assert made.choices[0].finish_reason == "length"
    assert (made.choices[0].message.content or "").count("\n") == 2
    whole = client.chat.completions.create(model=f"digits:{method}", messages=ASK, max_completion_tokens=3, seed=1)  # type: ignore[arg-type]
    assert whole.choices[0].finish_reason == "stop"


def test_an_answer_ends_before_a_stop() -> None:
    class AnyDigit(LastDigit):
        def score_many(self, questions: Any) -> list[Scored]:
            rows = [[int("0" + "".join(filter(str.isdigit, s.text))) / 10 for s in q.steps] for q in questions]
            return [Scored(np.array(row), 1, 1) for row in rows]

    stops = ("\n", ["nowhere", "e "], ["5", "6", "7", "8", "9"])
    with serving(Served(Digits(), AnyDigit(), grader=SaysAll(), name="d")) as url:
        for method, stop in itertools.product(("best-of-n", "beam", "mcts", "particle-filter", "majority"), stops):
            body = {"model": f"d:{method}", "messages": ASK, "seed": 4, "stop": stop, "stepreward": {"scores": True}}
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30)
            assert answer.status_code == 200, answer.text
            (choice,) = answer.json()["choices"]
            text = choice["message"]["content"]
            assert choice["finish_reason"] == "stop"
            assert text
            assert not any(one in text for one in stop)
            assert "".join(step["text"] for step in choice["stepreward"]["steps"]) == text


def test_models_are_listed_and_each_can_be_asked_for(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert listed[0] == "digits"
    assert {f"digits:{m.name}" for m in search if m.name not in NEEDS_MORE} == set(listed) - {"digits", "scorer"}
    assert client.models.retrieve("digits:beam").id == "digits:beam"
    with pytest.raises(openai.NotFoundError, match="did you mean"):
        client.models.retrieve("digits:baem")


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({"model": "digit"}, openai.NotFoundError, "did you mean digits"),
        ({"model": "digits:baem"}, openai.BadRequestError, "did you mean beam"),
        ({"model": "digits:beam?beans=3"}, openai.BadRequestError, "did you mean beams"),
        ({"model": "digits:beam?beams=many"}, openai.BadRequestError, "whole number"),
        ({"model": "digits:mcts?simulations=1000000000"}, openai.BadRequestError, "at most 100,000"),
        ({"extra_body": {"stepreward": {"settings": {"aggregate": "mini"}}}}, openai.BadRequestError, "did you mean"),
        ({"extra_body": {"stepreward": {"method": "particle-filter", "settings": {"temperature": 0}}}},
         openai.BadRequestError, "temperature"),
        ({"model": "digits:knockout"}, openai.BadRequestError, "judge"),
        ({"model": "digits:vm-mcts?rounds=0"}, openai.BadRequestError, "rounds must be positive, got 0"),
        ({"model": "digits:particle-gibbs?sweeps=0"}, openai.BadRequestError, "sweeps must be positive, got 0"),
        ({"model": "digits:reflexion?attempts=0"}, openai.BadRequestError, "attempts must be positive, got 0"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, openai.BadRequestError, "tools"),
        ({"stop": ["a", ""]}, openai.BadRequestError, "stop"),
        ({"stop": ASK[1]["content"][-8:]}, openai.BadRequestError, "nothing before a text of stop"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format"),
        ({"temperature": -1}, openai.BadRequestError, "temperature"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         openai.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": "fail"}]}, openai.InternalServerError, "http://backend failed"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_one_clear_error(
    client: openai.OpenAI, how: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as told:
        client.chat.completions.create(**{"model": "digits", "messages": ASK, **how})
    assert told.value.body is not None  # type: ignore[attr-defined]


def test_settings_of_which_no_answer_can_come_are_named(chat: Chat) -> None:
    """Every whole-number setting of every search, at the least that it may be said to be."""
    for method in search:
        for name, default in method.settings.items():
            if method.name in NEEDS_MORE or type(default) is not int:
                continue
            body = {"model": f"digits:{method.name}?{name}=0", "messages": ASK, "seed": 1}
            answer = httpx.post(f"{chat[1]}/v1/chat/completions", json=body, timeout=60)
            assert answer.status_code in (200, 400)
            if answer.status_code == 400:
                assert name in answer.json()["error"]["message"], f"{method.name} does not say what {name} must be"


@pytest.mark.parametrize("method", ["beam", "best-of-n", "mcts"])
def test_a_prompt_longer_than_the_policys_context_is_told_as_openai_tells_it(method: str) -> None:
    with serving(Served(LocalPolicy.load("builtin:arithmetic"), LastDigit(), grader=SaysAll(), name="local")) as url:
        body = {"model": f"local:{method}", "messages": [{"role": "user", "content": "3 + 4? " * 2000}]}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "shorten it" in answer.json()["error"]["message"]


def test_a_fault_inside_a_stream_reaches_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="http://backend failed"):
        list(
            client.chat.completions.create(model="digits", messages=[{"role": "user", "content": "fail"}], stream=True)
        )


def test_at_the_deadline_the_best_so_far_is_the_answer(chat: Chat, client: openai.OpenAI) -> None:
    policy, _ = chat

    class Slow(Digits):
        def propose_while(self, wanted: Any, questions: Any) -> Any:
            time.sleep(0.2)
            return super().propose_while(wanted, questions)

    with serving(Served(Slow(), LastDigit(), grader=SaysAll(), name="slow")) as url:
        other = client.with_options(base_url=f"{url}/v1")
        made = other.chat.completions.create(
            model="slow:mcts?simulations=500", messages=ASK,  # type: ignore[arg-type]
            extra_body={"stepreward": {"deadline": 0.6}},
        )  # fmt: skip
    assert (made.model_extra or {})["stepreward"]["stopped"] == "seconds"
    assert made.choices[0].message.content
    before = policy.abandoned
    with pytest.raises(openai.InternalServerError, match="no answer came in time"):
        client.chat.completions.create(
            model="digits", messages=[{"role": "user", "content": "wait"}],
            extra_body={"stepreward": {"deadline": 0.2}},
        )  # fmt: skip
    until(lambda: policy.abandoned > before)


def test_at_the_deadline_the_samples_that_came_are_voted_on(client: openai.OpenAI) -> None:
    """One of sixteen samples hangs: the others were paid for, and are the answer."""

    hung = threading.Event()

    class OneHangs(Digits):
        def propose_while(self, wanted: Wanted, questions: Sequence[Propose]) -> list[list[Continuation]]:
            if questions[0].first == 5:
                hung.wait(60)
            return super().propose_while(wanted, questions)

    with serving(Served(OneHangs(), LastDigit(), grader=SaysAll(), name="hangs")) as url:
        made = client.with_options(base_url=f"{url}/v1").chat.completions.create(
            model="hangs:best-of-n?n=16", messages=ASK,  # type: ignore[arg-type]
            extra_body={"stepreward": {"deadline": 2.5}},
        )  # fmt: skip
        hung.set()
    told = (made.model_extra or {})["stepreward"]
    assert told["stopped"] == "seconds"
    assert made.usage is not None
    assert made.usage.completion_tokens == 15 * DEPTH


def test_more_samples_than_the_server_allows_are_as_many_as_it_allows(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(model="digits:best-of-n?n=501", messages=ASK)  # type: ignore[arg-type]
    assert (made.model_extra or {})["stepreward"]["stopped"] == "rollouts"
    assert made.usage is not None
    assert made.usage.completion_tokens == 500 * DEPTH


@pytest.mark.parametrize("limit", [1, 4, 40])
@pytest.mark.parametrize("method", ["best-of-n?n=64", "beam", "particle-filter"])
def test_a_limit_on_generated_tokens_is_not_overstepped(client: openai.OpenAI, method: str, limit: int) -> None:
    made = client.chat.completions.create(
        model=f"digits:{method}",
        messages=ASK,
        extra_body={"stepreward": {"generated_tokens": limit}},  # type: ignore[arg-type]
    )
    assert made.usage is not None
    assert 1 <= made.usage.completion_tokens <= limit
    assert (made.model_extra or {})["stepreward"]["stopped"] == "tokens"
    assert made.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_the_work(chat: Chat, stream: bool) -> None:
    policy, url = chat
    before = policy.abandoned
    body = {"model": "digits", "messages": [{"role": "user", "content": "wait"}], "stream": stream}
    asked = httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=0.4)
    with pytest.raises(httpx.ReadTimeout), asked as response:
        list(response.iter_lines())
    until(lambda: policy.abandoned > before)
    until(lambda: httpx.get(f"{url}/health").json()["running"] == 0)


def test_a_generated_token_limit_ends_a_search_with_what_it_has(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model="digits:mcts?simulations=500", messages=ASK, seed=1,  # type: ignore[arg-type]
        extra_body={"stepreward": {"generated_tokens": 30}},
    )  # fmt: skip
    told = (made.model_extra or {})["stepreward"]
    assert told["stopped"] == "tokens"
    assert 30 <= told["bill"]["generated_tokens"] <= 30 + 4 * 4


def test_the_queue_is_bounded_and_says_when_to_come_back() -> None:
    policy = Digits()
    limits = Limits(running=2, waiting=1, seconds=30)
    with serving(Served(policy, LastDigit(), grader=SaysAll(), name="d", limits=limits)) as url:
        body = {"model": "d", "messages": [{"role": "user", "content": "wait"}]}
        found: list[int] = []

        def ask() -> None:
            found.append(httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: httpx.get(f"{url}/health").json() == {"status": "ok", "running": 2, "waiting": 1})
        refused = httpx.post(f"{url}/v1/chat/completions", json=body)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        late = {**body, "stepreward": {"deadline": 0.2}}
        policy.gate.set()
        for thread in threads:
            thread.join()
        assert found == [200, 200, 200]
        assert httpx.post(f"{url}/v1/chat/completions", json=late).status_code == 200


def test_who_waits_in_the_queue_past_his_deadline_is_told_so() -> None:
    policy = Digits()
    limits = Limits(running=1, waiting=4)
    with serving(Served(policy, LastDigit(), grader=SaysAll(), name="d", limits=limits)) as url:
        body = {"model": "d", "messages": [{"role": "user", "content": "wait"}]}
        thread = threading.Thread(target=lambda: httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30))
        thread.start()
        until(lambda: httpx.get(f"{url}/health").json()["running"] == 1)
        late = httpx.post(f"{url}/v1/chat/completions", json={**body, "stepreward": {"deadline": 0.2}})
        assert late.status_code == 503
        assert "retry-after" in late.headers
        policy.gate.set()
        thread.join()


def test_the_log_and_the_errors_hold_no_text_of_prompts(
    chat: Chat, client: openai.OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "hunter2 three digits"

    def told() -> list[dict[str, Any]]:
        return [json.loads(r.message) for r in caplog.records if r.name == "stepreward.serve"]

    with caplog.at_level(logging.INFO):
        client.chat.completions.create(model="digits", messages=[{"role": "user", "content": secret}])
        with pytest.raises(openai.BadRequestError) as error:
            client.chat.completions.create(
                model="digits", messages=[{"role": "user", "content": secret}], temperature=-3
            )
        until(lambda: len(told()) == 2)

    lines = told()
    assert [line["status"] for line in lines] == ["200", "400"]
    assert lines[0]["search"] == "beam"
    assert lines[0]["completion_tokens"] > 0
    assert "hunter2" not in caplog.text
    assert "hunter2" not in str(error.value)


def test_counters_tell_what_was_answered_and_spent(chat: Chat, client: openai.OpenAI) -> None:
    _, url = chat

    def counted() -> dict[str, float]:
        lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line and line[0] != "#"]
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}

    before = counted()
    made = client.chat.completions.create(model="digits", messages=ASK)  # type: ignore[arg-type]
    after = counted()
    assert made.usage is not None
    generated = 'stepreward_tokens_total{kind="generated"}'
    assert after[generated] - before.get(generated, 0) == made.usage.completion_tokens
    answered = 'stepreward_requests_total{route="/v1/chat/completions",status="200"}'
    assert after[answered] - before.get(answered, 0) == 1
    assert after["stepreward_requests_running"] == 0


def test_questions_keep_their_own_limits_behind_that_of_the_answer() -> None:
    asked: list[Propose] = []

    class Noting(Digits):
        def propose_while(self, wanted: Any, questions: Any) -> Any:
            asked.extend(questions)
            return super().propose_while(wanted, questions)

    with serving(Served(Noting(), LastDigit(), grader=SaysAll(), name="d")) as url:
        body = {"model": "d:beam", "messages": ASK, "max_tokens": 3}
        assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 200
    assert {(len(q.prefix), q.max_tokens) for q in asked} == {(0, 3), (1, 2), (2, 1)}
    assert all(replace(q, max_tokens=None).until == "step" for q in asked)


REFUSED: list[tuple[str, Any]] = [
    ("chat_template_kwargs", {"enable_thinking": False}), ("reasoning_effort", "high"), ("verbosity", "low"),
    ("min_p", 0.1), ("guided_json", {"type": "object"}), ("logit_bias", {"50256": -100}), ("frequency_penalty", 0.5),
    ("add_generation_prompt", False), ("continue_final_message", True), ("ignore_eos", True), ("best_of", 4),
    ("use_beam_search", True), ("include_reasoning", False), ("separate_reasoning", False), ("prompt_logprobs", 1),
    ("modalities", ["audio"]), ("prediction", {"type": "content", "content": "x"}), ("web_search_options", {}),
    ("top_k", 5), ("logprobs", True), ("foo", 1), ("temprature", 0.5), ("foo", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=str)
def test_a_field_that_no_search_honours_is_named(chat: Chat, name: str, value: Any) -> None:
    answer = httpx.post(f"{chat[1]}/v1/chat/completions", json={"model": "digits", "messages": ASK, name: value})
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]
    assert answer.json()["error"]["code"] == 400


def test_a_field_that_asks_for_nothing_is_no_fault(chat: Chat) -> None:
    asks = {
        "top_k": -1, "repetition_penalty": 1.0, "n": None, "logprobs": False, "top_logprobs": None, "min_p": 0.0,
        "response_format": {"type": "text"}, "modalities": ["text"], "reasoning_effort": None, "user": "me",
        "service_tier": "auto", "logit_bias": {}, "frequency_penalty": 0, "add_generation_prompt": True, "best_of": 1,
    }  # fmt: skip
    answer = httpx.post(f"{chat[1]}/v1/chat/completions", json={"model": "digits", "messages": ASK, **asks})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["stop_reason"] is None


def test_half_a_surrogate_of_a_policy_is_answered_as_a_sign_that_can_be_written() -> None:
    class Cut(Digits):
        @staticmethod
        def _one(question: Propose, key: Any) -> Continuation:
            made = Digits._one(question, key)
            return replace(made, steps=tuple(replace(step, text=f"\ud83d {step.text}") for step in made.steps))

    with serving(Served(Cut(), LastDigit(), grader=SaysAll(), name="digits")) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json={"model": "digits", "messages": ASK})
        assert answer.status_code == 200, answer.text
        assert "\ufffd" in answer.json()["choices"][0]["message"]["content"]
