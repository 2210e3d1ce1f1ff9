"""its_hub's own searches over a policy and a reward model of this process: the adapters that its interfaces ask for.

Its classes are taken as they are. They ask for a language model with `agenerate` and a reward model with `ascore`; a
`Desk` stands behind each, as a batching server would: whatever is asked at the same time is answered in one call.
"""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

from benchmarks.lock_step import Reencoder
from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Continuation, Policy, Propose, Score
from stepreward.core.types import Problem, Step

ANSWER = "Answer:"
"""What stands in a solution's last step and in no other, as `\\boxed` does in its_hub's examples."""
QUIET = 4
"""Turns of the event loop in which nobody asks anything more: then all wait for an answer."""
NAMES = {
    "BeamSearch": "its_hub.core.algorithms.beam_search",
    "ParticleFiltering": "its_hub.core.algorithms.particle_gibbs",
    "BestOfN": "its_hub.core.algorithms.bon",
    "StepGeneration": "its_hub.core.lms.step_generation",
    "LMOrchestrator": "its_hub.core.orchestrator",
}

Q = TypeVar("Q")
A = TypeVar("A")


def its_hub() -> SimpleNamespace | None:
    """Its classes and its `version`; None where no release that has them is to be found."""
    try:
        found = {name: getattr(importlib.import_module(module), name) for name, module in NAMES.items()}
    except ImportError:
        return None
    return SimpleNamespace(**found, version=metadata.version("its_hub"))


class Desk(Generic[Q, A]):
    """Answers in one call what all coroutines ask, once none of them can go on without an answer."""

    def __init__(self, answer: Callable[[Sequence[Q]], Sequence[A]]) -> None:
        self._answer = answer
        self._waiting: list[tuple[Sequence[Q], asyncio.Future[list[A]]]] = []
        self._turn: asyncio.Task[None] | None = None

    async def ask(self, questions: Sequence[Q]) -> list[A]:
        """The answers, in order."""
        mine: asyncio.Future[list[A]] = asyncio.get_running_loop().create_future()
        self._waiting.append((questions, mine))
        if len(self._waiting) == 1:
            self._turn = asyncio.create_task(self._serve())
        return await mine

    async def _serve(self) -> None:
        quiet, seen = 0, 0
        while quiet < QUIET:
            quiet = quiet + 1 if len(self._waiting) == seen else 0
            seen = len(self._waiting)
            await asyncio.sleep(0)
        waiting, self._waiting = self._waiting, []
        answers = iter(self._answer([question for questions, _ in waiting for question in questions]))
        for questions, mine in waiting:
            mine.set_result([next(answers) for _ in questions])


@dataclass
class LanguageModel:
    """A policy as its_hub's language model: conversations in, the next step or the rest of the solution out.

    Sample i of a problem is drawn from `key.fold(id, i)`, whoever else asks.
    """

    policy: Policy
    problems: dict[str, Problem]
    """By prompt."""
    key: Key
    generated: int = 0
    """Tokens that the policy wrote so far."""
    drawn: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._desk: Desk[Propose, list[Continuation]] = Desk(self.policy.propose)

    async def agenerate(self, messages: list[Any], stop: str | None = None, **settings: Any) -> Any:
        """A message each for one conversation or several."""
        if not isinstance(messages[0], list):
            return (await self.agenerate([messages], stop, **settings))[0]
        asked = [self._asked(one, stop, settings.get("temperature")) for one in messages]
        answers = [continuation for (continuation,) in await self._desk.ask(asked)]
        self.generated += sum(one.n_tokens for one in answers)
        texts = ["".join(step.text for step in one.steps) for one in answers]
        return [{"role": "assistant", "content": text} for text in texts]

    async def agenerate_single(self, messages: list[Any], stop: str | None = None, **settings: Any) -> dict[str, str]:
        """A message for one conversation."""
        made: dict[str, str] = await self.agenerate(messages, stop, **settings)
        return made

    def _asked(self, messages: list[Any], stop: str | None, temperature: float | None) -> Propose:
        problem = self.problems[messages[0].content]
        prefix = cut(messages[1].content) if len(messages) > 1 else ()
        key = self.key.fold(problem.id, self.drawn[problem.id])
        self.drawn[problem.id] += 1
        return Propose(problem, prefix, key, until="step" if stop else "end", temperature=temperature)


@dataclass
class RewardModel:
    """A reward model as its_hub's process and outcome reward models: whole texts in, one number each out."""

    scorer: Reencoder
    problems: dict[str, Problem]
    """By prompt."""
    total: Callable[[Sequence[float]], float]
    """Of a solution's step scores."""

    def __post_init__(self) -> None:
        self._desk: Desk[Score, list[float]] = Desk(self.scorer.score_many)

    async def ascore(self, prompt: Any, texts: Sequence[str] | None = None, **_: Any) -> list[float]:
        """Totals of a prompt's texts, or of conversations that end with a text."""
        pairs = (
            [(prompt, text) for text in texts] if texts is not None else [(c[0].content, c[-1].content) for c in prompt]
        )
        asked = [Score(self.problems[name], cut(text)) for name, text in pairs]
        return [self.total(scores) if scores else 0.0 for scores in await self._desk.ask(asked)]


def cut(text: str) -> tuple[Step, ...]:
    """The steps of a text: its lines."""
    return tuple(Step(line) for line in text.splitlines(keepends=True))
