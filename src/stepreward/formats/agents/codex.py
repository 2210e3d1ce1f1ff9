"""Sessions of Codex: rollout files, and the events that `codex exec --json` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepreward.core.types import Trajectory
from stepreward.formats.agents.log import gathered, kept, lines_of, named_text, solution, stated, text_of
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, joined
from stepreward.formats.agents.response_items import is_item, turns_of_items
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
    value = stated(line, "thread_id")
    if line.get("type") == "session_meta":
        value = stated(line, "payload.id", "payload.session_id")
    return value if isinstance(value, str) else ""


def sessions(path: Path) -> Iterator[Numbered]:
    """The file's lines as one row: a rollout file is one session, even where it repeats the head of another."""
    seen: list[str] = []

    def key(line: Row) -> str:
        if _session(line) and (not seen or line.get("type") == "thread.started"):
            seen.append(_session(line))
        return seen[-1] if seen else ""

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
    items = [
        {**body, **kept(line, "timestamp")} if body.get("type") == "message" else body
        for line, body in bodies if line.get("type") == "response_item"
    ]  # fmt: skip
    if any(
        line.get("record_type") == "state" for line in lines
    ):  # The first versions wrote items without the outer object.
        items = [line for line in lines if "role" in line or is_item(line)]
    times = [line.get("timestamp") for line, _ in bodies if line.get("type") == "response_item"]
    turns, others = turns_of_items(items)
    turns = [
        replace(turn, meta={**kept({"timestamp": times[turn.place]}, "timestamp"), **turn.meta})
        if 0 <= turn.place < len(times) else turn
        for turn in turns
    ]  # fmt: skip
    if not items:
        turns = _events(bodies) or _printed(lines)
    head: Mapping[str, Any] = next((body for line, body in bodies if line.get("type") == "session_meta"), {})
    context = [body for line, body in bodies if line.get("type") == "turn_context"]
    models = [named_text(body.get("model")) for body in context]
    usage = [stated(body, "info.total_token_usage") for _, body in bodies if body.get("type") == "token_count"]
    usage += [line["usage"] for line in lines if isinstance(line.get("usage"), Mapping)]
    kinds = [str(line["payload"].get("type")) for line, _ in bodies if line.get("type") == "event_msg"]
    kinds += [str(line.get("type")) for line in lines]
    ended = [kind for kind in kinds if kind in ("turn_aborted", "turn.failed", "task_complete", "turn.completed")]
    meta = kept(head, *_META) | {"instructions": text_of(head["instructions"])} if head.get("instructions") else kept(
        head, *_META
    )  # fmt: skip
    meta |= {"usage": usage[-1]} if usage and usage[-1] is not None else {}
    meta |= {"other_items": others} if others else {}
    name = next(filter(None, map(_session, lines)), "") or number
    yield solution(
        turns, f"codex-{name}", "codex session", reasoning=reasoning, policy=next(filter(None, models[::-1]), ""),
        terminal=not ended or ended[-1] not in ("turn_aborted", "turn.failed"), meta=meta,
    )  # fmt: skip


def _events(bodies: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[Turn]:
    """The turns of a file that has event lines alone."""
    turns: list[Turn] = []
    answer: list[Turn] = []
    for place, (line, body) in enumerate(bodies):
        kind, meta = body.get("type"), kept(line, "timestamp")
        if line.get("type") != "event_msg":
            continue
        if kind == "agent_message":
            answer.append(Turn(MODEL, text_of(body.get("message")), place=place, meta=meta))
        elif kind == "agent_reasoning":
            answer.append(Turn(MODEL, "", reasoning=text_of(body.get("text")), place=place, meta=meta))
        elif kind == "user_message":
            turns += [joined(answer)] if answer else []
            answer = []
            turns.append(Turn("user", text_of(body.get("message")), place=place, meta=meta))
        elif kind == "exec_command_end":
            call = {"name": "shell", "arguments": {"command": body.get("command")}}
            turns.append(joined([*answer, Turn(MODEL, "", (call,), place=place, meta=meta)]))
            answer = []
            turns.append(
                Turn("tool", text_of(stated(body, "aggregated_output", "formatted_output", "stdout")), agent="shell",
                     place=place, meta={**meta, **kept(body, "exit_code", "duration", "stderr")})
            )  # fmt: skip
    return turns + ([joined(answer)] if answer else [])


def _printed(lines: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns of printed events: the last state of each item."""
    last: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for place, line in enumerate(lines):
        item = line.get("item")
        if isinstance(item, Mapping) and str(line.get("type")).startswith("item."):
            name = str(item.get("id", place))
            last[name] = (last.get(name, (place,))[0], item)
    turns: list[Turn] = []
    answer: list[Turn] = []
    for place, item in sorted(last.values(), key=lambda one: one[0]):
        kind = str(item.get("type", item.get("item_type")))
        if kind in ("agent_message", "assistant_message"):
            answer.append(Turn(MODEL, text_of(item.get("text")), place=place))
        elif kind == "reasoning":
            answer.append(Turn(MODEL, "", reasoning=text_of(item.get("text")), place=place))
        elif kind in _TOOLS:
            call_fields, result_fields = _TOOLS[kind]
            name = named_text(item.get("tool")) or kind
            call = {
                "name": name,
                "arguments": stated(item, *call_fields) if kind == "mcp_tool_call" else kept(item, *call_fields),
            }
            turns.append(joined([*answer, Turn(MODEL, "", (call,), place=place)]))
            answer = []
            result = stated(item, *result_fields) if result_fields else None
            if result is not None:
                turns.append(Turn("tool", text_of(result), agent=name, place=place,
                                  meta=kept(item, "exit_code", "status")))  # fmt: skip
        elif kind == "error":
            turns += [joined(answer)] if answer else []
            answer = []
            turns.append(Turn("system", text_of(item.get("message")), place=place, meta={"is_error": True}))
    return turns + ([joined(answer)] if answer else [])


FORMATS: tuple[Format, ...] = (Format("codex", "Codex sessions and printed events", matches, read, rows=sessions),)
