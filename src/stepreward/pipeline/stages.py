"""The stages of a run: sample, label, train, score, search, evaluate.

Bulk results are not stored twice: the answer log holds every sample and rollout, so a resumed run rebuilds them from it
without another call of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import aggregate, estimate, search
from stepreward.core.errors import InputError, SteprewardError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import crossed_mean, known_mean, paired_difference
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.runtime.flows import Grader
from stepreward.core.runtime.spending import Bill
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Trajectory
from stepreward.evaluate.data.solution_arrays import Pool, filled_pool
from stepreward.label.omega import labels_of
from stepreward.label.relabelling import transform_of, transformed
from stepreward.label.samples import graded_samples
from stepreward.pipeline.flow_runs import FlowRuns
from stepreward.pipeline.run_settings import RunSettings
from stepreward.pipeline.world import World
from stepreward.search.candidates import Found
from stepreward.search.graded_candidates import with_outcome
from stepreward.train.settings import TrainSettings

Samples = Sequence[Sequence[Trajectory] | None]
"""Of each problem its samples; None where they could not be had."""


def sample(problems: Iterable[Problem], n: int, key: Key, runs: FlowRuns) -> list[list[Trajectory] | None]:
    """`n` graded solutions of each problem, None where that failed."""
    return runs.results([(problem.id, graded_samples(problem, key, n=n)) for problem in problems])


def require_methods(settings: RunSettings) -> None:
    """Refuses unknown names of methods before hours of sampling.

    Raises:
        InputError: a number of training is outside its range, or the estimator asks for a reward model.
        UnknownNameError: no method has the name of the estimator, the transform, the objective or the aggregate.
    """
    if "scorer" in estimate[settings.estimator].asks:
        what = f"{settings.estimator} takes values from a reward model, and a run trains its first one"
        raise InputError(what, remedy="name another estimator, or label with `stepreward label --model`")
    transform_of(settings.estimator, settings.transform)
    aggregate[settings.aggregate]
    try:
        training_of(settings).loss()
    except SteprewardError:
        raise
    except ValueError as error:
        raise InputError(str(error), remedy="see `stepreward run --help`") from error


def training_of(settings: RunSettings) -> TrainSettings:
    """How the reward model of a run is trained."""
    s = settings
    return TrainSettings(
        s.objective, epochs=s.epochs, learning_rate=s.learning_rate, batch_tokens=s.batch_tokens, seed=s.seed
    )


def label(samples: Samples, settings: RunSettings, key: Key, runs: FlowRuns) -> list[Trajectory]:
    """Labels of distinct trajectories, or of the trees that the estimator grows, by the transform of the settings.

    What could not be labelled is left out.
    """
    method = estimate[settings.estimator]
    # Equal samples have equal rollouts: the same steps are labelled once.
    grows = "trajectory" not in method.data
    distinct = [row for group in samples if group for row in {"" if grows else t.text: t for t in group}.values()]
    wanted = {"n": settings.rollouts, "at_once": settings.at_once}
    options = {name: value for name, value in wanted.items() if name in method.settings}
    given = [{"trajectory": t, "problem": t.problem, "key": key} for t in distinct]
    flows = [(t.problem.id, method.take(data, **options)) for t, data in zip(distinct, given, strict=True)]
    by = Provenance(settings.estimator, seed=key.bits, settings={**method.settings, **options})
    measured = [labels_of(made, by) for made in runs.results(flows) if made is not None]
    return [*transformed(chain.from_iterable(measured), transform_of(settings.estimator, settings.transform), {})]


def truth_of(world: World, trajectories: Sequence[Trajectory]) -> NDArray[np.float64]:
    """(B, S) exact step labels, NaN at padding; all NaN in a world without exact labels."""
    if world.truth is None:
        return np.full((len(trajectories), max(map(len, trajectories), default=0)), np.nan)
    return ragged([world.truth(t.problem, t.steps) for t in trajectories])


def pool_of(samples: Samples, trees: Sequence[StepTree], grader: Grader, n: int) -> Pool:
    """The selection pool of problems with exactly `n` samples each, with totals by every aggregate.

    Args:
        samples: samples of each problem; those that have none are left out.
        trees: their trees with a column `score`, rows in the order of the samples.
        grader: reads answers.
        n: samples a problem; problems with fewer are filled with empty ones that have no answer.
    """
    there = [some for some in samples if some is not None]
    rows = [trajectory for some in there for trajectory in some]
    group = [problem for problem, some in enumerate(there) for _ in some]
    # A solution that was cut has no answer, whatever its last line says.
    answers = [grader.answer(t.problem, t.steps) if t.terminal else None for t in rows]
    scores = ragged([row for tree in trees for row in tree.gather(tree.column("score"))])
    return filled_pool(group, answers, [t.outcome for t in rows], scores, (len(there), n))


def headline(hits: Mapping[int, NDArray[np.float64]], majority: NDArray[np.float64], key: Key) -> dict[str, Any]:
    """The gain of step scores over the majority: over training seeds and problems, and for each seed over problems.

    Args:
        hits: (G,) chance to be right on each problem, by training seed.
        majority: (G,) that of the majority.
        key: randomness of the intervals.
    """
    table = np.stack(list(hits.values()))
    return {
        "accuracy": crossed_mean(table, key.fold("accuracy"), bounds=(0.0, 1.0)).to_json(),
        "versus_majority": crossed_mean(table - majority, key.fold("versus")).to_json(),
        "seeds": [
            {
                "seed": seed,
                "accuracy": known_mean(own, key.fold("accuracy", seed)).to_json(),
                "versus_majority": paired_difference(own, majority, key.fold("versus", seed)).to_json(),
            }
            for seed, own in hits.items()
        ],
    }


def searches(
    problems: Sequence[Problem], settings: RunSettings, key: Key, runs: Callable[[str], FlowRuns]
) -> dict[str, tuple[list[tuple[Found, float] | None], Bill]]:
    """Beam search and DVTS over every problem with the grade of the chosen solution, each with its own bill."""
    made = {}
    options = {"beam": {"beams": settings.beams}, "dvts": {"trees": settings.beams}}
    for name, own in options.items():
        mine, how = runs(name), {"width": settings.width, "aggregate": settings.aggregate, **own}
        found = (search[name].take({"problem": p, "key": key.fold(name, p.id)}, **how) for p in problems)
        flows = [(p.id, with_outcome(flow, p)) for flow, p in zip(found, problems, strict=True)]
        made[name] = (mine.results(flows), mine.driver.bill)
    return made


def guided(
    problems: Sequence[Problem], settings: RunSettings, key: Key, runs: FlowRuns
) -> list[tuple[Found, float] | None]:
    """One graded episode of each problem in which the best-scored of several actions is executed every time."""
    how = {"beams": 1, "width": settings.width, "aggregate": "last"}
    found = (search["beam"].take({"problem": p, "key": key.fold(p.id)}, **how) for p in problems)
    return runs.results([(p.id, with_outcome(flow, p, acts=True)) for flow, p in zip(found, problems, strict=True)])
