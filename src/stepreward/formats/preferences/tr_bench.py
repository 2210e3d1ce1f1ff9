"""TRBench-BFCL and ToolPref-Pairwise (arXiv:2510.26167): the better and the worse of two tool calls after a chat."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Problem, Step
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, compared, need, shown

_CHOICE = re.compile(r"<choice>\n(.*?)\n</choice>", re.DOTALL)
_LOOSE = re.compile(r"<choice>(.*?)</choice>", re.DOTALL)


def choice(text: str) -> str | None:
    """The answer that a judge gives, "1" or "2", in the first mark with lines of its own, or else the first mark."""
    found = _CHOICE.search(text) or _LOOSE.search(text)
    said = found[1].strip() if found else ""
    return said if said in ("1", "2") else None


def _verdicts(row: Row, better: object) -> dict[str, tuple[float, float]]:
    """By judge, 1 for the candidate that wins and 0 for the other, chosen before rejected; NaN without a verdict."""
    judged = row.get("judged") or {}
    if not isinstance(judged, Mapping) or not all(isinstance(said, str | None) for said in judged.values()):
        raise InputError(f"'judged' must hold what each judge wrote, got {shown(judged)}", remedy="null for nothing")
    if judged and better not in ("1", "2"):
        raise InputError(f"'reward_model.ground_truth' must be \"1\" or \"2\" beside 'judged', got {shown(better)}")
    said = {str(name): choice(text or "") for name, text in judged.items()}
    won = {name: math.nan if one is None else float(one == better) for name, one in said.items()}
    return {name: (value, 1 - value) for name, value in won.items()}


def read(row: Row, number: int, *, twice: bool = True) -> Iterator[Comparison]:
    """Reads `chat_history` and the next messages `chosen_response` and `reject_response`.

    TRBench holds each pair twice, for a judge that must be right in both orders: the rows in which the better one
    stands second (`reward_model.ground_truth` is "2") are the same pairs again and give nothing. The layout is that of
    the authors' programs; the prompt of their judge, in `prompt`, is left out. `judged` is ours: what each judge wrote,
    by its name, with its `<choice>`; rows that have it are read in both orders, for the benchmark `both-orders`.

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
    better = (row.get("reward_model") or {}).get("ground_truth")
    verdicts = _verdicts(row, better)
    if twice and better == "2" and not verdicts:
        return
    extra = row.get("extra_info") or {}
    name = extra.get("original_index", extra.get("index", number))
    messages = tuple({"role": str(one.get("role") or "user"), "content": one["content"]} for one in chat)
    pair = [[Step(need(row, side) + "\n")] for side in ("chosen_response", "reject_response")]
    yield compared(
        Problem(f"tr-bench-{name}", messages), pair, (1.0, 0.0), str(extra.get("task_source") or ""), terminal=False,
        scores=verdicts, meta={"better_first": better == "1"} if verdicts else {},
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("tr-bench", "TRBench-BFCL: tool calls after a chat", has("chosen_response", "reject_response",
           chat_history=list), read, kind="comparisons"),
)  # fmt: skip
