"""Sessions of Codex: rollout files, and the events that `codex exec --json` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepreward.core.types import Trajectory
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, joined_answers
from stepreward.formats.agents.response_items import is_item, turns_of_items
from stepreward.formats.agents.runs import gathered, lines_of, trajectory_of
from stepreward.formats.fields import first_value, json_fields, plain_text, text_at
from stepreward.formats.files.rows_of_files import Numbered
from stepreward.formats.format import Format
from stepreward.formats.rows import Row

_ROLLOUT = frozenset({"session_meta", "response_item", "event_msg", "turn_context", "compacted"})
_META = ("id", "cwd", "cli_version", "originator", "git", "source", "model_provider", "forked_from_id")
_TOOLS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "command_execution": (("command",), ("aggregated_output",)),
    "file_change": (("changes",), ("status",)),
    "mcp_tool_call": (("arguments",), ("result", "error")),
    "web_search": (("query",), ("results",)),
    "todo_list": (("items",), ()),
    "collab_tool_call": (("prompt",), ("agents_states",)),
}
"""Items of printed events that are calls: fields of their arguments and of their results."""


def _is_line(line: object) -> bool:
    kind = line.get("type") if isinstance(line, Mapping) else None
    if isinstance(line, Mapping) and line.get("record_type") == "state":
        return True
    if not isinstance(line, Mapping) or not isinstance(kind, str):
        return False
    rolled = kind in _ROLLOUT and isinstance(line.get("payload"), Mapping)
    return rolled or (kind == "thread.started" and "thread_id" in line) or (
        kind.startswith("item.") and isinstance(line.get("item"), Mapping)
    )  # fmt: skip


def matches(row: Row) -> bool:
    """Whether a row is a line of a Codex session, or such lines gathered."""
    return any(map(_is_line, lines_of(row)))


def _session(line: Row) -> str:
    value = first_value(line, "thread_id")
    if line.get("type") == "session_meta":
        value = first_value(line, "payload.id", "payload.session_id")
    return value if isinstance(value, str) else ""


def sessions(path: Path) -> Iterator[Numbered]:
    """The file's lines as one row: a rollout file is one session, even where it repeats the head of another."""
    current = ""

    def key(line: Row) -> str:
        nonlocal current
        # A forked session repeats the `session_meta` of the one before it; printed events may be of several runs.
        if not current or line.get("type") == "thread.started":
            current = _session(line) or current
        return current

    yield from gathered(path, key)


