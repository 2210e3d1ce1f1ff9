"""Sources of step data for `StepGRPOTrainer`: environments, rollouts of prefixes, likelihoods, and a teacher.

A source is attached to the trainer, which calls it with the completions of a batch as trajectories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepreward.connect.online_reward_models import added
from stepreward.connect.trl import OfPolicy, StepNumbers
from stepreward.connect.trl_episodes import played, with_known
from stepreward.connect.trl_rollouts import LocalRollouts
from stepreward.core.catalog import estimate
from stepreward.core.errors import InputError
from stepreward.core.keys import Key
from stepreward.core.runtime.acts import Episodes
from stepreward.core.runtime.agent import Agent
from stepreward.core.runtime.driver import Driver
from stepreward.core.runtime.flows import Flow, Grader, Policy
from stepreward.core.types import Step, Trajectory
from stepreward.score.encode.per_step import StepEncoder
from stepreward.score.encode.readout import Readout
from stepreward.score.encode.record import EncoderRecord, WholeText
from stepreward.score.implicit import ImplicitScorer, LanguageModel
from stepreward.score.language import LikelihoodScorer, Mean

Floats = NDArray[np.float64]


class EnvironmentNumbers:
    """What TRL's environments keep of each turn: step rewards, seconds, a critic's values.

        StepGRPOTrainer(..., environment_factory=Shop, step_rewards=EnvironmentNumbers("step_rewards"), step_end="")

    A tool of the environment appends one number a call to a list, None where the call may fail and first of all: public
    methods are tools, attributes are not. A last turn that calls no tool is unscored where the list has none for it.

    Args:
        name: of the environment's attribute.
    """

    def __init__(self, name: str = "step_rewards") -> None:
        self.name = name
        self._trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """Attaches the trainer whose environments are read; the trainer calls it once."""
        self._trainer = trainer

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Floats]:
        """(A,) numbers of each trajectory's actions.

        Raises:
            InputError: the trainer runs no environments, or they have no such attribute.
        """
        environments = getattr(self._trainer, "environments", None)
        if not environments:
            raise InputError("the trainer runs no environments", remedy="pass environment_factory to StepGRPOTrainer")
        if any(not hasattr(one, self.name) for one in environments):
            raise InputError(f"an environment has no attribute {self.name!r}", remedy="set it in reset()")
        made = []
        for trajectory, environment in zip(trajectories, environments, strict=True):
            own = [np.nan if one is None else float(one) for one in getattr(environment, self.name)]
            lacks = int(trajectory.action.sum()) - len(own)
            made.append(np.array([*own, np.nan] if lacks == 1 else own, np.float64))
        return made


class InEnvironment:
    """A source that is given the episodes of TRL's environments as an environment of this package has them.

        StepGRPOTrainer(..., environment_factory=trl_tools(problem), step_end="",
                        step_rewards=InEnvironment(from_scorer(reward_model), environment_at("tools")))

    A reward model that learned of such episodes, as in `stepreward run --world tools`, reads them in the form that it
    learned. An episode in which TRL showed something else, as where it refused a call, has no numbers.

    Args:
        source: of step numbers.
        environment: in which the episodes are acted again.
    """

    def __init__(self, source: StepNumbers, environment: Episodes) -> None:
        self.source, self.environment = source, environment
        self._trainer: Any = None

    def attach(self, trainer: Any) -> None:
        """Attaches the trainer, also to the source; the trainer calls it once."""
        self._trainer = trainer
        attach = getattr(self.source, "attach", None)
        if attach is not None:
            attach(trainer)

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Floats]:
        """(A,) numbers of each trajectory's actions, NaN where TRL showed something else.

        Raises:
            InputError: the trainer runs no environments of this package.
        """
        return with_known(played(trajectories, self._trainer, self.environment), trajectories, self.source)


class RolloutValues:
    """Values of prefixes by an estimator of `label`, with the policy in training as the one that rolls out.

        StepGRPOTrainer(..., credit="vsrm", step_rewards=RolloutValues(grader, n=4))
        StepGRPOTrainer(..., credit="vineppo", step_data={"values": RolloutValues(grader, n=9, before=True, root=True)})

    With an environment the completions are episodes of TRL's own environments (`trl_environments`), and a rollout goes
    on in a fork of the episode: a copy, or one in which the same actions were executed. An episode in which TRL showed
    something else than the environment has no values.

    Args:
        grader: of rollouts; also of completions whose outcome is not in [0, 1].
        estimator: name in the family `estimate`; its column `value` is read.
        before: the value of the state before each step, that of the prompt first; else of the state after it.
        key: randomness.
        environment: that executes what a rollout does, turn by turn; None where solutions are texts.
        policy: settings of the rollouts' `LocalPolicy`, such as `max_tokens`, in an environment that of a turn.
        settings: of the estimator: `n` rollouts a prefix, `root` to value the bare prompt too.
    """

    def __init__(
        self,
        grader: Grader,
        *,
        estimator: str = "math-shepherd",
        before: bool = False,
        key: Key | None = None,
        environment: Episodes | None = None,
        policy: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.grader, self.method, self.before = grader, estimate[estimator], before
        self.key, self.environment, self.settings = key or Key.seed(0), environment, settings
        self._rollouts = LocalRollouts(self.key, **(policy or {}))
        self._trainer: Any = None
        self._calls = 0
        self.tokens = 0
        """Tokens of rollouts so far."""

    def attach(self, trainer: Any) -> None:
        """Attaches the trainer whose policy rolls out; the trainer calls it once."""
        self._trainer = trainer

    def __call__(self, trajectories: Sequence[Trajectory]) -> list[Floats]:
        """(S,) values of each trajectory's steps, NaN at observations; in an environment (A,) of its actions.

        Raises:
            InputError: no trainer has been attached, or it runs no environments of this package.
        """
        if self._trainer is None:
            raise InputError("no policy is attached", remedy="pass it to StepGRPOTrainer, which attaches itself")
        if self.environment is None:
            return self._values(trajectories)
        return with_known(played(trajectories, self._trainer, self.environment), trajectories, self._values)

    def _values(self, trajectories: Sequence[Trajectory]) -> list[Floats]:
        key = self.key.fold("values", self._calls, self._trainer.accelerator.process_index)
        self._calls += 1
        was_training = self._trainer.model.training
        # Dropout would change what is sampled.
        self._trainer.model.eval()
        policy: Policy = self._rollouts.policy_of(self._trainer)
        if self.environment is not None:
            policy = Agent(policy, self.environment)
        driver = Driver(policy=policy, grader=self.grader)
        flows = (self._flow(self._graded(one), key.fold("row", i)) for i, one in enumerate(trajectories))
        try:
            found = {one.index: one.result for one in driver.run(flows)}
        finally:
            self._trainer.model.train(was_training)
        self.tokens += driver.bill.generated_tokens
        made = []
        for i, trajectory in enumerate(trajectories):
            values = found[i].column("value")
            made.append(_moved(values, trajectory.action, found[i]) if self.before else values)
        return made

    def _graded(self, trajectory: Trajectory) -> Trajectory:
        """The trajectory with an outcome in [0, 1]: the trainer's rewards may be any numbers."""
        if 0 <= trajectory.outcome <= 1:
            return trajectory
        return replace(trajectory, outcome=self.grader.grade(trajectory.problem, trajectory.steps))

    def _flow(self, trajectory: Trajectory, key: Key) -> Flow[Trajectory]:
        available = {"problem": trajectory.problem, "trajectory": trajectory, "key": key}
        flow: Flow[Trajectory] = self.method.take(available, **self.settings)
        return flow


