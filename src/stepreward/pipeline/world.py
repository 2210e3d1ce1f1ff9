"""The source of a run's problems, outcomes and, in the built-in world, exact step labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Episodes
from stepreward.core.runtime.flows import Grader
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.environments.tools.shop import shop_checks, shop_problems
from stepreward.formats.problems import read_problems
from stepreward.pipeline.run_settings import RunSettings
from stepreward.tasks.arithmetic import Split, generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, truth
from stepreward.tasks.mathematics import MathGrader

Truth = Callable[[Problem, Sequence[Step]], NDArray[np.float64]]


@dataclass(frozen=True)
class World:
    """Three disjoint sets of problems, and their grader and exact labels."""

    train: list[Problem]
    validation: list[Problem]
    held_out: list[Problem]
    grader: Grader
    truth: Truth | None
    """Exact step labels, in the built-in worlds."""
    environment: Episodes | None = None
    """Where the policy acts, if it is an agent."""


def open_world(settings: RunSettings, grader: Grader | None = None) -> World:
    """A built-in world, or the user's problems split by a keyed shuffle.

    Args:
        settings: says which, and how many of each.
        grader: outcome grader of the user's problems.

    Raises:
        InputError: the problems cannot be read, or are too few.
    """
    sizes = (settings.train_problems, settings.validation_problems, settings.held_out_problems)
    splits: tuple[Split, ...] = ("train", "validation", "held_out")
    if settings.world == "tools":
        if settings.problems:
            raise InputError("--world tools has problems of its own", remedy="drop --problems, or --world")
        made = [
            islice(shop_problems(Key.seed(settings.seed), split=split), n)
            for split, n in zip(splits, sizes, strict=True)
        ]
        parts = [list(one) for one in made]
        return World(parts[0], parts[1], parts[2], MathGrader(), _shop_truth, environment_at("tools"))
    if not settings.problems:
        parts = [list(generate(split, n, seed=settings.seed)) for split, n in zip(splits, sizes, strict=True)]
        return World(parts[0], parts[1], parts[2], ArithmeticGrader(), truth)
    if grader is None:
        raise InputError("problems of your own need a grader", remedy="pass one; the command line grades mathematics")
    rows = list(read_problems(Path(settings.problems)))
    if len(rows) < sum(sizes):
        raise InputError(
            f"{len(rows)} problems are fewer than the {sum(sizes)} that the run needs",
            source=settings.problems,
            remedy="lower --train-problems, --validation-problems and --held-out-problems",
        )
    order = Key.seed(settings.seed).fold("split").rng().permutation(len(rows))
    picked = [rows[i] for i in order[: sum(sizes)]]
    first, second = sizes[0], sizes[0] + sizes[1]
    return World(picked[:first], picked[first:second], picked[second:], grader, None)


def _shop_truth(problem: Problem, steps: Sequence[Step]) -> NDArray[np.float64]:
    return np.array([np.nan if one.right is None else float(one.right) for one in shop_checks(problem, steps)])
