"""A policy that is a table of probabilities, for enumerable worlds and exact tests."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stepreward.core.errors import PolicyError
from stepreward.core.keys import uniforms
from stepreward.core.runtime.flows import Continuation, Propose
from stepreward.core.types import Problem, Step

NextSteps = Callable[[Problem, tuple[Step, ...]], Sequence[tuple[Step, float, bool]]]
"""`(problem, prefix) -> [(step, probability, finished), ...]`; empty where the solution is already over."""
_Choices = tuple[Sequence[tuple[Step, float, bool]], list[float]]  # and their cumulative probabilities


class TabularPolicy:
    """Samples steps whose exact probabilities are known, so that an estimate can be compared with the truth.

        step_t = min {j : p_1 + ... + p_j > u_t},    u_t = uniforms(key.fold(i), t)

    Args:
        next_steps: table of the choices after a prefix; their probabilities must sum to 1 within 1e-9.
        name: identity for caches; two tables under one name would share cached samples.
        max_steps: length at which a continuation is cut where the question sets no limit.
    """

    batch_size = 1024
    concurrency = 1

    def __init__(self, next_steps: NextSteps, name: str = "tabular", *, max_steps: int = 1000) -> None:
        self._next_steps = next_steps
        self._name = name
        self._max_steps = max_steps

    @property
    def name(self) -> str:
        """Identity for caches and provenance."""
        return self._name

    def propose(self, questions: Sequence[Propose]) -> list[list[Continuation]]:
        """Answers the questions, in order; a step counts as one token.

        Raises:
            PolicyError: the probabilities after some prefix are negative or do not sum to 1.
        """
        return [self._answer(question) for question in questions]

    def _answer(self, question: Propose) -> list[Continuation]:
        bits = np.array([key.bits for key in question.sample_keys()], dtype=np.uint64)
        limit = self._max_steps if question.max_tokens is None else question.max_tokens
        # Samples of one question share prefixes: each is looked up once, by the choices that lead to it.
        tables: dict[tuple[int, ...], _Choices] = {}
        draws: list[list[float]] = []
        return [self._continue(question, limit, sample, tables, draws, bits) for sample in range(len(bits))]

    def _continue(
        self,
        question: Propose,
        limit: int,
        sample: int,
        tables: dict[tuple[int, ...], _Choices],
        draws: list[list[float]],
        bits: NDArray[np.uint64],
    ) -> Continuation:
        path: tuple[int, ...] = ()
        written: tuple[Step, ...] = ()
        while len(written) < limit:
            if path not in tables:
                tables[path] = self._choices(question.problem, (*question.prefix, *written))
            choices, cumulative = tables[path]
            if not choices:
                return Continuation(written, finished=True, n_tokens=len(written))
            if len(draws) == len(written):
                draws.append(uniforms(bits, len(written)).tolist())
            # Scaled by the float sum and bounded below it: rounding selects neither past the end nor a weight of 0.
            target = min(draws[len(written)][sample] * cumulative[-1], math.nextafter(cumulative[-1], 0))
            index = bisect_right(cumulative, target)
            step, _, finished = choices[index]
            path, written = (*path, index), (*written, step)
            if finished or question.until == "step":
                return Continuation(written, finished=finished, n_tokens=len(written))
        return Continuation(written, finished=False, n_tokens=len(written), truncated=True)

    def _choices(self, problem: Problem, prefix: tuple[Step, ...]) -> _Choices:
        choices = self._next_steps(problem, prefix)
        probabilities = np.array([probability for _, probability, _ in choices])
        if len(choices) and ((probabilities < 0).any() or abs(probabilities.sum() - 1) > 1e-9):
            raise PolicyError(
                f"{self._name}: expected probabilities that are not negative and sum to 1, got "
                f"{probabilities.tolist()} for problem {problem.id!r}: correct the table"
            )
        return choices, probabilities.cumsum().tolist()
