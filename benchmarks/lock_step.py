"""Searches as the peers run them: one problem at a time, every candidate encoded from its first token at each call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch

from stepreward.core.keys import Key
from stepreward.core.runtime.flows import Policy, Propose, Score
from stepreward.core.types import Problem, Step
from stepreward.score.model.step_reward_model import StepRewardModel

DIGITS = 6
"""Decimals of a score that count: encoded again in another batch, a step may differ behind them, and must not win."""


@dataclass
class Reencoder:
    """Scores whole trajectories, similar lengths together in right-padded batches, and keeps nothing."""

    model: StepRewardModel
    batch_tokens: int
    tokens: int = 0
    """Encoded so far, without padding."""

    @torch.inference_mode()
    def score_many(self, asked: Sequence[Score]) -> list[list[float]]:
        """One score a step of each trajectory."""
        rows = [self._row(question) for question in asked]
        made: list[list[float]] = [[] for _ in rows]
        for batch in self._batches(rows):
            for i, scores in zip(batch, self._forward([rows[i] for i in batch]), strict=True):
                made[i] = scores
        self.tokens += sum(len(ids) for ids, _ in rows)
        return made

    def _row(self, question: Score) -> tuple[list[int], list[int]]:
        """Ids of a trajectory, and where its prompt and each of its steps end."""
        ids = list(self.model.encoder.prompt_ids(question.problem))
        ends = [len(ids)]
        for step in question.steps:
            ids += self.model.encoder.step_ids(step)
            ends.append(len(ids))
        return ids, ends

    def _batches(self, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[list[int]]:
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
        while order:
            fitting = max(1, self.batch_tokens // len(rows[order[0]][0]))
            yield order[:fitting]
            order = order[fitting:]

    def _forward(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([own + [0] * (width - len(own)) for own, _ in rows])
        first = torch.arange(width).repeat(len(rows), 1)
        for r, (_, ends) in enumerate(rows):
            for start, stop in pairwise(ends):
                first[r, start:stop] = start
        lengths = torch.tensor([len(own) for own, _ in rows])
        row = torch.tensor([r for r, (_, ends) in enumerate(rows) for _ in ends[1:]], dtype=torch.long)
        column = torch.tensor([end - 1 for _, ends in rows for end in ends[1:]], dtype=torch.long)
        scores = self.model.scores(self.model.forward_padded(ids, lengths, row, column, first))
        flat = iter(np.round(scores.double().numpy(), DIGITS).tolist())
        return [[next(flat) for _ in ends[1:]] for _, ends in rows]


@dataclass(frozen=True)
class Beam:
    """A candidate."""

    steps: tuple[Step, ...] = ()
    finished: bool = False
    scores: tuple[float, ...] = ()

    @property
    def total(self) -> float:
        """Its worst step."""
        return min(self.scores, default=0.0)


@dataclass
class Loop:
    """The searches as plain loops; samples are drawn as `stepreward.search` draws them, so that both find the same."""

    policy: Policy
    scorer: Reencoder
    generated: int = 0
    """Tokens that the policy wrote so far."""

    def beam_search(self, problem: Problem, key: Key, *, beams: int, width: int, max_steps: int) -> Beam:
        """The best candidate of a beam search."""
        kept = [Beam()]
        for level in range(max_steps):
            growing = [beam for beam in kept if not beam.finished]
            grown = self._grow(problem, key, growing, width if level else beams * width, "step")
            if not grown:
                break
            rivals = [*(beam for beam in kept if beam.finished), *_distinct(grown)]
            kept = sorted(rivals, key=lambda beam: -beam.total)[:beams]
        return _best(kept)

    def best_of_n(self, problem: Problem, key: Key, *, n: int) -> Beam:
        """The best of `n` whole solutions."""
        return _best(self._grow(problem, key, [Beam()], n, "end"))

    def _grow(
        self, problem: Problem, key: Key, beams: Sequence[Beam], n: int, until: Literal["step", "end"]
    ) -> list[Beam]:
        """`n` scored continuations of each beam; what a limit cut in mid-step is left out."""
        names = [[part for step in beam.steps for part in ("", step.text)] for beam in beams]
        keys = [key.fold("grow", *name) for name in names]
        asked = [Propose(problem, b.steps, k, n=n, until=until) for b, k in zip(beams, keys, strict=True)]
        answers = self.policy.propose(asked)
        self.generated += sum(one.n_tokens for some in answers for one in some)
        grown = [
            Beam(beam.steps + one.steps, one.finished, () if one.steps else beam.scores)
            for beam, some in zip(beams, answers, strict=True)
            for one in some
            if (one.steps or (one.finished and beam.steps)) and not (one.truncated and until == "step")
        ]
        return self._scored(problem, grown)

    def _scored(self, problem: Problem, beams: Sequence[Beam]) -> list[Beam]:
        """All that have a new step, in one call; a solution that ended without one keeps its scores."""
        new = [beam for beam in beams if not beam.scores]
        made = iter(self.scorer.score_many([Score(problem, beam.steps) for beam in new]))
        return [beam if beam.scores else replace(beam, scores=tuple(next(made))) for beam in beams]


def _distinct(beams: Sequence[Beam]) -> list[Beam]:
    """Equal candidates once, the first of them."""
    found: dict[tuple[object, ...], Beam] = {}
    for beam in beams:
        found.setdefault((*(step.identity for step in beam.steps), beam.finished), beam)
    return [*found.values()]


def _best(beams: Sequence[Beam]) -> Beam:
    """The finished candidate of the highest total; of all, if none finished."""
    return max([beam for beam in beams if beam.finished] or beams, key=lambda beam: beam.total, default=Beam())
