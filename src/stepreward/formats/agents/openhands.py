"""OpenHands: results of evaluations and event logs, of versions 0 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import parsed
from stepreward.core.types import Trajectory
from stepreward.formats.agents.log import (
    LINES,
    gathered,
    kept,
    lines_of,
    named_text,
    outcome,
    solution,
    stated,
    text_of,
)
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, joined, named, read_message
from stepreward.formats.files.rows_of_files import Numbered
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


def _is_event(value: object) -> bool:
    if not isinstance(value, Mapping) or "source" not in value:
        return False
    kind = value.get("kind")
    if isinstance(kind, str) and kind in _KINDS:
        return True
    return ("action" in value and "args" in value) or ("observation" in value and "content" in value)


def _events(row: Row) -> list[Any]:
    """The events of a result's history, of older ones in pairs, or of gathered lines."""
    history = row.get("history")
    history = row.get("events") if history is None and isinstance(row.get("events"), list) else history
    found = history if isinstance(history, list) else lines_of(row)
    return [one for event in found for one in (event if isinstance(event, list) else [event])]


def matches(row: Row) -> bool:
    """Whether a row is an event of OpenHands, or holds some."""
    return any(map(_is_event, _events(row)[:50]))


def runs(path: Path) -> Iterator[Numbered]:
    """A row a result of an evaluation; events alone are gathered into one row."""
    yield from gathered(path, lambda line: "", lambda row: not _is_event(row))