def _moved(values: Floats, action: NDArray[np.bool_], measured: Trajectory) -> Floats:
    """Values before the actions out of those behind them; the prompt's stands before the first."""
    made = np.full(len(values), np.nan)
    behind = values[action]
    first = float(measured.facts.get("root_value", np.nan))
    made[action] = np.concatenate([[first], behind[:-1]]) if len(behind) else behind
    return made


def reference_likelihood(
    mean: Mean = "arithmetic", *, prior: bool = False, settings: Mapping[str, Any] | None = None
) -> OfPolicy:
    """How likely the policy finds the reference answer behind the whole solution: one number a trajectory.

        StepGRPOTrainer(..., credit="rlpr", credit_settings={"least": MovingThreshold()},
                        step_data={"outcome": reference_likelihood(), "prior": reference_likelihood(prior=True)})

    Args:
        mean: how the likelihoods of the answer's tokens become one: RLPR's is arithmetic: no rare token decides.
        prior: behind the bare prompt, without any reasoning.
        settings: of `LikelihoodScorer`, such as `answer`.
    """

    def before(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        # A step without a token stands where the bare prompt does.
        return [replace(one, steps=(Step(""),), columns={}) if prior else one for one in trajectories]

    def last(scores: Floats) -> Floats:
        known = scores[~np.isnan(scores)]
        return known[-1:] if known.size else np.array([np.nan])

    def make(model: LanguageModel, tokenizer: Any) -> LikelihoodScorer:
        return LikelihoodScorer(model, tokenizer, mean=mean, **(settings or {}))

    return OfPolicy(make, before=before, behind=last)


def teacher_log_ratios(teacher: LanguageModel, *, scale: float = 1.0) -> OfPolicy:
    """Rewards of steps by a teacher: how much likelier it finds them than the policy in training does.

        r_k = scale sum_{t in k} log pi_teacher(y_t | y_<t) / pi(y_t | y_<t)

    Args:
        teacher: of the policy's tokenizer; it does not learn.
        scale: beta.
    """

    def make(model: LanguageModel, tokenizer: Any) -> ImplicitScorer:
        record = EncoderRecord(WholeText(), Readout("implicit", beta=scale))
        return ImplicitScorer(teacher, model, StepEncoder(record, tokenizer))

    return OfPolicy(make, behind=added)
