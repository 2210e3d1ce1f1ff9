"""Who answers a flow's questions, and how a flow is run among them: in an environment, or scored by execution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from stepreward.core.errors import InputError
from stepreward.core.runtime.acting import GradedEpisodes, acting
from stepreward.core.runtime.acts import Act, Episodes, Placed
from stepreward.core.runtime.executing import executed, execution_of
from stepreward.core.runtime.flows import Extract, Flow, Grade, Grader, Judge, Policy, Propose, Question, Score, Scorer

T = TypeVar("T")


@dataclass(frozen=True)
class Answerers:
    """Who answers: `Propose`, `Score`, `Compare`, `Grade` with `Extract`, and `Act`."""

    policy: Policy | None = None
    scorer: Scorer | None = None
    judge: Judge | None = None
    grader: Grader | None = None

    @property
    def environment(self) -> Episodes | None:
        """Where the policy acts, if it is an agent."""
        return self.policy.environment if isinstance(self.policy, Placed) else None

    @property
    def scoring(self) -> Scorer | None:
        """Who answers `Score`: the scorer, or the one beside execution."""
        execution = execution_of(self.scorer)
        return self.scorer if execution is None else execution.otherwise

    def placed(self, flow: Flow[T]) -> Flow[T]:
        """A flow as it is run: in the environment, if there is one.

        Raises:
            InputError: scores come of execution, and there is no environment.
        """
        execution = execution_of(self.scorer)
        if execution is not None:
            if self.environment is None:
                raise InputError("scores by execution need an agent", remedy="pass --environment, or another scorer")
            flow = executed(flow, execution.by, otherwise=execution.otherwise is not None)
        return flow if self.environment is None else acting(flow)

    @property
    def deciding(self) -> Grader | None:
        """Who grades: an environment what it can tell, and the grader what is left."""
        return self.grader if self.environment is None else GradedEpisodes(self.environment, self.grader)

    def of(self, question: Question) -> tuple[str, Policy | Scorer | Judge | Grader | Episodes | None]:
        """The role that answers a question, and the object in that role."""
        if isinstance(question, Propose):
            return "policy", self.policy
        if isinstance(question, Grade | Extract):
            return "grader", self.deciding
        if isinstance(question, Act):
            return "environment", self.environment
        return ("scorer", self.scoring) if isinstance(question, Score) else ("judge", self.judge)
