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
from stepreward.core.runtime.acting import GradedEpisodes
from stepreward.core.runtime.acts import Episodes
from stepreward.core.runtime.flows import Grader, Policy
from stepreward.core.types import Problem, Step
from stepreward.environments.by_address import environment_at
from stepreward.formats.problems import read_problems
from stepreward.pipeline.agent_worlds import AGENT_WORLDS, AgentWorld
from stepreward.pipeline.run_settings import RunSettings
from stepreward.policies.local import LocalPolicy
from stepreward.policies.tabular import TabularPolicy
from stepreward.tasks.arithmetic import Split, generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader, truth
from stepreward.tasks.mathematics import MathGrader
from stepreward.train.settings import SCRATCH

ARITHMETIC = "builtin:arithmetic"
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
    answers: bool = True
    """Whether solutions end in answers, which can vote."""
    window: int = 1024
    """Problems that are worked on at the same time."""


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
    if (agents := AGENT_WORLDS.get(settings.world)) is not None:
        if settings.problems:
            raise InputError(f"--world {settings.world} has problems of its own", remedy="drop --problems, or --world")
        parts = [[*islice(agents.drawn(settings.seed, split), n)] for split, n in zip(splits, sizes, strict=True)]
        return _of_agents(agents, *parts)
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


def _of_agents(agents: AgentWorld, train: list[Problem], validation: list[Problem], held_out: list[Problem]) -> World:
    environment = environment_at(agents.environment)
    # In the shop the environment leaves numbers to a grader; all others decide themselves.
    grader: Grader = MathGrader() if agents.environment == "tools" else GradedEpisodes(environment)
    truth = agents.truth if agents.checker else None
    return World(train, validation, held_out, grader, truth, environment, agents.answers, agents.window)


def policy_name(settings: RunSettings) -> str:
    """The policy of a run: the one that is named, or the world's own."""
    agents = AGENT_WORLDS.get(settings.world)
    return settings.policy or (agents.policy if agents else ARITHMETIC)


def writer(settings: RunSettings) -> tuple[Policy, str]:
    """Who writes the solutions of a run or their turns, and the backbone of its reward models.

    Raises:
        ModelError: there is no such model.
    """
    name, agents = policy_name(settings), AGENT_WORLDS.get(settings.world)
    if agents is not None and agents.table is not None and name == agents.policy:
        return TabularPolicy(agents.table, name), SCRATCH
    return LocalPolicy.load(name), name
