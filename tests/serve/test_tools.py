"""Tool calls end to end: OpenAI's client, the gateway, the HTTP policy, and a server that streams calls in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import openai
import pytest

from stepreward.core.http.server import Server
from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Continuation, Flow, Propose, Score, Scored
from stepreward.core.segment.tool_calls import calling_step, calls_of, content_of
from stepreward.core.types import Problem, Step
from stepreward.formats.agents.messages import step_of, turns_of
from stepreward.policies.chat_messages import messages_of
from stepreward.policies.expert import WithExpert
from stepreward.policies.http import HttpPolicy
from stepreward.serve.service import Served
from tests.serve.backend import CITIES, Backend, backing
from tests.serve.running import Digits, SaysAll, serving

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
ASK = [{"role": "user", "content": "How is it in the city of light?"}]


class LikesParis:
    """A call about Paris is right."""

    name, batch_size = "likes-paris", 64

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        rows = [[0.9 if "Paris" in step.text else 0.2 for step in q.steps] for q in questions]
        return [Scored(np.array(row), 1, 1) for row in rows]


@pytest.fixture(scope="module")
def backend() -> Iterator[tuple[Backend, str]]:
    with backing() as made:
        yield made


def policy_of(url: str) -> HttpPolicy:
    return HttpPolicy(Server(url, "any", backoff=0.0))


@pytest.fixture(scope="module")
def client(backend: tuple[Backend, str]) -> Iterator[openai.OpenAI]:
    with (
        serving(Served(policy_of(backend[1]), LikesParis(), grader=SaysAll(), name="m")) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as made,
    ):
        yield made


def test_the_policy_reads_a_call_as_a_step(backend: tuple[Backend, str]) -> None:
    state, url = backend
    problem = Problem("p", "How is it?", meta={"tools": [TOOL], "tool_choice": "auto"})
    (answers,) = policy_of(url).propose([Propose(problem, (), Key.seed(0), n=6)])
    assert (state.bodies[-1]["tools"], state.bodies[-1]["tool_choice"]) == ([TOOL], "auto")
    for answer in answers:
        (step,) = answer.steps
        ((call),) = calls_of(step)
        assert call["name"] == "weather"
        assert call["arguments"]["city"] in CITIES
        assert call["id"] == f"call-{call['arguments']['city']}"
        assert step.text == f'I look it up.\n{{"name": "weather", "arguments": {json.dumps(call["arguments"])}}}\n'
        assert content_of(step) == "I look it up."
        assert (answer.finished, answer.truncated) == (True, False)
    # The result goes back, and the model answers in steps.
    seen = Step("mild", kind="observation", role="tool", meta={"tool_call_id": calls_of(answers[0].steps[0])[0]["id"]})
    ((last,),) = policy_of(url).propose([Propose(problem, (*answers[0].steps, seen), Key.seed(1))])
    assert [step.text for step in last.steps] == ["It is mild.\n", "Answer: done"]
    sent = state.bodies[-1]["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "tool"]
    assert sent[1]["content"] == "I look it up."
    assert (
        json.loads(sent[1]["tool_calls"][0]["function"]["arguments"]) == calls_of(answers[0].steps[0])[0]["arguments"]
    )
    assert sent[2]["tool_call_id"] == sent[1]["tool_calls"][0]["id"]


def test_what_the_policy_writes_is_what_a_log_of_it_reads() -> None:
    calls = [{"name": "f", "arguments": {"x": 1}, "id": "a"}, {"name": "g", "arguments": {}}]
    step = calling_step("Let me see.", calls)
    problem = Problem("p", "?")
    messages = messages_of(problem, (Step("First.\n"), step))
    assert [m["role"] for m in messages] == ["user", "assistant"]
    assert messages[1]["content"] == "First.\nLet me see."
    assert [call["id"] for call in messages[1]["tool_calls"]] == ["a", "call_1"]
    read = step_of(turns_of(messages)[1])
    assert [call["name"] for call in calls_of(read)] == ["f", "g"]
    assert read.text == f"First.\n{step.text}"
    assert content_of(read) == "First.\nLet me see."


def test_calls_survive_a_log_of_answers(backend: tuple[Backend, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("log") / "answers.sqlite"
    problem = Problem("q", "How is it?", meta={"tools": [TOOL]})

    def flow() -> Flow[list[Continuation]]:
        (made,) = yield [Propose(problem, (), Key.seed(2), n=2)]
        return made

    runs = []
    for _ in range(2):
        with AnswerLog(path) as log:
            driver = Driver(policy=policy_of(backend[1]), log=log)
            runs.append(next(driver.run([flow()])).result)
    assert runs[0] == runs[1]
    assert [calls_of(c.steps[-1]) for c in runs[1]] == [calls_of(c.steps[-1]) for c in runs[0]] != [[], []]


def test_the_best_call_wins_through_the_gateway(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model="m:best-of-n?n=12", messages=ASK, tools=[TOOL], seed=1,  # type: ignore[list-item, arg-type]
        extra_body={"stepreward": {"scores": True}},
    )  # fmt: skip
    (choice,) = made.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look it up."
    assert choice.message.tool_calls is not None
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})
    assert call.id == "call-Paris"
    assert (choice.model_extra or {})["stepreward"]["steps"][0]["score"] == 0.9
    # Its result goes back as OpenAI's clients send it.
    said = choice.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    back = [*ASK, said, {"role": "tool", "tool_call_id": call.id, "content": "mild"}]
    last = client.chat.completions.create(model="m:best-of-n?n=2", messages=back, tools=[TOOL])  # type: ignore[arg-type, list-item]
    assert last.choices[0].message.content == "It is mild.\nAnswer: done"
    assert last.choices[0].finish_reason == "stop"


def test_equal_calls_are_one_vote(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model="m:majority?n=9", messages=ASK, tools=[TOOL], seed=3, n=9,  # type: ignore[list-item, arg-type]
    )  # fmt: skip
    called = [json.loads(c.message.tool_calls[0].function.arguments)["city"] for c in made.choices]  # type: ignore[index, union-attr]
    assert called[0] == max(dict.fromkeys(called), key=called.count)


def test_a_call_is_streamed(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="m:best-of-n?n=12", messages=ASK, tools=[TOOL], seed=1, stream=True,  # type: ignore[list-item, arg-type]
    )  # fmt: skip
    text, calls, reasons = "", [], []
    for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            calls += choice.delta.tool_calls or []
            reasons += [choice.finish_reason] if choice.finish_reason else []
    assert (text, reasons) == ("I look it up.", ["tool_calls"])
    assert [(c.index, c.id, c.function.name) for c in calls] == [(0, "call-Paris", "weather")]  # type: ignore[union-attr]


def test_tools_that_must_not_be_called_are_not_sent(client: openai.OpenAI, backend: tuple[Backend, str]) -> None:
    before = len(backend[0].bodies)
    made = client.chat.completions.create(
        model="m:majority?n=1", messages=ASK, tools=[TOOL], tool_choice="none",  # type: ignore[list-item, arg-type]
    )  # fmt: skip
    assert made.choices[0].finish_reason == "stop"
    assert len(backend[0].bodies) == before


def test_a_policy_that_calls_no_tools_says_so() -> None:
    with (
        serving(Served(Digits(), LikesParis(), grader=SaysAll(), name="digits")) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="calls no tools"),
    ):
        client.chat.completions.create(model="digits", messages=ASK, tools=[TOOL])  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ({"role": "assistant"}, "needs content, or tool_calls"),
        ({"role": "assistant", "tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]}, "name"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "needs content, or tool_calls"),
    ],
)
def test_messages_of_no_sense_are_refused(client: openai.OpenAI, message: dict[str, Any], wrong: str) -> None:
    with pytest.raises(openai.BadRequestError, match=wrong):
        client.chat.completions.create(model="m", messages=[*ASK, message])  # type: ignore[list-item]


def test_an_expert_must_take_tools_too(backend: tuple[Backend, str]) -> None:
    http = policy_of(backend[1])
    assert "tools" in WithExpert(http, http).takes
    assert not WithExpert(http, Digits()).takes
    assert HttpPolicy(Server(backend[1], "any"), endpoint="completions").takes == {"top_k", "min_p"}
