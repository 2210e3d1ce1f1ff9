"""Runs of an agent that was never there: failing ones repeat themselves and meet errors, more often than good ones."""

from __future__ import annotations

import numpy as np

from stepreward.core.keys import Key
from stepreward.core.types import Floats, Problem, Step, Trajectory


def made_runs(problems: int, seed: int = 0, *, runs: int = 2, score: bool = False) -> list[Trajectory]:
    """Runs of each problem, half of them good; with `score` a step column that is lower in bad runs."""
    rng, made = Key.seed(seed).rng(), []
    for number in range(problems):
        problem = Problem(f"task-{number}", f"Do task {number}.")
        for _ in range(runs):
            good = bool(rng.random() < 0.5)
            length = int(rng.integers(2, 9) + (0 if good else rng.integers(0, 5)))
            steps: list[Step] = []
            for turn in range(length):
                stuck = rng.random() < (0.1 if good else 0.5)
                steps.append(Step(f"look at {'the wall' if stuck else f'page {number} {turn}'}\n"))
                if turn < length - 1:
                    steps.append(Step("Error: nothing there\n" if stuck else f"text {turn}\n", "observation", "tool"))
            acts = np.array([step.kind == "action" for step in steps])
            scores: Floats = np.where(acts, rng.normal(0.6 if good else 0.3, 0.2, len(steps)), np.nan)
            made.append(Trajectory(problem, tuple(steps), float(good), columns={"score": scores} if score else {}))
    return made
