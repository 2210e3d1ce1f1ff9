"""OpenHands: results of evaluations and event logs, of versions 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import TOOLS, Trajectory
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, joined_turns, name_tools, read_message
from stepreward.formats.agents.runs import LINES, gathered, lines_of, trajectory_of
from stepreward.formats.agents.tool_definitions import tool_definitions
from stepreward.formats.fields import (
    as_text,
    first_value,
    json_fields,
    list_at,
    object_at,
    outcome_or_nan,
    plain_text,
    text_at,
)
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, other_fields, shown, text_or_none

_SILENT = frozenset({"null", "change_agent_state", "agent_state_changed", "recall", "start", "stop"})
"""Events of the program, outside the conversation of the model."""
_TALK = frozenset({"message", "finish", "reject", "think", "system"})
_EVENT = ("id", "timestamp", "cause", "extras", "success", "confirmation_state", "security_risk", "critic_result",
          "forgotten_event_ids", "exit_code")  # fmt: skip
_KINDS = frozenset({
    "SystemPromptEvent", "MessageEvent", "ActionEvent", "ObservationEvent", "UserRejectObservation", "AgentErrorEvent",
    "Condensation", "CondensationSummaryEvent", "TokenEvent",
})  # fmt: skip
_RESOLVED = ("test_result.report.resolved", "test_result.resolved", "report.resolved", "resolved", "reward",
             "test_result.result.resolved")  # fmt: skip
"""Where the evaluations of different benchmarks write whether the task is resolved."""


def _is_event(value: object) -> bool:
    if not isinstance(value, Mapping) or "source" not in value:
        return False
    kind = value.get("kind")
    if isinstance(kind, str) and kind in _KINDS:
        return True
    return ("action" in value and "args" in value) or ("observation" in value and "content" in value)


def _events(row: Row) -> list[Any]:
    """The events of a result's history, of older ones in pairs, or of gathered lines."""
    history = first_value(row, "history", "events")
    found = history if isinstance(history, list) else lines_of(row)
    return [one for event in found for one in (event if isinstance(event, list) else [event])]


def matches(row: Row) -> bool:
    """Whether a row is an event of OpenHands, or holds some."""
    return any(map(_is_event, _events(row)[:50]))


