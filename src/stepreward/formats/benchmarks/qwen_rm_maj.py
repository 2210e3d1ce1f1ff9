"""Qwen2.5-Math's pools (arXiv:2409.12122): samples of a problem, graded, each with a reward model's score."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format
from stepreward.formats.rows import Row, annotated, need, shown, text_or_none


def matches(row: Row) -> bool:
    """Whether a row looks like a pool of Qwen2.5-Math."""
    return {"question", "code", "score", "pred_score"} <= row.keys()


def _reward(value: object, sample: int) -> float:
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"'pred_score' of sample {sample} must be a number, got {shown(value)}", remedy="drop the row")
    return float(value)


def read(
    row: Row, number: int, *, separator: str = "\n\n", scorer: str = "Qwen2.5-Math-RM-72B"
) -> Iterator[Trajectory]:
    """Reads `question`, the samples in `code`, their `pred` answers, `score` (right or wrong) and `pred_score`.

    The reward model scores a whole solution: its score is that of the last step, the others are NaN.

    Args:
        row: the row.
        number: its 1-based number, used where the row has no `idx`.
        separator: samples are cut after each.
        scorer: what to call the reward model; the file does not name it.

    Raises:
        InputError: a field is missing, or the lists differ in length.
    """
    texts, right, rewards = (need(row, name, list) for name in ("code", "score", "pred_score"))
    answers = row.get("pred") or [None] * len(texts)
    if not len(texts) == len(right) == len(rewards) == len(answers):
        raise InputError("'code', 'pred', 'score' and 'pred_score' differ in length", remedy="drop the row")
    reference = text_or_none(row.get("gt", row.get("answer")))
    problem = Problem(f"qwen-rm-maj-{row.get('idx', number)}", need(row, "question"), reference=reference)
    for sample, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise InputError(f"'code' of sample {sample} must be text, got {shown(text)}", remedy="drop the row")
        *whole, rest = text.split(separator) if separator else [text]
        steps = tuple(Step(part + separator) for part in whole) + ((Step(rest),) if rest else ())
        if not isinstance(right[sample], bool | int):
            raise InputError(f"'score' of sample {sample} must be true or false, got {shown(right[sample])}")
        reward = np.full(len(steps), np.nan)
        reward[-1] = _reward(rewards[sample], sample)
        yield annotated(
            problem, steps, np.full(len(steps), np.nan), "qwen-rm-maj grader", outcome=float(bool(right[sample])),
            answer=text_or_none(answers[sample]), scores={scorer: reward}, facts={"subset": str(row.get("level", ""))},
        )  # fmt: skip


FORMATS: tuple[Format, ...] = (Format("qwen-rm-maj", "graded samples with a reward each", matches, read),)
