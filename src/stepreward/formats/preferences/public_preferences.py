"""Preferences between answers: RewardBench and kin, RewardBench 2, RM-Bench, HelpSteer, UltraFeedback, LLMBar."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stepreward.core.errors import InputError
from stepreward.core.types import Comparison, Message, Problem, Step
from stepreward.formats.agents.messages import (
    answer_of,
    as_messages,
    message_list,
    problem_and_steps,
    prompt_of,
    turns_of,
)
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, compared, need, other_fields, shown, text_or_none

RM_BENCH = 3
"""Styles of each answer in RM-Bench, plainest first."""


def _compared(
    row: Row, number: int, form: str, prompt: str | tuple[Message, ...], answers: Sequence[str],
    worth: Sequence[float], *, subset: object = "", own: Sequence[str] = (), more: Mapping[str, Any] | None = None,
) -> Comparison:  # fmt: skip
    """A comparison of single answers."""
    if len(answers) < 2:
        raise InputError(f"there must be two answers to compare, got {len(answers)}")
    problem = Problem(f"{form}-{row.get('id', row.get('prompt_id', number))}", prompt)
    meta = {**other_fields(row, *own, "subset", "id"), **(more or {})}
    return compared(problem, [[Step(text)] for text in answers], worth, text_or_none(subset) or "", meta=meta)


def is_reward_bench(row: Row) -> bool:
    """Whether a row looks like RewardBench's."""
    its = bool({"chosen_model", "language", "source"} & row.keys())
    return its and {"prompt", "chosen", "rejected", "subset"} <= row.keys() and isinstance(row["chosen"], str)


def read_reward_bench(row: Row, number: int) -> Iterator[Comparison]:
    """Reads a prompt with a chosen and a rejected answer; M-RewardBench's rows are the same in other languages.

    Args:
        row: the row; `language` or `source`, where there is one, is kept.
        number: its 1-based number, used where the row has no `id`.

    Raises:
        InputError: a field is missing or of another shape.
    """
    pair = [answer_of(row.get(name), name) for name in ("chosen", "rejected")]
    yield _compared(
        row, number, "reward-bench", prompt_of(row.get("prompt"), "prompt"), pair, (1.0, 0.0), subset=row.get("subset"),
        own=("prompt", "chosen", "rejected"),
    )  # fmt: skip


def read_reward_bench_2(row: Row, number: int) -> Iterator[Comparison]:
    """Reads a prompt with right and wrong answers: one against three, and in the subset Ties several against many.

    Args:
        number: its 1-based number, used where the row has no `id`.

    Raises:
        InputError: a field is missing or of another shape.
    """
    answers, worth = _sides(row)
    yield _compared(
        row, number, "reward-bench-2", prompt_of(row.get("prompt"), "prompt"), answers, worth, subset=row.get("subset"),
        own=("prompt", "chosen", "rejected"), more={"row_id": row.get("id")},
    )  # fmt: skip


def _sides(row: Row) -> tuple[list[str], list[float]]:
    """The chosen and then the rejected answers, and 1 or 0 for each."""
    sides = [[answer_of(text, name) for text in need(row, name, list)] for name in ("chosen", "rejected")]
    return sides[0] + sides[1], [1.0] * len(sides[0]) + [0.0] * len(sides[1])


def read_rm_bench(row: Row, number: int) -> Iterator[Comparison]:
    """Reads three chosen and three rejected answers, from terse to decorated.

    Args:
        row: the row; `domain` becomes the subset.
        number: its 1-based number, used where the row has no `id`.

    Raises:
        InputError: a field is missing, or there are not three of each.
    """
    answers, worth = _sides(row)
    if (worth.count(1.0), worth.count(0.0)) != (RM_BENCH, RM_BENCH):
        what = f"there must be {RM_BENCH} chosen and {RM_BENCH} rejected answers"
        raise InputError(f"{what}, got {worth.count(1.0)} and {worth.count(0.0)}")
    yield _compared(
        row, number, "rm-bench", prompt_of(row.get("prompt"), "prompt"), answers, worth, subset=row.get("domain"),
        own=("prompt", "chosen", "rejected", "domain"),
    )  # fmt: skip


