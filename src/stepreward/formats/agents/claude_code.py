"""Sessions of Claude Code: lines that point to the one before, with branches and side chains, and streamed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Trajectory
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, joined_turns, name_tools, read_message
from stepreward.formats.agents.runs import gathered, lines_of, path_to, trajectory_of
from stepreward.formats.fields import first_value, json_fields, text_at
from stepreward.formats.format import Format
from stepreward.formats.rows import Row

_TURN = ("timestamp", "isMeta", "isCompactSummary", "toolUseResult", "requestId", "uuid")
"""Fields of a line about its turn."""
_MESSAGE = ("usage", "stop_reason", "model")
_STREAM = ("system", "user", "assistant", "result")
"""Kinds of lines that `--output-format stream-json` prints, which name no line before."""
_RESULT = ("subtype", "is_error", "num_turns", "duration_ms", "total_cost_usd", "usage", "result")
_SESSION = ("sessionId", "version", "cwd", "gitBranch", "agentId", "slug", "entrypoint")


@dataclass(slots=True)
class _Node:
    """One answer of the model with what its tools returned, or one message of others."""

    parent: int | None
    lines: list[Mapping[str, Any]] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    @property
    def is_answer(self) -> bool:
        return any(turn.role == MODEL for turn in self.turns)


def _is_line(line: object) -> bool:
    if not isinstance(line, Mapping) or not isinstance(line.get("type"), str):
        return False
    if isinstance(line.get("session_id"), str) and line["type"] in _STREAM:
        return isinstance(line.get("message"), Mapping) or isinstance(line.get("subtype"), str)
    return {"uuid", "parentUuid"} <= line.keys() or (line["type"] == "summary" and "leafUuid" in line) or (
        "sessionId" in line and isinstance(line.get("message"), Mapping)
    )  # fmt: skip


def matches(row: Row) -> bool:
    """Whether a row is a line of a session of Claude Code, or such lines gathered."""
    return any(map(_is_line, lines_of(row)))


def _session(line: Row) -> str:
    """The id of a line's session, with the sub-agent that wrote it; "" for lines about the file, as summaries are."""
    own = text_at(line, "sessionId", "session_id")
    side = f"/{line.get('agentId') or 'side'}" if line.get("isSidechain") is True else ""
    # What `--output-format stream-json` prints names a sub-agent by the call that started it.
    side = f"/{line['parent_tool_use_id']}" if isinstance(line.get("parent_tool_use_id"), str) else side
    return f"{own}{side}" if own and ("uuid" in line or "session_id" in line) else ""


def read(row: Row, number: int, *, reasoning: Reasoning = "keep") -> Iterator[Trajectory]:
    """Reads the lines of a session: a trajectory for each end of a branch, and for each side chain.

    Lines with one message id are one action; results of tools follow it in the order of the file. Messages that the
    program made in the model's name, as errors of the interface, are observations. Sessions have no outcome.

    Args:
        row: gathered `lines`.
        number: the number of the first, used where they name no session.
        reasoning: whether thinking opens an action's text.

    Raises:
        InputError: a line or message has another shape, or the model says nothing.
    """
    lines = [line for line in lines_of(row) if isinstance(line, Mapping)]
    is_stream = any("session_id" in line for line in lines)
    # In a session's file, lines without a uuid are about the program: snapshots of files, summaries, queued input.
    nodes = _nodes(lines if is_stream else [line for line in lines if isinstance(line.get("uuid"), str)] or lines)
    result = next((line for line in reversed(lines) if line.get("type") == "result"), {})
    failed = result.get("is_error") is True or text_at(result, "subtype").startswith("error")
    paths = _paths(nodes)
    if not paths:
        raise InputError("the model says nothing in this session")
    summaries = [line["summary"] for line in lines if isinstance(line.get("summary"), str)]
    for branch, path in enumerate(paths):
        first = next((line for at in path for line in nodes[at].lines if {"sessionId", "session_id"} & line.keys()), {})
        last = [line for at in path for line in nodes[at].lines if line.get("type") == MODEL][-1]
        meta = json_fields(first, *_SESSION) | ({"summaries": summaries} if summaries else {})
        meta |= {"branch": branch} if len(paths) > 1 else {}
        meta |= {"result": json_fields(result, *_RESULT)} if result else {}
        meta |= {"isSidechain": True} if first.get("isSidechain") is True else {}
        turns = name_tools([turn for at in path for turn in nodes[at].turns])
        yield trajectory_of(
            [replace(turn, place=place) for place, turn in enumerate(turns)],
            f"claude-code-{_session(first) or number}", "claude code session", reasoning=reasoning,
            policy=text_at(last, "message.model"),
            terminal=first_value(last, "message.stop_reason") != "max_tokens" and not failed, meta=meta,
        )  # fmt: skip


