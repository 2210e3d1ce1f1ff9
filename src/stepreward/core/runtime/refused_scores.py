"""Scores of many solutions where a scorer refuses some: one that is at fault costs no other its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepreward.core.errors import InputError
from stepreward.core.runtime.flows import Score, Scored, Scorer


def scores_or_errors(scorer: Scorer, questions: Sequence[Score]) -> Iterator[Scored | InputError]:
    """The scorer's answers in order, and its error in the place of each question that it refuses.

    A scorer refuses a batch as a whole. The question at fault is found by bisection: most batches have none, and one
    costs a logarithm of their size. A caller that stops early asks no more.
    """
    try:
        made = scorer.score_many(questions)
    except InputError as error:
        if len(questions) == 1:
            yield error
            return
    else:
        yield from made
        return
    half = len(questions) // 2
    yield from scores_or_errors(scorer, questions[:half])
    yield from scores_or_errors(scorer, questions[half:])
