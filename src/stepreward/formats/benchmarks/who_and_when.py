"""Who&When (arXiv:2505.00212): failed traces of several agents, with the decisive step and the agent to blame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, check_choice, need, other_fields, shown, text_or_none

Before = Literal["mask", "right"]
_OTHERS = frozenset({"human", "Computer_terminal", "ComputerTerminal"})
"""Speakers that are no agents: they give the task or run what an agent wrote."""


def _step(turn: object, place: int) -> Step:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
        raise InputError(f"turn {place} of 'history' needs a 'content', got {shown(turn)}")
    role = str(turn.get("role", ""))
    # "Orchestrator (-> WebSurfer)" and "Orchestrator (thought)" are one agent.
    bare = role.rstrip()
    bare = bare[: bare.index("(")].rstrip() if bare.endswith(")") and "(" in bare else role
    agent = str(turn.get("name") or bare)
    kind: Literal["action", "observation"] = "observation" if agent in _OTHERS else "action"
    meta: dict[str, Any] = {"role": role, **({"name": turn["name"]} if turn.get("name") else {})}
    return Step(turn["content"] + "\n", kind=kind, role="user" if kind == "observation" else "assistant",
                agent=agent, meta=meta)  # fmt: skip


def read(row: Row, number: int, *, before: Before = "mask") -> Iterator[Trajectory]:
    """Reads `question`, `history`, `mistake_step` (from 0) and `mistake_agent`; every trace failed.

    Only the decisive step is labelled, with 0: later steps follow from it, and earlier ones may have small mistakes.
    `first_error` is the decisive step. `meta["mistake_agent"]` is whom people blame; in a few rows another agent speaks
    at that step.

    Args:
        number: its 1-based number, used where the row has no `question_ID`.
        before: steps before the decisive one: not supervised, or right.

    Raises:
        InputError: a field is missing, or the decisive step is no turn.
    """
    check_choice("before", before, Before)
    history = need(row, "history", list)
    at = str(row.get("mistake_step", "")).strip()
    if not (at.isascii() and at.isdigit() and int(at[:9]) < len(history)):
        what = f"'mistake_step' must be a turn below {len(history)}, got {shown(row.get('mistake_step'))}"
        raise InputError(what, remedy="count from 0")
    steps = tuple(_step(turn, place) for place, turn in enumerate(history))
    labels = np.full(len(steps), np.nan)
    if before == "right":
        labels[: int(at)] = [1.0 if step.kind == "action" else np.nan for step in steps[: int(at)]]
    labels[int(at)] = 0.0
    problem = Problem(
        str(row.get("question_ID", f"who-and-when-{number}")), need(row, "question"),
        reference=text_or_none(row.get("ground_truth")),
    )  # fmt: skip
    yield annotated(
        problem, steps, labels, "who-and-when annotators", outcome=0.0, first_error=int(at),
        facts={
            "subset": str(row.get("split", "")),
            **other_fields(row, "question", "question_ID", "history", "ground_truth", "mistake_step"),
        },
    )  # fmt: skip


def write(item: Trajectory) -> dict[str, Any]:
    """One row of Who&When.

    Raises:
        InputError: the solution has no decisive step.
    """
    if item.first_error is None or item.first_error < 0:
        raise InputError(f"problem {item.problem.id} has no wrong step", remedy="write failed traces alone")
    blamed = item.steps[item.first_error].agent or ""
    rest = {name: value for name, value in item.facts.items() if name != "subset"}
    history = [{"content": step.text.removesuffix("\n"), "role": step.role, **step.meta} for step in item.steps]
    return {
        "mistake_agent": blamed,
        **rest,
        "question": item.problem.text,
        "question_ID": item.problem.id,
        "ground_truth": item.problem.reference,
        "history": history,
        "mistake_step": str(item.first_error),
    }


FORMATS: tuple[Format, ...] = (
    Format("who-and-when", "failed traces of agents with the decisive step",
           has("history", "mistake_step", "mistake_agent"), read, write),
)  # fmt: skip
