"""Audits of held-out problems while TRL trains: an outcome that is not optimised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback

from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Episodes
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Grader, Policy
from stepreward.core.types import Problem
from stepreward.label.samples import graded_samples
from stepreward.policies.local import LocalPolicy


class HeldOutAudit(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Solves held-out problems every so often, and raises the trainer's alarm where they are solved less often.

        trainer = StepGRPOTrainer(..., alarms=HackingAlarms(on_alarm="stop"))
        trainer.add_callback(HeldOutAudit(trainer, problems, grader, every=20))

    Args:
        trainer: whose alarms hear of it.
        problems: that training does not see.
        grader: of their solutions; one that is cut counts 0.
        every: updates between audits.
        samples: solutions of a problem.
        environment: that executes what the policy writes, turn by turn; None where it writes whole solutions.
        settings: of the `LocalPolicy` that solves them; `max_tokens` is the trainer's where it is not given.
    """

    def __init__(
        self,
        trainer: Any,
        problems: Sequence[Problem],
        grader: Grader,
        *,
        every: int = 20,
        samples: int = 1,
        environment: Episodes | None = None,
        **settings: Any,
    ) -> None:
        if not problems or every < 1:
            raise InputError(f"{len(problems)} problems every {every} updates", remedy="pass at least one of each")
        self.trainer, self.problems, self.grader = trainer, list(problems), grader
        self.every, self.samples, self.environment = every, samples, environment
        self.settings = {"max_tokens": trainer.max_completion_length, **settings}
        self.found: list[float] = []
        """Mean outcome of each audit so far."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The audit that later ones are compared with."""
        self._audit()

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """An audit, every so many updates."""
        if state.global_step % self.every == 0:
            self._audit()

    def _audit(self) -> None:
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        was_training = model.training
        policy: Policy = LocalPolicy(model, self.trainer.processing_class, **self.settings)
        if self.environment is not None:
            policy = Agent(policy, self.environment)
        # The same randomness each time: audits differ by the weights alone.
        key = Key.seed(0).fold("audit")
        flows = (graded_samples(problem, key, n=self.samples) for problem in self.problems)
        done = sorted(Driver(policy=policy, grader=self.grader).run(flows), key=lambda one: one.index)
        # A solution without a step is none that is right.
        outcomes = [sum(t.outcome for t in one.result) / self.samples for one in done]
        model.train(was_training)
        self.found.append(float(np.nanmean(outcomes)))
        self.trainer._metrics["train"]["process/held_out"].append(self.found[-1])
        self.trainer.raise_alarms(self.trainer.alarms.audit([float(one) for one in outcomes]))
