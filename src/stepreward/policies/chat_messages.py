"""Problems and steps as the messages of OpenAI's chat interface, tool calls and their results included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import EFFORT, MESSAGES, TEMPLATE_KWARGS, TOOL_CHOICE
from stepreward.core.segment.tool_calls import ANSWERS, as_message, calls_of, content_of
from stepreward.core.types import TOOLS, Problem, Step


def messages_of(problem: Problem, prefix: Sequence[Step]) -> list[dict[str, Any]]:
    """A prefix as a chat: the prompt, then the steps, neighbours of one role as one message.

    Tool calls end a message, and the result of a call is a message of its own. What is shown before the first action
    joins the prompt's last message, if that is of the same role: some templates refuse two in a row.
    """
    given = problem.meta.get(MESSAGES)
    messages: list[dict[str, Any]] = [dict(m) for m in given] if given else [
        {"role": m["role"], "content": m["content"]} for m in problem.messages
    ]  # fmt: skip
    first, called = len(messages), 0
    for step in prefix:
        calls, last = calls_of(step), messages[-1] if len(messages) > first else {}
        answers = step.meta.get(ANSWERS)
        if answers and step.role == "tool":
            messages.append({"role": "tool", "content": step.text, "tool_call_id": answers})
        elif last.get("role") == step.role and not last.get("tool_calls") and "tool_call_id" not in last:
            last["content"] += content_of(step)
        elif step.kind == "observation" and _joins(messages, first, step):
            messages[-1]["content"] += f"\n\n{step.text}"
        else:
            messages.append({"role": step.role, "content": content_of(step)})
        if calls:
            messages[-1]["tool_calls"] = as_message(calls, called)
            called += len(calls)
    return messages


def _joins(messages: Sequence[Mapping[str, Any]], first: int, step: Step) -> bool:
    """Whether an observation goes on with the last message of the prompt."""
    last = messages[-1] if len(messages) == first and messages else {}
    return last.get("role") == step.role and isinstance(last.get("content"), str)


def tools_of(problem: Problem) -> dict[str, Any]:
    """Fields of a request that name the tools; empty where the problem has none."""
    return {name: problem.meta[name] for name in (TOOLS, TOOL_CHOICE) if problem.meta.get(name)}


def template_fields(problem: Problem, own: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the chat template beside the messages, as fields of a request.

    Args:
        problem: its meta overrides the policy's own fields.
        own: fields of every request of the policy.

    Raises:
        InputError: the problem's arguments are no object.
    """
    fields = {name: problem.meta[name] for name in (TEMPLATE_KWARGS, EFFORT) if problem.meta.get(name)}
    if TEMPLATE_KWARGS in fields:
        if not isinstance(fields[TEMPLATE_KWARGS], Mapping):
            what = f"{TEMPLATE_KWARGS} of problem {problem.id!r} must be an object"
            raise InputError(what, remedy='write {"enable_thinking": false}')
        fields[TEMPLATE_KWARGS] = {**own.get(TEMPLATE_KWARGS, {}), **fields[TEMPLATE_KWARGS]}
    return fields
