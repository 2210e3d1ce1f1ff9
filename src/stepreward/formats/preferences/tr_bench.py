"""TRBench-BFCL and ToolPref-Pairwise (arXiv:2510.26167): the better and the worse of two tool calls after a chat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, compared, need, shown


def read(row: Row, number: int, *, twice: bool = True) -> Iterator[Comparison]:
    """Reads `chat_history` and the next messages `chosen_response` and `reject_response`.

    TRBench holds each pair twice, for a judge that must be right in both orders: the rows in which the better one
    stands second (`reward_model.ground_truth` is "2") are the same pairs again and give nothing. The layout is that of
    the authors' programs; the prompt of their judge, in `prompt`, is left out.

    Args:
        row: the row; `extra_info.task_source` becomes the subset.
        number: its 1-based number, used where `extra_info` has no `original_index` and no `index`.
        twice: whether the file holds each pair in both orders; false for sets to train on.

    Raises:
        InputError: a field is missing or of another shape.
    """
    chat: list[Any] = list(need(row, "chat_history", list))
    if not chat or not all(isinstance(one, Mapping) and isinstance(one.get("content"), str) for one in chat):
        raise InputError(f"'chat_history' must hold messages with 'content', got {shown(chat)}")
    if twice and (row.get("reward_model") or {}).get("ground_truth") == "2":
        return
    extra = row.get("extra_info") or {}
    name = extra.get("original_index", extra.get("index", number))
    messages = tuple({"role": str(one.get("role") or "user"), "content": one["content"]} for one in chat)
    pair = [[Step(need(row, side) + "\n")] for side in ("chosen_response", "reject_response")]
    yield compared(
        Problem(f"tr-bench-{name}", messages), pair, (1.0, 0.0), str(extra.get("task_source") or ""), terminal=False
    )


FORMATS: tuple[Format, ...] = (
    Format("tr-bench", "TRBench-BFCL: tool calls after a chat", has("chosen_response", "reject_response",
           chat_history=list), read, kind="comparisons"),
)  # fmt: skip
