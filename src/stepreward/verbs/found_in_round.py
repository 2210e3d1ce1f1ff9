"""What a round of training finds: new solutions of problems, by samples, search or trees, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stepreward.core.catalog import estimate
from stepreward.core.catalog import transform as transforms
from stepreward.core.failures import Failures, warn_of_failures
from stepreward.core.measure.aggregation import totals_of
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.flows import Grader, Policy
from stepreward.core.types import Problem, Trajectory
from stepreward.label.balance_score import best_balance
from stepreward.label.many_problems import LabelPlan, load_labels
from stepreward.label.relabelling import relabelled, transform_of
from stepreward.label.self_ranked import agreement, best_and_worst
from stepreward.label.solutions import grade_solutions, sample_solutions
from stepreward.pipeline.compose import compose
from stepreward.pipeline.rounds_settings import MIXED, PSEUDO, ROLLED, RoundsSettings
from stepreward.tasks.graders import grader_by_name
from stepreward.verbs.label_rows import label_into
from stepreward.verbs.names import load
from stepreward.verbs.score_rows import score

OnProgress = Callable[[str, int, int, str], None]


@dataclass
class Finder:
    """Finds and labels the solutions of a round."""

    settings: RoundsSettings
    chosen: Mapping[str, Mapping[str, Any]]
    """Hyper-parameters of the methods, by name."""
    policy: Policy | None
    tell: OnProgress
    grader: Grader = field(init=False)

    def __post_init__(self) -> None:
        self.grader = grader_by_name(self.settings.grader)

    def sure(self, rows: Sequence[Trajectory], model: Path) -> list[Trajectory]:
        """Solutions with labels where a model is sure; labels that were there are in the column `known`."""
        known = [one.with_columns({"known": one.labels}) if "label" in one.columns else one for one in rows]
        return relabelled(self._scored(known, model), (transforms[PSEUDO], self.chosen[PSEUDO]))

    def find(
        self, problems: Sequence[Problem], place: Path, last: Path | None, seed: int
    ) -> tuple[list[Trajectory], dict[str, Any]]:
        """New solutions of the problems with their labels, and what was decided on the way.

        Args:
            problems: to solve.
            place: folder of the round.
            last: folder of the last round's model; None in the first round.
            seed: of all samples and rollouts of the round.
        """
        s, failed, report = self.settings, Failures(), dict[str, Any]()
        assert self.policy is not None
        method = estimate[s.estimator_of(last is not None)]
        items: Sequence[Any] = problems
        if s.search and last is not None:
            items = self._searched(problems, place, last, seed, failed)
        elif s.label_by not in ROLLED or "trajectory" in method.data:
            temperature = None
            if s.temperatures:
                temperature, report = self._best_temperature(problems[: s.tried], place, last, seed)
            items, unsampled, _ = sample_solutions(
                problems, s.samples, seed, place, self.policy, self.grader, self.tell, temperature=temperature
            )
            failed += unsampled
        if s.label_by in ROLLED:
            rows = self._rolled(items, place, last, seed, failed)
        elif s.label_by == "outcomes":
            rows, _ = grade_solutions(items, place, self.grader)
        elif s.label_by == "ranks" and last is not None:
            rows = self._ranked(items, last)
            report = {**report, "graded_alike": agreement(rows)}
        else:
            rows = [*items] if last is None else self.sure(items, last)
        warn_of_failures(failed, "could not be sampled or labelled")
        return rows, report

    def _searched(
        self, problems: Sequence[Problem], place: Path, last: Path, seed: int, failed: Failures
    ) -> list[Trajectory]:
        assert self.policy is not None
        name = self.settings.search
        solver = compose(self.policy, load(last), search=name, grader=self.grader, **self.chosen[name])
        with AnswerLog(place / "search.sqlite") as log:
            found = solver.solve(
                problems, seed=seed, log=log, on_progress=lambda done, total, _: self.tell("search", done, total, "")
            )
        failed.join(found.failed)
        return [row for one in found for row in one.rows() if len(row)]

    def _rolled(
        self, items: Sequence[Any], place: Path, last: Path | None, seed: int, failed: Failures
    ) -> list[Trajectory]:
        """Solutions, or trees of problems, with labels of rollouts, mixed with the last model's scores where wanted."""
        s = self.settings
        name = s.estimator_of(last is not None)
        plan = LabelPlan(name, dict(self.chosen[name]), seed)
        scorer = load(last) if last is not None and "scorer" in estimate[name].asks else None
        run = label_into(
            place / "labels", items, plan, policy=self.policy, grader=self.grader, scorer=scorer, samples=s.samples,
            failed=failed, on_progress=self.tell,
        )  # fmt: skip
        failed.join(run.ungraded)
        rows, transform = [*load_labels(place / "labels")], transform_of(name, s.transform).name
        if last is not None and s.label_by == "both":
            rows, transform = self._scored(rows, last), MIXED
        return relabelled(rows, (transforms[transform], self.chosen[transform]))

    def _scored(self, rows: Sequence[Trajectory], model: Path) -> list[Trajectory]:
        self.tell("score", 0, len(rows), "")
        return [*score(rows, load(model))]

    def _ranked(self, rows: Sequence[Trajectory], model: Path) -> list[Trajectory]:
        """The best and the worst solution of each problem by a model's totals."""
        scored = self._scored([one for one in rows if len(one)], model)
        totals = [float(totals_of(one.column("score")[None], self.settings.aggregate)[0]) for one in scored]
        return best_and_worst(scored, np.array(totals))

    def _best_temperature(
        self, problems: Sequence[Problem], place: Path, last: Path | None, seed: int
    ) -> tuple[float, dict[str, Any]]:
        """The temperature whose samples balance best, the first of equal ones, and the scores of all."""
        assert self.policy is not None
        s, scores = self.settings, []
        for temperature in s.temperatures if len(s.temperatures) > 1 else ():
            folder = place / f"temperature-{temperature:g}"
            rows, failed, _ = sample_solutions(
                problems, s.samples, seed, folder, self.policy, self.grader, self.tell, temperature=temperature
            )
            warn_of_failures(Failures(failed), f"could not be sampled at temperature {temperature:g}")
            scored = rows if last is None or not rows else self._scored(rows, last)
            # More right samples than are drawn cannot be had.
            scores.append(best_balance(scored, enough=min(8, s.samples)).score)
        best = s.temperatures[int(np.argmax(scores)) if scores else 0]
        balance = dict(zip(map(str, s.temperatures), scores, strict=False))
        return best, {"temperature": best} | ({"balance": balance} if balance else {})
