"""Acting: what a flow asks of an environment, what it is shown, and what an environment is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from stepreward.core.types import Problem, Step

REWORDS = "rewords"
"""Key of a problem's meta: the id of the problem that it puts in other words, whose episode it has."""


def episode_of(problem: Problem) -> str:
    """The id of the problem whose episode a problem has: its own, or that of the one that it puts in other words."""
    return str(problem.meta.get(REWORDS, problem.id))


@dataclass(frozen=True, slots=True)
class Act:
    """Requests what an environment shows after steps; the answer is an `Observation`.

    Without steps it is what the environment shows first. The answer depends on the steps alone: whatever else was tried
    between them, the episode is the one that they lead to.
    """

    problem: Problem
    steps: tuple[Step, ...]
    scores: bool = False
    """Whether the answer scores the last step: a budget in samples or tokens that is used up does not refuse it."""

    @property
    def acts(self) -> bool:
        """Whether the last step is an action, which the environment executes."""
        return bool(self.steps) and self.steps[-1].kind == "action"


@dataclass(frozen=True, slots=True)
class Observation:
    """What an environment shows after an action, and what it knows of the episode."""

    steps: tuple[Step, ...] = ()
    """What is shown, of the kind observation; none where there is nothing to see."""
    done: bool = False
    """Whether the episode is over: no action follows."""
    reward: float = float("nan")
    """Of the last action, in the environment's own unit; NaN where it gives none."""
    outcome: float = float("nan")
    """Grade in [0, 1] of the episode if it ended here; NaN where the environment cannot tell."""
    answer: str | None = None
    """The final answer that the actions state, in a normal form; None where they state none."""
    seconds: float = 0.0
    """Time that the environment took."""
    cost: float = 0.0
    """Money for what the action asked of others, such as another model."""
    tokens: int = 0
    """Tokens of these others."""

    @classmethod
    def of(cls, text: str, *, role: str = "user", meta: dict[str, Any] | None = None, **known: Any) -> Observation:
        """An observation of one text.

        Args:
            text: what is shown; nothing where it is empty.
            role: of the chat message that it becomes: `tool` where it answers a call.
            meta: of the step, such as the `tool_call_id` that it answers.
            known: the other fields.
        """
        return cls((Step(text, "observation", role, meta=meta or {}),) if text else (), **known)


class Environment(Protocol):
    """A world that an agent acts in, one episode at a time.

    Equal actions after equal ones must show the same: episodes are copied by acting again. One that has `fork` is
    copied by it instead (`Forkable`).
    """

    def reset(self, problem: Problem) -> Observation:
        """Begins an episode of a problem."""

    def act(self, action: Step) -> Observation:
        """Executes an action. One that cannot be read is an observation that says so, and no error."""

    def close(self) -> None:
        """Ends the episode, and what runs for it."""


@runtime_checkable
class Forkable(Protocol):
    """An environment that can be copied as it is."""

    def fork(self) -> Environment:
        """A copy in the same state, which shares nothing that acting changes."""


class Episodes(Protocol):
    """Answers `Act`: runs an environment's episodes. Several threads may call it at once."""

    @property
    def name(self) -> str:
        """Identity for caches and provenance: equal names promise equal observations."""

    @property
    def batch_size(self) -> int:
        """Actions of a full batch."""

    @property
    def concurrency(self) -> int:
        """Batches that may run at the same time; 1 for an environment that computes here."""

    def prepared(self, problem: Problem) -> Problem:
        """The problem as the policy reads it, such as with the tools that it may call."""

    def act_many(self, questions: Sequence[Act]) -> list[Observation]:
        """Answers the questions, in order."""


@runtime_checkable
class Placed(Protocol):
    """A policy that acts in an environment (`core.runtime.agent.Agent`)."""

    @property
    def environment(self) -> Episodes:
        """Who answers `Act`."""