def read(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads the `response_item` lines of a rollout, or the items that were printed as completed.

    Reasoning, message and calls up to the next result are one action. Of event lines the times, usage and ends are
    kept, as their texts repeat the items. A turn that was aborted leaves the session not terminal. There is no outcome.

    Args:
        row: gathered `lines`.
        number: the number of the first, used where they name no session.
        reasoning: whether recorded reasoning opens an action's text.

    Raises:
        InputError: an item has another shape, or the model says nothing.
    """
    lines = [line for line in lines_of(row) if isinstance(line, Mapping)]
    bodies = [(line, line["payload"]) for line in lines if isinstance(line.get("payload"), Mapping)]
    if any(line.get("record_type") == "state" for line in lines):
        # The first versions wrote items without the outer object, and so without times.
        items, times = [line for line in lines if "role" in line or is_item(line)], []
    else:
        rolled = [(line, body) for line, body in bodies if line.get("type") == "response_item"]
        times = [json_fields(line, "timestamp") for line, _ in rolled]
        # A message keeps its own time where it is joined with the thinking before it.
        items = [
            {**body, **time} if body.get("type") == "message" else body
            for (_, body), time in zip(rolled, times, strict=True)
        ]
    turns, others = turns_of_items(items)
    if times:
        turns = [replace(turn, meta={**times[turn.place], **turn.meta}) for turn in turns]
    if not items:
        turns = joined_answers(_events(bodies) or _printed(lines), until_call=True)
    head: Mapping[str, Any] = next((body for line, body in bodies if line.get("type") == "session_meta"), {})
    context = [body for line, body in bodies if line.get("type") == "turn_context"]
    models = [text_at(body, "model") for body in context]
    usage = [first_value(body, "info.total_token_usage") for _, body in bodies if body.get("type") == "token_count"]
    usage += [line["usage"] for line in lines if isinstance(line.get("usage"), Mapping)]
    kinds = [str(line["payload"].get("type")) for line, _ in bodies if line.get("type") == "event_msg"]
    kinds += [str(line.get("type")) for line in lines]
    ended = [kind for kind in kinds if kind in ("turn_aborted", "turn.failed", "task_complete", "turn.completed")]
    meta = json_fields(head, *_META)
    meta |= {"instructions": plain_text(head["instructions"])} if head.get("instructions") else {}
    # Counts are totals of the session so far: the last is that of all of it.
    meta |= {"usage": usage[-1]} if usage and usage[-1] is not None else {}
    meta |= {"other_items": others} if others else {}
    name = next(filter(None, map(_session, lines)), "") or number
    yield trajectory_of(
        turns, f"codex-{name}", "codex session", reasoning=reasoning, policy=next(filter(None, models[::-1]), ""),
        terminal=not ended or ended[-1] not in ("turn_aborted", "turn.failed"), meta=meta,
    )  # fmt: skip


def _events(bodies: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[Turn]:
    """The turns of a file that has event lines alone."""
    turns: list[Turn] = []
    for place, (line, body) in enumerate(bodies):
        kind, meta = body.get("type"), json_fields(line, "timestamp")
        if line.get("type") != "event_msg":
            continue
        if kind == "agent_message":
            turns.append(Turn(MODEL, plain_text(body.get("message")), place=place, meta=meta))
        elif kind == "agent_reasoning":
            turns.append(Turn(MODEL, "", reasoning=plain_text(body.get("text")), place=place, meta=meta))
        elif kind == "user_message":
            turns.append(Turn("user", plain_text(body.get("message")), place=place, meta=meta))
        elif kind == "exec_command_end":
            call = {"name": "shell", "arguments": {"command": body.get("command")}}
            output = plain_text(first_value(body, "aggregated_output", "formatted_output", "stdout"))
            turns.append(Turn(MODEL, "", (call,), place=place, meta=meta))
            turns.append(Turn("tool", output, agent="shell", place=place,
                              meta={**meta, **json_fields(body, "exit_code", "duration", "stderr")}))  # fmt: skip
    return turns


def _printed(lines: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns of printed events: the last state of each item."""
    # `item.started`, `item.updated` and `item.completed` print an item again and again, in the place of the first.
    last: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for place, line in enumerate(lines):
        item = line.get("item")
        if isinstance(item, Mapping) and str(line.get("type")).startswith("item."):
            name = str(item.get("id", place))
            last[name] = (last.get(name, (place,))[0], item)
    turns: list[Turn] = []
    for place, item in last.values():
        kind = str(item.get("type", item.get("item_type")))
        if kind in ("agent_message", "assistant_message"):
            turns.append(Turn(MODEL, plain_text(item.get("text")), place=place))
        elif kind == "reasoning":
            turns.append(Turn(MODEL, "", reasoning=plain_text(item.get("text")), place=place))
        elif kind in _TOOLS:
            given, returned = _TOOLS[kind]
            name = text_at(item, "tool") or kind
            arguments = first_value(item, *given) if kind == "mcp_tool_call" else json_fields(item, *given)
            turns.append(Turn(MODEL, "", ({"name": name, "arguments": arguments},), place=place))
            result = first_value(item, *returned)
            if result is not None:
                turns.append(Turn("tool", plain_text(result), agent=name, place=place,
                                  meta=json_fields(item, "exit_code", "status")))  # fmt: skip
        elif kind == "error":
            turns.append(Turn("system", plain_text(item.get("message")), place=place, meta={"is_error": True}))
    return turns


FORMATS: tuple[Format, ...] = (Format("codex", "Codex sessions and printed events", matches, read, rows=sessions),)
