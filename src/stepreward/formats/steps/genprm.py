"""GenPRM (arXiv:2504.00891): conversations that verify paragraph by paragraph, and the rollouts behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.formats.format import Format, has
from stepreward.formats.labels import AfterError, label_array, labelled
from stepreward.formats.rows import Row, id_of, need, other_fields, shown, steps_of, text_or_none

_VERDICT = re.compile(r"boxed\{(?:\\text\{)?(Yes|No)\b", re.IGNORECASE)
"""Models write the verdict with and without text mode, in letters of any case."""
_QUESTION = "Question: "
NOT_RUN = -1
"""The score of a step for which no rollout was run, as steps after the first error are skipped."""


def verdict(text: str) -> float:
    """1 for a last verdict of Yes, 0 for No, NaN for none."""
    found = _VERDICT.findall(text)
    return float("nan") if not found else float(found[-1].lower() == "yes")


def _said(row: Row, role: str) -> list[str]:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        return []
    return [turn["content"] for turn in turns if turn.get("role") == role and isinstance(turn.get("content"), str)]


def is_conversation(row: Row) -> bool:
    """Whether a row looks like GenPRM's training data."""
    return any(verdict(text) == verdict(text) for text in _said(row, "assistant"))


def read_conversation(
    row: Row, number: int, *, separator: str = "\n\n", after_first_error: AfterError = "keep"
) -> Iterator[Trajectory]:
    r"""Reads `conversations`: a paragraph from the user, then a verification that ends in \boxed{Yes} or \boxed{No}.

    The first paragraph follows the question, after the last blank line. Each step's `meta["rationale"]` is its
    verification. A verification without a verdict leaves its step unlabelled.

    Args:
        number: its 1-based number; the problem's id is of its words.
        separator: put at the end of each step.
        after_first_error: labels after the first No; the authors' rows end there.

    Raises:
        InputError: paragraphs and verifications do not take turns, or the first has no question.
    """
    texts, answers = _said(row, "user"), _said(row, "assistant")
    if not texts or len(texts) != len(answers):
        raise InputError(f"every paragraph needs a verification; there are {len(texts)} and {len(answers)}")
    # The last blank line: a question may have several, a paragraph has none.
    question, gap, first = texts[0].removeprefix(_QUESTION).rpartition("\n\n")
    if not gap:
        raise InputError(f"a blank line must part question and first step: {shown(texts[0])}")
    steps = tuple(
        Step(text + separator, meta={"rationale": answer})
        for text, answer in zip((first, *texts[1:]), answers, strict=True)
    )
    labels = np.array([verdict(answer) for answer in answers])
    problem = Problem(id_of("genprm", question), question)
    yield labelled(problem, steps, labels, "genprm verification", after_first_error=after_first_error)


def read_rollouts(
    row: Row,
    number: int,
    *,
    separator: str = "\n\n",
    threshold: float | None = None,
    after_first_error: AfterError = "keep",
) -> Iterator[Trajectory]:
    """Reads `problem`, several solutions in `steps` and their `monte_carlo_scores`; -1 was not run.

    Args:
        number: its 1-based number; the problem's id.
        separator: put at the end of each step.
        threshold: scores above it become 1; None keeps them soft.
        after_first_error: scores after the first 0.

    Raises:
        InputError: a field is missing, or scores and steps differ in number.
    """
    groups, scores = need(row, "steps", list), need(row, "monte_carlo_scores", list)
    if not groups or len(groups) != len(scores):
        raise InputError(f"{len(groups)} solutions have {len(scores)} lists of scores")
    problem = Problem(
        f"genprm-{number}", need(row, "problem"), reference=text_or_none(row.get("extracted_groundtruth"))
    )
    for texts, values in zip(groups, scores, strict=True):
        steps = steps_of(texts, separator)
        known = [None if value == NOT_RUN else value for value in values] if isinstance(values, list) else values
        yield labelled(
            problem, steps, label_array(known, len(steps), name="monte_carlo_scores"), "genprm rollouts",
            threshold=threshold, after_first_error=after_first_error,
            facts=other_fields(row, "problem", "steps", "monte_carlo_scores", "solution", "cot_rationale"),
        )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("genprm", "paragraphs with written verifications", is_conversation, read_conversation),
    Format("genprm-rollouts", "solutions of a problem with Monte Carlo scores",
           has("problem", "steps", "monte_carlo_scores"), read_rollouts),
)  # fmt: skip
