"""The stages of a run: sample, label, train, score, search, evaluate.

Bulk results are not stored twice: the answer log holds every sample and rollout, so a resumed run rebuilds them from it
without another call of the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stepreward.core.catalog import aggregate, estimate, search
from stepreward.core.errors import InputError, SteprewardError
from stepreward.core.keys import Key
from stepreward.core.measure.statistics import crossed_mean, known_mean, paired_difference
from stepreward.core.measure.step_metrics import ragged
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Flow, Grader
from stepreward.core.runtime.spending import Bill
from stepreward.core.tree import StepTree
from stepreward.core.types import Problem, Provenance, Trajectory
from stepreward.evaluate.data.solution_arrays import Pool, filled_pool
from stepreward.label.omega import labels_of
from stepreward.label.relabelling import transform_of, transformed
from stepreward.label.samples import graded_samples
from stepreward.pipeline.run_settings import RunSettings
from stepreward.pipeline.world import World
from stepreward.search.candidates import Found
from stepreward.search.graded_candidates import with_outcome
from stepreward.train.settings import TrainSettings

T = TypeVar("T")
Progress = Callable[[int, int, str], None]


def run_flows(flows: Sequence[Flow[T]], driver: Driver, progress: Progress) -> list[T]:
    """Runs flows to their ends and returns their results in the order given, reporting the bill on the way."""
    results: dict[int, T] = {}
    for done, finished in enumerate(driver.run(flows), 1):
        results[finished.index] = finished.result
        bill = driver.bill
        progress(done, len(flows), f"{bill.generated_tokens:,} tokens, {bill.cached:,} answers from the log")
    return [results[i] for i in range(len(flows))]


def sample(
    problems: Iterable[Problem], n: int, key: Key, driver: Driver, progress: Progress
) -> tuple[list[list[Trajectory]], Bill]:
    """`n` graded solutions of each problem."""
    samples = run_flows([graded_samples(problem, key, n=n) for problem in problems], driver, progress)
    return samples, driver.bill


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


def label(
    samples: Sequence[Sequence[Trajectory]], settings: RunSettings, key: Key, driver: Driver, progress: Progress
) -> list[Trajectory]:
    """Labels of distinct trajectories, or of the trees that the estimator grows, by the transform of the settings."""
    method = estimate[settings.estimator]
    # Equal samples have equal rollouts: the same steps are labelled once.
    grows = "trajectory" not in method.data
    distinct = [row for group in samples for row in {"" if grows else t.text: t for t in group}.values()]
    wanted = {"n": settings.rollouts, "at_once": settings.at_once}
    options = {name: value for name, value in wanted.items() if name in method.settings}
    flows = [method.take({"trajectory": t, "problem": t.problem, "key": key}, **options) for t in distinct]
    by = Provenance(settings.estimator, seed=key.bits, settings={**method.settings, **options})
    measured = [labels_of(made, by) for made in run_flows(flows, driver, progress)]
    return [*transformed(chain.from_iterable(measured), transform_of(settings.estimator, settings.transform), {})]


def truth_of(world: World, trajectories: Sequence[Trajectory]) -> NDArray[np.float64]:
    """(B, S) exact step labels, NaN at padding; all NaN in a world without exact labels."""
    if world.truth is None:
        return np.full((len(trajectories), max(map(len, trajectories), default=0)), np.nan)
    return ragged([world.truth(t.problem, t.steps) for t in trajectories])


def pool_of(samples: Sequence[Sequence[Trajectory]], trees: Sequence[StepTree], grader: Grader, n: int) -> Pool:
    """The selection pool of problems with exactly `n` samples each, with totals by every aggregate.

    Args:
        samples: samples of each problem.
        trees: their trees with a column `score`, rows in the order of the samples.
        grader: reads answers.
        n: samples a problem; problems with fewer are filled with empty ones that have no answer.
    """
    rows = [trajectory for some in samples for trajectory in some]
    group = [problem for problem, some in enumerate(samples) for _ in some]
    # A solution that was cut has no answer, whatever its last line says.
    answers = [grader.answer(t.problem, t.steps) if t.terminal else None for t in rows]
    scores = ragged([row for tree in trees for row in tree.gather(tree.column("score"))])
    return filled_pool(group, answers, [t.outcome for t in rows], scores, (len(samples), n))


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
    problems: Sequence[Problem], settings: RunSettings, key: Key, driver: Callable[[], Driver], progress: Progress
) -> dict[str, tuple[list[tuple[Found, float]], Bill]]:
    """Beam search and DVTS over every problem with the grade of the chosen solution, each with its own bill."""
    made = {}
    options = {"beam": {"beams": settings.beams}, "dvts": {"trees": settings.beams}}
    for name, own in options.items():
        runner, how = driver(), {"width": settings.width, "aggregate": settings.aggregate, **own}
        found = (search[name].take({"problem": p, "key": key.fold(name, p.id)}, **how) for p in problems)
        flows = [with_outcome(flow, problem) for flow, problem in zip(found, problems, strict=True)]
        made[name] = (run_flows(flows, runner, progress), runner.bill)
    return made


def guided(
    problems: Sequence[Problem], settings: RunSettings, key: Key, driver: Driver, progress: Progress
) -> list[tuple[Found, float]]:
    """One graded episode of each problem in which the best-scored of several actions is executed every time."""
    how = {"beams": 1, "width": settings.width, "aggregate": "last"}
    found = (search["beam"].take({"problem": p, "key": key.fold(p.id)}, **how) for p in problems)
    flows = [with_outcome(flow, p, acts=True) for flow, p in zip(found, problems, strict=True)]
    return run_flows(flows, driver, progress)
