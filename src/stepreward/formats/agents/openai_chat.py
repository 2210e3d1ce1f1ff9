"""OpenAI chat-completions logs: rows of messages, and requests with their responses, tool calls included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed, spelled
from stepreward.core.types import Floats, Problem, Step, Trajectory
from stepreward.formats.agents.messages import ProblemEnd, Reasoning, Turn, message_list, problem_and_steps, turns_of
from stepreward.formats.agents.mini_swe_agent import has_mini_info
from stepreward.formats.agents.runs import gathered_runs, lines_of, terminal_unless_cut, whole_runs, with_own_problem
from stepreward.formats.agents.tool_definitions import tools_apart
from stepreward.formats.fields import first_value, json_text, recorded_outcome
from stepreward.formats.files.rows_of_files import Numbered, read_rows
from stepreward.formats.format import Format
from stepreward.formats.labels import label_array, null_for_nan
from stepreward.formats.rows import Row, annotated, other_fields, shown, text_or_none

LABELS, FIRST = "message_labels", "first_error_message"
_OWN = ("messages", "request", "response", "body", "request_body", "response_body", "choices", "reward", "reference",
        LABELS, FIRST)  # fmt: skip
_BLOCKS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking"})
_ELSEWHERE = frozenset({"step_labels", "samples", "simulations", "trajectory_format", "chosen", "rejected", "history",
                        "distilabel_metadata"})  # fmt: skip
"""Fields of other formats that have messages too."""


def request_of(row: Row) -> Mapping[str, Any]:
    """The request in a log of requests and responses: under `request` or `body`, or the row itself."""
    for name in ("request", "body", "request_body"):
        inner = parsed(row.get(name))
        if isinstance(inner, Mapping):
            return request_of(inner) if isinstance(inner.get("body"), Mapping) else inner
    return row


def response_of(row: Row) -> Mapping[str, Any]:
    """The response in such a log, or nothing."""
    inner = parsed(row.get("response", row.get("response_body")))
    if not isinstance(inner, Mapping):
        return {}
    body = parsed(inner.get("body"))
    return body if isinstance(body, Mapping) else inner


def messages_of(row: Row) -> Any:
    """The messages of the request; gateways store them as JSON in a text beside the response."""
    value = request_of(row).get("messages")
    return parsed(value) if isinstance(value, str) and response_of(row) else value


def anthropic_style(row: Row) -> bool:
    """Whether a row of messages is Anthropic's: a system prompt beside the messages, or its kinds of blocks."""
    request, response = request_of(row), response_of(row)
    messages = messages_of(row)
    if "choices" in response or not isinstance(messages, list):
        return False
    if response.get("type") == "message" or isinstance(request.get("system"), str | list):
        return True
    return any(
        isinstance(block, Mapping) and isinstance(block.get("type"), str) and block["type"] in _BLOCKS
        for message in messages if isinstance(message, Mapping) and isinstance(message.get("content"), list)
        for block in message["content"]
    )  # fmt: skip


def has_messages(row: Row) -> bool:
    """Whether a row is a chat log of some provider's and of no other format with messages."""
    messages = messages_of(row)
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, Mapping) and "role" in first and not _ELSEWHERE & row.keys() and not has_mini_info(row)


def matches(row: Row) -> bool:
    """Whether a row looks like an OpenAI chat log."""
    return has_messages(row) and not anthropic_style(row)


def identity(row: Row, form: str, number: int) -> str:
    """The id that a row states, its own or its response's, or else one made of the format and the row's number."""
    # `custom_id` is that of OpenAI's batch files; the others are of gateways.
    for name in ("id", "custom_id", "request_id", "conversation_id", "uuid"):
        value = row.get(name, response_of(row).get(name))
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return f"{form}-{value}"
    return f"{form}-{number}"


