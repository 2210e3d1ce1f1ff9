"""ToolBench (arXiv:2307.16789): trees of tool calls from a depth-first search with backtracking."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from stepreward.core.errors import InputError
from stepreward.core.segment.tool_calls import calling_step, parsed
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, check_choice, need, shown

Outcome = Literal["none", "answered"]
"""No outcome, as a "win" of a tree is any answer, right or wrong; or 1 for a branch with an answer and 0 for others."""
_DEEPEST = 400
_FINISH = "Finish"


def matches(row: Row) -> bool:
    """Whether a row looks like a tree of ToolBench."""
    tree = row.get("tree")
    root = tree.get("tree") if isinstance(tree, Mapping) else None
    return "win" in row and isinstance(root, Mapping) and {"node_type", "children", "pruned"} <= root.keys()


def read(row: Row, number: int, *, outcome: Outcome = "none") -> Iterator[Trajectory]:
    """Reads a `tree`: each branch to its leaf is a trajectory of thoughts, tool calls and what they returned.

    A step's meta says `pruned` where the search gave its node up. Of a branch that calls `Finish` to give an answer,
    that is the answer.

    Args:
        number: its 1-based number, the problem's id where the row has no `file`.
        outcome: `none`, or `answered`: whether the branch gives an answer, which is not whether it is right.

    Raises:
        InputError: a field is missing or of another shape, or an unknown option.
    """
    check_choice("outcome", outcome, Outcome)
    root = need(need(row, "tree", Mapping), "tree", Mapping)
    generation = row.get("answer_generation")
    query = generation.get("query") if isinstance(generation, Mapping) else None
    text = query if isinstance(query, str) and query else str(root.get("description") or "")
    if not text:
        raise InputError("the row has no query", remedy="keep 'answer_generation', or drop the row")
    meta = {"win": bool(row["win"])}
    problem = Problem(f"toolbench-{row.get('file') or ''}{number}", text, meta=meta)
    for path in _branches(root):
        steps, answer = _steps(path)
        if steps:
            result = float(answer is not None) if outcome == "answered" else float("nan")
            yield annotated(
                problem, steps, None, "toolbench", outcome=result, answer=answer
            )  # fmt: skip


def _branches(root: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    """The nodes from below the root to each leaf, in the file's order."""
    open_: list[list[Mapping[str, Any]]] = [[root]]
    while open_:
        path = open_.pop()
        below = path[-1].get("children") or []
        if not isinstance(below, list) or not all(isinstance(node, Mapping) for node in below):
            raise InputError(f"'children' must be a list of nodes, got {shown(below)}")
        if len(path) > _DEEPEST:
            raise InputError(f"the tree is deeper than {_DEEPEST} nodes")
        # A root without children is a query that the search did not begin.
        if not below and len(path) > 1:
            yield path[1:]
        open_ += [[*path, node] for node in reversed(below)]


def _steps(path: list[Mapping[str, Any]]) -> tuple[tuple[Step, ...], str | None]:
    """The steps of a branch, and the answer that it ends in."""
    made: list[Step] = []
    name, answer = "", None
    for node in path:
        kind, said = node.get("node_type"), str(node.get("description") or "")
        pruned = {"pruned": True} if node.get("pruned") else {}
        if kind == "Thought" and said.strip():
            made.append(Step(said.rstrip("\n") + "\n", meta=pruned))
        elif kind == "Action":
            name = said
        elif kind == "Action Input":
            step = calling_step("", [{"name": name, "arguments": parsed(said)}])
            made.append(Step(step.text, meta={**step.meta, **pruned}))
            answer = _answer(name, parsed(said))
        if node.get("observation"):
            made.append(Step(str(node["observation"]).rstrip("\n") + "\n", "observation", "tool", agent=name or None))
    return tuple(made), answer


def _answer(name: str, arguments: Any) -> str | None:
    """The answer that a call gives; None for any other call."""
    if name != _FINISH or not isinstance(arguments, Mapping) or arguments.get("return_type") != "give_answer":
        return None
    given = arguments.get("final_answer")
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)


FORMATS: tuple[Format, ...] = (Format("toolbench", "search trees of tool calls", matches, read),)