def read(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `history`, or a list of events: the agent's actions, and the answers of the environment and the user.

    Calls of one answer of the model are one action. Events of the program itself, as changes of state, are left out.
    Definitions of the agent's tools are the problem's `tools`, where the log has their parameters.
    The outcome is whether the tests resolved the task, in `test_result`, `resolved` or `reward`, else NaN; a run with
    an `error` is not terminal.

    Args:
        row: a result, or gathered `lines`.
        number: its 1-based number, used where it has no `instance_id`.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: an event has another shape, or the agent does nothing.
    """
    events = _events(row)
    turns: list[Turn] = []
    # Actions of one response of the model share its id; events of others may come between them.
    answers: list[tuple[str, list[Turn]]] = []
    forgotten: set[object] = set()
    for place, event in enumerate(events):
        if not isinstance(event, Mapping):
            raise InputError(f"event {place} must be an object, got {shown(event)}")
        forgotten |= {one for one in event.get("forgotten_event_ids") or () if isinstance(one, str)}
        response = text_at(event, "llm_response_id", "tool_call_metadata.model_response.id")
        made = _turns_of_version_1 if isinstance(event.get("kind"), str) else _turns_of_version_0
        for turn in made(event, place):
            if turn.role == MODEL and response and answers and answers[-1][0] == response:
                answers[-1][1].append(turn)
                continue
            answers += [(response, [turn])] if turn.role == MODEL else []
            turns.append(turn)
    whole = {id(parts[0]): joined_turns(parts) for _, parts in answers}
    turns = [whole.get(id(turn), turn) for turn in turns]
    if isinstance(row.get("instruction"), str) and turns and turns[0].role == MODEL:
        turns.insert(0, Turn("user", row["instruction"]))
    won = first_value(row, *_RESOLVED)
    tools = next((found for event in events if (found := _tools(event))), [])
    patch = first_value(row, "git_patch", "test_result.git_patch")
    meta = other_fields(row, "history", "events", LINES, "instruction", "git_patch", "instance_id")
    meta |= {"forgotten": sorted(map(str, forgotten))} if forgotten else {}
    yield trajectory_of(
        name_tools(turns), f"openhands-{first_value(row, 'instance_id', 'id') or number}", "openhands",
        reasoning=reasoning, won=outcome_or_nan(won),
        policy=text_at(row.get("metadata"), "llm_config.model", "llm.model", "model"),
        problem_meta={TOOLS: tools} if tools else None, terminal=not row.get("error"),
        answer=text_or_none(patch) or None, meta=meta,
    )  # fmt: skip


def _tools(event: Mapping[str, Any]) -> list[Any]:
    """The tools of a system prompt; newer logs name a class in the place of parameters."""
    return tool_definitions(list_at(event, "tools", "args.tools"))


def _turns_of_version_0(event: Mapping[str, Any], place: int) -> list[Turn]:
    """The turns of an event that is an `action` with `args`, or an `observation` with `content`."""
    args = object_at(event, "args")
    meta = json_fields(event, *_EVENT, "llm_metrics")
    call_id = text_at(event, "tool_call_metadata.tool_call_id")
    if "observation" in event:
        if event["observation"] in _SILENT:
            return []
        # Without calls of tools, an observation names the event that caused it.
        cause = event.get("cause")
        return [
            Turn("tool", plain_text(event.get("content")), agent=as_text(event["observation"]) or None,
                 answers=call_id or (f"event {cause}" if cause is not None else None), place=place, meta=meta,
                 images=_images(first_value(event, "extras.image_urls")))
        ]  # fmt: skip
    action, source = event.get("action"), event.get("source")
    if not isinstance(action, str) or action in _SILENT:
        return []
    seen = _images(args.get("image_urls"))
    if action == "system":
        return [Turn("system", plain_text(args.get("content")), place=place, meta=meta)]
    if source != "agent" and action == "message":
        return [Turn("user", plain_text(first_value(args, "content") or event.get("message")), images=seen, place=place,
                     meta=meta)]  # fmt: skip
    thought = plain_text(args.get("thought"))
    if action in _TALK:
        said = plain_text(first_value(args, "content", "final_thought") or "")
        text = "\n".join(part for part in (thought, said) if part) or plain_text(event.get("message"))
        return [Turn(MODEL if source == "agent" else "user", text, images=seen, place=place, meta=meta)]
    inner = {name: value for name, value in args.items() if name != "thought" and value not in (None, "", [])}
    named_call = {"name": text_at(event, "tool_call_metadata.function_name") or action, "arguments": inner,
                  "id": call_id or f"event {event.get('id', place)}"}  # fmt: skip
    return [Turn(MODEL if source == "agent" else "user", thought, (named_call,), place=place, meta=meta)]


def _images(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _prompt_text(value: object) -> str:
    """A text, a part with a text, or a list of such parts, as text."""
    return plain_text([value] if value and isinstance(value, Mapping) else value or "")


def _turns_of_version_1(event: Mapping[str, Any], place: int) -> list[Turn]:
    """The turns of an event that states its `kind`."""
    kind, meta = event["kind"], json_fields(event, *_EVENT)
    number = text_at(event, "tool_call_id") or None
    if kind == "SystemPromptEvent":
        told = (_prompt_text(event.get(name)) for name in ("system_prompt", "dynamic_context"))
        return [Turn("system", "\n".join(filter(None, told)), place=place, meta=meta)]
    if kind == "MessageEvent":
        message = object_at(event, "llm_message")
        role = MODEL if event.get("source") == "agent" else text_at(message, "role") or "user"
        made = read_message({**message, "role": role}, place)
        extra = [Turn(role, plain_text(part), place=place) for part in event.get("extended_content") or ()]
        whole = joined_turns([*made, *extra])
        return [Turn(role, whole.text, whole.calls, whole.reasoning, images=whole.images, place=place, meta=meta)]
    if kind == "ActionEvent":
        action = object_at(event, "action")
        arguments = parsed(first_value(event, "tool_call.arguments", "tool_call.function.arguments"))
        if arguments is None:
            arguments = {name: value for name, value in action.items() if name != "kind"}
        name = text_at(event, "tool_name") or text_at(action, "kind") or "tool"
        call = {"name": name, "arguments": arguments, "id": number or text_at(event, "id")}
        thought = _prompt_text(event.get("thought"))
        return [Turn(MODEL, thought, (call,), text_at(event, "reasoning_content"), place=place, meta=meta)]
    if kind in ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent"):
        result = first_value(event, "observation.content", "observation.output", "rejection_reason", "error")
        parts = read_message({"role": "tool", "content": result if isinstance(result, list) else plain_text(
            event.get("observation") if result is None else result)}, place)  # fmt: skip
        failed = (
            {"is_error": True}
            if kind == "AgentErrorEvent" or first_value(event, "observation.is_error") is True
            else {}
        )
        return [
            Turn("tool", part.text, agent=text_at(event, "tool_name") or None,
                 answers=number or text_at(event, "action_id") or None, images=part.images, place=place,
                 meta={**meta, **json_fields(object_at(event, "observation"),
                                             "exit_code", "metadata"), **failed})
            for part in parts
        ]  # fmt: skip
    if kind in ("Condensation", "CondensationSummaryEvent") and isinstance(event.get("summary"), str):
        return [Turn("system", event["summary"], place=place, meta=meta)]
    return []


FORMATS: tuple[Format, ...] = (
    Format("openhands", "OpenHands results and events, versions 0 and 1", matches, read,
           rows=partial(gathered, whole=lambda row: not _is_event(row))),
)  # fmt: skip
