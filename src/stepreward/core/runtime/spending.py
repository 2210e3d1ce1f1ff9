"""What a flow may spend, what tokens and actions cost, and what was spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from stepreward.core.vocabulary import Flag


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one flow may spend; None is no limit.

    A flow gets no further continuations once a limit is reached. What it has by then can still be scored and compared:
    a search ends with the best so far.

    A question that accepts partial answers (`Propose.partial`) gets as many samples as `rollouts` allows. Under a limit
    in tokens or money they are drawn in waves, each sample with a cap of its own (`core.runtime.running.wave`), so that
    no limit is exceeded. Other questions are answered in full: the last one may exceed all limits but `rollouts`.
    """

    rollouts: Annotated[int | None, Flag("--max-samples", low=1)] = None
    """Most continuations sampled for a problem."""
    tokens: Annotated[int | None, Flag("--max-tokens", low=1)] = None
    """Most tokens generated for a problem, the expert's among them; the best so far is its answer."""
    scored_tokens: Annotated[int | None, Flag("--max-scored-tokens", low=1)] = None
    """Most tokens that the reward model encodes for a problem, each shared prefix once, or that the judge uses."""
    seconds: Annotated[float | None, Flag("--max-seconds", low=0.0)] = None
    """Most seconds for a problem, from its first question; the best so far is its answer."""
    money: Annotated[float | None, Flag("--max-money", low=0.0)] = None
    """Most money for a problem, by the prices."""
    actions: Annotated[int | None, Flag("--max-actions", low=1)] = None
    """Most actions that an environment executes for a problem."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens and actions cost, in any one currency."""

    generated: Annotated[float, Flag("--price-generated", low=0.0)] = 0.0
    """Price of a million generated tokens."""
    scored: Annotated[float, Flag("--price-scored", low=0.0)] = 0.0
    """Price of a million tokens that the reward model encodes or the judge uses."""
    expert: Annotated[float | None, Flag("--price-expert", low=0.0)] = None
    """Price of a million tokens of the expert; left out: that of all others."""
    action: Annotated[float, Flag("--price-action", low=0.0)] = 0.0
    """Price of an action that an environment executes, such as a search."""

    def of(self, generated: int, scored: int, expert: int = 0, actions: int = 0) -> float:
        """The cost of these numbers of tokens and actions; `expert` of the generated tokens are the expert's."""
        by_expert = self.per_million_generated(expert=True) * expert
        tokens = (self.generated * (generated - expert) + by_expert + self.scored * scored) / 1e6
        return tokens + self.action * actions

    def per_million_generated(self, *, expert: bool) -> float:
        """Price of a million tokens of the policy or of the expert."""
        return self.generated if self.expert is None or not expert else self.expert


@dataclass(slots=True)
class Bill:
    """What was spent."""

    proposals: int = 0
    """Continuations generated. Answers from the log are free and counted in `cached`."""
    generated_tokens: int = 0
    expert_tokens: int = 0
    """Generated tokens of the expert."""
    prompt_tokens: int = 0
    """Tokens read before each continuation, as far as the policy knows."""
    drawn: int = 0
    """Continuations received, those from the log included."""
    cut: int = 0
    """Received continuations that the policy's own limit (`max_tokens`, the context) or a filter cut."""
    failed: int = 0
    """Continuations that failed where the flow went on without them."""
    scorings: int = 0
    """Solutions scored."""
    scored_steps: int = 0
    scored_tokens: int = 0
    """Tokens encoded by the scorer with each shared prefix encoded once."""
    scored_tokens_unshared: int = 0
    """Tokens that scoring each trajectory alone would have encoded."""
    comparisons: int = 0
    """Pairs judged."""
    judged_tokens: int = 0
    """Tokens that the judge read and wrote, or encoded."""
    actions: int = 0
    """Actions that the environment executed; what it shows first, and actions of the log, are none."""
    acting_seconds: float = 0.0
    """Time that the environment took for them; episodes run side by side, so these overlap."""
    asked_tokens: int = 0
    """Tokens of models that actions asked."""
    asked_money: float = 0.0
    """What these models cost."""
    grades: int = 0
    ungraded: int = 0
    """Solutions without a grade (NaN) although there is a reference; they do not count as wrong."""
    cached: int = 0
    """Questions answered from the log."""
    cached_generated_tokens: int = 0
    """Tokens of continuations from the log, paid before."""
    cached_scored_tokens: int = 0
    """Tokens encoded for scores from the log, paid before."""

    @property
    def answered(self) -> int:
        """Answers of the policy, the scorer, the judge, the environment and the log."""
        return self.proposals + self.scorings + self.comparisons + self.actions + self.cached

    def add(self, other: Bill) -> None:
        """Adds another bill to this one in place."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