def read_llm_bar(row: Row, number: int) -> Iterator[Comparison]:
    """Reads an instruction with two outputs, of which one follows it.

    Args:
        row: the row; `label` is 1 or 2.
        number: its 1-based number.

    Raises:
        InputError: a field is missing, or the label is neither.
    """
    label = need(row, "label", int)
    if label not in (1, 2):
        raise InputError(f"'label' must be 1 or 2, got {shown(label)}")
    pair = [answer_of(row.get(name), name) for name in ("output_1", "output_2")]
    yield _compared(
        row, number, "llm-bar", prompt_of(row.get("input"), "input"), pair, (float(label == 1), float(label == 2)),
        own=("input", "output_1", "output_2", "label"),
    )  # fmt: skip


def is_help_steer(row: Row) -> bool:
    """Whether a row looks like a preference of HelpSteer 2 or 3."""
    second = {"prompt", "response_1", "response_2", "preference_strength"} <= row.keys()
    return second or {"context", "response1", "response2", "overall_preference"} <= row.keys()


def read_help_steer(row: Row, number: int, *, individual: bool = False) -> Iterator[Comparison]:
    """Reads two responses and by how much people prefer one: negative for the first, positive for the second.

    A preference of 0 is a tie: both are worth 1/2. Its size is the `strength` in `meta`.

    Args:
        number: its 1-based number.
        individual: a comparison of each person in `individual_preference` of HelpSteer 3 in place of the overall one.
            Its rows do not say who they are; an entry's own `annotator` is kept.

    Raises:
        InputError: a field is missing, or the preference is no whole number from -3 to 3.
    """
    third = "overall_preference" in row
    names = ("response1", "response2") if third else ("response_1", "response_2")
    field, query = ("overall_preference", "context") if third else ("preference_strength", "prompt")
    prompt, answers = prompt_of(row.get(query), query), [answer_of(row.get(name), name) for name in names]
    own = (*names, query, "domain", *(("individual_preference",) if individual else ()))
    said = need(row, "individual_preference", list) if individual else [row]
    field = "score" if individual else field
    if not said:
        raise InputError("'individual_preference' is empty", remedy="read the overall preference: individual=False")
    for one in said:
        if not isinstance(one, Mapping):
            raise InputError(f"'individual_preference' must hold objects, got {shown(one)}")
        preferred = need(one, field, int)
        if not -3 <= preferred <= 3:
            raise InputError(f"'{field}' must be from -3 to 3, got {shown(preferred)}")
        worth = (0.5, 0.5) if preferred == 0 else (float(preferred < 0), float(preferred > 0))
        more = {"strength": float(abs(preferred))}
        more |= other_fields(one, "score") if individual else {}
        yield _compared(row, number, "help-steer", prompt, answers, worth, subset=row.get("domain"), own=own, more=more)


def read_ultra_feedback(row: Row, number: int, *, score: str = "overall_score") -> Iterator[Comparison]:
    """Reads an instruction with completions of several models and the score that a judge gave each.

    Args:
        row: the row; `source` becomes the subset.
        number: its 1-based number.
        score: field of a completion that ranks it; `fine-grained_score` is the other one.

    Raises:
        InputError: a field is missing, or a score is no finite number.
    """
    completions = need(row, "completions", list)
    answers, worth = [], []
    for i, one in enumerate(completions):
        value = one.get(score) if isinstance(one, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"completion {i} needs a number as '{score}', got {shown(value)}")
        answers.append(answer_of(one.get("response"), "response"))
        worth.append(float(value))
    yield _compared(
        row, number, "ultra-feedback", prompt_of(row.get("instruction"), "instruction"), answers, worth,
        subset=row.get("source"), own=("instruction", "completions", "source"),
        more={"models": [str(one.get("model", "")) for one in completions]},
    )  # fmt: skip


