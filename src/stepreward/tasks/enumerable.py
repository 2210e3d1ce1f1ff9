"""A world with known truth: a tree of steps in which a hash of the path decides every branch.

Nothing of the tree is stored, so it may be deep. Exact values come from a recursion over the prefixes that can still be
right: estimators and searches are tested against them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from stepreward.core.errors import InputError
from stepreward.core.keys import Key, uniforms
from stepreward.core.types import Problem, Step

Path = tuple[int, ...]
_KEPT = 1 << 16
"""Nodes whose choices, and prefixes whose values, are kept in memory."""


@dataclass(frozen=True, slots=True)
class _Choices:
    """The choices at one node."""

    probability: tuple[float, ...]
    wrong: tuple[bool, ...]


class EnumerableWorld:
    """Problems, a policy's table, a grader and exact truth in one.

    Every solution has `depth` steps. At each node one choice, named by the hash of the path, is right; each other one
    is wrong with chance 1/2. Right choices weigh 0.5 to 1.5, wrong ones 0.05 to 0.25, before they are normalised.

    Args:
        depth: steps of a solution, at least 1.
        branching: choices at each node, at least 2.
        seed: of all hashes; worlds of different seeds have nothing in common.
        fatal: one wrong step loses a solution; otherwise max(1, depth // 4) wrong steps are forgiven.

    Raises:
        ValueError: `depth` or `branching` is too small.
    """

    def __init__(self, depth: int, branching: int, seed: int = 0, fatal: bool = True) -> None:
        if depth < 1 or branching < 2:
            raise ValueError(f"a world needs depth >= 1 and branching >= 2, got {depth} and {branching}")
        self.depth, self.branching, self.seed, self.fatal = depth, branching, seed, fatal
        self.forgiven = 0 if fatal else max(1, depth // 4)
        """Wrong steps that a right solution may have."""
        self._key = Key.seed(seed).fold("enumerable")
        # Caches of this world, not of the class: worlds of other seeds share paths and not choices.
        self._choices = lru_cache(maxsize=_KEPT)(self._draw_choices)
        self._solve = lru_cache(maxsize=_KEPT)(self._exact_value)

    @property
    def name(self) -> str:
        """Identity for caches and provenance, of the policy and of the grader."""
        return f"enumerable-{self.depth}-{self.branching}-{self.seed}-{'fatal' if self.fatal else 'forgiving'}"

    def problems(self, n: int) -> list[Problem]:
        """The first `n` problems of the world, each the root of a tree of its own."""
        prompt = f"Take {self.depth} steps, each one of {self.branching}."
        return [Problem(f"{self.name}/{i}", prompt, reference="right") for i in range(n)]

    def next_steps(self, problem: Problem, prefix: Sequence[Step]) -> list[tuple[Step, float, bool]]:
        """The choices after a prefix as (step, probability, finished); none where the solution is over.

        Raises:
            InputError: a step of the prefix is not of this world.
        """
        path = self._path(problem, prefix)
        if len(path) == self.depth:
            return []
        finished = len(path) == self.depth - 1
        chances = self._choices(problem.id, path).probability
        return [(Step(f"{i}\n"), chance, finished) for i, chance in enumerate(chances)]

    def grade(self, problem: Problem, steps: Sequence[Step]) -> float:
        """1.0 for a whole solution with no more wrong steps than are forgiven, else 0.0."""
        path = self._path(problem, steps)
        return float(len(path) == self.depth and self._count_errors(problem.id, path) <= self.forgiven)

    def answer(self, problem: Problem, steps: Sequence[Step]) -> str | None:
        """ "right", or one of three wrong answers picked by the last step; None for an unfinished solution."""
        path = self._path(problem, steps)
        if len(path) < self.depth:
            return None
        return "right" if self._count_errors(problem.id, path) <= self.forgiven else f"wrong {path[-1] % 3}"

    def value(self, problem: Problem, prefix: Sequence[Step]) -> float:
        """The exact chance that the policy solves the problem from a prefix.

            V(prefix) = sum_a p(a | prefix) V(prefix, a),    V(solution) = grade

        Visits each node below the prefix that can still be won once, at most branching^(depth - length) of them.
        """
        return self._solve(problem.id, self._path(problem, prefix))

    def first_error(self, problem: Problem, steps: Sequence[Step]) -> int:
        """Index of the first step after which the value is 0, -1 if none is.

        A right choice leads on from every node, so that is the step with one error more than are forgiven.
        """
        path = self._path(problem, steps)
        wrong = [self._choices(problem.id, path[:t]).wrong[choice] for t, choice in enumerate(path)]
        lost = np.flatnonzero(np.cumsum(wrong) > self.forgiven)
        return int(lost[0]) if lost.size else -1

    def _path(self, problem: Problem, steps: Sequence[Step]) -> Path:
        names = {f"{i}\n": i for i in range(self.branching)}
        unknown = next((step.text for step in steps if step.text not in names), None)
        if unknown is not None or len(steps) > self.depth:
            what = f"step {unknown!r}" if unknown is not None else f"{len(steps)} steps"
            raise InputError(f"problem {problem.id!r} got {what}, not of {self.name}", remedy="pass its own solutions")
        return tuple(names[step.text] for step in steps)

    def _draw_choices(self, problem: str, path: Path) -> _Choices:
        """The choices at a node, from the hash of the problem and the path to it."""
        n = self.branching
        bits = np.array([self._key.fold(problem, *path).bits], np.uint64)
        drawn = uniforms(np.repeat(bits, 2 * n + 1), np.arange(2 * n + 1))
        wrong = drawn[:n] < 0.5
        # At least one choice is right, so that every prefix without a fatal error can be completed.
        wrong[int(drawn[-1] * n)] = False
        weight = np.where(wrong, 0.05 + 0.2 * drawn[n : 2 * n], 0.5 + drawn[n : 2 * n])
        return _Choices(tuple((weight / weight.sum()).tolist()), tuple(wrong.tolist()))

    def _count_errors(self, problem: str, path: Path) -> int:
        return sum(self._choices(problem, path[:t]).wrong[choice] for t, choice in enumerate(path))

    def _exact_value(self, problem: str, path: Path) -> float:
        if self._count_errors(problem, path) > self.forgiven:
            return 0.0
        if len(path) == self.depth:
            return 1.0
        chances = self._choices(problem, path).probability
        return sum(chance * self._solve(problem, (*path, i)) for i, chance in enumerate(chances))
