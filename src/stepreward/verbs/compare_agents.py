"""The verb compare_agents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from stepreward.core.errors import InputError
from stepreward.core.failures import Failures, warn_of_failures
from stepreward.core.runtime.flows import Scorer
from stepreward.core.types import SCORE, Trajectory, score_column
from stepreward.evaluate.agent_comparison import AgentComparison, AgentRuns, agent_runs, compared_agents
from stepreward.verbs.names import scorer_of
from stepreward.verbs.read_rows import Rows, rows_of
from stepreward.verbs.score_rows import scored


def compare_agents(
    a: Rows, b: Rows, scorer: str | Path | Scorer | None = None, *, column: str = "", by: str = "", seeds: str = "",
    seed: int = 0, failed: Failures | None = None,
) -> AgentComparison:  # fmt: skip
    """Compares the runs of two agents on the same problems: outcomes, scores, actions, tokens, cost, errors of tools.

    Each number comes for both, with the paired difference and its 95 % interval over problems. Runs are read one by
    one, and only their numbers are kept.

    Args:
        a: runs of one agent: a file of any format, or trajectories.
        b: runs of the other.
        scorer: scores the steps of both first; None takes the scores that are there.
        column: step column with these, where there are several.
        by: `id`, `text`, or the name of a field of facts or of the problem's meta: what says that two problems are the
            same. Left out: their ids, or their texts where no id is in both.
        seeds: field that names the seed of a run, such as that of a training: intervals are then over seeds too.
        seed: of the bootstrap.
        failed: gets what could not be read or scored; where None, a warning counts it.

    Raises:
        InputError: rows cannot be read, no problem is in both, no two seeds are, there are several columns of scores,
            or none of this name.
    """
    lost, names = Failures(), set[str]()
    model = None if scorer is None else scorer_of(scorer)

    def numbers(rows: Rows) -> AgentRuns:
        runs = rows_of(rows, lost)
        with_scores = _of_column(runs, column, names) if model is None else _scored(runs, model, lost)
        return agent_runs(with_scores, by=by, seeds=seeds)

    read = numbers(a), numbers(b)
    if seeds and not any(name for runs in read for name in runs.seeds):
        remedy = "name a field of facts or of meta, or leave the seeds out: runs of a problem are then its samples"
        raise InputError(f"no run has the field {seeds!r}, which would name its seed", remedy=remedy)
    if column and model is None and column not in names:
        raise InputError(f"no run has the step column {column!r}", remedy="score the rows first, or pass a scorer")
    if failed is None:
        warn_of_failures(lost, "could not be read or scored")
    else:
        failed.join(lost)
    return compared_agents(read[0], read[1], by=by, seed=seed)


def _scored(runs: Iterable[Trajectory], scorer: Scorer, lost: Failures) -> Iterator[Trajectory]:
    """The runs with the scorer's scores; those that it refuses go to `lost`."""
    for one in scored(runs, scorer):
        if isinstance(one, Trajectory):
            yield one
        else:
            lost.add(one)


def _of_column(runs: Iterable[Trajectory], column: str, names: set[str]) -> Iterator[Trajectory]:
    """The runs, with the column of scores that is meant as `score`.

    Args:
        runs: of one agent.
        column: the column; "" for the only one.
        names: gets the columns that were found, of both agents.
    """
    for run in runs:
        names |= {column} & run.columns.keys() if column else {score_column(name) for name in run.scores}
        if not column and len(names) > 1:
            what = f"there are several columns of scores, {', '.join(sorted(names))}"
            raise InputError(what, remedy="name the one to compare (column), or a scorer of both")
        yield run.with_columns({SCORE: run.column(name)}) if (name := next(iter(names), "")) else run