def _nodes(lines: Sequence[Mapping[str, Any]]) -> list[_Node]:
    """The session's tree with the lines of one answer, and what its tools returned, as one node."""
    nodes: list[_Node] = []
    # Places of nodes: by the uuids of their lines, by the ids of answers, and by those of the calls in them.
    by_line: dict[str, int] = {}
    by_answer: dict[str, int] = {}
    by_call: dict[str, int] = {}
    for line in lines:
        own = text_at(line, "uuid")
        # A session that was resumed repeats the lines before it.
        if own and own in by_line:
            continue
        turns = _turns(line)
        # The program writes a line for each block of an answer, all with the id of its message.
        answer = text_at(line, "message.id") if line.get("type") == MODEL else ""
        callers = [by_call[turn.answers] for turn in turns if turn.answers in by_call]
        at = callers[0] if callers else by_answer.get(answer)
        if at is None:
            # Compaction starts a new root, and names the line before it in `logicalParentUuid`.
            parent = by_line.get(text_at(line, "parentUuid") or text_at(line, "logicalParentUuid"))
            if parent is None and nodes and line.get("parentUuid", "") is not None:
                parent = len(nodes) - 1  # The line before it is not in the file.
            at = len(nodes)
            nodes.append(_Node(parent))
        nodes[at].lines.append(line)
        nodes[at].turns += turns
        by_line[own] = at
        by_answer |= {answer: at} if answer else {}
        by_call |= {call["id"]: at for turn in turns for call in turn.calls if "id" in call}
    for node in nodes:
        # The program may write a result between two calls of one answer.
        said = [turn for turn in node.turns if turn.role == MODEL]
        node.turns = [*([joined_turns(said)] if said else []), *(turn for turn in node.turns if turn.role != MODEL)]
    return nodes


def _turns(line: Mapping[str, Any]) -> list[Turn]:
    """The turns of a line; none of a line about the session itself."""
    message = line.get("message")
    if line.get("type") == "system" and isinstance(line.get("content"), str) and line["content"]:
        message = {"role": "system", "content": line["content"]}
    elif line.get("type") not in (MODEL, "user") or not isinstance(message, Mapping):
        return []
    made = [turn for turn in read_message(message, 0) if turn.text or turn.calls or turn.reasoning or turn.images
            or turn.role == "tool"]  # fmt: skip
    meta = {**json_fields(line, *_TURN), **json_fields(message, *_MESSAGE)}
    # The program writes errors of the interface in the model's name.
    by_program = line.get("isApiErrorMessage") is True
    return [
        replace(turn, role="system" if by_program else turn.role,
                meta={**meta, **({"is_error": True} if by_program or turn.meta.get("is_error") else {})})
        for turn in made
    ]  # fmt: skip


def _paths(nodes: Sequence[_Node]) -> list[list[int]]:
    """From the root to the last answer of each branch, and on to what followed it."""
    parents = [node.parent for node in nodes]
    last_child = {node.parent: at for at, node in enumerate(nodes)}
    followed: set[int] = set()
    for node in nodes:
        above = node.parent if node.is_answer else None
        # Above a node that is followed by an answer, all nodes are.
        while above is not None and above not in followed:
            followed.add(above)
            above = parents[above]
    paths = []
    for tip, node in enumerate(nodes):
        if not node.is_answer or tip in followed:
            continue
        path = path_to(tip, parents)
        while path[-1] in last_child:
            path.append(last_child[path[-1]])
        paths.append(path)
    return paths


FORMATS: tuple[Format, ...] = (
    Format("claude-code", "Claude Code sessions", matches, read, rows=partial(gathered, key=_session)),
)
