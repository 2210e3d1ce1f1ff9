"""Logs of calls: a run of K calls is one trajectory of K answers, whatever wrote the log and in whatever order."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from stepreward import formats

Message = dict[str, Any]
Call = tuple[list[Message], Message, int]
"""What was asked, what was answered, and the number of the run."""
ASKED = "How many lines has notes.txt?"
COMMANDS = ("ls", "wc -l notes.txt")


def calling(command: str) -> Message:
    call = {"name": "bash", "arguments": json.dumps({"cmd": command})}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": f"k-{command}", "type": "function",
                                                                "function": call}]}  # fmt: skip


def a_run(number: int, told: Sequence[str], *, asked: str = ASKED) -> list[Call]:
    """A run of three calls, of which the last answers; the tools tell what this run has them tell."""
    talk: list[Message] = [{"role": "system", "content": "You have a shell."}, {"role": "user", "content": asked}]
    made = []
    for command, result in zip(COMMANDS, told, strict=True):
        made.append((list(talk), calling(command), number))
        talk += [calling(command), {"role": "tool", "tool_call_id": f"k-{command}", "content": result}]
    return [*made, (list(talk), {"role": "assistant", "content": f"It has {told[-1]} lines."}, number)]


def steps_of(told: Sequence[str]) -> list[str]:
    spelled = ['{"name": "bash", "arguments": {"cmd": "' + command + '"}}\n' for command in COMMANDS]
    seen = [f"{one}\n" for one in told]
    return [spelled[0], seen[0], spelled[1], seen[1], f"It has {told[-1]} lines.\n"]


def otel(message: Message) -> Message:
    if message["role"] == "tool":
        part = {"type": "tool_call_response", "id": message["tool_call_id"], "response": message["content"]}
        return {"role": "tool", "parts": [part]}
    parts: list[Message] = [{"type": "text", "content": message["content"]}] if message["content"] else []
    for call in message.get("tool_calls", []):
        inner = {"name": call["function"]["name"], "arguments": json.loads(call["function"]["arguments"])}
        parts.append({"type": "tool_call", "id": call["id"], **inner})
    return {"role": message["role"], "parts": parts}


def span(call: Call, at: int, trace: str) -> Message:
    asked, answer, _ = call
    attributes = {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "m",
        "gen_ai.input.messages": json.dumps(list(map(otel, asked))),
        "gen_ai.output.messages": json.dumps([{**otel(answer), "finish_reason": "stop"}]),
    }  # fmt: skip
    return {"traceId": trace, "spanId": f"s{at}", "name": "chat m", "startTimeUnixNano": str(98 + at),
            "attributes": attributes}  # fmt: skip


def trace_a_run(calls: Sequence[Call]) -> list[Message]:
    return [span(call, at, f"t{call[2]}") for at, call in enumerate(calls)]


def trace_a_call(calls: Sequence[Call]) -> list[Message]:
    return [span(call, at, f"t{at}") for at, call in enumerate(calls)]


def one_trace(calls: Sequence[Call]) -> list[Message]:
    return [span(call, at, "t") for at, call in enumerate(calls)]


def exported(calls: Sequence[Call]) -> list[Message]:
    """As a collector writes it: a batch of spans a line, a trace over several lines."""
    lines = []
    for one in trace_a_run(calls):
        listed = [{"key": key, "value": {"stringValue": value}} for key, value in one["attributes"].items()]
        lines.append({"resourceSpans": [{"scopeSpans": [{"spans": [{**one, "attributes": listed}]}]}]})
    return lines


def before(calls: Sequence[Call]) -> list[Message]:
    """As the conventions were before: numbered attributes."""
    made = []
    for one, (asked, answer, _) in zip(trace_a_run(calls), calls, strict=True):
        flat: Message = {"gen_ai.request.model": "m"}
        for name, messages in (("prompt", asked), ("completion", [answer])):
            for at, message in enumerate(messages):
                flat |= {f"gen_ai.{name}.{at}.{field}": message[field]
                         for field in ("role", "content", "tool_call_id") if message.get(field)}  # fmt: skip
                for n, call in enumerate(message.get("tool_calls", [])):
                    flat[f"gen_ai.{name}.{at}.tool_calls.{n}.id"] = call["id"]
                    flat |= {f"gen_ai.{name}.{at}.tool_calls.{n}.{k}": v for k, v in call["function"].items()}
        made.append({**one, "attributes": flat})
    return made


def plain(calls: Sequence[Call]) -> list[Message]:
    """As frameworks write it that put messages in OpenAI's shape there, and an answer alone."""
    made = []
    for one, (asked, answer, _) in zip(trace_a_run(calls), calls, strict=True):
        output = answer["content"] or json.dumps(answer)
        own = {"gen_ai.operation.name": "call_llm", "gen_ai.input.messages": json.dumps(asked), "gen_ai.output": output}
        made.append({**one, "attributes": own})
    return made


