"""Scores for benchmarks: from a scorer, or read where a data set has recorded them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.runtime.flows import Score, Scored, Scorer
from stepreward.core.types import Comparison, Floats, StepMask, Trajectory

Name = TypeVar("Name", bound=Hashable)
AT_ONCE = 256
"""Solutions given to a scorer in one call."""
NEXT_STEP = frozenset({"tool-comp", "web-prm-bench", "web-reward-bench"})
"""Benchmarks of next steps: candidates share all steps but the last, whose score alone is compared."""
STEP_LEVEL = frozenset({
    "agent-process-bench", "calibration", "first-error-accuracy", "hard2verify", "mp-bench", "mr-score", "prm-bench",
    "process-bench", "reason-eval", "reward-distance", "socratic-prm-bench", "trail", "visual-process-bench",
    "who-and-when",
})  # fmt: skip
"""Benchmarks that compare step scores with step labels, which a step's place alone predicts to some degree."""


class RecordedScorer:
    """Answers with the step scores that a data set recorded; a `core.runtime.flows.Scorer`.

    Args:
        data: solutions or comparisons with recorded scores.
        name: of the verifier.
    """

    batch_size = 1 << 16

    def __init__(self, data: Sequence[Trajectory], name: str) -> None:
        self.name = name
        self._scores = {(item.problem.id, item.steps): item.scores[name] for item in data if name in item.scores}

    def score_many(self, questions: Sequence[Score]) -> list[Scored]:
        """The recorded scores.

        Raises:
            InputError: a solution has none.
        """
        made = []
        for question in questions:
            key = (question.problem.id, question.steps)
            if key not in self._scores:
                what = f"no score of {self.name} is recorded for a solution of problem {question.problem.id!r}"
                raise InputError(what, remedy="evaluate only solutions that have one")
            made.append(Scored(self._scores[key]))
        return made


def step_scores(scorer: Scorer, data: Sequence[Trajectory]) -> Floats:
    """(B, S) scores of every solution's steps, NaN at padding and observations."""
    questions = [Score(item.problem, item.steps) for item in data]
    return ragged([row for part in _parts(questions) for row in (answer.scores for answer in scorer.score_many(part))])


def unmeasured(
    scores: Floats, data: Sequence[Trajectory], last: NDArray[np.int64] | None = None, *, ended: bool = False
) -> NDArray[np.bool_]:
    """(B,) whether a step that decides has no score: NaN is not measured, which is neither right nor wrong.

    Args:
        scores: (B, S), NaN where not measured and at padding.
        data: the solutions; their observations need no score.
        last: (B,) the last step that decides, negative where all do; all of all where None.
        ended: the last action alone decides: a reward of the whole solution is there, and is missing where the solution
            is too long for a model.
    """
    actions = ragged([[step.kind == "action" for step in item.steps] for item in data]) == 1
    return gap_decides(scores, actions, last, ended=ended)


def gap_decides(
    scores: Floats, actions: StepMask, last: NDArray[np.int64] | None = None, *, ended: bool = False
) -> NDArray[np.bool_]:
    """The same by arrays: `actions` (B, S), True at actions, which alone need a score."""
    limit = np.full(len(actions), -1) if last is None else last
    decides = actions & ((np.arange(actions.shape[1]) <= limit[:, None]) | (limit[:, None] < 0))
    if ended:
        # The last action is the one at which the count of actions from the right is 1.
        decides &= np.cumsum(actions[:, ::-1], axis=1)[:, ::-1] == 1
    return np.asarray((np.isnan(scores) & decides).any(axis=1))


def rows_kept(lost: NDArray[np.bool_], together: Sequence[Hashable] | None = None) -> list[int]:
    """Indices of the rows that count: not lost, and no other row of their group is.

    Raises:
        InputError: none is left.
    """
    groups = range(len(lost)) if together is None else together
    gone = {group for group, bad in zip(groups, lost.tolist(), strict=True) if bad}
    kept = [row for row, group in enumerate(groups) if group not in gone]
    if not kept:
        raise InputError(f"none of {len(lost)} rows has the scores that it needs", remedy="see what was left out")
    return kept