def read(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads `history`, or a list of events: the agent's actions, and the answers of the environment and the user.

    Calls of one answer of the model are one action. Events of the program itself, as changes of state, are left out.
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
    answers: list[tuple[str, list[Turn]]] = []
    forgotten: set[object] = set()
    for place, event in enumerate(events):
        if not isinstance(event, Mapping):
            raise InputError(f"event {place} must be an object, got {shown(event)}")
        forgotten |= {one for one in event.get("forgotten_event_ids") or () if isinstance(one, str)}
        made = _new(event, place) if isinstance(event.get("kind"), str) else _old(event, place)
        # Actions of one model response share this id.
        group = named_text(stated(event, "llm_response_id", "tool_call_metadata.model_response.id"))
        for turn in made:
            if turn.role == MODEL:
                last = answers[-1] if answers else None
                if last is not None and group and last[0] == group:
                    last[1].append(turn)
                    continue
                answers.append((group, [turn]))
                turns.append(turn)
            else:
                turns.append(turn)
    whole = {id(parts[0]): joined(parts) for _, parts in answers}
    turns = [whole.get(id(turn), turn) for turn in turns]
    if isinstance(row.get("instruction"), str) and turns and turns[0].role == MODEL:
        turns.insert(0, Turn("user", row["instruction"]))
    metadata = row["metadata"] if isinstance(row.get("metadata"), Mapping) else {}
    won = stated(row, "test_result.report.resolved", "test_result.resolved", "report.resolved", "resolved", "reward",
                 "test_result.result.resolved")  # fmt: skip
    patch = stated(row, "git_patch", "test_result.git_patch")
    meta = other_fields(row, "history", "events", LINES, "instruction", "git_patch", "instance_id")
    meta |= {"forgotten": sorted(map(str, forgotten))} if forgotten else {}
    yield solution(
        named(turns), f"openhands-{stated(row, 'instance_id', 'id') or number}", "openhands", reasoning=reasoning,
        policy=named_text(stated(metadata, "llm_config.model", "llm.model", "model")), won=outcome(won),
        terminal=not row.get("error"), answer=text_or_none(patch) or None, meta=meta,
    )  # fmt: skip


def _old(event: Mapping[str, Any], place: int) -> list[Turn]:
    """The turns of an event of version 0."""
    args = event["args"] if isinstance(event.get("args"), Mapping) else {}
    meta = kept(event, *_EVENT, "llm_metrics")
    call_id = named_text(stated(event, "tool_call_metadata.tool_call_id"))
    if "observation" in event:
        if event["observation"] in _SILENT:
            return []
        cause = event.get("cause")
        return [
            Turn("tool", text_of(event.get("content")), agent=named_text(event["observation"]) or None,
                 answers=call_id or (f"event {cause}" if cause is not None else None), place=place, meta=meta,
                 images=_images(stated(event, "extras.image_urls")))
        ]  # fmt: skip
    action, source = event.get("action"), event.get("source")
    if not isinstance(action, str) or action in _SILENT:
        return []
    seen = _images(args.get("image_urls"))
    if action == "system":
        return [Turn("system", text_of(args.get("content")), place=place, meta=meta)]
    if source != "agent" and action == "message":
        return [Turn("user", text_of(stated(args, "content") or event.get("message")), images=seen, place=place,
                     meta=meta)]  # fmt: skip
    thought = text_of(args.get("thought"))
    if action in _TALK:
        said = text_of(stated(args, "content", "final_thought") or "")
        text = "\n".join(part for part in (thought, said) if part) or text_of(event.get("message"))
        return [Turn(MODEL if source == "agent" else "user", text, images=seen, place=place, meta=meta)]
    inner = {name: value for name, value in args.items() if name != "thought" and value not in (None, "", [])}
    named_call = {"name": named_text(stated(event, "tool_call_metadata.function_name")) or action, "arguments": inner,
                  "id": call_id or f"event {event.get('id', place)}"}  # fmt: skip
    return [Turn(MODEL if source == "agent" else "user", thought, (named_call,), place=place, meta=meta)]


def _images(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _new(event: Mapping[str, Any], place: int) -> list[Turn]:
    """The turns of an event of version 1."""
    kind, meta = event["kind"], kept(event, *_EVENT)
    number = named_text(event.get("tool_call_id")) or None
    if kind == "SystemPromptEvent":
        return [Turn("system", text_of(_parts(event.get("system_prompt") or "")), place=place, meta=meta)]
    if kind == "MessageEvent":
        message = event["llm_message"] if isinstance(event.get("llm_message"), Mapping) else {}
        role = MODEL if event.get("source") == "agent" else named_text(message.get("role")) or "user"
        made = read_message({**message, "role": role}, place)
        extra = [Turn(role, text_of(part), place=place) for part in event.get("extended_content") or ()]
        whole = joined([*made, *extra])
        return [Turn(role, whole.text, whole.calls, whole.reasoning, images=whole.images, place=place, meta=meta)]
    if kind == "ActionEvent":
        thought = text_of(_parts(event.get("thought") or ""))
        arguments = stated(event, "tool_call.arguments", "tool_call.function.arguments")
        action = event["action"] if isinstance(event.get("action"), Mapping) else {}
        plain = {name: value for name, value in action.items() if name != "kind"}
        name = named_text(event.get("tool_name")) or named_text(action.get("kind")) or "tool"
        call = {"name": name, "arguments": parsed(arguments) if arguments is not None else plain,
                "id": number or named_text(event.get("id"))}  # fmt: skip
        return [Turn(MODEL, thought, (call,), named_text(event.get("reasoning_content")), place=place, meta=meta)]
    if kind in ("ObservationEvent", "UserRejectObservation", "AgentErrorEvent"):
        result = stated(event, "observation.content", "observation.output", "rejection_reason", "error")
        parts = read_message({"role": "tool", "content": result if isinstance(result, list) else text_of(
            event.get("observation") if result is None else result)}, place)  # fmt: skip
        failed = (
            {"is_error": True} if kind == "AgentErrorEvent" or stated(event, "observation.is_error") is True else {}
        )
        return [
            Turn("tool", part.text, agent=named_text(event.get("tool_name")) or None,
                 answers=number or named_text(event.get("action_id")) or None, images=part.images, place=place,
                 meta={**meta, **kept(event["observation"] if isinstance(event.get("observation"), Mapping) else {},
                                      "exit_code", "metadata"), **failed})
            for part in parts
        ]  # fmt: skip
    if kind in ("Condensation", "CondensationSummaryEvent") and isinstance(event.get("summary"), str):
        return [Turn("system", event["summary"], place=place, meta=meta)]
    return []


def _parts(value: object) -> Any:
    """A text, or text parts as a list."""
    return [value] if isinstance(value, Mapping) else value


FORMATS: tuple[Format, ...] = (
    Format("openhands", "OpenHands results and events, versions 0 and 1", matches, read, rows=runs),
)