def read_binarised(row: Row, number: int) -> Iterator[Comparison]:
    """Reads two conversations that differ in their last message, with a judge's scores; `strength` is their difference.

    Args:
        row: the row; the prompt is what the conversations share.
        number: its 1-based number.

    Raises:
        InputError: a field is missing or of another shape.
    """
    # Both conversations are written in full; what they share is the prompt, of one turn or several.
    talks = [turns_of(message_list(row.get(name), name)) for name in ("chosen", "rejected")]
    shared = 0
    while shared < min(map(len, talks)) - 1 and talks[0][shared].said == talks[1][shared].said:
        shared += 1
    before = as_messages(talks[0][:shared])
    answers = ["\n".join(turn.said for turn in talk[shared:]) for talk in talks]
    scores: list[Any] = [row.get(f"score_{name}") for name in ("chosen", "rejected")]
    known = all(isinstance(score, int | float) and math.isfinite(score) for score in scores)
    yield _compared(
        row, number, "ultra-feedback-binarised", before or prompt_of(row.get("prompt"), "prompt"), answers, (1.0, 0.0),
        own=("prompt", "chosen", "rejected", "messages"),
        more={"strength": float(scores[0] - scores[1])} if known else {},
    )  # fmt: skip


def read_plan_reward_bench(row: Row, number: int) -> Iterator[Comparison]:
    """Reads two trajectories of an agent with tools, of which one is preferred.

    Args:
        row: the row; roles `tool_call` and `tool_response` are the model's and the tool's.
        number: its 1-based number, used where the row has no `uuid`.

    Raises:
        InputError: a field is missing or of another shape.
    """
    roles = {"tool_call": "assistant", "tool_response": "tool"}
    name = f"plan-reward-bench-{row.get('uuid', number)}"
    made = []
    for side in ("chosen", "reject"):
        messages = message_list(need(row, side, Mapping).get("messages"))
        turns = turns_of([{**one, "role": roles.get(str(one.get("role")), one.get("role"))} for one in messages])
        made.append(problem_and_steps(turns, name))
    problem = Problem(name, made[0][0].prompt, meta={"tools": row["tools"]})
    # Pairs are grouped by how long a beginning the two trajectories share.
    yield compared(problem, [steps for _, steps in made], (1.0, 0.0), str(row.get("_lcp_bucket", "")))


FORMATS: tuple[Format, ...] = (
    Format("reward-bench", "RewardBench and M-RewardBench pairs", is_reward_bench, read_reward_bench,
           kind="comparisons"),
    Format("reward-bench-2", "RewardBench 2: right answers against wrong ones",
           has("prompt", "rejected", "subset", "num_correct", chosen=list), read_reward_bench_2, kind="comparisons"),
    Format("rm-bench", "RM-Bench: three styles of a right and a wrong answer",
           has("prompt", "rejected", "domain", chosen=list), read_rm_bench, kind="comparisons"),
    Format("llm-bar", "LLMBar pairs", has("input", "output_1", "output_2", "label"), read_llm_bar, kind="comparisons"),
    Format("help-steer", "preferences of HelpSteer 2 and 3", is_help_steer, read_help_steer, kind="comparisons"),
    Format("ultra-feedback", "UltraFeedback: several completions with scores", has("instruction", completions=list),
           read_ultra_feedback, kind="comparisons"),
    Format("ultra-feedback-binarised", "binarised preferences as messages",
           has("chosen", "rejected", "score_chosen", "score_rejected"), read_binarised, kind="comparisons"),
    Format("plan-reward-bench", "Plan-RewardBench: two agent trajectories", has("query", "tools", "chosen", "reject"),
           read_plan_reward_bench, kind="comparisons"),
)  # fmt: skip