def events(calls: Sequence[Call]) -> list[Message]:
    """As the conventions were between: messages in events."""
    made = []
    for one, (asked, answer, _) in zip(trace_a_run(calls), calls, strict=True):
        told = [
            {"name": f"gen_ai.{m['role']}.message", "attributes": {**m, "id": m.get("tool_call_id")}} for m in asked
        ]
        told.append({"name": "gen_ai.choice", "attributes": {"index": 0, "message": json.dumps(answer)}})
        made.append({**one, "attributes": {"gen_ai.system": "openai"}, "events": told})
    return made


def proxy(calls: Sequence[Call]) -> list[Message]:
    return [
        {"request": {"model": "m", "messages": asked}, "response": {"id": "c", "object": "chat.completion", "choices": [
            {"index": 0, "message": answer, "finish_reason": "stop"}]}}
        for asked, answer, _ in calls
    ]  # fmt: skip


def bodies(calls: Sequence[Call]) -> list[Message]:
    """As gateways store bodies: JSON in texts."""
    return [
        {"request_body": json.dumps(row["request"]), "response_body": json.dumps(row["response"]), "status": 200}
        for row in proxy(calls)
    ]


def beside(calls: Sequence[Call]) -> list[Message]:
    return [{**row["request"], "response": row["response"], "startTime": at} for at, row in enumerate(proxy(calls))]


def spent(calls: Sequence[Call]) -> list[Message]:
    """As LiteLLM exports its table of calls: messages and response as JSON beside each other."""
    return [
        {"request_id": f"r{at}", "model": "m", "messages": json.dumps(row["request"]["messages"]), "spend": 0.1,
         "response": json.dumps(row["response"]), "startTime": f"2026-01-01T00:00:0{at}"}
        for at, row in enumerate(proxy(calls))
    ]  # fmt: skip


def anthropic(calls: Sequence[Call]) -> list[Message]:
    made = []
    for at, (asked, answer, _) in enumerate(calls):
        talk = []
        for message in [*asked[1:], answer]:
            blocks: list[Message] = []
            if message["role"] == "tool":
                blocks = [
                    {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
                ]
            elif message["content"]:
                blocks = [{"type": "text", "text": message["content"]}]
            for call in message.get("tool_calls", []):
                inner = {"name": "bash", "input": json.loads(call["function"]["arguments"])}
                blocks.append({"type": "tool_use", "id": call["id"], **inner})
            talk.append({"role": "assistant" if message["role"] == "assistant" else "user", "content": blocks})
        request = {"model": "m", "system": asked[0]["content"], "messages": talk[:-1]}
        response = {"id": f"msg_{at}", "type": "message", "model": "m", "stop_reason": "end_turn", **talk[-1]}
        made.append({"request": request, "response": response})
    return made


LAYOUTS: dict[str, Callable[[Sequence[Call]], list[Message]]] = {
    "a trace a run": trace_a_run, "a trace a call": trace_a_call, "one trace": one_trace, "exported": exported,
    "numbered attributes": before, "events": events, "plain": plain, "proxy": proxy, "bodies": bodies, "beside": beside,
    "spent": spent,
    "anthropic": anthropic,
}  # fmt: skip


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".jsonl.gz"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_three_calls_are_one_trajectory_of_three_answers(layout: str, ending: str, tmp_path: Path) -> None:
    rows = LAYOUTS[layout](a_run(1, ("notes.txt", "7")))
    path = tmp_path / f"log{ending}"
    text = json.dumps(rows, indent=1) if ending == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if ending.endswith(".gz") else text.encode())
    reading = formats.read(path, strict=True)
    (item,) = reading
    assert [step.text for step in item.steps] == steps_of(("notes.txt", "7"))
    assert [step.kind for step in item.steps] == ["action", "observation"] * 2 + ["action"]
    assert [m["content"] for m in item.problem.messages] == ["You have a shell.", ASKED]
    assert item.terminal


