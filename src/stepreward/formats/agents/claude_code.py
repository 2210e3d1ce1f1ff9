"""Sessions of Claude Code: lines that point to the one before, with branches and side chains, and streamed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Trajectory
from stepreward.formats.agents.log import gathered, kept, lines_of, named_text, solution, stated
from stepreward.formats.agents.messages import MODEL, Reasoning, Turn, joined, named, read_message
from stepreward.formats.files.rows_of_files import Numbered
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
    def acts(self) -> bool:
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
    own = named_text(stated(line, "sessionId", "session_id"))
    side = f"/{line.get('agentId') or 'side'}" if line.get("isSidechain") is True else ""
    side = f"/{line['parent_tool_use_id']}" if isinstance(line.get("parent_tool_use_id"), str) else side
    return f"{own}{side}" if own and ("uuid" in line or "session_id" in line) else ""


def sessions(path: Path) -> Iterator[Numbered]:
    """A row a session, and a row for each agent that ran beside it."""
    yield from gathered(path, _session)


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
    nodes = _nodes(lines if is_stream else [line for line in lines if isinstance(line.get("uuid"), str)] or lines)
    result = next((line for line in reversed(lines) if line.get("type") == "result"), {})
    failed = result.get("is_error") is True or named_text(result.get("subtype")).startswith("error")
    paths = _paths(nodes)
    if not paths:
        raise InputError("the model says nothing in this session")
    summaries = [line["summary"] for line in lines if isinstance(line.get("summary"), str)]
    for branch, path in enumerate(paths):
        first = next((line for at in path for line in nodes[at].lines if {"sessionId", "session_id"} & line.keys()), {})
        last = [line for at in path for line in nodes[at].lines if line.get("type") == MODEL][-1]
        meta = kept(first, *_SESSION) | ({"summaries": summaries} if summaries else {})
        meta |= {"branch": branch} if len(paths) > 1 else {}
        meta |= {"result": kept(result, *_RESULT)} if result else {}
        meta |= {"isSidechain": True} if first.get("isSidechain") is True else {}
        turns = named([turn for at in path for turn in nodes[at].turns])
        yield solution(
            [replace(turn, place=place) for place, turn in enumerate(turns)],
            f"claude-code-{_session(first) or number}", "claude code session", reasoning=reasoning,
            policy=named_text(stated(last, "message.model")),
            terminal=stated(last, "message.stop_reason") != "max_tokens" and not failed, meta=meta,
        )  # fmt: skip


def _nodes(lines: Sequence[Mapping[str, Any]]) -> list[_Node]:
    """The session's tree with the lines of one answer, and what its tools returned, as one node."""
    nodes: list[_Node] = []
    of: dict[str, int] = {}
    callers: dict[str, int] = {}
    seen: set[str] = set()
    for line in lines:
        own = named_text(line.get("uuid"))
        if own and own in seen:
            continue
        seen.add(own)
        turns = _turns(line)
        said = named_text(stated(line, "message.id")) if line.get("type") == MODEL else ""
        at = of.get(f"message {said}") if said else None
        answers = [callers[turn.answers] for turn in turns if turn.answers in callers]
        at = answers[0] if answers else at
        if at is None:
            parent = of.get(named_text(line.get("parentUuid")) or named_text(line.get("logicalParentUuid")))
            if parent is None and nodes and line.get("parentUuid", "") is not None:
                parent = len(nodes) - 1  # The line before it is not in the file.
            at = len(nodes)
            nodes.append(_Node(parent))
        node = nodes[at]
        node.lines.append(line)
        node.turns += turns
        of[own] = at
        of |= {f"message {said}": at} if said else {}
        callers |= {call["id"]: at for turn in turns for call in turn.calls if "id" in call}
    for node in nodes:
        acted = [turn for turn in node.turns if turn.role == MODEL]
        if acted:
            node.turns = [joined(acted), *(turn for turn in node.turns if turn.role != MODEL)]
    return nodes


def _turns(line: Mapping[str, Any]) -> list[Turn]:
    message = line.get("message")
    if line.get("type") == "system" and isinstance(line.get("content"), str) and line["content"]:
        message = {"role": "system", "content": line["content"]}
    elif line.get("type") not in (MODEL, "user") or not isinstance(message, Mapping):
        return []
    made = [turn for turn in read_message(message, 0) if turn.text or turn.calls or turn.reasoning or turn.images
            or turn.role == "tool"]  # fmt: skip
    content = message.get("content")
    failed = {
        block.get("tool_use_id")
        for block in (content if isinstance(content, list) else [])
        if isinstance(block, Mapping) and block.get("is_error") is True
    }
    meta = {**kept(line, *_TURN), **kept(message, *_MESSAGE)}
    by_program = line.get("isApiErrorMessage") is True
    return [
        replace(turn, role="system" if by_program else turn.role,
                meta={**meta, **({"is_error": True} if turn.answers in failed or by_program else {})})
        for turn in made
    ]  # fmt: skip


def _paths(nodes: Sequence[_Node]) -> list[list[int]]:
    """From the root to each last action of a branch, and on to what followed it."""
    children: dict[int | None, list[int]] = {}
    for at, node in enumerate(nodes):
        children.setdefault(node.parent, []).append(at)
    followed: set[int] = set()
    for node in nodes:
        if node.acts:
            above = node.parent
            while above is not None and above not in followed:
                followed.add(above)
                above = nodes[above].parent
    paths = []
    for tip, node in enumerate(nodes):
        if not node.acts or tip in followed:
            continue
        path = [tip]
        while (parent := nodes[path[0]].parent) is not None:
            path.insert(0, parent)
        while path[-1] in children:
            path.append(children[path[-1]][-1])
        paths.append(path)
    return paths


FORMATS: tuple[Format, ...] = (Format("claude-code", "Claude Code sessions", matches, read, rows=sessions),)
