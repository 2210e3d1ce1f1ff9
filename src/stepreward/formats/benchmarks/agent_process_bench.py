"""AgentProcessBench (arXiv:2603.14465): tool-using chats whose assistant messages people rated 1, 0 or -1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterError, Neutral, relabel, three_valued
from stepreward.formats.rows import Row, annotated, need, other_fields, shown, text_or_none


def _text(message: Mapping[str, Any]) -> str:
    """What a message says, and the calls that it makes as JSON, a line each."""
    said = message.get("content")
    calls = [call.get("function", call) for call in message.get("tool_calls") or [] if isinstance(call, Mapping)]
    parts = [said] if isinstance(said, str) and said else []
    return "\n".join([*parts, *(json.dumps(call, ensure_ascii=False) for call in calls)])


def read(
    row: Row,
    number: int,
    *,
    neutral: Neutral = "half",
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `messages` and `step_labels`, whose keys are places of messages.

    Everything before the first message of the assistant is the problem. Messages of the assistant are actions,
    all others observations. A step's `meta["message"]` is its place, by which the benchmark's scores count.

    Args:
        number: its 1-based number, used where the row has no `total_index`.
        neutral: label 0.
        after_first_error: labels after the first -1; people judged every step.

    Raises:
        InputError: a field is missing, a label is not 1, 0 or -1, or it is of no message of the assistant.
    """
    messages: list[Mapping[str, Any]] = need(row, "messages", list)
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(f"message {i} needs a 'role', got {shown(message)}")
    rated: dict[int, object] = {}
    for key, value in need(row, "step_labels", Mapping).items():
        # Keys are places in `messages`, as texts: an object of JSON has no other keys.
        at = int(key) if str(key).isascii() and str(key).isdigit() else len(messages)
        if at >= len(messages) or messages[at]["role"] != "assistant":
            what = f"'step_labels' has {shown(key)}, which is no message of the assistant"
            raise InputError(what, remedy="keys are 0-based places in 'messages'")
        rated[at] = value
    start = next((i for i, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    if start in (0, len(messages)):
        raise InputError("there must be a question and then a message of the assistant")
    places = range(start, len(messages))
    values = [rated.get(i) for i in places]
    labels = three_valued(values, len(values), neutral=neutral, name="step_labels")
    steps = tuple(
        Step(
            _text(messages[i]) + "\n", kind="action" if messages[i]["role"] == "assistant" else "observation",
            role=messages[i]["role"], meta={"message": i},
        )
        for i in places
    )  # fmt: skip
    final = row.get("final_label")
    problem = Problem(
        f"agent-process-bench-{row.get('total_index', number)}",
        tuple({"role": message["role"], "content": _text(message)} for message in messages[:start]),
        reference=text_or_none(row.get("ground_truth")),
    )
    yield annotated(
        problem, steps, relabel(labels, after_first_error=after_first_error), "agent-process-bench annotators",
        outcome=float(final > 0) if isinstance(final, int) else float("nan"),
        # From the ratings: with neutral=mask a step without label would hide the first error behind it.
        first_error=next((place for place, value in enumerate(values) if value == -1), -1),
        facts={"subset": str(row.get("data_source", "")), **other_fields(row, "messages", "tools", "tool_metrics")},
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("agent-process-bench", "tool-using chats rated step by step", has(messages=list, step_labels=Mapping), read),
)