@pytest.mark.parametrize("order", ["one after the other", "interleaved", "newest first"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_runs_are_two_trajectories(layout: str, order: str, tmp_path: Path) -> None:
    """Samples of one problem: their first calls are equal, and later ones too as long as the tools tell the same."""
    first, second = a_run(1, ("notes.txt", "7")), a_run(2, ("notes.txt", "8"))
    calls = [*first, *second] if order == "one after the other" else [c for both in zip(first, second, strict=True)
                                                                     for c in both]  # fmt: skip
    path = tmp_path / "log.jsonl"
    rows = LAYOUTS[layout](calls)
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows[::-1] if order == "newest first" else rows)))
    made = list(formats.read(path, strict=True))
    assert sorted([step.text for step in item.steps] for item in made) == [
        steps_of(("notes.txt", "7")), steps_of(("notes.txt", "8")),
    ]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_equal_runs_are_two_and_runs_that_ask_otherwise_are_two_problems(layout: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    calls = [*a_run(1, ("notes.txt", "7")), *a_run(2, ("notes.txt", "7"))]
    path.write_text("".join(json.dumps(row) + "\n" for row in LAYOUTS[layout](calls)))
    assert [[step.text for step in item.steps] for item in formats.read(path, strict=True)] == [
        steps_of(("notes.txt", "7"))
    ] * 2
    calls = [*a_run(1, ("notes.txt", "7")), *a_run(2, ("notes.txt", "7"), asked="How many lines?")]
    path.write_text("".join(json.dumps(row) + "\n" for row in LAYOUTS[layout](calls)))
    made = list(formats.read(path, strict=True))
    assert len(made) == 2
    if layout == "one trace":
        assert [item.problem.id for item in made] == ["otel-t", "otel-t/1"]


def test_a_call_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for layout, wrong in (("proxy", {"request": {"messages": [{"role": "user", "content": 7}]},
                                     "response": {"choices": [{"message": {"role": "assistant", "content": "A"}}]}}),
                          ("one trace", {"traceId": "t", "attributes": {"gen_ai.output.messages": "7"}})):  # fmt: skip
        rows = LAYOUTS[layout](a_run(1, ("notes.txt", "7")))
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows[:1], wrong, *rows[1:]]))
        reading = formats.read(path)
        assert [len(item) for item in reading] == [5]
        assert [error.row for error in reading.bad] == [2]


def test_an_agent_s_span_and_a_framework_s_around_that_of_a_provider_repeat_their_calls(tmp_path: Path) -> None:
    calls = a_run(1, ("notes.txt", "7"))
    inner = [{**one, "parentSpanId": "root"} for one in one_trace(calls)]
    whole = span(calls[-1], 9, "t")
    own = {"gen_ai.operation.name": "invoke_agent", "gen_ai.input.messages": json.dumps([otel(calls[0][0][1])])}
    root = {**whole, "spanId": "root", "parentSpanId": "top", "attributes": whole["attributes"] | own}
    top = {**root, "spanId": "top", "attributes": root["attributes"] | {"gen_ai.operation.name": "conversation"}}
    around = [{**one, "spanId": f"a-{one['spanId']}"} for one in inner]
    inner = [{**one, "parentSpanId": f"a-{one['spanId']}"} for one in inner]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [top, root, *around, *inner]))
    (item,) = formats.read(path, strict=True)
    assert [step.text for step in item.steps] == steps_of(("notes.txt", "7"))
    # Where the calls inside have no content, the agent's span is all there is.
    path.write_text(json.dumps(root) + "\n" + json.dumps({**inner[0], "attributes": {"gen_ai.system": "x"}}) + "\n")
    (item,) = formats.read(path, strict=True)
    assert [step.text for step in item.steps] == ["It has 7 lines.\n"]


def test_several_answers_of_a_span_are_candidates(tmp_path: Path) -> None:
    one = span(a_run(1, ("notes.txt", "7"))[0], 0, "t")
    answers = [{"role": "assistant", "parts": [{"type": "text", "content": text}], "finish_reason": reason}
               for text, reason in (("7", "stop"), ("It is", "length"))]  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({**one, "attributes": {**one["attributes"], "gen_ai.output.messages": answers}}))
    made = list(formats.read(path))
    assert [(item.text, item.terminal) for item in made] == [("7\n", True), ("It is\n", False)]
    assert {item.problem.id for item in made} == {"otel-t"}
