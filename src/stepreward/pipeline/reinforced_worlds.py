"""The built-in worlds of reinforcement learning: problems, who grades, and where the policy acts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from datasets import Dataset  # type: ignore[import-untyped]

from stepreward.connect.trl_environments import EpisodeOutcome, line_chat, trl_rows, trl_tools
from stepreward.core.catalog import generate as generated
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Episodes
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Grader, Propose
from stepreward.core.types import Problem, Step, Trajectory
from stepreward.environments.by_address import environment_at
from stepreward.label.samples import graded_samples
from stepreward.policies.local import LocalPolicy
from stepreward.tasks.arithmetic import Split, generate
from stepreward.tasks.arithmetic_truth import ArithmeticGrader
from stepreward.tasks.mathematics import MathGrader

SHOP = "builtin:shop"
_ITEMS = 2
"""Most items of a problem of the shop."""
TURN = 64
"""Most tokens of a turn in an environment, outside of TRL's own loop."""


@dataclass(frozen=True)
class ReinforcedWorld:
    """Where a policy is trained."""

    problems: Callable[[Split, int, int], list[Problem]]
    """Of a split, so many, from a seed."""
    grader: Grader
    environment: Episodes | None = None
    """Where the policy acts; None where it writes whole solutions."""

    def solved(self, policy: LocalPolicy, problems: Sequence[Problem], key: Key, n: int) -> list[Trajectory]:
        """`n` solutions of each problem with their outcomes: 0 where one was cut."""
        if self.environment is not None:
            driver = Driver(policy=Agent(policy, self.environment), grader=self.grader)
            flows = [graded_samples(problem, key, n=n) for problem in problems]
            made = {one.index: one.result for one in driver.run(flows)}
            return [solution for at in range(len(flows)) for solution in made[at]]
        questions = [Propose(problem, (), key.fold(problem.id), n=n) for problem in problems]
        return [
            Trajectory(
                problem, one.steps, self.grader.grade(problem, one.steps) if one.finished else 0.0,
                terminal=one.finished,
            )
            for problem, some in zip(problems, policy.propose(questions), strict=True)
            for one in some
        ]  # fmt: skip

    def trained_on(self, problems: Sequence[Problem], tokenizer: Any, policy: str) -> dict[str, Any]:
        """Arguments of TRL's trainer: outcomes, data, tokenizer, and the environment."""
        if self.environment is not None:
            return {
                "reward_funcs": EpisodeOutcome(self.grader),
                "train_dataset": Dataset.from_dict(trl_rows(problems)),
                "processing_class": line_chat(tokenizer) if policy == SHOP else tokenizer,
                "environment_factory": trl_tools(problems[0]),
                "step_end": "",
            }
        by_text = {one.text: one for one in problems}
        rows = {"prompt": [*by_text], "reference": [one.reference for one in by_text.values()]}
        outcome = _outcome_reward(by_text, self.grader)
        return {"reward_funcs": outcome, "train_dataset": Dataset.from_dict(rows), "processing_class": tokenizer}


def _outcome_reward(problems: dict[str, Problem], grader: Grader) -> Callable[..., list[float]]:
    def outcome(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
        """1 where the solution ends in the right answer."""
        return [
            grader.grade(problems[prompt], [Step(line) for line in text.splitlines(keepends=True)])
            for prompt, text in zip(prompts, completions, strict=True)
        ]

    return outcome


def _shops(split: Split, n: int, seed: int) -> list[Problem]:
    return [*islice(generated["shop"].take({"key": Key.seed(seed)}, split=split, most=_ITEMS), n)]


def world_of(name: str) -> ReinforcedWorld:
    """A world by its name among those of the settings."""
    if name == "tools":
        return ReinforcedWorld(_shops, MathGrader(), environment_at("tools"))
    return ReinforcedWorld(lambda split, n, seed: [*generate(split, n, seed=seed)], ArithmeticGrader())


def mean_score(scores: Sequence[Any]) -> float:
    """The mean over the scored steps of solutions, NaN where none is."""
    known = np.concatenate([np.asarray(one, np.float64) for one in scores]) if scores else np.empty(0)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else float("nan")
