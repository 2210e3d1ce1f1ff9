"""Step scores in lm-evaluation-harness: filters that choose among a document's samples, or score them.

    repeats: 8
    filter_list:
      - name: best-of-8
        filter:
          - function: !function stepreward.connect.lm_eval.best_of_n
            scorer: runs/demo/model

The harness has no entry points for plug-ins: a task's YAML names this module, or a program imports it, which registers
each filter by a name such as `stepreward_best_of_n`. A filter gets documents and responses, not the prompts: the
template `problem` builds the problem from a document, as `doc_to_text` does.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from lm_eval.api.filter import Filter
from lm_eval.api.registry import register_filter, register_metric
from lm_eval.utils import apply_template

from stepreward.connect.ratings import Rater, Rating
from stepreward.core.catalog import select as selections
from stepreward.core.errors import InputError, MissingDataError
from stepreward.core.measure.selection import answer_ids
from stepreward.core.runtime.flows import Scorer

PREFIX = "stepreward_"
Document = Mapping[str, Any]
Responses = Sequence[str]
"""The samples of one document."""
_DATA = frozenset(("totals", "answers", "group"))
"""Data that filters can pass to a selection."""
_REASONS = 3
"""Most reasons in one warning."""
_log = logging.getLogger(__name__)


class StepScores(Filter):  # type: ignore[misc]  # the harness is untyped
    """Step scores in place of each response, for the metric `stepreward_total` and for the file of samples.

    Args:
        scorer: a scorer, a checkpoint's folder or hub name, or `URL#NAME` for one in a vLLM server.
        problem: template of the problem, filled with fields of the document.
        aggregate: of step scores, by its registered name.
        segment: method that cuts responses into steps, by its registered name; empty leaves them whole.
        device: torch device of a checkpoint.

    Raises:
        UnknownNameError: no such aggregate or segmentation.
        ModelError: there is no such checkpoint.
    """

    def __init__(
        self,
        scorer: Scorer | str | Path,
        problem: str = "{{question}}",
        aggregate: str = "min",
        segment: str = "blank-lines",
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self._problem = problem
        self._rater = Rater(scorer, aggregate=aggregate, segment=segment, device=device)

    def apply(self, resps: Iterable[Responses], docs: Sequence[Document]) -> list[list[str]]:
        """JSON for each response, as the harness writes samples as text: `total`, `step_scores` and `steps`, or null.

        Raises:
            InputError: the document lacks a field of the template, or responses are no text.
        """
        return [[_record(rating) for rating in row] for row in self.rate([list(row) for row in resps], docs)]

    def rate(self, rows: Sequence[Responses], docs: Sequence[Document]) -> list[list[Rating]]:
        """The rating of each response of each document; failures are written to the log."""
        questions = []
        for responses, document in zip(rows, docs, strict=True):
            if not all(isinstance(response, str) for response in responses):
                what = f"expected responses that are text, got {responses[0]!r}"
                raise InputError(what, remedy="use output_type: generate_until, and this filter before others")
            given = [{"role": "user", "content": _filled(self._problem, document)}]
            said = ([{"role": "assistant", "content": response}] for response in responses)
            questions += [self._rater.question(given, one) for one in said]
        ratings = self._rater.rate(questions)
        faults = Counter(rating.fault for rating in ratings if rating.fault)
        if faults:
            reported = "; ".join(fault for fault, _ in faults.most_common(_REASONS))
            _log.warning("%d of %d responses have no step scores: %s", faults.total(), len(ratings), reported)
        found = iter(ratings)
        return [[next(found) for _ in responses] for responses in rows]


class StepChoice(Filter):  # type: ignore[misc]
    """Keeps the sample of each document that a selection by step scores chooses.

    Samples that cannot be scored lose to all others. The whole response is kept: filters that extract the answer come
    after this one.

    Args:
        method: name in the family `select`, such as `best-of-n`.
        scorer: as in `StepScores`, like all others.
        problem: template of the problem, filled with fields of the document.
        answer: for votes, a regular expression whose last match is the answer, or its first group that matched; empty
            takes the whole response.
        aggregate: of step scores.
        segment: method that cuts responses into steps.
        device: torch device of a checkpoint.

    Raises:
        UnknownNameError: no such selection, aggregate or segmentation.
        MissingDataError: the selection needs data that the harness does not have.
        ModelError: there is no such checkpoint.
    """

    def __init__(
        self,
        method: str,
        scorer: Scorer | str | Path,
        problem: str = "{{question}}",
        answer: str = "",
        aggregate: str = "min",
        segment: str = "blank-lines",
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self._method = selections[method]
        if missing := set(self._method.data) - _DATA:
            raise MissingDataError(method, sorted(missing), _DATA)
        self._answer = re.compile(answer) if answer else None
        self._scores = StepScores(scorer, problem, aggregate, segment, device)

    def apply(self, resps: Iterable[Responses], docs: Sequence[Document]) -> list[list[str]]:
        """One response for each document, in a list, as the harness' own selections return it.

        Raises:
            InputError: the document lacks a field of the template, or responses are no text.
        """
        rows = [list(row) for row in resps]
        totals = [rating.total for ratings in self._scores.rate(rows, docs) for rating in ratings]
        group = [i for i, row in enumerate(rows) for _ in row]
        flat = [response for row in rows for response in row]
        answers = answer_ids([self._said(response) for response in flat], group)
        data = {"totals": np.array(totals), "answers": answers, "group": np.array(group, np.int64)}
        return [[flat[i]] for i in self._method.take(data)]

    def _said(self, response: str) -> str | None:
        """The answer that a response states, None if it states none."""
        if self._answer is None:
            return response.strip() or None
        found = [*self._answer.finditer(response)]
        if not found:
            return None
        return next((group for group in found[-1].groups() if group), found[-1][0]).strip()


def _filled(template: str, document: Document) -> str:
    try:
        return str(apply_template(template, document))
    except TemplateError as error:
        what = (
            f"the problem's template {template!r} does not fit the document, which has {', '.join(document)}: {error}"
        )
        raise InputError(what, remedy="pass problem: '{{name of a field}}' to the filter") from error


def _record(rating: Rating) -> str:
    total = None if math.isnan(rating.total) else rating.total
    return json.dumps({"total": total, "step_scores": rating.scores, "steps": rating.steps}, ensure_ascii=False)


@register_metric(metric="stepreward_total", higher_is_better=True, aggregation="mean")  # type: ignore[untyped-decorator]
def step_total(predictions: Sequence[Sequence[str]], **_: Any) -> dict[str, float]:
    """The mean total of a document's samples after `StepScores`; empty where no sample has a total."""
    reported = (json.loads(record)["total"] for record in predictions[0])
    totals = [total for total in reported if total is not None]
    return {"stepreward_total": sum(totals) / len(totals)} if totals else {}


best_of_n = partial(StepChoice, "best-of-n")
weighted_vote = partial(StepChoice, "weighted-vote")

register_filter(PREFIX + "scores")(StepScores)
for _method in selections:
    if {"totals"} <= set(_method.data) <= _DATA:
        register_filter(PREFIX + _method.name.replace("-", "_"))(partial(StepChoice, _method.name))
