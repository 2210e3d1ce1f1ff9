"""WebRewardBench and the WebPRM Collection (arXiv:2505.15277): the next action of a web agent, right and wrong ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, compared, need, other_fields, shown

_OWN = ("task_id", "step_id", "intent", "thought_history", "action_history", "text_observation", "chosen", "rejected",
        "gt_checklist", "checklist", "image_list", "image_observation", "source_name")  # fmt: skip


def _acted(thought: object, action: object) -> Step:
    """What the agent thought and did, in the words that Web-Shepherd reads."""
    if not isinstance(thought, str) or not isinstance(action, str):
        raise InputError(f"'thought' and 'action' must be text, got {shown((thought, action))}")
    return Step(f"THOUGHT: {thought}\nACTION: {action}\n")


def _answers(value: object, name: str) -> list[Step]:
    """The actions under `chosen` or `rejected`: a list of objects, one object, or an object of lists."""
    # Hugging Face's `Sequence` feature turns a list of objects into an object of lists.
    if isinstance(value, Mapping):
        thoughts, actions = value.get("thought"), value.get("action")
        if isinstance(thoughts, list) and isinstance(actions, list):
            return [_acted(*pair) for pair in zip(thoughts, actions, strict=True)]
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(one, Mapping) for one in value):
        raise InputError(f"'{name}' must hold at least one thought and action, got {shown(value)}")
    return [_acted(one.get("thought"), one.get("action")) for one in value]


def read(row: Row, number: int, *, history: int = 10, page: bool = True) -> Iterator[Comparison]:
    """Reads `intent`, `thought_history` and `action_history`, `text_observation`, and actions `chosen` and `rejected`.

    The steps are the actions so far, the page that the agent sees (an observation), and the action in question. As its
    authors do, of several chosen actions the first is taken. The problem's `meta` holds the checklist, which
    Web-Shepherd reads; images are left out.

    Args:
        row: the row; `source_name` becomes the subset and is part of `meta["task_id"]`.
        number: its 1-based number, used where the row has no `task_id`.
        history: how many of the last actions are read; the authors give 10.
        page: whether the page's accessibility tree and address come before the action.

    Raises:
        InputError: a field is missing or of another shape, there is no wrong action, or `history` is negative.
    """
    if history < 0:
        raise InputError(f"history must be 0 or more, got {history}")
    chosen, rejected = _answers(row.get("chosen"), "chosen")[:1], _answers(row.get("rejected"), "rejected")
    task, source = f"{row.get('task_id', number)}", str(row.get("source_name") or "")
    actions = need(row, "action_history", list)
    thoughts = row.get("thought_history") or [""] * len(actions)
    if not isinstance(thoughts, list) or len(thoughts) != len(actions):
        raise InputError("'thought_history' and 'action_history' differ in number")
    before = [_acted(*pair) for pair in list(zip(thoughts, actions, strict=True))[max(len(actions) - history, 0) :]]
    if page:
        at = f"Current URL: {row['current_url']}\n" if row.get("current_url") else ""
        before.append(Step(f"{at}{need(row, 'text_observation')}\n", kind="observation", role="user"))
    checklist = row.get("gt_checklist", row.get("checklist"))
    meta: dict[str, Any] = {} if checklist is None else {"checklist": checklist}
    problem = Problem(f"{source}:{task}:{row.get('step_id', number)}", need(row, "intent"), meta=meta)
    candidates = [(*before, answer) for answer in (*chosen, *rejected)]
    worth = [1.0] * len(chosen) + [0.0] * len(rejected)
    kept = {"task_id": f"{source}:{task}", "step_id": row.get("step_id"), **other_fields(row, *_OWN)}
    yield compared(problem, candidates, worth, source, terminal=False, meta=kept)


FORMATS: tuple[Format, ...] = (
    Format("web-reward-bench", "WebRewardBench: next actions of web agents",
           has("intent", "action_history", "text_observation", "chosen", "rejected"), read, kind="comparisons"),
)  # fmt: skip