def read(
    row: Row,
    number: int,
    *,
    agent: str = "",
    problem: ProblemEnd = "lead",
    outcome: str = "",
    scale: float = 1.0,
    reasoning: Reasoning = "keep",
) -> Iterator[Trajectory]:
    """Reads `messages`, or `request` with the `choices` of its `response`; a trajectory for each choice.

    Messages of the assistant, with their tool calls as JSON, are actions; messages of tools, users and others are
    observations. Calls that continue each other, as one run of an agent makes them, are one trajectory.
    `message_labels`, one label a message and null where there is none, are read if they are there. A trajectory is not
    terminal if the `finish_reason` of its last answer says that it was cut.

    Args:
        row: the row, or gathered `lines`.
        number: its 1-based number, used where the row has no `id`.
        agent: `name` of the agent whose messages alone are actions; those of all where empty.
        problem: all before the first action, or before the last, as if earlier ones were examples or someone else's.
        outcome: field of the outcome; `reward`, `outcome` or `success` where empty.
        scale: the largest reward; outcomes are rewards divided by it.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: the messages have another shape, none is of the assistant, or a label or reward is none.
    """
    talks = [talk for line in lines_of(row) for talk in _talks(line)]
    known: dict[str, list[Problem]] = {}
    for at, turns in whole_runs([talk.turns for talk in talks]):
        talk, line = talks[at], talks[at].line
        request, response = request_of(line), response_of(line)
        tools, meta = tools_apart({**other_fields(line, *_OWN), **other_fields(request, *_OWN), **talk.meta})
        task, steps = problem_and_steps(
            turns, identity(line, "openai-chat", number), reference=text_or_none(line.get("reference")), agent=agent,
            meta=tools, reasoning=reasoning, problem=problem,
        )  # fmt: skip
        labels, first = _labels(line, steps, talk.messages)
        meta |= {"response_id": response["id"]} if isinstance(response.get("id"), str) else {}
        made = annotated(task, steps, labels, "openai-chat annotators",
                         policy=str(response.get("model") or request.get("model") or ""),
                         outcome=recorded_outcome(line, outcome, scale), first_error=first, facts=meta)  # fmt: skip
        yield with_own_problem(terminal_unless_cut(made, line.get("finish_reason")), known)


@dataclass(frozen=True, slots=True)
class _Talk:
    """The conversation of a line up to one of its answers."""

    line: Row
    turns: list[Turn]
    messages: int
    """How many messages it has."""
    meta: Mapping[str, Any]


def _talks(line: Row) -> list[_Talk]:
    """The conversation of a line, for each choice of its response.

    Raises:
        InputError: a message or the choices are of another shape.
    """
    messages = message_list(messages_of(line))
    response = response_of(line)
    choices = response.get("choices", line.get("choices"))
    if choices is not None and not isinstance(choices, list):
        raise InputError(f"'choices' must be a list, got {shown(choices)}")
    if not choices:
        return [_Talk(line, turns_of(messages), len(messages), {})]
    made = []
    for place, choice in enumerate(choices):
        answer = choice.get("message", choice) if isinstance(choice, Mapping) else choice
        turns = turns_of([*messages, *message_list([answer], "choices")])
        reason = first_value(choice, "finish_reason")
        meta = {"finish_reason": reason} if isinstance(reason, str) else {}
        # Usage is that of all choices together: with several it is none's own.
        meta |= {name: response[name] for name in ("id", "usage") if name in response and len(choices) == 1}
        turns[-1] = turns[-1].with_meta(**meta)
        made.append(_Talk(line, turns, len(messages) + 1, {"choice": place} if len(choices) > 1 else {}))
    return made


def calls(path: Path) -> Iterator[Numbered]:
    """A row a run: requests with their responses that continue each other; rows of messages as they are."""

    def talks(row: Row) -> list[list[Turn]]:
        # Labels count the messages of their own row: such a row stays alone.
        is_call = bool(response_of(row).get("choices") or row.get("choices")) and LABELS not in row
        return [talk.turns for talk in _talks(row)] if is_call else []

    yield from gathered_runs(read_rows(path), talks)


