"""Rewards without references: the majority's answer to a rephrased twin of the problem (Co-Reward)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from stepreward.connect.completions import problem_of
from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Grader
from stepreward.core.types import Step


def cross_votes(
    answers: Sequence[str | None], forms: Sequence[Hashable], twins: Sequence[Hashable]
) -> list[float | None]:
    """1 where an answer is the majority's among the solutions of the problem's other forms, else 0.

    Co-Reward I: rephrasing moves the errors of a majority more than its right answers. A solution without an answer
    gets 0; a problem whose other form nobody answered, or is not here, is unscored.

    Args:
        answers: (B,) final answers in a normal form, None where a solution states none.
        forms: (B,) identity of the wording.
        twins: (B,) identity of the problem, equal for both wordings.
    """
    votes: dict[tuple[Hashable, Hashable], Counter[str]] = {}
    for answer, form, twin in zip(answers, forms, twins, strict=True):
        counts = votes.setdefault((twin, form), Counter())
        counts.update([] if answer is None else [answer])
    made: list[float | None] = []
    for answer, form, twin in zip(answers, forms, twins, strict=True):
        others = sum((counts for (of, other), counts in votes.items() if of == twin and other != form), Counter())
        # Of answers with equally many votes the first that was given counts, as everywhere here.
        made.append(float(answer == others.most_common(1)[0][0]) if others else None)
    return made


class TwinVotes:
    """A reward function of TRL that needs no reference.

        StepGRPOTrainer(model, TwinVotes(grader), config, dataset)    # rows: prompt, twin

    Both wordings of a problem must be in one batch of a process: put them side by side in the data set, do not shuffle
    (`shuffle_dataset=False`), and let a batch hold two groups.

    Args:
        grader: reads the answers.
        column: of the data set: the identity that both wordings of a problem share.
    """

    def __init__(self, grader: Grader, column: str = "twin") -> None:
        self.grader, self.column = grader, column
        self.__name__ = "twin_votes"

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One reward a completion; None where the other wording is not in the batch.

        Raises:
            InputError: the data set has no such column.
        """
        if self.column not in columns:
            raise InputError(
                f"the data set has no column {self.column!r}", remedy="give both wordings one identity in it"
            )
        answers = []
        for prompt, completion in zip(prompts, completions, strict=True):
            text = completion if isinstance(completion, str) else str(completion[-1]["content"])
            answers.append(self.grader.answer(problem_of(prompt, {}), (Step(text),)))
        return cross_votes(answers, [repr(prompt) for prompt in prompts], columns[self.column])