def labelled_scores(scorer: Scorer, data: Sequence[Trajectory]) -> tuple[list[Trajectory], Floats, Floats, int]:
    """Solutions whose labelled steps all have scores, (B, S) those scores and labels, and how many solutions have not.

    Raises:
        InputError: there is no solution, or none that has them.
    """
    if not data:
        raise InputError("there is no solution to measure on", remedy="check the format and its options")
    scores, labels = step_scores(scorer, data), ragged([item.labels for item in data])
    lost = np.asarray((np.isnan(scores) & ~np.isnan(labels)).any(axis=1))
    kept = rows_kept(lost)
    return [data[row] for row in kept], scores[kept], labels[kept], int(lost.sum())


def scored_comparisons(
    scorer: Scorer,
    data: Sequence[Comparison],
    aggregation: str,
    together: Callable[[Comparison], Hashable] | None = None,
) -> tuple[list[Comparison], list[Floats], int]:
    """The comparisons whose candidates all have a score, those scores, and how many comparisons have not.

    A comparison with a candidate that was not measured is neither won nor lost: it is left out and counted.

    Args:
        scorer: any scorer.
        data: comparisons.
        aggregation: how the scores of a candidate's steps become one.
        together: what a comparison is part of, where a part alone means nothing: all of it is left out then.

    Raises:
        InputError: there is no comparison, or none that has scores.
    """
    if not data:
        raise InputError("there is no comparison to measure on", remedy="check the format and its options")
    scores = candidate_scores(scorer, data, aggregation)
    lost = np.array([np.isnan(row).any() for row in scores])
    kept = rows_kept(lost, None if together is None else [together(item) for item in data])
    return [data[row] for row in kept], [scores[row] for row in kept], int(lost.sum())


def candidate_scores(scorer: Scorer, data: Sequence[Comparison], aggregation: str) -> list[Floats]:
    """(k,) one score for each candidate of each comparison: recorded under the scorer's name, or from the scorer.

    Step scores become one by `aggregation`, recorded ones too; a score recorded for a whole candidate stays as it is. A
    candidate of several comparisons is scored once.

    Args:
        scorer: any scorer.
        data: comparisons.
        aggregation: how the scores of a candidate's steps become one, by its registered name.

    Raises:
        UnknownNameError: no such aggregation.
    """
    if all(scorer.name in item.scores or scorer.name in item.step_scores for item in data):
        return [_recorded(item, scorer.name, aggregation) for item in data]
    number: dict[object, int] = {}
    questions: list[Score] = []
    places: list[int] = []
    for item in data:
        for one in item.candidates:
            same = (item.problem.id, item.problem.text, one.steps)
            places.append(number.setdefault(same, len(number)))
            if len(number) > len(questions):
                questions.append(Score(item.problem, one.steps))
    rows = [answer.scores for part in _parts(questions) for answer in scorer.score_many(part)]
    totals = totals_of(ragged(rows), aggregation)[places]
    return np.split(totals, np.cumsum([len(item.candidates) for item in data])[:-1])


def _recorded(item: Comparison, name: str, aggregation: str) -> Floats:
    if name in item.step_scores:
        return totals_of(ragged(item.step_scores[name]), aggregation)
    return np.array(item.scores[name], np.float64)


def rows_by(data: Sequence[Trajectory | Comparison], name: str) -> dict[str, list[int]]:
    """Places of the rows of each category, which the facts name; "" where they do not."""
    facts = (item.meta if isinstance(item, Comparison) else item.facts for item in data)
    return places([str(one.get(name, "")) for one in facts])


def rows_of_subsets(data: Sequence[Comparison]) -> dict[str, list[int]]:
    """Places of the comparisons of each subset."""
    return places([item.subset for item in data])


def numbered(names: Sequence[Hashable]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(B,) number of each row's name by first appearance, and (B,) how many earlier rows have the same name."""
    number, earlier = np.empty(len(names), np.int64), np.empty(len(names), np.int64)
    for i, rows in enumerate(places(names).values()):
        number[rows], earlier[rows] = i, np.arange(len(rows))
    return number, earlier


def places(names: Sequence[Name]) -> dict[Name, list[int]]:
    """Rows of each name, in order of first appearance."""
    rows: dict[Name, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        rows[name].append(row)
    return dict(rows)


def _parts(questions: Sequence[Score]) -> list[Sequence[Score]]:
    return [questions[at : at + AT_ONCE] for at in range(0, len(questions), AT_ONCE)]
