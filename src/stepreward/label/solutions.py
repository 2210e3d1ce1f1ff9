"""Solutions to label: sampled, and graded where the data set has no outcome; all paid answers are logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stepreward.core.keys import Key
from stepreward.core.runtime.answer_log import AnswerLog
from stepreward.core.runtime.driver import Driver, Failed
from stepreward.core.runtime.flows import Flow, Grade, Grader, Policy
from stepreward.core.runtime.spending import Bill
from stepreward.core.types import Problem, Trajectory
from stepreward.label.samples import graded_samples

OnSample = Callable[[str, int, int, str], None]
"""Called with the stage, the problems done, their number and a detail."""


def grade_solutions(found: Sequence[Trajectory], out: Path, grader: Grader) -> tuple[list[Trajectory], Bill]:
    """The trajectories with their outcomes, graded where the data set does not tell, and what it cost.

    What took long, or could not be graded, is logged: a rerun does not pay for it again.
    """
    unknown = [i for i, trajectory in enumerate(found) if np.isnan(trajectory.outcome)]
    if not unknown:
        return [*found], Bill()
    with AnswerLog(out / "samples.sqlite") as log:
        driver = Driver(grader=grader, log=log)
        grades = {unknown[one.index]: one.result for one in driver.run(_grade(found[i]) for i in unknown)}
    return [replace(one, outcome=grades.get(i, one.outcome)) for i, one in enumerate(found)], driver.bill


def labellable(found: Sequence[Trajectory]) -> list[Trajectory]:
    """The solutions without finished ones of unknown grade, which cannot be labelled."""
    return [one for one in found if not (one.terminal and np.isnan(one.outcome))]


def _grade(trajectory: Trajectory) -> Flow[float]:
    (grade,) = yield [Grade(trajectory.problem, trajectory.steps)]
    return float(grade)


def sample_solutions(
    problems: Sequence[Problem],
    n: int,
    seed: int,
    out: Path,
    policy: Policy,
    grader: Grader,
    progress: OnSample | None = None,
    *,
    temperature: float | None = None,
) -> tuple[list[Trajectory], list[tuple[str, Exception]], Bill]:
    """Distinct solutions of each problem, the problems that failed with their errors, and what it cost.

    The outcome of a solution that was cut is not known: rollouts go on from its last step too. Where no temperature is
    given, the policy's own holds.
    """
    key = Key.seed(seed).fold("samples")
    groups: list[list[Trajectory]] = [[] for _ in problems]
    failed: list[tuple[str, Exception]] = []
    with AnswerLog(out / "samples.sqlite") as log:
        driver = Driver(policy=policy, grader=grader, log=log)
        flows = (graded_samples(problem, key, n=n, temperature=temperature) for problem in problems)
        for done, one in enumerate(driver.outcomes(flows), 1):
            if isinstance(one, Failed):
                failed.append((problems[one.index].id, one.error))
            else:
                groups[one.index] = [t if t.terminal else replace(t, outcome=float("nan")) for t in one.result]
            if progress is not None:
                progress("sample", done, len(problems), f"{driver.bill.generated_tokens:,} tokens")
    if failed and len(failed) == len(problems):
        raise failed[0][1]
    return [row for group in groups for row in {t.text: t for t in group}.values()], failed, driver.bill
