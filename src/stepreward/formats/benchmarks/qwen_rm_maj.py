"""Qwen2.5-Math's pools (arXiv:2409.12122): samples of a problem, graded, each with a reward model's score."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.rows import Row, annotated, cut_steps, need, shown, text_or_none


def read(
    row: Row, number: int, *, separator: str = "\n\n", scorer: str = "Qwen2.5-Math-RM-72B"
) -> Iterator[Trajectory]:
    """Reads `question`, the samples in `code`, their `pred` answers, `score` (right or wrong) and `pred_score`.

    The reward model scores a whole solution: its score is that of the last step, the others are NaN.

    Args:
        number: its 1-based number, used where the row has no `idx`.
        separator: samples are cut after each.
        scorer: what to call the reward model; the file does not name it.

    Raises:
        InputError: a field is missing, or the lists differ in length.
    """
    texts, right, rewards = (need(row, name, list) for name in ("code", "score", "pred_score"))
    answers = row.get("pred") or [None] * len(texts)
    if not len(texts) == len(right) == len(rewards) == len(answers):
        raise InputError("'code', 'pred', 'score' and 'pred_score' differ in length")
    reference = text_or_none(row.get("gt", row.get("answer")))
    problem = Problem(f"qwen-rm-maj-{row.get('idx', number)}", need(row, "question"), reference=reference)
    for sample, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise InputError(f"'code' of sample {sample} must be text, got {shown(text)}")
        steps = cut_steps(text, separator)
        if not isinstance(right[sample], bool | int):
            raise InputError(f"'score' of sample {sample} must be true or false, got {shown(right[sample])}")
        # The authors' scripts store each reward as a list of one number, as the model's head gives it.
        reward = (
            rewards[sample][0] if isinstance(rewards[sample], list) and len(rewards[sample]) == 1 else rewards[sample]
        )
        if isinstance(reward, bool) or not isinstance(reward, int | float):
            raise InputError(f"'pred_score' of sample {sample} must be a number, got {shown(reward)}")
        scores = np.full(len(steps), np.nan)
        scores[-1] = reward
        yield annotated(
            problem, steps, None, "qwen-rm-maj grader", outcome=float(bool(right[sample])),
            answer=text_or_none(answers[sample]), scores={scorer: scores}, facts={"subset": str(row.get("level", ""))},
        )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("qwen-rm-maj", "graded samples with a reward each", has("question", "code", "score", "pred_score"), read),
)