def _labels(row: Row, steps: tuple[Step, ...], count: int) -> tuple[Floats, int | None]:
    """The labels of steps by their messages' places, and the first error among them."""
    labels, marked = np.full(len(steps), np.nan), row.get(FIRST)
    if row.get(LABELS) is not None:
        of = label_array(row[LABELS], count, name=LABELS)
        # In a few traces of agents what a program answered is the decisive step.
        labels = np.array([
            of[step.meta["message"]] if step.kind == "action" or step.meta["message"] == marked else np.nan
            for step in steps
        ])  # fmt: skip
    if marked is None:
        return labels, None
    places = [step.meta["message"] for step in steps]
    if isinstance(marked, int) and 0 <= marked < places[0]:
        # The wrong message is part of the problem now, and the steps after it build on it.
        return labels, None
    first = -1 if marked == -1 else places.index(marked) if marked in places else None
    if first is None or (first >= 0 and labels[first] != 0) or (labels[: first if first >= 0 else None] == 0).any():
        what = f"'{FIRST}' must be the first message labelled 0, or -1, got {shown(marked)}"
        raise InputError(what, remedy="count messages from 0")
    return labels, first


def write(item: Trajectory) -> dict[str, Any]:
    """One row of `messages`, with `reward`, `message_labels` and `first_error_message` where they are known.

    Steps that were read from messages are the same messages again; other steps that follow each other under one role
    are one message, which has a label only if it is one step.
    """
    problem, first = item.problem, item.first_error
    messages: list[dict[str, Any]] = [dict(message) for message in problem.messages if message["content"]]
    if problem.meta.get("images") and messages:
        messages[-1]["content"] = _with_images(messages[-1]["content"], problem.meta["images"])
    labels: list[float | None] = [None] * len(messages)
    places: list[int] = []
    speaker: tuple[object, ...] = ()
    for step, label in zip(item.steps, null_for_nan(item.labels), strict=True):
        if "message" not in step.meta and speaker == (step.role, step.agent, step.kind):
            messages[-1]["content"] += step.text
            labels[-1] = None
        else:
            messages.append(_message(step))
            labels.append(label)
        speaker = (step.role, step.agent, step.kind)
        places.append(len(messages) - 1)
    row: dict[str, Any] = {**item.facts, "messages": messages}
    row |= {} if problem.reference is None else {"reference": problem.reference}
    row |= {} if np.isnan(item.outcome) else {"reward": item.outcome}
    if any(label is not None for label in labels):
        row[LABELS] = labels
        # Not written where the wrong step is a part of its message, which then has no label.
        if first is not None and (first < 0 or labels[places[first]] == 0):
            row[FIRST] = places[first] if first >= 0 else -1
    return row


def _message(step: Step) -> dict[str, Any]:
    """A step as a message: of its text, thinking and calls are taken out again and written in their own fields."""
    calls = step.meta.get("tool_calls") or []
    text = step.text.removesuffix("\n") if "message" in step.meta else step.text
    reasoning = step.meta.get("reasoning") or ""
    if reasoning:
        text = text.removeprefix(reasoning).removeprefix("\n")
    text = text.removesuffix("\n".join(map(spelled, calls))).removesuffix("\n") if calls else text
    content: Any = _with_images(text, step.images) if step.images else text
    made: dict[str, Any] = {"role": step.role, "content": content or (None if calls else "")}
    made |= {"reasoning_content": reasoning} if reasoning else {}
    made |= {"tool_calls": [_written(call) for call in calls]} if calls else {}
    made |= {"name": step.agent} if step.agent else {}
    return made | ({"tool_call_id": step.meta["tool_call_id"]} if "tool_call_id" in step.meta else {})


def _with_images(text: str, images: Any) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    return [*parts, *({"type": "image_url", "image_url": {"url": image}} for image in images)]


def _written(call: Mapping[str, Any]) -> dict[str, Any]:
    """The call as the provider writes it: arguments as JSON in a string."""
    function = {"name": call.get("name"), "arguments": json_text(call.get("arguments"))}
    return {**({"id": call["id"]} if "id" in call else {}), "type": "function", "function": function}


FORMATS: tuple[Format, ...] = (
    Format("openai-chat", "OpenAI chat-completions logs with tool calls", matches, read, write, rows=calls),
)
